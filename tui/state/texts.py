"""Texts: pairs of columns, kept texts and what branches off from them. No widgets."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from engine.records import Arm, Edit, EditsFrom, Generate, Generated, Prompt, TokenStep
from engine.records.words.edits import asked
from engine.records.words.numbers import count_in_words
from engine.records.words.tokens import visible
from tui.state.edits import schedule_in_words


class Row(NamedTuple):
    """One row of the batch."""

    sample: int
    edited: bool
    variant: int | None
    """None: a baseline, or what goes under the edits that may change while it runs."""


class Pair(NamedTuple):
    """A baseline and what is beside it."""

    sample: int = 0
    variant: int | None = None

    @property
    def baseline(self) -> Row:
        """The left one."""
        return Row(self.sample, False, None)

    @property
    def edited(self) -> Row:
        """The right one."""
        return Row(self.sample, True, self.variant)


FIRST = Pair()

LONG = 500
"""Tokens of a text that counts as long where two are aligned."""


def rows_of(samples: int, n_variants: int) -> list[Row]:
    """All rows, in the order of TokenStep: baseline, edited, then `more`."""
    return [
        row
        for sample in range(samples)
        for row in (
            Row(sample, False, None),
            Row(sample, True, None),
            *(Row(sample, True, variant) for variant in range(n_variants)),
        )
    ]


def samples_of(found: Generated) -> int:
    """How often both arms were sampled."""
    return 1 + max((other.sample for other in found.more), default=0)


def arm_of(found: Generated, row: Row) -> Arm:
    """A row's arm as recorded; the first baseline's or edited one where it has none."""
    for other in found.more:
        if (other.sample, other.edited, other.variant) == row:
            return other.arm
    return found.edited if row.edited else found.baseline


def positions_of(found: Generated, row: Row) -> tuple[int, int]:
    """At how many positions a row's edits might act, and at how many of these they were silent."""
    for other in found.more:
        if (other.sample, other.edited, other.variant) == row:
            return other.positions, other.inactive_positions
    return found.positions, found.inactive_positions


def kl_kept(kept: Generated | None, request: Generate, pair: Pair) -> list[float]:
    """The KL of the tokens that a branch keeps, in nats; none is known of a variant's."""
    if kept is None or pair.variant is not None:
        return []
    return list(kept.kl[: request.branched_at or 0])


def without_end(arm: Arm) -> tuple[str, ...]:
    """An arm's tokens, a closing end token left out: it is no part of the text."""
    tokens = arm.tokens
    if tokens and tokens[-1].strip() and tokens[-1] not in arm.text:
        return tokens[:-1]
    return tokens


class Rows:
    """The tokens of all rows so far."""

    def __init__(self, samples: int = 1, n_variants: int = 0) -> None:
        self.samples, self.n_variants = samples, n_variants
        self._order = rows_of(samples, n_variants)
        self.tokens: dict[Row, list[str]] = {row: [] for row in self._order}
        self.pairs = [Pair(s, v) for s in range(samples) for v in (None, *range(n_variants))]
        """What can be looked at, in the order of the keys that turn the page."""

    @classmethod
    def asked(cls, request: Generate, kept: Generated | None, pair: Pair) -> Rows:
        """Before the first token: nothing, or what a branch keeps of the pair it parts from."""
        rows = cls(request.samples, len(request.variants))
        if kept is not None and request.branched_at:
            for row in rows._order:
                variant = pair.variant if row.edited else None
                tokens = arm_of(kept, row._replace(variant=variant)).tokens
                rows.tokens[row] += tokens[: request.branched_at]
        return rows

    @classmethod
    def of(cls, found: Generated) -> Rows:
        """As recorded, without end tokens."""
        rows = cls(samples_of(found), len(found.variants))
        for row in rows._order:
            rows.tokens[row] += without_end(arm_of(found, row))
        return rows

    def add(self, step: TokenStep) -> None:
        """One more token in each row that has not ended."""
        for row, token in zip(self._order, (step.baseline, step.edited, *step.more), strict=False):
            if token is not None:
                self.tokens[row].append(token)


def first_difference(one: Sequence[str], other: Sequence[str], start: int = 0) -> int | None:
    """The first index from `start` on at which both have a token, and another one; None where there is none."""
    return next((i for i in range(start, min(len(one), len(other))) if one[i] != other[i]), None)


def unlike(one: Sequence[str], other: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Per token of each text that still streams: whether the other has another one, or none, in its place."""
    a = [at >= len(other) or other[at] != token for at, token in enumerate(one)]
    b = [at >= len(one) or one[at] != token for at, token in enumerate(other)]
    return a, b


def differing(one: Sequence[str], other: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Per token of each text: whether it has no counterpart in the other, both aligned."""
    marks = [True] * len(one), [True] * len(other)
    # aligning long texts by their commonest tokens too takes seconds, in which no key is answered
    matcher = difflib.SequenceMatcher(None, list(one), list(other), autojunk=len(other) > LONG)
    for a, b, size in matcher.get_matching_blocks():
        for offset in range(size):
            marks[0][a + offset] = marks[1][b + offset] = False
    return marks


replace = msgspec.structs.replace

WORDS = 160
"""Letters that are shown of a text."""


def schedule_of(found: Generated, pair: Pair = FIRST) -> tuple[EditsFrom, ...]:
    """Which edits the edited row of a pair was under; a variant's never change."""
    if pair.variant is not None:
        return (EditsFrom(0, found.variants[pair.variant]),)
    return found.schedule or (EditsFrom(0, found.edits),)


def rewound(found: Generated, at: int, edits: tuple[Edit, ...], max_tokens: int, pair: Pair = FIRST) -> Generate:
    """The request that keeps a text up to its token `at`, and goes on from there under these edits.

    `max_tokens` counts what is kept too; there is at least one token more. All else is as recorded.
    """
    kept = [change for change in schedule_of(found, pair) if change.token_index < at]
    if not kept:
        kept = [EditsFrom(0, edits)]
    elif asked(kept[-1].edits) != asked(edits):
        kept.append(EditsFrom(at, edits))
    return Generate(
        prompt_of(found),
        kept[0].edits,
        replace(found.sampling, max_tokens=max(max_tokens, at + 1)),
        prefill=found.prompt.prefill,
        samples=samples_of(found),
        variants=() if pair.variant is not None else found.variants,
        schedule=tuple(kept[1:]),
        branched_at=at or None,
    )


def prompt_of(found: Generated) -> Prompt:
    """The question a text answers."""
    return Prompt(found.prompt.text, found.prompt.format)


def siblings(texts: Sequence[Generated], prompt: Prompt) -> list[Generated]:
    """The texts that answer a question, newest first."""
    return [text for text in reversed(texts) if prompt_of(text) == prompt]


def origin_in_words(found: Generated) -> str:
    """Such as "from token 12"; "whole text" for one that parts from none."""
    return "whole text" if found.branched_at is None else f"from token {found.branched_at + 1}"


def name_of(found: Generated) -> str:
    """Such as "from token 12 · stopped · no edits → from token 12: 4133 ablate"."""
    parts = [origin_in_words(found), *["stopped"] * found.stopped, schedule_in_words(schedule_of(found))]
    samples = samples_of(found)
    parts += [count_in_words(samples, "sample")] * (samples > 1)
    parts += [count_in_words(len(found.variants), "variant")] * bool(found.variants)
    return " · ".join(parts)


def difference_in_words(found: Generated, shown: Generated | None) -> str:
    """The first words in which a text differs from the one that is shown; its beginning where it does not."""
    tokens = without_end(found.edited)
    at = None
    if shown is not None and shown is not found:
        other = without_end(shown.edited)
        at = first_difference(tokens, other)
        if at is None and len(other) < len(tokens):
            at = len(other)
    words = visible("".join(tokens[at or 0 :])[:WORDS]).strip()
    return f"… {words}" if at else words or "(no text)"


def staleness(found: Generated, request: Generate) -> str:
    """What has changed since a text was generated, against what would be asked now; "" if nothing has."""
    if asked(schedule_of(found)[-1].edits) != asked(request.edits):
        return "edits changed since: g generates again"
    now = (request.prompt, request.prefill, request.sampling, request.samples)
    then = (prompt_of(found), found.prompt.prefill, found.sampling, samples_of(found))
    return "" if now == then else "question or settings changed since: g generates again"
