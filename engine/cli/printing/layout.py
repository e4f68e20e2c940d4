"""Tables, bars and short texts on a terminal.

Activations are shown in colour (words/shades.py). The number stands beside the colour where it matters, so nothing is
lost without colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from engine.records.words.rich_text import Text

BLOCKS = " ▏▎▍▌▋▊▉█"


def short(text: str, limit: int = 60) -> str:
    """Return the text cut to a length."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def bar(value: float, most: float, width: int) -> str:
    """Return a bar of block characters, in eighths of a cell; any value above 0 is visible."""
    if value <= 0 or most <= 0:
        return ""
    eighths = max(1, round(value / most * width * 8))
    return "█" * (eighths // 8) + BLOCKS[eighths % 8].strip()


GAP = 2

SHORTEST = 16
"""Width in cells to which a flexible column may be cut."""


@dataclass(frozen=True)
class Column:
    """A column: its cells, and whether it may be dropped or cut on a narrow terminal."""

    name: str
    cells: Sequence[str | Text]
    drop: int = 0
    """The column with the largest number is dropped first; 0 is never dropped."""
    flexible: bool = False
    """Whether it holds texts, which are aligned to the left and cut if there is not enough room."""

    @property
    def width(self) -> int:
        """Width of its widest cell."""
        cells = [cell if isinstance(cell, str) else cell.plain for cell in self.cells]
        return max(cell_len(cell) for cell in (self.name, *cells))

    @property
    def shortest(self) -> int:
        """Width in cells to which it can be cut."""
        return min(self.width, SHORTEST) if self.flexible else self.width


def print_table(out: Console, columns: Sequence[Column]) -> None:
    """Print a table at most as wide as the terminal, and name the columns for which there was no room."""
    kept = list(columns)
    while sum(c.shortest + GAP for c in kept) - GAP > out.width and any(c.drop for c in kept):
        kept.remove(max(kept, key=lambda c: c.drop))
    room = out.width - sum(c.shortest + GAP for c in kept) + GAP
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in kept:
        most = column.shortest + max(0, room) if column.flexible else None
        table.add_column(
            column.name,
            justify="left" if column.flexible else "right",
            no_wrap=True,
            max_width=most,
            overflow="ellipsis",
        )
    for cells in zip(*(column.cells for column in kept), strict=True):
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))
    out.print(table)
    hidden = [c.name for c in columns if c not in kept]
    if hidden:
        out.print(Text(f"no room for: {', '.join(hidden)} (in --json)", style="dim"))
