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
    """The newest exact effects, keyed by measure and feature."""


def describe(pair: Pair, request: Describe) -> Events:
    """Return a feature's card, with its exact effect if the request names a measure. Raises as `exact_effect`."""
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
    """Measure the probes with and without one feature ablated. Raises UsageError, HookError, EditError."""
    measurement = yield from measured(pair, measure)
    (values,) = yield from ablated(
        pair.site.sae, pair.upper, measurement.items, measurement.values, [[feature]], "ablating the feature"
    )
    slope = measures.is_slope([item.probe for item in measurement.items])
    edited = total(measurement.items, values)
    return Effect(measure.toward, measure.against, len(measurement.items), slope, measurement.baseline, edited)
