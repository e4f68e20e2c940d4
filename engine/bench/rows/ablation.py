"""Row 6: an edited text against SAELens' own way to ablate a feature: its model with the SAE attached, and a hook.

Measured on the usual subject (subjects.py), with the founding study's number of features and with its own. SAELens'
model has the same shape and random weights; all use the app's dtype. Our generation is timed as one row, the edited
text, and as the pair that the app generates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from engine.bench import contenders, ours
from engine.bench.subjects import FOUNDING_FEATURES, Subject, settle, usual, with_features
from engine.bench.timing import Row, as_raw, in_turn, spread
from engine.records.errors import ModelError

WHAT = "SAELens' ablation ÷ our edited text"

GOAL = 6.0


@dataclass(frozen=True)
class Shape:
    """Tokens of a text, number of rounds, and features of the large SAE."""

    tokens: int
    rounds: int
    features: int


def shape(quick: bool) -> Shape:
    """Return a shape that takes minutes, most of them SAELens'; our steps are kept from round to round, so captured."""
    return Shape(4, 1, 8192) if quick else Shape(24, 2, FOUNDING_FEATURES)


def measure(sizes: Shape, device: torch.device) -> list[Row]:
    """Return the rows of a SAE with many features, and those of the subject's own."""
    if not contenders.has_saelens():
        return [Row(6, WHAT, "", "", None, GOAL, note=contenders.NO_SAELENS)]
    try:
        subject = usual(device)
    except ModelError as error:
        return [Row(6, WHAT, "", "", None, GOAL, note=error.message)]
    theirs = contenders.saelens_model(subject)
    large = with_features(subject.said, subject.model, subject.hook, sizes.features)
    return rows_of(large, theirs, sizes, GOAL) + rows_of(subject, theirs, sizes, None)


def rows_of(subject: Subject, theirs: Any, sizes: Shape, goal: float | None) -> list[Row]:
    """Return the rows that compare SAELens with our edited row alone, and with our pair."""
    edits, sae = subject.ablations(1), subject.sae
    work: dict[str, Callable[[], object]] = {
        "edited": ours.alone(subject, sizes.tokens, subject.editor(edits)),
        "pair": ours.pair(subject, sizes.tokens, edits),
        "SAELens": contenders.saelens_run(theirs, sae, subject, sizes.tokens, edits[0].feature),
    }
    times = in_turn(work, sizes.rounds, settle(subject.model.device))
    raw = {"tokens": sizes.tokens, "features": sae.d_sae, "seconds": as_raw(times)}

    def row(what: str, mine: str, row_goal: float | None) -> Row:
        per, unit = sizes.tokens / 1e3, "ms/token"
        description = f"{spread(times[mine], per, unit)}, {subject.said}, {sae.d_sae:,} features"
        ratio = times["SAELens"].median / times[mine].median
        return Row(6, what, description, spread(times["SAELens"], per, unit), ratio, row_goal, raw=raw)

    return [row(WHAT, "edited", goal), row("SAELens' ablation ÷ our pair", "pair", None)]
