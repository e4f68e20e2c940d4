"""Read and measure the probes of a measure, and keep the last few measures' in the pair."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from engine.attribution.measure import Unit, run_units, total
from engine.attribution.read_probes import Item, Sides, _sides, read_items
from engine.models.pair import Pair
from engine.records import Event, Measure, Probe
from engine.records import attribution as measures

KEPT_MEASURES = 4
"""Number of measures whose probes are kept."""


@dataclass(frozen=True)
class Measured:
    """A measure's items with each one's unedited m (`values`, in nats) and probability of both answers (`masses`)."""

    items: list[Item]
    values: list[float]
    masses: list[float]

    @property
    def baseline(self) -> float:
        """M with nothing ablated."""
        return total(self.items, self.values)


class KeptMeasures(OrderedDict[Hashable, Measured]):
    """The probes of the last few measures, the newest at the end."""


def measured(pair: Pair, measure: Measure) -> Generator[Event, Any, Measured]:
    """Read a measure's probes, or return them if they are kept. Raises UsageError."""
    probes = measures.check_measure(measure)
    return (yield from read_sides(pair, probes, [_sides(p, measure.toward, measure.against) for p in probes]))


def measured_facts(pair: Pair, facts: Sequence[Probe]) -> Generator[Event, Any, Measured]:
    """Read questions of fact, each measured as its right answer against all others; the measure is their mean."""
    sides = []
    for probe in facts:
        wrong = [s for answer in probe.answers if answer.name != probe.right for s in answer.strings]
        right = [s for answer in probe.answers if answer.name == probe.right for s in answer.strings]
        sides.append((right, wrong))
    # without covariates, or the measure would be a slope rather than a mean
    usable = [(replace(p, covariate=None), s) for p, s in zip(facts, sides, strict=True) if s[0] and s[1]]
    if not usable:
        return Measured([], [], [])
    return (yield from read_sides(pair, [p for p, _ in usable], [s for _, s in usable]))


def read_sides(pair: Pair, probes: Sequence[Probe], sides: list[Sides]) -> Generator[Event, Any, Measured]:
    """Read probes and score them unedited, `sides` (toward, against) of each; keep the result for the next call."""
    key = (tuple(probes), tuple((tuple(a), tuple(b)) for a, b in sides))
    kept = pair.kept_or(KeptMeasures, KeptMeasures)
    if key not in kept:
        items = yield from read_items(pair, pair.upper, probes, sides)
        units = [Unit(item, (), item.scored_from) for item in items]
        scored = yield from run_units(pair.site.sae, pair.upper, units, "measuring")
        kept[key] = Measured(items, [float(s.value) for s in scored], [float(s.mass) for s in scored])
        while len(kept) > KEPT_MEASURES:
            kept.popitem(last=False)
    return kept[key]
