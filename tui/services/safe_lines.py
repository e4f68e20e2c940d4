"""A filter of every line on its way to the terminal, so that no text that is shown can steer the terminal."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from engine.records.words.safe_text import visible


class SafeLines(LineFilter):
    """Makes every line of every widget safe.

    The app's own texts are safe before their width is measured, and pass unchanged. A text that was measured with an
    unsafe character in it has no room for the character's stand-in, and is cut at its end.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Return the segments with safe texts, each as wide as before."""
        return [segment if visible(segment.text) == segment.text else refitted(segment) for segment in segments]


def refitted(segment: Segment) -> Segment:
    """Return the segment with its text made safe and cut or padded to its old width."""
    return segment._replace(text=set_cell_size(visible(segment.text), max(0, cell_len(segment.text))))
