"""What holds whatever the app draws: a line that reaches the terminal has nothing in it that could steer it."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from engine.records.words.tokens import visible


class SafeLines(LineFilter):
    """Applied to every line of every widget.

    Texts of ours are safe before they are measured, and pass as they are. What was measured with an unsafe character
    in it has no room for the stand-in, and is cut at its end.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The segments, each as wide as before."""
        return [segment if visible(segment.text) == segment.text else refitted(segment) for segment in segments]


def refitted(segment: Segment) -> Segment:
    """A segment of safe text in the room of the unsafe one."""
    return segment._replace(text=set_cell_size(visible(segment.text), max(0, cell_len(segment.text))))
