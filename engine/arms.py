"""A generation's texts in pairs: each edited one beside its sample's baseline. Knows nothing about torch."""

from __future__ import annotations

from dataclasses import dataclass

from engine.records import Arm, Edit, Generated


@dataclass(frozen=True)
class Pair:
    """An edited text and the baseline that was sampled with the same random numbers."""

    sample: int
    """Counted from 0."""
    variant: int | None
    """Index of its edits among the variants; None: they are the generation's own."""
    edits: tuple[Edit, ...]
    baseline: Arm
    edited: Arm
    positions: int
    inactive_positions: int


def pairs(result: Generated) -> list[Pair]:
    """All there are, sample by sample, the variants behind the edited text."""
    baselines = {0: result.baseline} | {o.sample: o.arm for o in result.more if not o.edited}
    found = [Pair(0, None, result.edits, result.baseline, result.edited, result.positions, result.inactive_positions)]
    for other in result.more:
        if other.edited:
            edits = result.edits if other.variant is None else result.variants[other.variant]
            counts = other.positions, other.inactive_positions
            found.append(Pair(other.sample, other.variant, edits, baselines[other.sample], other.arm, *counts))
    return found


def edits_in_force(result: Generated) -> list[Edit]:
    """All that were in force anywhere in a text, in its variants too."""
    lists = (result.edits, *(change.edits for change in result.schedule), *result.variants)
    return [edit for edits in lists for edit in edits]
