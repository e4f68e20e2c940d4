"""Fields that a text is typed into. They keep the text as it is, and show a stand-in for what cannot be shown."""

from __future__ import annotations

from rich.highlighter import Highlighter
from rich.text import Text
from textual.widgets import Input, TextArea

from engine.records.words.tokens import UNKNOWN, safe


class StandIns(Highlighter):
    """Puts a stand-in in the place of each character that cannot be shown: the cursor counts characters."""

    def highlight(self, text: Text) -> None:
        """Changes the text that a field draws."""
        text.plain = safe(text.plain, joiner=UNKNOWN)


class LineField(Input):
    """A line of text."""

    def __init__(self, value: str = "", placeholder: str = "", *, id: str | None = None) -> None:
        super().__init__(value, placeholder, StandIns(), id=id)


class TextField(TextArea):
    """Several lines of text."""

    def get_line(self, line_index: int) -> Text:
        """A line as it is drawn."""
        return StandIns()(super().get_line(line_index))
