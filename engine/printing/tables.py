"""Tables that fit: a narrow terminal gets fewer columns and is told which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from engine.safe_rich import Text

GAP = 2
SHORTEST = 16
"""To so many cells a flexible column may be cut."""


@dataclass(frozen=True)
class Column:
    """A column: its cells, and when it goes where the terminal is narrow."""

    name: str
    cells: Sequence[str | Text]
    drop: int = 0
    """The column with the largest number goes first; 0 stays."""
    flexible: bool = False
    """Of texts: aligned to the left, and cut where room is short."""

    @property
    def width(self) -> int:
        """Of its widest cell."""
        cells = [cell if isinstance(cell, str) else cell.plain for cell in self.cells]
        return max(cell_len(cell) for cell in (self.name, *cells))

    @property
    def shortest(self) -> int:
        """To how many cells it can be cut."""
        return min(self.width, SHORTEST) if self.flexible else self.width


def print_table(out: Console, columns: Sequence[Column]) -> None:
    """Prints a table as wide as the terminal at most, and names the columns that had no room."""
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
