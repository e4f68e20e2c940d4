"""The positions of tokens on lines of a given width. Knows nothing about models or scrolling.

Positions and widths are in cells, as rich.cells measures them. The layout is one pass that changes only the last line,
so a text that streams in gets exactly the layout of the same text placed at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from rich.cells import cell_len, get_character_cell_size, split_graphemes

from engine.records.words.safe_text import safe
from engine.records.words.shades import STEPS
from tui.widgets.colours import TURNED_DIFFERS


@dataclass(frozen=True)
class Passage:
    """A text in tokens, such as a prompt or one arm of a generation."""

    tokens: tuple[str, ...]
    shades: tuple[int, ...]
    """Per token: an activation in 1 to STEPS, 0 for a plain token, MASKED, DIFFERS from the other arm, TURNED where
    other edits applied, or TURNED_DIFFERS for both."""
    prefix: str = ""
    """Drawn in bold before the first line, such as "+ "; later lines are indented by its width."""
    prefix_style: str = ""
    """"positive", "negative" or "" for no colour."""

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.shades):
            raise ValueError(f"{len(self.tokens)} tokens with {len(self.shades)} shades")
        if self.shades and (min(self.shades) < TURNED_DIFFERS or max(self.shades) > STEPS):
            raise ValueError(f"shades from {min(self.shades)} to {max(self.shades)}")


WHITESPACE = {False: {"\n": " ", "\t": "    "}, True: {"\n": "⏎", "\t": "⇥", " ": "·"}}

ATOM = re.compile(r"\n|[ \t]*[^ \t\n]+|[ \t]+")


class Atom(NamedTuple):
    """The part of a token that is placed as a unit: whitespace with what follows it, or a line break."""

    text: str
    width: int
    opens: bool
    """Whether a line may break before it."""
    closes: bool
    """Whether a line may break after it."""
    newline: bool


@lru_cache(16384)
def atoms_of(token: str, whitespace: bool) -> tuple[Atom, ...]:
    """Return a token's atoms as drawn. Lines may break on either side of wide characters: their scripts lack spaces."""
    atoms = []
    for part in ATOM.findall(safe(token)):
        drawn = "".join(map(WHITESPACE[whitespace].get, part, part))
        first, last = (get_character_cell_size(part[end]) == 2 for end in (0, -1))
        atoms.append(Atom(drawn, cell_len(drawn), part[0] in " \t" or first, last, part == "\n"))
    return tuple(atoms)


# ---- lines


class Piece(NamedTuple):
    """The part of a token that is on one line."""

    token: int
    x: int
    width: int
    text: str


@dataclass(slots=True)
class Line:
    """A line of the layout."""

    passage: int
    """-1 for the blank line between two passages."""
    first: bool
    """Whether the passage starts on this line, so that its prefix is drawn."""
    indent: int = 0
    pieces: list[Piece] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The cell after the last piece."""
        return self.pieces[-1].x + self.pieces[-1].width if self.pieces else self.indent


class Layout:
    """Passages broken into lines of a given width at word boundaries; words longer than a line are broken anywhere.

    A word is a token and the tokens after it that do not start with whitespace. A word that moves to a new line loses
    one leading space. A line break takes a cell at the end of its line, so that its activation can be seen, unless the
    line is full.
    """

    def __init__(self, width: int, whitespace: bool = False, spaced: bool = False) -> None:
        self.width = max(2, width)  # a wide character must fit
        self.whitespace = whitespace
        self.spaced = spaced
        self.lines: list[Line] = []
        self._rows: list[list[int]] = []  # per passage and token the line it starts on, -1 where nothing is drawn
        self._indent = 0
        self._x = 0  # the cell where the last line ends
        self._word = 0  # the index of the piece that begins the last line's last word
        self._closed = False  # whether the line may break at _x, whatever follows
        self._ended = False  # whether a line break came last; the next token opens the new line

    def add(self, tokens: Iterable[str], indent: int = 0) -> None:
        """Add a passage, with its lines indented."""
        if self.spaced and self.lines:
            self.lines.append(Line(-1, False))
        self._indent = min(indent, self.width - 2)
        self._closed = self._ended = False
        self._rows.append([])
        self._open_line(first=True)
        self.extend(tokens)

    def extend(self, tokens: Iterable[str]) -> int:
        """Append tokens to the last passage. Return the index of the first line that changed."""
        changed, rows = len(self.lines) - 1, self._rows[-1]
        for token in tokens:
            rows.append(-1)
            for atom in atoms_of(token, self.whitespace):
                self._place(len(rows) - 1, atom)
        return changed

    def _place(self, token: int, atom: Atom) -> None:
        if self._ended:
            self._open_line()
        if atom.newline:
            if self.whitespace and self._x >= self.width:
                self._open_line()
            free = self._x < self.width
            self._put(token, atom.text if free else "", int(free))
            self._closed, self._ended = False, True
            return
        if atom.width == 0:  # combines with the character before it
            self._put(token, atom.text, 0)
            return
        if atom.opens or self._closed:
            self._word = len(self.lines[-1].pieces)
        self._closed = atom.closes
        self._put(token, atom.text, atom.width)
        if self._x > self.width and self._word > 0:
            self._carry()
        if self._x > self.width:
            self._chop()

    def _open_line(self, first: bool = False) -> None:
        self.lines.append(Line(len(self._rows) - 1, first, self._indent))
        self._x, self._word, self._ended = self._indent, 0, False

    def _put(self, token: int, text: str, width: int) -> None:
        self.lines[-1].pieces.append(Piece(token, self._x, width, text))
        self._x += width
        rows = self._rows[-1]
        if rows[token] < 0:
            rows[token] = len(self.lines) - 1

    def _carry(self) -> None:
        """Move the last word to a new line."""
        pieces, rows = self.lines[-1].pieces, self._rows[-1]
        word = pieces[self._word :]
        del pieces[self._word :]
        for piece in word:
            if piece.token != pieces[-1].token:
                rows[piece.token] = -1
        self._open_line()
        head = word[0]
        if head.text[0] == " " and head.text[1:2] not in ("", " "):
            word[0] = head._replace(text=head.text[1:], width=head.width - 1)
        for piece in word:
            self._put(piece.token, piece.text, piece.width)

    def _chop(self) -> None:
        """Break the last piece, which is longer than the line, where lines end."""
        piece = self.lines[-1].pieces.pop()
        rows = self._rows[-1]
        before = self.lines[-1].pieces[-1:]
        if rows[piece.token] == len(self.lines) - 1 and not (before and before[0].token == piece.token):
            rows[piece.token] = -1
        self._x = piece.x
        begin, width = 0, 0
        for start, _end, cells in split_graphemes(piece.text)[0]:
            if self._x + width + cells > self.width:
                if begin < start:
                    self._put(piece.token, piece.text[begin:start], width)
                self._open_line()
                begin, width = start, 0
            width += cells
        self._put(piece.token, piece.text[begin:], width)

    # ---- positions of tokens

    def row(self, passage: int, token: int) -> int:
        """Return the line that a token starts on; -1 if nothing of it is drawn."""
        return self._rows[passage][token]

    def x(self, passage: int, token: int) -> int:
        """Return the cell at which a token starts on its first line; 0 if nothing of it is drawn."""
        pieces = self.lines[self.row(passage, token)].pieces
        return next((piece.x for piece in pieces if piece.token == token), 0)

    def rows(self, passage: int, token: int) -> range:
        """Return the lines that a token is on."""
        first = last = self.row(passage, token)
        while last + 1 < len(self.lines):
            below = self.lines[last + 1]
            if below.passage != passage or not below.pieces or below.pieces[0].token != token:
                break
            last += 1
        return range(first, last + 1) if first >= 0 else range(0)

    def nearest(self, row: int, x: int) -> tuple[int, int] | None:
        """Return passage and token at a cell, else the one before it, else the line's first; None on a blank line."""
        line = self.lines[row]
        if not line.pieces:
            return None
        closest = line.pieces[0]
        for piece in line.pieces:
            if piece.x > x:
                break
            if piece.width or not closest.width:
                closest = piece
        return line.passage, closest.token

    def neighbour(self, passage: int, token: int, step: int) -> tuple[int, int] | None:
        """Return the next drawn token forwards (`step` 1) or backwards (-1), across passages."""
        token += step
        while 0 <= passage < len(self._rows):
            rows = self._rows[passage]
            while 0 <= token < len(rows):
                if rows[token] >= 0:
                    return passage, token
                token += step
            passage += step
            token = 0 if step > 0 or passage < 0 else len(self._rows[passage]) - 1
        return None

    def close_to(self, passage: int, token: int) -> tuple[int, int] | None:
        """Return the token itself if it is drawn, else the next drawn one, else the last."""
        return self.neighbour(passage, token - 1, 1) or self.last

    def from_row(self, row: int, step: int, x: int, other_than: tuple[int, int] | None) -> tuple[int, int] | None:
        """Return the nearest token to x, other than `other_than`, on the first line with one, from `row` on.

        `step` is 1 downwards, -1 upwards.
        """
        while 0 <= row < len(self.lines):
            place = self.nearest(row, x)
            if place not in (None, other_than):
                return place
            row += step
        return None

    @property
    def first(self) -> tuple[int, int] | None:
        """The first drawn token, as (passage, token)."""
        return self.neighbour(0, -1, 1)

    @property
    def last(self) -> tuple[int, int] | None:
        """The last drawn token, as (passage, token)."""
        return self.neighbour(len(self._rows) - 1, len(self._rows[-1]), -1) if self._rows else None
