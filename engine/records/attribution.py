"""Measures, effects, attribution and smallest sets: requests, results, and the rules of evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from msgspec.structs import replace

from engine.records.base import Record
from engine.records.errors import UsageError
from engine.records.prompts import Answer, FedPrompt, Probe


class Measure(Record, frozen=True):
    """What is measured on the probes: by how many nats one tracked answer is likelier than another.

    m = logsumexp of log p over `toward`'s strings - the same over `against`'s, after each probe's prefill. Over
    probes that have a covariate it is m's least-squares slope on it, else the mean. Probes that do not track both
    answers, and questions of fact, are left out.
    """

    probes: tuple[Probe, ...]
    toward: str
    """Names of answers."""
    against: str


class Attribute(Record, frozen=True, tag=True):
    """Which features does the measure depend on? Estimated for all by one gradient, exact for the best."""

    measure: Measure
    top: int = 200
    """How many rows, those with the largest estimates."""
    exact: int = 32
    """How many of them are ablated for certain."""
    controls: int = 32
    """How many other features, about as active on the probes, are ablated for comparison."""
    candidates: tuple[int, ...] = ()
    """Only these get a row; () means all features."""
    also: tuple[int, ...] = ()
    """Features that get a row whatever their place."""


class FindMinimalSet(Record, frozen=True, tag=True):
    """Which smallest set of the candidates, ablated together, takes away this share of the measure?"""

    measure: Measure
    candidates: tuple[int, ...]
    share: float = 0.5
    most: int = 32
    """The set grows no larger than this."""
    facts: tuple[Probe, ...] = ()
    """Questions of fact whose right answer is to survive."""
    neutral_tokens: int = 0
    """On how many tokens of the reference text the change of predictions is measured."""
    penalty: float = 0.0
    """How much a lost share of the facts' log-odds, and a mean KL of 0.1 nats, each count against a share of the
    measure taken away; 0 only reports them."""
    controls: int = 20
    """How many random sets of the same size are ablated for comparison."""


class ProbeMeasured(Record, frozen=True):
    """The measure on one probe, unedited."""

    fed: FedPrompt
    """With the prefill."""
    value: float
    """In nats; above 0 `toward` is likelier."""
    mass: float
    """Probability of both answers together: where it is small, the model would say something else altogether."""
    covariate: float | None


class AttributedFeature(Record, frozen=True):
    """How ablating one feature changes the measure, in its unit."""

    feature: int
    tokens: tuple[str, ...]
    estimate: float
    """By the gradient: -sum over tokens of f (g . D) u."""
    exact: float | None
    """By ablating it and running the layers above; None where that was not done."""
    activation: float
    """Sum over the probes' tokens of f ||D|| u: how much of the vectors is this feature's."""
    density: float
    percentile: float | None = None
    """Share of the controls whose exact effect is smaller, signs apart; None where there is nothing to compare."""
    control: bool = False
    """It is here for comparison."""


class Attribution(Record, frozen=True, tag=True):
    """Rows by size of effect, the exact ones first; controls last."""

    request: Attribute
    probes: tuple[ProbeMeasured, ...]
    slope: bool
    """The measure is a slope on the probes' covariate."""
    baseline: float
    features: tuple[AttributedFeature, ...]
    n_active_features: int
    n_controls: int
    spearman: float | None
    """Rank correlation of estimate and exact effect, over all features that were ablated."""
    spearman_activation: float | None
    """The same of activation and the exact effect's size."""
    dtype: str
    """What the layers above the hook ran in."""
    warnings: tuple[str, ...] = ()


class Effect(Record, frozen=True):
    """What ablating one feature does to a measure, exactly."""

    toward: str
    against: str
    n_probes: int
    slope: bool
    baseline: float
    ablated: float


class SetMember(Record, frozen=True):
    """One feature of a minimal set."""

    feature: int
    tokens: tuple[str, ...]
    share_with: float
    """Share taken away by the set up to this feature."""
    share_without: float
    """Share taken away by the whole set but for this feature: who carries it?"""


class MinimalSet(Record, frozen=True, tag=True):
    """Features in the order in which they were chosen, each share from running the layers above the hook."""

    request: FindMinimalSet
    slope: bool
    baseline: float
    ablated: float
    """The measure with the whole set ablated."""
    share: float
    """1 - ablated / baseline."""
    reached: bool
    members: tuple[SetMember, ...]
    n_tried: int
    """How many sets were ablated to find it."""
    facts_kept: float | None
    """Mean log-odds of the right answers, edited over baseline; None without facts."""
    kl: float | None
    """Mean KL(baseline || edited) on the reference text in nats per token; None where not measured."""
    control_shares: tuple[float, ...]
    """What random sets of the same size take away, their features about as active on the probes."""
    dtype: str
    warnings: tuple[str, ...] = ()


Causes = Attribution | MinimalSet

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


def check_measure(measure: Measure) -> tuple[Probe, ...]:
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


def unit_of(slope: bool) -> str:
    """What the measure is counted in."""
    return "nats per unit of the covariate" if slope else "nats"


def evidence(row: AttributedFeature | None, n_controls: int) -> Evidence:
    """What an attribution lets one say of a feature it has (None: does not have) a row for."""
    if row is None or row.percentile is None or n_controls < MIN_CONTROLS:
        return "associated"
    return "influences" if row.percentile >= INFLUENCE_PERCENTILE else "associated"


def signed_effect(row: AttributedFeature) -> float:
    """The exact effect, where there is one, else the estimate."""
    return row.estimate if row.exact is None else row.exact


def share_of_baseline(attribution: Attribution, row: AttributedFeature) -> float | None:
    """What ablating the feature takes away, as a share of the measure; None where the measure is 0."""
    return -signed_effect(row) / attribution.baseline if attribution.baseline else None


def measure_toward(
    toward: Sequence[str], against: Sequence[str], probes: Sequence[Probe], note: Callable[[str], None]
) -> Measure:
    """The measure asked for, by default the first tracked answer against the second. Raises UsageError."""
    if not any(not probe.right for probe in probes):
        raise UsageError("The prompt set has no probes to measure on.", "Add a [[probe]] to it.")
    names = answer_names([probe for probe in probes if not probe.right])
    if not toward and not against:
        return default_measure(probes)
    sides = toward or other_side(against, names, "--toward"), against or other_side(toward, names, "--against")
    for value in dict.fromkeys([*sides[0], *sides[1]]):
        if value not in names:
            note(literally(value, names))
    asked = tuple(with_answer(with_answer(probe, sides[0], names), sides[1], names) for probe in probes)
    found = Measure(asked, "|".join(sides[0]), "|".join(sides[1]))
    for probe in check_measure(found):
        strings = {answer.name: answer.strings for answer in probe.answers}
        both = sorted(set(strings[found.toward]) & set(strings[found.against]))
        if both:
            raise UsageError(f"{both[0]!r} would count for both sides.", "Give --toward and --against other strings.")
    return found


def other_side(given: Sequence[str], names: Sequence[str], option: str) -> list[str]:
    """The one other tracked answer. Raises UsageError where that is not clear."""
    others = [name for name in names if name not in given]
    if len(given) != 1 or given[0] not in names or len(others) != 1:
        known = f"One of {', '.join(names)}, or" if names else "Give"
        raise UsageError(f"What is to be measured with {given[0]!r}? {option} is missing.", f"{known} a string.")
    return others


def literally(value: str, names: Sequence[str]) -> str:
    """What is done with a string that is no tracked answer's name. Raises UsageError for an empty one."""
    if not value.strip():
        raise UsageError("An answer to measure has no letters.", 'For example --toward " yes" --against " no".')
    tracked = f"the probes track {', '.join(names)}" if names else "the probes track no answers"
    space = "" if value[0].isspace() else "; without a space in front it continues the word before it"
    return f"{value!r} is taken as a string of its own ({tracked}){space}"


def with_answer(probe: Probe, values: Sequence[str], names: Sequence[str]) -> Probe:
    """The probe with an extra answer: these strings, and the strings of these tracked answers.

    As it is where a single tracked answer is asked for, where it does not track one of them, and where it is a
    question of fact.
    """
    own = {answer.name: answer.strings for answer in probe.answers}
    missing = [value for value in values if value in names and value not in own]
    if probe.right or missing or (len(values) == 1 and values[0] in names):
        return probe
    strings = [string for value in values for string in (own[value] if value in names else (value,))]
    return replace(probe, answers=(*probe.answers, Answer("|".join(values), tuple(dict.fromkeys(strings)))))


def listed(attribution: Attribution) -> tuple[AttributedFeature, ...]:
    """The rows without those that stand at the end for comparison only."""
    rows = list(attribution.features)
    while rows and rows[-1].control:
        rows.pop()
    return tuple(rows)


def ablated(attribution: Attribution, least: int = 20) -> tuple[AttributedFeature, ...]:
    """The rows that were ablated, or the first few where those are fewer: what is shown before somebody asks."""
    rows = listed(attribution)
    return rows[: max(least, sum(row.exact is not None and not row.control for row in rows))]


def beaten(found: MinimalSet) -> int:
    """How many of the random sets change the measure less than the set does, signs apart."""
    return sum(abs(share) < abs(found.share) for share in found.control_shares)


def set_evidence(found: MinimalSet) -> Evidence:
    """What a set lets one say: influence takes as many random sets as an effect takes features to compare with."""
    number = len(found.control_shares)
    enough = number >= MIN_CONTROLS and beaten(found) >= INFLUENCE_PERCENTILE * number
    return "influences" if enough else "associated"
