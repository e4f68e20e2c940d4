"""Measures, effects, attributions and minimal sets: requests, results, and the rules of evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from engine.records.base import Record, VerbRequest
from engine.records.errors import UsageError
from engine.records.prompts import FedPrompt, Probe


class Measure(Record, frozen=True):
    """What to measure on the probes: by how many nats one tracked answer is likelier than another.

    m = logsumexp of log p over the strings of `toward` - the same over the strings of `against`, after each probe's
    prefill. If the probes have a covariate, the measure is the least-squares slope of m on it, else the mean of m.
    Probes that do not track both answers, and questions of fact, are left out.
    """

    probes: tuple[Probe, ...]
    toward: str
    """Name of the answer counted positively; `against` names the other. Both are names of tracked answers."""
    against: str


class Attribute(VerbRequest, frozen=True, tag=True):
    """Which features does the measure depend on? Estimates all of them from one gradient and ablates the best."""

    waited_for: ClassVar[str] = "the attribution"
    measure: Measure
    top: int = 200
    """How many rows to return: the features with the largest estimates."""
    exact: int = 32
    """How many of these features to ablate, which gives their exact effects."""
    controls: int = 32
    """How many other features, about as active on the probes, to ablate for comparison."""
    candidates: tuple[int, ...] = ()
    """Only these features get a row; () means all features."""
    also: tuple[int, ...] = ()
    """Features that get a row however small their estimates are."""


class FindMinimalSet(VerbRequest, frozen=True, tag=True):
    """Which smallest set of the candidates, ablated together, takes away this share of the measure?"""

    waited_for: ClassVar[str] = "the search for a smallest set"
    measure: Measure
    candidates: tuple[int, ...]
    share: float = 0.5
    most: int = 32
    """Maximum size of the set."""
    facts: tuple[Probe, ...] = ()
    """Questions of fact whose right answers the ablation should leave intact."""
    neutral_tokens: int = 0
    """On how many tokens of the reference text to measure how far the predictions change; 0 does not measure it."""
    penalty: float = 0.0
    """How much a lost share of the facts' log-odds, and a mean KL of 0.1 nats, each count against a share of the
    measure taken away; 0 only reports them."""
    controls: int = 20
    """How many random sets of the same size to ablate for comparison."""


class ProbeMeasured(Record, frozen=True):
    """The measure on one probe, without edits."""

    fed: FedPrompt
    """The probe as it was fed, prefill included."""
    value: float
    """In nats; above 0 if `toward` is the likelier answer."""
    mass: float
    """Probability of both answers together; if it is small, the model would say something else altogether."""
    covariate: float | None


class AttributedFeature(Record, frozen=True):
    """How ablating one feature changes the measure, in the measure's unit."""

    feature: int
    tokens: tuple[str, ...]
    estimate: float
    """Estimated from the gradient g: -sum over tokens of f (g . D) u."""
    exact: float | None
    """Measured by ablating the feature and running the layers above the hook; None if that was not done."""
    activation: float
    """Sum over the probes' tokens of f ||D|| u: how much this feature adds to the hooked vectors."""
    density: float
    percentile: float | None = None
    """Share of the controls with a smaller exact effect, ignoring signs; None if there is nothing to compare."""
    control: bool = False
    """Whether this feature was drawn as a control, for comparison."""


class Attribution(Record, frozen=True, tag=True):
    """Rows by size of effect, features with exact effects first, controls last."""

    request: Attribute
    probes: tuple[ProbeMeasured, ...]
    slope: bool
    """Whether the measure is a slope on the probes' covariate."""
    baseline: float
    features: tuple[AttributedFeature, ...]
    n_active_features: int
    n_controls: int
    spearman: float | None
    """Rank correlation of estimated and exact effects, over all ablated features."""
    spearman_activation: float | None
    """Rank correlation of activation and the size of the exact effect, over the same features."""
    dtype: str
    """The dtype in which the layers above the hook ran."""
    warnings: tuple[str, ...] = ()


class Effect(Record, frozen=True):
    """The exact effect of ablating one feature on a measure."""

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
    """Share of the measure taken away by the members up to and including this one."""
    share_without: float
    """Share taken away by the whole set without this feature; shows which members matter."""


class MinimalSet(Record, frozen=True, tag=True):
    """Features in the order in which they were chosen. Every share comes from running the layers above the hook."""

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
    """How many sets were ablated during the search."""
    facts_kept: float | None
    """Mean log-odds of the right answers, edited over baseline; None without facts."""
    kl: float | None
    """Mean KL(baseline || edited) on the reference text in nats per token; None if not measured."""
    control_shares: tuple[float, ...]
    """Shares taken away by random sets of the same size, whose features are about as active on the probes."""
    dtype: str
    warnings: tuple[str, ...] = ()


Evidence = Literal["associated", "influences"]
"""What may be claimed about a feature. "mitigates" would need an evaluation on test items, which no attribution is."""

MIN_CONTROLS, MOST_CONTROLS = 20, 10_000

LOW_MASS = 0.2
"""If both answers together are less probable than this, the model would hardly give either of them."""

INFLUENCE_PERCENTILE = 0.95
"""An exact effect larger than this share of the controls' effects counts as influence, given at least MIN_CONTROLS
controls that are about as active."""


def answer_names(probes: Sequence[Probe]) -> tuple[str, ...]:
    """Return the names of all tracked answers, in order of appearance."""
    return tuple(dict.fromkeys(answer.name for probe in probes for answer in probe.answers))


def facts(probes: Sequence[Probe]) -> tuple[Probe, ...]:
    """Return the questions of fact among the probes."""
    return tuple(probe for probe in probes if probe.right)


def measured_probes(measure: Measure) -> tuple[Probe, ...]:
    """Return the probes that a measure uses: those that track both answers and are not questions of fact."""
    wanted = {measure.toward, measure.against}
    return tuple(p for p in measure.probes if not p.right and wanted <= {answer.name for answer in p.answers})


def is_slope(probes: Sequence[Probe]) -> bool:
    """Return whether the measure over these probes is a slope: every probe has a covariate, and not all are equal."""
    values = {probe.covariate for probe in probes}
    return None not in values and len(values) > 1


def default_measure(probes: Sequence[Probe]) -> Measure:
    """Return the first tracked answer against the second. Raises UsageError if there are fewer than two."""
    names = answer_names([probe for probe in probes if not probe.right])
    if len(names) < 2:
        raise UsageError(
            "The probes track fewer than two answers, so there is nothing to compare.",
            "Give a probe two answers, each with the strings that count as it.",
        )
    return Measure(tuple(probes), names[0], names[1])


def check_measure(measure: Measure) -> tuple[Probe, ...]:
    """Return the probes that a measure uses.

    Raises UsageError if there are none, if the measure compares an answer with itself, or if an answer has no strings.
    """
    if measure.toward == measure.against:
        raise UsageError(f"{measure.toward!r} cannot be measured against itself.", "Choose two different answers.")
    probes = measured_probes(measure)
    if not probes:
        names = ", ".join(answer_names(measure.probes)) or "none"
        raise UsageError(
            f"No probe tracks both {measure.toward!r} and {measure.against!r}.", f"The probes' answers are: {names}."
        )
    for probe in probes:
        for answer in probe.answers:
            if answer.name in (measure.toward, measure.against) and not answer.strings:
                raise UsageError(
                    f"The answer {answer.name!r} of the probe {probe.text!r} has no string that counts as it.",
                    "Give it at least one.",
                )
    return probes


def check_counts(request: Attribute | FindMinimalSet) -> None:
    """Raise UsageError for numbers of features that make no sense."""
    if not 0 <= request.controls <= MOST_CONTROLS:
        raise UsageError(f"--controls must be between 0 and {MOST_CONTROLS:,}.")
    if isinstance(request, Attribute) and (request.top < 1 or request.exact < 0):
        raise UsageError("--top must be at least 1, --exact at least 0.")


def unit_of(slope: bool) -> str:
    """Return the measure's unit in words."""
    return "nats per unit of the covariate" if slope else "nats"


def evidence(row: AttributedFeature | None, n_controls: int) -> Evidence:
    """Return what an attribution supports saying about a feature; `row` None means that it has no row for it."""
    if row is None or row.percentile is None or n_controls < MIN_CONTROLS:
        return "associated"
    return "influences" if row.percentile >= INFLUENCE_PERCENTILE else "associated"


def signed_effect(row: AttributedFeature) -> float:
    """Return the exact effect if there is one, else the estimate."""
    return row.estimate if row.exact is None else row.exact


def share_of_baseline(attribution: Attribution, row: AttributedFeature) -> float | None:
    """Return the share of the measure that ablating the feature takes away; None if the measure is 0."""
    return -signed_effect(row) / attribution.baseline if attribution.baseline else None


def listed(attribution: Attribution) -> tuple[AttributedFeature, ...]:
    """Return the rows without the controls at the end, which are there for comparison only."""
    rows = list(attribution.features)
    while rows and rows[-1].control:
        rows.pop()
    return tuple(rows)


def ablated(attribution: Attribution, least: int = 20) -> tuple[AttributedFeature, ...]:
    """Return the rows to show by default: those that were ablated, but at least the first `least`."""
    rows = listed(attribution)
    return rows[: max(least, sum(row.exact is not None and not row.control for row in rows))]


def candidates(attribution: Attribution, estimated: bool = True) -> tuple[int, ...]:
    """Return the features whose ablation takes away some of the measure, the largest share first.

    Ablated features come before those with an estimate only; `estimated` False leaves out the latter.
    """
    shares = [(row, share_of_baseline(attribution, row) or 0.0) for row in listed(attribution)]
    taking = [(row, share) for row, share in shares if share > 0 and (estimated or row.exact is not None)]
    taking.sort(key=lambda pair: (pair[0].exact is None, -pair[1]))
    return tuple(row.feature for row, _ in taking)


def beaten(minimal_set: MinimalSet) -> int:
    """Return how many of the random sets change the measure less than the set does, ignoring signs."""
    return sum(abs(share) < abs(minimal_set.share) for share in minimal_set.control_shares)


def set_evidence(minimal_set: MinimalSet) -> Evidence:
    """Return what a minimal set supports saying.

    Influence needs as many random sets here as `evidence` needs controls, and the same share of them beaten.
    """
    number = len(minimal_set.control_shares)
    enough = number >= MIN_CONTROLS and beaten(minimal_set) >= INFLUENCE_PERCENTILE * number
    return "influences" if enough else "associated"
