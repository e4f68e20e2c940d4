"""Texts that part from others: what to ask for to branch off, and what the kept ones are called. No widgets."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.records import Edit, EditsFrom, Generate, Generated, Prompt
from engine.records.texts import first_unlike
from engine.records.words.edits import asked
from engine.records.words.tokens import visible
from tui.pairs import FIRST, Pair, samples_of, without_end
from tui.words import count_in_words, schedule_in_words

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
        at = first_unlike(tokens, other)
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
