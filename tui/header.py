"""The first line: what is loaded, what the engine does, how the session stands."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text
from textual.widgets import Static

from engine.records import Loaded, MemoryLeft, Progress
from tui.words import size_in_words

BAR_WIDTH = 10


class Header(Static):
    """One line; every part has a setter and the whole is drawn anew."""

    DEFAULT_CSS = """
    Header { dock: top; height: 1; background: $panel; color: $foreground; padding: 0 1; text-wrap: nowrap; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._loaded: Loaded | None = None
        self._memory: MemoryLeft | None = None
        self._progress: Progress | None = None
        self._engine = "starting"
        self._broken = False
        self._session = ""

    def on_mount(self) -> None:
        """Draws it."""
        self._draw()

    def on_resize(self) -> None:
        """What fits changes."""
        self._draw()

    def show_loaded(self, loaded: Loaded | None) -> None:
        """What is loaded."""
        self._loaded = loaded
        self._draw()

    def show_memory(self, left: MemoryLeft) -> None:
        """Memory of the model's device."""
        self._memory = left
        self._draw()

    def show_progress(self, progress: Progress | None) -> None:
        """What the engine is doing."""
        self._progress = progress
        self._draw()

    def show_engine(self, words: str, broken: bool = False) -> None:
        """The engine's state: "" is ready."""
        self._engine, self._broken = words, broken
        self._draw()

    def show_session(self, words: str) -> None:
        """The session's name, and whether it is saved."""
        self._session = words
        self._draw()

    def _draw(self) -> None:
        if not self.is_mounted:
            return
        grid = Table.grid(expand=True)
        grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        grid.add_column(justify="right", no_wrap=True)
        grid.add_row(self._left(), self._right())
        self.update(grid)

    def _left(self) -> Text:
        text = Text("saescope", style="bold", no_wrap=True, overflow="ellipsis")
        if self._loaded is not None:
            loaded = self._loaded
            name = loaded.model.rstrip("/").split("/")[-1]
            text.append(
                f"  {name} · {loaded.hook} · SAE {loaded.sae.rstrip('/').split('/')[-1]} {loaded.d_sae:,}", "not bold"
            )
            if self.size.width >= 110:
                text.append(f" · {loaded.dtype} {loaded.device}", "not bold dim")
                if self._memory is not None:
                    text.append(f" · {size_in_words(self._memory.free)} free", "not bold dim")
        return text

    def _right(self) -> Text:
        if self._broken:
            return Text(f" ✗ {self._engine} ", style="bold reverse")
        if self._progress is not None:
            return progress_in_words(self._progress)
        if self._engine:
            return Text(f" ● {self._engine}…", style="bold")
        return Text(f" ● ready  {self._session}")


def progress_in_words(progress: Progress) -> Text:
    """Such as "encoding ━━━━╸     3/12 · x stops"."""
    text = Text(f" ● {progress.stage}", style="bold")
    if progress.total:
        filled = round(BAR_WIDTH * min(1.0, progress.done / progress.total))
        text.append(" " + "━" * filled, "bold").append("━" * (BAR_WIDTH - filled), "not bold dim")
        text.append(f" {progress.done}/{progress.total}", "not bold")
    else:
        text.append("…")
    return text.append(" · x stops", "not bold dim")
