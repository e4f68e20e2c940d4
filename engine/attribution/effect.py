"""The exact effect of ablating one feature."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Hashable
from typing import Any

from msgspec.structs import replace

from engine.attribution.gradient import ablated
from engine.attribution.measure import total
from engine.attribution.measured import measured
from engine.features import card
from engine.models.pair import Events, Pair
from engine.records import Describe, Described, Effect, Event, Measure
from engine.records import attribution as measures


class KeptEffects(OrderedDict[Hashable, Effect]):
    """Effects by measure and feature."""


def describe(pair: Pair, request: Describe) -> Events:
    """A feature's card, with its exact effect where the request names a measure. Raises as `exact_effect` does."""
    described: Described = yield from card.describe(pair, request)
    if request.measure is None:
        return described
    kept = pair.kept_or(KeptEffects, KeptEffects)
    key = request.measure, request.feature
    effect = kept.get(key)
    if effect is None:
        effect = yield from exact_effect(pair, request.measure, request.feature)
    card.keep_newest(kept, key, effect)
    return replace(described, effect=effect)


def exact_effect(pair: Pair, measure: Measure, feature: int) -> Generator[Event, Any, Effect]:
    """What ablating one feature does to the measure. Raises UsageError, HookError, EditError."""
    found = yield from measured(pair, measure)
    (values,) = yield from ablated(
        pair.site.sae, pair.upper, found.items, found.values, [[feature]], "ablating the feature"
    )
    slope = measures.is_slope([item.probe for item in found.items])
    changed = total(found.items, values)
    return Effect(measure.toward, measure.against, len(found.items), slope, found.baseline, changed)
