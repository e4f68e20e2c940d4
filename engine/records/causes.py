"""Causes: which features a measure depends on, and the smallest set that carries it."""

from __future__ import annotations

from engine.records.work import FedPrompt, Probe, Record


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
