"""Edits of features."""

from __future__ import annotations

from typing import Literal

from engine.records.base import Record

EditKind = Literal["scale", "set", "steer", "project", "reconstruct"]

Positions = Literal["all", "prompt", "generated", "last", "first-step"]
"""Where an edit acts: `last` is the prompt's last token. `first-step` is the prompt with its BOS and sinks, which no
other choice includes; what it did stays in the prompt's keys and values, so later tokens see it."""

NO_FEATURE = -1
"""Stands in an edit of kind `reconstruct`, which is about all features."""


class Edit(Record, frozen=True):
    """One feature's edit. f is its activation, D its decoder row, h the hooked vector, u the vector's scale.

    scale        f becomes strength * f; 0 ablates
    set          f becomes strength * M, M the feature's maximum on the reference text
    steer        h becomes h + strength * M * r * D, r the median of u on the reference text
    project      the part of h along D is multiplied by strength; 0 removes it
    reconstruct  h becomes its reconstruction from the edited activations: the SAE's error is lost
    """

    feature: int = NO_FEATURE
    strength: float = 0.0
    kind: EditKind = "scale"
    at: Positions = "all"
    absolute: float | None = None
    """What the strength of `set` (in units of f) or `steer` (as a multiple of D) comes to, so that another reference
    text changes no recorded edit. The engine fills it in; where it is given, it rules."""
