"""Fields that a text is typed into. They keep the text as it is, and show a stand-in for what cannot be shown."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import Input, TextArea

from engine.records.words.tokens import UNKNOWN, safe


def drawn(text: str) -> Text:
    """The text with a stand-in for each character that cannot be shown: the cursor counts characters."""
    return Text(safe(text, joiner=UNKNOWN), no_wrap=True, overflow="ignore", end="")


class LineField(Input):
    """A line of text."""

    def __init__(self, value: str = "", placeholder: str = "", *, id: str | None = None) -> None:
        super().__init__(value, placeholder, id=id)

    @property
    def _value(self) -> Text:
        """The line as it is drawn, line breaks and tabs visible."""
        return drawn(self.value.replace("\n", "⏎").replace("\t", "⇥"))


class TextField(TextArea):
    """Several lines of text."""

    def get_line(self, line_index: int) -> Text:
        """A line as it is drawn."""
        return drawn(self.document.get_line(line_index))
