"""The first line: the loaded pair, what the engine is doing, and whether the session is saved."""

from __future__ import annotations

from rich.table import Table
from textual.widgets import Static

from engine.records import Loaded, MemoryLeft, Progress
from engine.records.words.numbers import size_in_words
from engine.records.words.rich_text import Text

BAR_WIDTH = 10


class Header(Static):
    """The header line. Each part has a setter, which redraws the line."""

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
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def show_loaded(self, loaded: Loaded | None) -> None:
        """Show the loaded pair."""
        self._loaded = loaded
        self._draw()

    @property
    def memory(self) -> MemoryLeft | None:
        """Memory left on the model's device, as last reported."""
        return self._memory

    def show_memory(self, left: MemoryLeft) -> None:
        """Show the memory left on the model's device, if there is room."""
        self._memory = left
        self._draw()

    def show_progress(self, progress: Progress | None) -> None:
        """Show what the engine is doing; None if it is idle."""
        if progress != self._progress:  # the same progress is posted at every update while a text streams
            self._progress = progress
            self._draw()

    def show_engine(self, words: str, broken: bool = False) -> None:
        """Show the engine's state in words; "" means ready."""
        self._engine, self._broken = words, broken
        self._draw()

    def show_session(self, words: str) -> None:
        """Show the session's name and whether it is saved."""
        self._session = words
        self._draw()

    def _draw(self) -> None:
        if not self.is_mounted:
            return
        right = self._right()
        room = self.size.width - 2 - right.cell_len
        fitting = (left for left in self._lefts() if left.cell_len < room)
        grid = Table.grid(expand=True)
        grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        grid.add_column(justify="right", no_wrap=True)
        grid.add_row(next(fitting, self._lefts()[-1]), right)
        self.update(grid, layout=False)

    def _lefts(self) -> list[Text]:
        """Return the descriptions of the loaded pair, longest first."""
        name = Text("saescope", style="bold", no_wrap=True, overflow="ellipsis")
        if self._loaded is None:
            return [name]
        loaded = self._loaded
        model, sae = (path.rstrip("/").split("/")[-1] for path in (loaded.model, loaded.sae))
        name.append(f"  {model} · {loaded.hook}", "not bold")
        with_sae = name.copy().append(f" · SAE {sae} {loaded.d_sae:,}", "not bold")
        with_device = with_sae.copy().append(f" · {loaded.dtype} {loaded.device}", "not bold dim")
        lefts = [with_device, with_sae, name]
        if self._memory is not None:
            lefts.insert(0, with_device.copy().append(f" · {size_in_words(self._memory.free)} free", "not bold dim"))
        return lefts

    def _right(self) -> Text:
        if self._broken:
            return Text(f" ✗ {self._engine} ", style="bold reverse")
        if self._progress is not None:
            return progress_in_words(self._progress)
        if self._engine:
            return Text(f" ● {self._engine}…", style="bold")
        return Text(f" ● ready  {self._session}")


def progress_in_words(progress: Progress) -> Text:
    """Return the progress in words, such as "encoding ━━━━╸     3/12 · x stops"."""
    text = Text(f" ● {progress.stage}", style="bold")
    if progress.total:
        filled = round(BAR_WIDTH * min(1.0, progress.done / progress.total))
        text.append(" " + "━" * filled, "bold").append("━" * (BAR_WIDTH - filled), "not bold dim")
        text.append(f" {progress.done}/{progress.total}", "not bold")
    else:
        text.append("…")
    return text.append(" · x stops", "not bold dim")
