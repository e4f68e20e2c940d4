"""Fields to type text into, and functions that read what was typed.

The fields keep the text unchanged, and draw a stand-in for each character that cannot be shown.
"""

from __future__ import annotations

from rich.text import Text
from textual.widgets import Input, TextArea

from engine.records.words.safe_text import UNKNOWN, safe


def drawn(text: str) -> Text:
    """Return the text with one stand-in per character that cannot be shown, since the cursor counts characters."""
    return Text(safe(text, joiner=UNKNOWN), no_wrap=True, overflow="ignore", end="")


class LineField(Input):
    """A field for a line of text."""

    def __init__(self, value: str = "", placeholder: str = "", *, id: str | None = None) -> None:
        super().__init__(value, placeholder, id=id)

    @property
    def _value(self) -> Text:
        """The line as it is drawn, with line breaks and tabs visible."""
        return drawn(self.value.replace("\n", "⏎").replace("\t", "⇥"))


class TextField(TextArea):
    """A field for several lines of text."""

    def get_line(self, line_index: int) -> Text:
        """Return a line as it is drawn."""
        return drawn(self.document.get_line(line_index))


MOST_DIGITS = 20


def in_a_field(text: str) -> str:
    """Return a text for a field of one line, with its line breaks as ⏎."""
    return text.replace("\n", "⏎")


def from_a_field(text: str) -> str:
    """Return the text of a field; the inverse of `in_a_field`."""
    return text.replace("⏎", "\n")


def is_whole(text: str, least: int, most: int) -> bool:
    """Return whether a field holds a whole number from `least` to `most`; int() fails on thousands of digits."""
    digits = text.strip()
    return digits.isdecimal() and len(digits) <= MOST_DIGITS and least <= int(digits) <= most
