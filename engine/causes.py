"""The causal verbs over one loaded model and SAE: attribution and exact effects. The smallest set is minimal_set.py's.

Shape suffixes: F features.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from msgspec.structs import replace

from engine import measures
from engine.attribution import Gradient, ablated, gradient
from engine.explorer import Events, Explorer
from engine.items import Item, read_items
from engine.measuring import Unit, run_units, total
from engine.ranking import Read
from engine.records import (
    Attribute,
    AttributedFeature,
    Attribution,
    Effect,
    Event,
    Measure,
    Probe,
    ProbeMeasured,
)
from engine.requests import check_causes

NEAR = 16
"""A control is drawn among so many features that are most like the one it stands for."""


@dataclass(frozen=True)
class Measured:
    """A measure's items, each one's m and both answers' probability, unedited."""

    items: list[Item]
    values: list[float]
    masses: list[float]

    @property
    def baseline(self) -> float:
        """M."""
        return total(self.items, self.values)


def measured(explorer: Explorer, measure: Measure) -> Generator[Event, Any, Measured]:
    """Reads a measure's probes, or remembers them. Raises UsageError."""
    probes = measures.check(measure)
    return (yield from read_sides(explorer, probes, [_sides(p, measure.toward, measure.against) for p in probes]))


def measured_facts(explorer: Explorer, facts: Sequence[Probe]) -> Generator[Event, Any, Measured]:
    """The same of questions of fact: the right answer against all others, the mean over them."""
    sides = []
    for probe in facts:
        wrong = [s for answer in probe.answers if answer.name != probe.right for s in answer.strings]
        right = [s for answer in probe.answers if answer.name == probe.right for s in answer.strings]
        sides.append((right, wrong))
    # their measure is a mean, whatever else they are regressed on elsewhere
    usable = [(replace(p, covariate=None), s) for p, s in zip(facts, sides, strict=True) if s[0] and s[1]]
    if not usable:
        return Measured([], [], [])
    return (yield from read_sides(explorer, [p for p, _ in usable], [s for _, s in usable]))


Sides = tuple[Sequence[str], Sequence[str]]


def read_sides(explorer: Explorer, probes: Sequence[Probe], sides: list[Sides]) -> Generator[Event, Any, Measured]:
    """Items and their values; those of the last few measures are kept."""
    key = (tuple(probes), tuple((tuple(a), tuple(b)) for a, b in sides))
    if key not in explorer.measured:
        items = yield from read_items(explorer, explorer.upper, probes, sides)
        units = [Unit(item, (), item.scored_from) for item in items]
        scored = yield from run_units(explorer.sae, explorer.upper, units, "measuring")
        found = Measured(items, [float(s.value) for s in scored], [float(s.mass) for s in scored])
        explorer.keep_measured(key, found)
    kept: Measured = explorer.measured[key]
    return kept


def _sides(probe: Probe, toward: str, against: str) -> Sides:
    strings = {answer.name: answer.strings for answer in probe.answers}
    return strings[toward], strings[against]


# ---- attribution


def attribute(explorer: Explorer, request: Attribute) -> Events:
    """Which features does the measure depend on? Returns an Attribution. Raises UsageError, HookError, EditError."""
    check_causes(request)
    sae, upper = explorer.sae, explorer.upper
    sae.columns([*request.candidates, *request.also])  # raises for a feature the SAE does not have
    found = yield from measured(explorer, request.measure)
    slopes = yield from gradient(sae, upper, found.items, (), "attributing")
    listed = best(slopes.estimate_F, request)
    tested = [f for f in listed if slopes.strength_F[f] > 0][: request.exact]
    drawn = controls(explorer, slopes, tested, request.controls)
    run = [*tested, *drawn]
    scored = yield from ablated(sae, upper, found.items, found.values, [[f] for f in run], "ablating one by one")
    exact = {f: total(found.items, values) - found.baseline for f, values in zip(run, scored, strict=True)}
    rows = listed + [f for f in dict.fromkeys(request.also) if f not in listed]
    own = [f for f in rows if f in tested]
    # by exact effect, then by estimate; then what is here for comparison
    order = sorted(own, key=lambda f: -abs(exact[f])) + [f for f in rows if f not in tested]
    chosen = [*order, *(f for f in drawn if f not in order)]
    reads = [Read(item.fed, item.h[0][: len(item.fed.token_ids)]) for item in found.items]
    made = [
        _row(explorer, slopes, feature, tokens, exact, drawn)
        for feature, tokens in zip(chosen, explorer.names(chosen, reads), strict=True)
    ]
    sizes = [abs(exact[f]) for f in run]
    return Attribution(
        request=request,
        probes=tuple(
            ProbeMeasured(item.fed, value, mass, item.probe.covariate)
            for item, value, mass in zip(found.items, found.values, found.masses, strict=True)
        ),
        slope=measures.is_slope([item.probe for item in found.items]),
        baseline=found.baseline,
        features=tuple(made),
        n_active_features=int((slopes.strength_F > 0).sum()),
        n_controls=len(drawn),
        spearman=spearman([float(slopes.estimate_F[f]) for f in run], [exact[f] for f in run]),
        spearman_activation=spearman([float(slopes.strength_F[f]) for f in run], sizes),
        dtype=str(upper.dtype).removeprefix("torch."),
        warnings=(*warnings(explorer, found, request.measure), *few_controls(len(drawn))),
    )


def best(estimate_F: torch.Tensor, request: Attribute) -> list[int]:
    """The candidates with the largest estimates, signs apart, largest first."""
    size_F = estimate_F.abs().cpu()
    if request.candidates:
        allowed = torch.zeros(len(size_F), dtype=torch.bool)
        allowed[list(request.candidates)] = True
        size_F = torch.where(allowed, size_F, torch.full_like(size_F, -1.0))
    top = size_F.topk(min(request.top, len(size_F)))
    return [f for f, size in zip(top.indices.tolist(), top.values.tolist(), strict=True) if size > 0]


def _row(
    explorer: Explorer,
    slopes: Gradient,
    feature: int,
    tokens: tuple[str, ...],
    exact: dict[int, float],
    drawn: Sequence[int],
) -> AttributedFeature:
    sizes = [abs(exact[f]) for f in drawn if f != feature]
    effect = exact.get(feature)
    compared = effect is not None and feature not in drawn and bool(sizes)
    return AttributedFeature(
        feature=feature,
        tokens=tokens,
        estimate=float(slopes.estimate_F[feature]),
        exact=effect,
        activation=float(slopes.strength_F[feature]),
        density=float(explorer.reference.density_F()[feature]),
        percentile=sum(size < abs(effect or 0) for size in sizes) / len(sizes) if compared else None,
        control=feature in drawn,
    )


def controls(explorer: Explorer, slopes: Gradient, features: Sequence[int], number: int) -> list[int]:
    """Other features that are about as active on the probes and about as dense, each drawn for one of `features`.

    Drawn without a look at estimates: what is compared must not choose its own company.
    """
    if not features:
        return []
    strength_F = slopes.strength_F.cpu()
    place_F2 = torch.stack([strength_F.clamp(min=1e-12).log(), explorer.reference.density_F().log()], 1)
    free_F = strength_F > 0
    free_F[list(features)] = False
    rng, drawn = random.Random(0), []
    for n in range(min(number, int(free_F.sum()))):
        like = features[n % len(features)]
        distance_F = (place_F2 - place_F2[like]).square().sum(1).masked_fill(~free_F, torch.inf)
        near = distance_F.topk(min(NEAR, int(free_F.sum())), largest=False).indices.tolist()
        drawn.append(int(rng.choice(near)))
        free_F[drawn[-1]] = False
    return drawn


def warnings(explorer: Explorer, found: Measured, measure: Measure) -> list[str]:
    """What a reader must know before believing the numbers."""
    said = []
    small = sum(mass < measures.LOW_MASS for mass in found.masses)
    if small:
        said.append(
            f"On {small} of {len(found.items)} probes both answers together have a probability below "
            f"{measures.LOW_MASS}: the model would say something else."
        )
    unclean = {string for item in found.items for string in item.unclean}
    if unclean:
        said.append(f"Tokens of {', '.join(map(repr, sorted(unclean)))} run into the end of the prompt.")
    facts = len(measures.facts(measure.probes))
    others = len(measure.probes) - len(found.items) - facts
    if others:
        said.append(f"{others} of the probes do not track both answers and are left out.")
    if explorer.upper.dtype not in (torch.float32, torch.float64):
        said.append(f"No memory for float32: exact effects are rounded as {explorer.upper.dtype} is.")
    return said


def few_controls(number: int) -> list[str]:
    """Whether there are enough features to compare with."""
    if number >= measures.MIN_CONTROLS:
        return []
    return [f"With {number} features to compare with, no effect can be called influence."]


def exact_effect(explorer: Explorer, measure: Measure, feature: int) -> Generator[Event, Any, Effect]:
    """What ablating one feature does to the measure. Raises UsageError, HookError, EditError."""
    found = yield from measured(explorer, measure)
    (values,) = yield from ablated(
        explorer.sae, explorer.upper, found.items, found.values, [[feature]], "ablating the feature"
    )
    slope = measures.is_slope([item.probe for item in found.items])
    changed = total(found.items, values)
    return Effect(measure.toward, measure.against, len(found.items), slope, found.baseline, changed)


# ---- rank correlation


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Rank correlation, ties sharing their mean rank; None where there is none to speak of."""
    if len(one) < 3:
        return None
    a_N, b_N = ranks(one), ranks(other)
    a_N, b_N = a_N - a_N.mean(), b_N - b_N.mean()
    size = float(a_N.norm() * b_N.norm())
    return float(a_N @ b_N) / size if size > 0 else None


def ranks(values: Sequence[float]) -> torch.Tensor:
    """Ranks_N from 0, ties sharing their mean."""
    values_N = torch.tensor(values, dtype=torch.float64)
    smaller_N = (values_N[None, :] < values_N[:, None]).sum(1)
    equal_N = (values_N[None, :] == values_N[:, None]).sum(1)
    return (smaller_N + (equal_N - 1) / 2).double()
