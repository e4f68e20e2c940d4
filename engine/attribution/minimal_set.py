"""Search greedily for the smallest set of features that carries a share of a measure, checking each step by ablation.

Each step adds the most promising candidate, ablates the set, and drops the candidate again if that did not help.
Promises come from a gradient, taken anew each time the set has grown by STEPS_A_GRADIENT, because features stand in
for one another. At the end, members that are not needed are removed, and each member's part is what is lost when it
alone is left out.

    objective = share - penalty * (share of the facts' log-odds lost + mean KL / 0.1 nats)
"""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from engine.attribution.attribute import controls, warnings
from engine.attribution.gradient import Gradient, ablated, gradient
from engine.attribution.measure import total
from engine.attribution.measured import Measured, measured, measured_facts
from engine.attribution.neutral_text import NeutralText
from engine.features.activations import names
from engine.models.pair import Events, Pair, Read
from engine.records import Event, FindMinimalSet, MinimalSet, Progress, SetMember
from engine.records import attribution as measures
from engine.records.attribution import check_counts
from engine.records.errors import UsageError

KL_UNIT = 0.1
"""KL in nats per token of neutral text that is penalised as much as losing all of the facts' log-odds."""

STAGE = "looking for the smallest set"

LITTLE = 1e-9
"""A measure below this, signs apart, counts as 0."""

LEAST_GAIN = 0.002
"""Least gain in the objective, promised and then measured, for which a feature is added; less only pads the set."""

STEPS_A_GRADIENT = 4
"""Steps between gradients: one costs as much as three steps, and over a few steps it hardly changes."""


@dataclass(frozen=True)
class Value:
    """The result of ablating a set: the measure, and the terms of the objective."""

    measure: float
    share: float
    facts_kept: float | None
    kl: float | None
    objective: float


class Search:
    """What one search measures on (the measure's probes, facts, neutral text), and how many sets it has tried."""

    def __init__(
        self,
        pair: Pair,
        request: FindMinimalSet,
        measurement: Measured,
        facts: Measured | None,
        text: NeutralText | None,
    ) -> None:
        self.pair, self.request = pair, request
        self.found, self.facts, self.text = measurement, facts, text
        self.n_tried = 0
        self.unedited: Gradient | None = None
        """The gradient of the measure with nothing ablated."""

    def value(self, features: Sequence[int]) -> Generator[Event, Any, Value]:
        """Ablate one set and measure everything that the objective needs."""
        (value,) = yield from self.values([features])
        return value

    def values(self, sets: Sequence[Sequence[int]]) -> Generator[Event, Any, list[Value]]:
        """Ablate and measure several sets, their rows run together."""
        self.n_tried += len(sets)
        rows = yield from self._run(self.found, sets)
        facts = (yield from self._run(self.facts, sets)) if self.facts else None
        kls = (yield from self.text.kl(sets)) if self.text and self.request.penalty else None
        return [self._value(row, facts[n] if facts else None, kls[n] if kls else None) for n, row in enumerate(rows)]

    def _run(self, measurement: Measured, sets: Sequence[Sequence[int]]) -> Generator[Event, Any, list[float]]:
        pair = self.pair
        scored = yield from ablated(pair.site.sae, pair.upper, measurement.items, measurement.values, sets, STAGE)
        return [total(measurement.items, values) for values in scored]

    def _value(self, measure: float, facts: float | None, kl: float | None) -> Value:
        share = 1 - measure / self.found.baseline
        kept = facts / self.facts.baseline if facts is not None and self.facts else None
        lost = max(0.0, 1 - kept) if kept is not None else 0.0
        objective = share - self.request.penalty * (lost + (kl or 0.0) / KL_UNIT)
        return Value(measure, share, kept, kl, objective)

    def promise(self, features: Sequence[int]) -> Generator[Event, Any, list[float]]:
        """Estimate, by the gradient with `features` ablated, what ablating each candidate too adds to the objective."""
        request, chosen = self.request, tuple(features)
        slope = yield from self._gradient(self.found, chosen)
        if not chosen:
            self.unedited = slope
        gain_F = -slope.estimate_F / self.found.baseline
        if self.facts and request.penalty:
            facts = yield from self._gradient(self.facts, chosen)
            gain_F -= request.penalty * (-facts.estimate_F / self.facts.baseline).clamp(min=0)
        return list(gain_F[list(request.candidates)].tolist())

    def _gradient(self, measurement: Measured, features: tuple[int, ...]) -> Generator[Event, Any, Gradient]:
        return (yield from gradient(self.pair.site.sae, self.pair.upper, measurement.items, features, STAGE))


def check(pair: Pair, request: FindMinimalSet) -> None:
    """Check the request. Raises UsageError, or EditError for a feature the SAE does not have."""
    check_counts(request)
    if not request.candidates:
        raise UsageError("There are no features to choose from.", "Attribute first.")
    if not 0 < request.share <= 1:
        raise UsageError(f"The share {request.share:g} is not between 0 and 1.", "For example 0.5.")
    if request.most < 1:
        raise UsageError("The set must be allowed at least one feature.")
    pair.site.sae.columns(request.candidates)


def find_minimal_set(pair: Pair, request: FindMinimalSet) -> Events:
    """Find the smallest set that carries the measure. Returns a MinimalSet. Raises UsageError, HookError, EditError."""
    check(pair, request)
    measurement = yield from measured(pair, request.measure)
    if abs(measurement.baseline) < LITTLE:
        raise UsageError("The measure is 0: there is nothing to take away.", "Choose other answers or probes.")
    facts = (yield from measured_facts(pair, request.facts)) if request.facts else None
    sentences = []
    if facts is not None and (not facts.items or facts.baseline <= 0):
        sentences.append("The model does not know the facts, so there is nothing of them to keep: they are left out.")
        facts = None
    text = (yield from NeutralText.read(pair, request.neutral_tokens)) if request.neutral_tokens else None
    search = Search(pair, request, measurement, facts, text)
    chosen, value = yield from grow(search)
    chosen, value, without = yield from prune(search, chosen, value)
    prefixes = yield from search.values([chosen[: n + 1] for n in range(len(chosen) - 1)])
    shares = yield from control_shares(search, chosen)
    kl = None
    if text is not None and chosen:
        (kl,) = yield from text.kl([chosen])
    reads = [Read(item.fed, item.h[0][: len(item.fed.token_ids)]) for item in measurement.items]
    members = tuple(
        SetMember(feature, tokens, with_it.share, rest.share)
        for feature, tokens, with_it, rest in zip(
            chosen, names(pair, chosen, reads), [*prefixes, value][: len(chosen)], without, strict=True
        )
    )
    return MinimalSet(
        request=request,
        slope=measures.is_slope([item.probe for item in measurement.items]),
        baseline=measurement.baseline,
        ablated=value.measure,
        share=value.share,
        reached=value.share >= request.share,
        members=members,
        n_tried=search.n_tried,
        facts_kept=value.facts_kept,
        kl=kl,
        control_shares=tuple(shares),
        dtype=str(pair.upper.dtype).removeprefix("torch."),
        warnings=(*sentences, *warnings(pair, measurement, request.measure)),
    )


def grow(search: Search) -> Generator[Event, Any, tuple[list[int], Value]]:
    """Add the most promising candidate until the share is reached, no candidate helps, or the set is full."""
    request = search.request
    chosen: list[int] = []
    value = yield from search.value(chosen)
    useless: set[int] = set()
    promise: list[float] = []
    promised_at = -1
    while value.share < request.share and len(chosen) < request.most:
        yield Progress(STAGE, int(100 * max(0.0, value.share)), int(100 * request.share))
        if len(chosen) % STEPS_A_GRADIENT == 0 and promised_at != len(chosen):
            promise, promised_at = (yield from search.promise(chosen)), len(chosen)
        order = sorted(zip(promise, request.candidates, strict=True), reverse=True)
        left = [f for gain, f in order if gain > LEAST_GAIN and f not in chosen and f not in useless]
        if not left and promised_at != len(chosen):  # do not give up on promises made before the set grew
            promise, promised_at, useless = (yield from search.promise(chosen)), len(chosen), set()
            continue
        if not left:
            break
        tried = yield from search.value([*chosen, left[0]])
        if tried.objective > value.objective + LEAST_GAIN:
            chosen, value = [*chosen, left[0]], tried
        else:
            useless.add(left[0])
    return chosen, value


def prune(
    search: Search, chosen: list[int], value: Value
) -> Generator[Event, Any, tuple[list[int], Value, list[Value]]]:
    """Remove members without which the share is still reached, the least needed first.

    Returns the members left, their value, and the value of the set without each of them.
    """
    while True:
        without = yield from search.values([[f for f in chosen if f != out] for out in chosen])
        spare = [n for n, rest in enumerate(without) if rest.share >= search.request.share]
        if not spare:
            return chosen, value, without
        least = max(spare, key=lambda n: without[n].objective)
        value = without[least]
        chosen = [f for n, f in enumerate(chosen) if n != least]


def control_shares(search: Search, chosen: list[int]) -> Generator[Event, Any, list[float]]:
    """Return the shares that random sets take away, each of whose features is about as active and dense as a member."""
    if not chosen or not search.request.controls:
        return []
    if search.unedited is None:
        raise AssertionError("a set was chosen without a gradient")
    sets = drawn_sets(search.pair, search.unedited, chosen, search.request.controls)
    shares = yield from search.values(sets)
    return [value.share for value in shares]


def drawn_sets(pair: Pair, slopes: Gradient, chosen: Sequence[int], number: int) -> list[list[int]]:
    """Draw up to `number` different random sets of the size of `chosen`, without looking at estimates."""
    rng = random.Random(0)
    pool = controls(pair, slopes, chosen, max(3 * len(chosen), number))
    pools = [pool[n :: len(chosen)] for n in range(len(chosen))]
    if not all(pools):  # too few features fire here for a set of this size
        return []
    drawn = {tuple(rng.choice(similar) for similar in pools): None for _ in range(20 * number)}
    return [list(features) for features in list(drawn)[:number]]
