"""Measures and evidence: which probes a measure is taken on, and the words that an effect has earned.

Plain functions over records; no torch, for front ends need them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from engine.errors import UsageError
from engine.records import AttributedFeature, Attribution, Measure, Probe

Evidence = Literal["associated", "influences"]
"""What may be said of a feature. "mitigates" takes an evaluation on test items, which no attribution is."""

MIN_CONTROLS = 20
LOW_MASS = 0.2
"""Where both answers together are less probable than this, what is measured is hardly what the model would say."""
INFLUENCE_PERCENTILE = 0.95
"""An exact effect larger than this share of at least MIN_CONTROLS features about as active is influence."""


def answer_names(probes: Sequence[Probe]) -> tuple[str, ...]:
    """The names of all tracked answers, in order of appearance."""
    return tuple(dict.fromkeys(answer.name for probe in probes for answer in probe.answers))


def facts(probes: Sequence[Probe]) -> tuple[Probe, ...]:
    """The questions of fact."""
    return tuple(probe for probe in probes if probe.right)


def measured_probes(measure: Measure) -> tuple[Probe, ...]:
    """The probes a measure is taken on: those that track both answers and are no questions of fact."""
    wanted = {measure.toward, measure.against}
    return tuple(p for p in measure.probes if not p.right and wanted <= {answer.name for answer in p.answers})


def is_slope(probes: Sequence[Probe]) -> bool:
    """Whether the measure over these probes is a slope: each has a covariate, and they differ."""
    values = {probe.covariate for probe in probes}
    return None not in values and len(values) > 1


def default_measure(probes: Sequence[Probe]) -> Measure:
    """The first tracked answer against the second. Raises UsageError where there are no two."""
    names = answer_names([probe for probe in probes if not probe.right])
    if len(names) < 2:
        raise UsageError(
            "The probes track fewer than two answers, so there is nothing to compare.",
            "Give a probe two answers, each with the strings that count as it.",
        )
    return Measure(tuple(probes), names[0], names[1])


def check(measure: Measure) -> tuple[Probe, ...]:
    """The probes of a measure. Raises UsageError where it has none, compares an answer with itself, or with nothing."""
    if measure.toward == measure.against:
        raise UsageError(f"{measure.toward!r} cannot be measured against itself.", "Choose two different answers.")
    found = measured_probes(measure)
    if not found:
        names = ", ".join(answer_names(measure.probes)) or "none"
        raise UsageError(
            f"No probe tracks both {measure.toward!r} and {measure.against!r}.", f"The probes' answers are: {names}."
        )
    for probe in found:
        for answer in probe.answers:
            if answer.name in (measure.toward, measure.against) and not answer.strings:
                raise UsageError(
                    f"The answer {answer.name!r} of the probe {probe.text!r} has no string that counts as it.",
                    "Give it at least one.",
                )
    return found


def unit(slope: bool) -> str:
    """What the measure is counted in."""
    return "nats per unit of the covariate" if slope else "nats"


def evidence(row: AttributedFeature | None, n_controls: int) -> Evidence:
    """What an attribution lets one say of a feature it has (None: does not have) a row for."""
    if row is None or row.percentile is None or n_controls < MIN_CONTROLS:
        return "associated"
    return "influences" if row.percentile >= INFLUENCE_PERCENTILE else "associated"


def effect(row: AttributedFeature) -> float:
    """The exact effect, where there is one, else the estimate."""
    return row.estimate if row.exact is None else row.exact


def share(attribution: Attribution, row: AttributedFeature) -> float | None:
    """What ablating the feature takes away, as a share of the measure; None where the measure is 0."""
    return -effect(row) / attribution.baseline if attribution.baseline else None
