"""Fields that a text is typed into, and how what is typed is read.

They keep the text as it is, and show a stand-in for what cannot be shown.
"""

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


MOST_DIGITS = 20


def in_a_field(text: str) -> str:
    """A text for a field of one line, its line breaks visible."""
    return text.replace("\n", "⏎")


def from_a_field(text: str) -> str:
    """The reverse of `in_a_field`."""
    return text.replace("⏎", "\n")


def is_whole(text: str, least: int, most: int) -> bool:
    """Whether a field holds a whole number in this range; Python reads no number of thousands of digits."""
    digits = text.strip()
    return digits.isdecimal() and len(digits) <= MOST_DIGITS and least <= int(digits) <= most
