"""Texts in words: how they were sampled, and which edits were in force where."""

from __future__ import annotations

from collections.abc import Sequence

from engine.records.texts import SAMPLING, EditsFrom, Generated, OtherArm, Sampling
from engine.records.words.edits import edits_in_words


def changes_in_words(schedule: Sequence[EditsFrom]) -> list[str]:
    """Return lines such as "from token 12: 4133 ablated", one for each change of edits after the first token."""
    later = [(change.token_index + 1, change.edits) for change in schedule[1:]]
    return [f"from token {token}: {edits_in_words(edits) if edits else 'no edits'}" for token, edits in later]


def story(result: Generated) -> list[str]:
    """Return how a text came about, a sentence each: how tokens were chosen, what changed on the way, how it ended."""
    lines = []
    if result.prompt.prefill:
        lines.append(f"put in the model's mouth: {result.prompt.prefill!r}")
    if result.sampling.temperature or result.sampling.stop:
        lines.append(sampling_in_words(result.sampling))
    lines += changes_in_words(result.schedule)
    if result.branched_at is not None:
        lines.append(f"branched off at token {result.branched_at + 1}: what is before it is another text's")
    return (
        lines + ["stopped before its end"] * result.stopped + [f"it ended early: {result.fault}"] * bool(result.fault)
    )


def arm_in_words(other: OtherArm) -> str:
    """Return an arm's name, such as "variant 1" or "sample 2 edited", counted from 1."""
    sample = f"sample {other.sample + 1} " if other.sample else ""
    if other.variant is not None:
        return f"{sample}variant {other.variant + 1}"
    return f"{sample}{'edited' if other.edited else 'baseline'}"


def sampling_in_words(sampling: Sampling) -> str:
    """Return "greedy", or such as "temperature 0.8, seed 3, top-p 0.9"; then the stop strings."""
    words = ["greedy"]
    if sampling.temperature:
        words = [f"temperature {sampling.temperature:g}", f"seed {sampling.seed}", *limits_in_words(sampling)]
    words += [f"ends at {' or '.join(map(repr, sampling.stop))}"] if sampling.stop else []
    return ", ".join(words)


def limits_in_words(sampling: Sampling) -> list[str]:
    """Return the settings that leave fewer tokens to choose from, such as "top-p 0.9"."""
    rows = [setting for setting in SAMPLING if setting.limits_choice]
    values = [(row.label, getattr(sampling, row.field), getattr(Sampling(), row.field)) for row in rows]
    return [f"{label} {value:g}" for label, value, usual in values if value != usual]
