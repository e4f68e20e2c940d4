"""A page over the main screen: lines about a result, and a table of features with commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import DataTable, Static

from engine.records.words.rich_text import Text
from engine.records.words.safe_text import visible

FRAME, BORDERS = 130, 5
"""The page's width at most, and the part of it that border, padding and scrollbar take, in terminal columns."""

NAMES = (15, 36)
"""The width of a feature's name at least and at most, in terminal columns."""

LOW = 30
"""Terminal lines below which the legend is hidden."""


class TablePage(ModalScreen[None]):
    """A page with a table whose row keys are features."""

    DEFAULT_CSS = """
    TablePage {
        align: center middle;
        & > .frame {
            width: 130; max-width: 96%; height: 90%; padding: 0 1; border: round $accent; background: $surface;
        }
        & .about { height: auto; max-height: 50%; padding-bottom: 1; }
        & DataTable { height: 1fr; background: $surface; scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; }
        & .hint { height: auto; color: $text-muted; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "leave", "Close", id="page.leave")]

    def __init__(self, title: str, about: Text, hint: str, legend: str) -> None:
        super().__init__()
        self._title, self._about, self._hint, self._legend = title, about, hint, legend

    def compose(self) -> ComposeResult:
        with Vertical(classes="frame") as frame:
            frame.border_title = Text(self._title)
            yield Static(self._about, classes="about")
            yield DataTable[Text](cursor_type="row", cell_padding=0, fixed_columns=2)
            yield Static(self._hint, classes="hint", markup=False)
            yield Static(self._legend, classes="hint legend", markup=False)

    def on_resize(self, event: events.Resize) -> None:
        """Hide the legend on a low screen, where the rows need its room."""
        self.query_one(".legend").display = event.size.height >= LOW

    @property
    def table(self) -> DataTable[Text]:
        return self.query_one(DataTable)

    def name_width(self, *columns: Sequence[tuple[str, str, int]]) -> int:
        """Return the width left for a feature's name beside the first of these lists of columns that leaves enough."""
        frame = min(FRAME, int(self.app.size.width * 0.96)) - BORDERS
        left = [frame - sum(abs(width) for _, _, width in column_list) for column_list in columns]
        return min(NAMES[1], next((room for room in left if room >= NAMES[0]), NAMES[0]))

    def add_columns(self, columns: Sequence[tuple[str, str, int]]) -> None:
        """Add columns, each (key, heading, width); a negative width stands for a column of words, aligned left."""
        for key, heading, width in columns:
            self.table.add_column(Text(heading if width < 0 else heading.rjust(width)), width=abs(width), key=key)

    def feature(self) -> int | None:
        """Return the feature under the cursor; None if there is none."""
        table = self.table
        if not table.is_valid_row_index(table.cursor_row):
            return None
        return int(table.ordered_rows[table.cursor_row].key.value or 0)

    def features(self) -> list[int]:
        """Return all features, top down."""
        return [int(row.key.value or 0) for row in self.table.ordered_rows]

    def action_leave(self) -> None:
        """Close the page; a second key before it is closed does nothing."""
        if self.is_current:
            self.dismiss(None)


def right(words: str) -> Text:
    """Return a cell that is aligned right, as numbers are."""
    return Text(words, justify="right")


def name_cell(name: str, width: int) -> Text:
    """Return the cell of a feature's name, cut to the width."""
    text = Text(" " + visible(name))
    text.truncate(width - 1, overflow="ellipsis")
    return text
