"""Painting a line of tokens: from its place and styles to the strip that Textual shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from rich.cells import set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from engine.records.words.safe_text import safe
from tui.widgets.token_layout import Line, Passage


class LineStyles(NamedTuple):
    """The styles that lines are painted in."""

    plain: Style
    of_shades: Mapping[int, Style]
    cursor: Style
    """Added to the style of the token under the cursor."""
    has_focus: bool
    of_prefixes: Mapping[str, Style]


def painted(
    line: Line, passage: Passage | None, cursor: tuple[int, int] | None, styles: LineStyles, width: int
) -> Strip:
    """Paint a line; `passage` None paints the blank line between two passages."""
    plain = styles.plain
    if passage is None:
        return Strip.blank(width, plain)
    covered = under_cursor(line, cursor)
    first = prefix_of(line, passage, styles)
    segments, run, run_style = [], [first.text], first.style
    for index, (token, _x, _width, text) in enumerate(line.pieces):
        style = styles.of_shades[passage.shades[token]]
        if index in covered:
            # with the focus every cursor looks the same: a bright block, whatever the activation
            style = (plain if styles.has_focus else style) + styles.cursor
        if style is not run_style:
            segments.append(Segment("".join(run), run_style))
            run, run_style = [], style
        run.append(text)
    if run_style is not plain:
        segments.append(Segment("".join(run), run_style))
        run = []
    run.append(" " * (width - line.end))
    segments.append(Segment("".join(run), plain))
    return Strip([segment for segment in segments if segment.text], width)


def under_cursor(line: Line, cursor: tuple[int, int] | None) -> set[int]:
    """Return the indices of the pieces under the cursor; a piece without width is shown on the one before it."""
    if cursor is None or line.passage != cursor[0]:
        return set()
    pieces = [index for index, piece in enumerate(line.pieces) if piece.token == cursor[1]]
    if any(line.pieces[index].width for index in pieces):
        return set(pieces)
    return {max(0, index - 1) for index in pieces}


def prefix_of(line: Line, passage: Passage, styles: LineStyles) -> Segment:
    """Return a passage's prefix on its first line, as much blank on the others."""
    if not (line.first and passage.prefix):
        return Segment(" " * line.indent, styles.plain)
    style = styles.plain + Style(bold=True) + styles.of_prefixes.get(passage.prefix_style, Style())
    return Segment(set_cell_size(safe(passage.prefix), line.indent), style)
