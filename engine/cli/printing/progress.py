"""Progress on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

from engine.records import Event, Progress, TokenStep


@contextmanager
def watching(err: Console, note: Callable[[str], None]) -> Iterator[Callable[[Event], None]]:
    """Yield a sink for events: a progress bar on a terminal, one line per stage elsewhere."""
    if not err.is_terminal:
        yield Stages(note)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}", markup=False),
        TimeElapsedColumn(),
    )
    with ProgressBar(*columns, console=err, transient=True) as bar:
        task = bar.add_task("…", total=None, count="")

        def on_event(event: Event) -> None:
            if isinstance(event, Progress):
                total = event.total or None
                count = f"{event.done}/{event.total}" if total else ""
                bar.update(task, description=event.stage, completed=event.done, total=total, count=count)
            elif isinstance(event, TokenStep):
                bar.update(task, description="generating", completed=event.index + 1, count=f"{event.index + 1}")

        yield on_event


class Stages:
    """Prints a line for every new stage of the work: progress for logs and pipes."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._seen = write, set[str]()

    def __call__(self, event: Event) -> None:
        """Write a stage the first time it occurs."""
        if isinstance(event, Progress) and event.stage not in self._seen:
            self._seen.add(event.stage)
            self._write(event.stage)
