"""Generated texts: the pairs of columns that are shown, kept texts and branches of them. No widgets."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from engine.records import Arm, Edit, EditsFrom, Generate, Generated, Prompt, TokenStep
from engine.records.texts import first_unlike
from engine.records.words.edits import without_amounts
from engine.records.words.numbers import count
from engine.records.words.safe_text import visible
from tui.state.edits import schedule_in_words


class Row(NamedTuple):
    """One row of a generated batch."""

    sample: int
    edited: bool
    variant: int | None
    """The variant's index; None for a baseline, and for the row whose edits may change while it runs."""


class Pair(NamedTuple):
    """A baseline and the edited row beside it."""

    sample: int = 0
    variant: int | None = None

    @property
    def baseline(self) -> Row:
        """The row of the left column."""
        return Row(self.sample, False, None)

    @property
    def edited(self) -> Row:
        """The row of the right column."""
        return Row(self.sample, True, self.variant)


FIRST = Pair()

LONG = 500
"""In texts of more tokens than this, the commonest ones are left out of the alignment."""


def rows_of(samples: int, n_variants: int) -> list[Row]:
    """Return all rows in the order of TokenStep: baseline, edited, then `more`."""
    return [
        row
        for sample in range(samples)
        for row in (
            Row(sample, False, None),
            Row(sample, True, None),
            *(Row(sample, True, variant) for variant in range(n_variants)),
        )
    ]


def samples_of(text: Generated) -> int:
    """Return how many samples of each arm a result holds."""
    return 1 + max((other.sample for other in text.more), default=0)


def arm_of(text: Generated, row: Row) -> Arm:
    """Return a row's recorded arm; the first baseline or edited arm if the row has none."""
    for other in text.more:
        if (other.sample, other.edited, other.variant) == row:
            return other.arm
    return text.edited if row.edited else text.baseline


def positions_of(text: Generated, row: Row) -> tuple[int, int]:
    """Return the count of positions where a row's edits could act, and of those where they were inactive."""
    for other in text.more:
        if (other.sample, other.edited, other.variant) == row:
            return other.positions, other.inactive_positions
    return text.positions, text.inactive_positions


def kl_kept(kept: Generated | None, request: Generate, pair: Pair) -> list[float]:
    """Return the KL per token that a branch keeps, in nats; [] for a variant, whose KL is not recorded."""
    if kept is None or pair.variant is not None:
        return []
    return list(kept.kl[: request.branched_at or 0])


def without_end(arm: Arm) -> tuple[str, ...]:
    """Return an arm's tokens without the end token, which is no part of the text."""
    tokens = arm.tokens
    if tokens and tokens[-1].strip() and tokens[-1] not in arm.text:
        return tokens[:-1]
    return tokens


class Rows:
    """The tokens so far of all rows of a batch."""

    def __init__(self, samples: int = 1, n_variants: int = 0) -> None:
        self.samples, self.n_variants = samples, n_variants
        self._order = rows_of(samples, n_variants)
        self.tokens: dict[Row, list[str]] = {row: [] for row in self._order}
        self.pairs = [Pair(s, v) for s in range(samples) for v in (None, *range(n_variants))]
        """All pairs that can be shown, in the order of the keys [ and ]."""

    @classmethod
    def at_start(cls, request: Generate, kept: Generated | None, pair: Pair) -> Rows:
        """Return the rows before the first new token: empty, or what a branch keeps of `pair` of the text `kept`."""
        rows = cls(request.samples, len(request.variants))
        if kept is not None and request.branched_at:
            for row in rows._order:
                variant = pair.variant if row.edited else None
                tokens = arm_of(kept, row._replace(variant=variant)).tokens
                rows.tokens[row] += tokens[: request.branched_at]
        return rows

    @classmethod
    def of(cls, text: Generated) -> Rows:
        """Return the rows of a recorded result, without end tokens."""
        rows = cls(samples_of(text), len(text.variants))
        for row in rows._order:
            rows.tokens[row] += without_end(arm_of(text, row))
        return rows

    def add(self, step: TokenStep) -> None:
        """Append a token to each row that has not ended."""
        for row, token in zip(self._order, (step.baseline, step.edited, *step.more), strict=False):
            if token is not None:
                self.tokens[row].append(token)


def unlike(one: Sequence[str], other: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Return per token of two streaming texts: whether the other has no such token at the same place."""
    a = [at >= len(other) or other[at] != token for at, token in enumerate(one)]
    b = [at >= len(one) or one[at] != token for at, token in enumerate(other)]
    return a, b


def differing(one: Sequence[str], other: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Return per token of two texts, after alignment: whether it has no counterpart in the other."""
    marks = [True] * len(one), [True] * len(other)
    # aligning long texts by their commonest tokens too, which autojunk leaves out, would block the app for seconds
    matcher = difflib.SequenceMatcher(None, list(one), list(other), autojunk=len(other) > LONG)
    for a, b, size in matcher.get_matching_blocks():
        for offset in range(size):
            marks[0][a + offset] = marks[1][b + offset] = False
    return marks


replace = msgspec.structs.replace

WORDS = 160
"""Characters of a text that `difference_in_words` shows."""


def schedule_of(text: Generated, pair: Pair = FIRST) -> tuple[EditsFrom, ...]:
    """Return the edits of a pair's edited row, and from which token each applies; a variant's never change."""
    if pair.variant is not None:
        return (EditsFrom(0, text.variants[pair.variant]),)
    return text.schedule or (EditsFrom(0, text.edits),)


def rewound(text: Generated, at: int, edits: tuple[Edit, ...], max_tokens: int, pair: Pair = FIRST) -> Generate:
    """Return the request that keeps a text before its token `at` and continues it from there under `edits`.

    `max_tokens` counts the kept tokens too; at least one new token is generated. All else is as recorded.
    """
    kept = [change for change in schedule_of(text, pair) if change.token_index < at]
    if not kept:
        kept = [EditsFrom(0, edits)]
    elif without_amounts(kept[-1].edits) != without_amounts(edits):
        kept.append(EditsFrom(at, edits))
    return Generate(
        prompt_of(text),
        kept[0].edits,
        replace(text.sampling, max_tokens=max(max_tokens, at + 1)),
        prefill=text.prompt.prefill,
        samples=samples_of(text),
        variants=() if pair.variant is not None else text.variants,
        schedule=tuple(kept[1:]),
        branched_at=at or None,
    )


def prompt_of(text: Generated) -> Prompt:
    """Return the question that a text answers."""
    return Prompt(text.prompt.text, text.prompt.format)


def siblings(texts: Sequence[Generated], prompt: Prompt) -> list[Generated]:
    """Return the texts that answer a question, newest first."""
    return [text for text in reversed(texts) if prompt_of(text) == prompt]


def origin_in_words(text: Generated) -> str:
    """Say where a text branches off, such as "from token 12"; "whole text" if it is no branch."""
    return "whole text" if text.branched_at is None else f"from token {text.branched_at + 1}"


def name_of(text: Generated) -> str:
    """Return a text's name, such as "from token 12 · stopped · no edits → from token 12: 4133 ablate"."""
    parts = [origin_in_words(text), *["stopped"] * text.stopped, schedule_in_words(schedule_of(text))]
    samples = samples_of(text)
    parts += [count(samples, "sample")] * (samples > 1)
    parts += [count(len(text.variants), "variant")] * bool(text.variants)
    return " · ".join(parts)


def difference_in_words(text: Generated, shown: Generated | None) -> str:
    """Return a text from its first difference to the text that is shown; from its beginning if there is none."""
    tokens = without_end(text.edited)
    at = None
    if shown is not None and shown is not text:
        other = without_end(shown.edited)
        at = first_unlike(tokens, other)
        if at is None and len(other) < len(tokens):
            at = len(other)
    words = visible("".join(tokens[at or 0 :])[:WORDS]).strip()
    return f"… {words}" if at else words or "(no text)"


def staleness(text: Generated, request: Generate) -> str:
    """Say what has changed since a text was generated, compared with the current request; "" if nothing has."""
    if without_amounts(schedule_of(text)[-1].edits) != without_amounts(request.edits):
        return "edits changed since: g generates again"
    now = (request.prompt, request.prefill, request.sampling, request.samples)
    then = (prompt_of(text), text.prompt.prefill, text.sampling, samples_of(text))
    return "" if now == then else "question or settings changed since: g generates again"
