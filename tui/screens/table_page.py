"""A page over the main screen: lines about a result, and a table of features to act on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.markup import escape
from textual.screen import ModalScreen
from textual.widgets import DataTable, Static

from tui.words import token_in_words


class TablePage(ModalScreen[None]):
    """Rows have features as their keys."""

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

    def __init__(self, title: str, about: Text, hint: str) -> None:
        super().__init__()
        self._title, self._about, self._hint = title, about, hint

    def compose(self) -> ComposeResult:
        """What it is about, the table, the keys."""
        with Vertical(classes="frame") as frame:
            frame.border_title = escape(self._title)
            yield Static(self._about, classes="about")
            yield DataTable[Text](cursor_type="row", cell_padding=0, fixed_columns=2)
            yield Static(self._hint, classes="hint", markup=False)

    @property
    def table(self) -> DataTable[Text]:
        """The rows."""
        return self.query_one(DataTable)

    def add_columns(self, columns: Sequence[tuple[str, str, int]]) -> None:
        """(key, heading, width) each; a negative width is that of words, which stand to the left."""
        for key, heading, width in columns:
            self.table.add_column(Text(heading if width < 0 else heading.rjust(width)), width=abs(width), key=key)

    def feature(self) -> int | None:
        """The feature under the cursor."""
        table = self.table
        if not table.is_valid_row_index(table.cursor_row):
            return None
        return int(table.ordered_rows[table.cursor_row].key.value or 0)

    def features(self) -> list[int]:
        """All features, top down."""
        return [int(row.key.value or 0) for row in self.table.ordered_rows]

    def action_leave(self) -> None:
        """Closes the page; a second key that comes before it is gone does nothing."""
        if self.is_current:
            self.dismiss(None)


def right(words: str) -> Text:
    """A number's cell."""
    return Text(words, justify="right")


def name_cell(name: str, width: int) -> Text:
    """A feature's words, cut where they are too long."""
    text = Text(" " + token_in_words(name))
    text.truncate(width - 1, overflow="ellipsis")
    return text
