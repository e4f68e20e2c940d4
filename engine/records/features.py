"""Features: ranked, read token by token, and described."""

from __future__ import annotations

from typing import Literal

from engine.records.attribution import Effect, Measure
from engine.records.base import Record
from engine.records.prompts import FedPrompt, Prompt, PromptSet

RANK_COLUMNS = ("score", "diff", "auroc", "t", "g", "coverage_positive", "coverage_negative", "density", "seed")

Pool = Literal["max", "mean", "sum", "fraction"]


class Rank(Record, frozen=True, tag=True):
    """Which features tell the positive prompts from the negative ones?"""

    prompts: PromptSet
    by: str = "score"
    top: int = 20
    pool: Pool = "max"
    include_masked: bool = False
    """Count every token, special and sink tokens too."""
    density_weight: bool = True
    also: tuple[int, ...] = ()
    """Features that get a row whatever their place: pinned ones, or one looked up by its number."""


class Show(Record, frozen=True, tag=True):
    """One feature's activation on every token of the prompts."""

    feature: int
    prompts: tuple[Prompt, ...]


class Describe(Record, frozen=True, tag=True):
    """What is known about one feature: strongest tokens and the logit lens."""

    feature: int
    prompts: tuple[Prompt, ...] = ()
    top: int = 10
    measure: Measure | None = None
    """What to show the feature's exact effect on; None shows none."""


class FeaturesAt(Record, frozen=True, tag=True):
    """Which features fire most on one token of a prompt?"""

    prompt: Prompt
    token_index: int
    top: int = 10


class StrongToken(Record, frozen=True):
    """A token on which a feature fires strongly, with its surroundings."""

    activation: float
    token: str
    before: str
    after: str
    source: str
    """"positive", "negative", "prompt" or "reference"."""


class FeatureRow(Record, frozen=True):
    """One leaderboard row; formulas in the README's section on ranking."""

    feature: int
    tokens: tuple[str, ...]
    """Up to three distinct tokens the feature fires on most, in the prompts and the reference text."""
    score: float
    diff: float
    auroc: float
    t: float
    g: float | None
    """Hedges' g; None below four prompts a set."""
    coverage_positive: float
    coverage_negative: float
    density: float
    seed: float
    p: float | None = None
    """Max-T permutation p of the score, corrected for the number of features; None where labelings are too few."""
    loo: int | None = None
    """Worst rank by score when each prompt is left out in turn; None where a set would be empty."""


class Ranking(Record, frozen=True, tag=True):
    """Rows sorted by `by`, largest first."""

    features: tuple[FeatureRow, ...]
    by: str
    pool: Pool
    include_masked: bool
    density_weight: bool
    n_positive: int
    n_negative: int
    n_active_features: int
    labelings: int
    """How many ways there are to choose the positives among all prompts; counted up to 10**18."""
    p_floor: float
    warnings: tuple[str, ...]
    prompts: tuple[FedPrompt, ...]
    """Positives first, then negatives."""
    permutations: int = 0
    """How many labelings p was counted over; 0 where none were."""


class Shown(Record, frozen=True, tag=True):
    """One feature's activations, per prompt and token."""

    feature: int
    prompts: tuple[FedPrompt, ...]
    activations: tuple[tuple[float, ...], ...]
    maximum: float
    """Largest activation over the prompts' unmasked tokens and the reference text; the colour scale's top."""


class FeatureAt(Record, frozen=True):
    """One feature that fires on a token, with up to three tokens it fires on most."""

    feature: int
    activation: float
    tokens: tuple[str, ...]


class TokenFeatures(Record, frozen=True, tag=True):
    """The features of one token, strongest first."""

    prompt: Prompt
    token_index: int
    token: str
    features: tuple[FeatureAt, ...]
    n_active: int
    """How many features fire there (L0 of this token)."""


class TokenLogit(Record, frozen=True):
    """A vocabulary token and how much one unit of the feature's direction adds to its logit."""

    token_id: int
    token: str
    logit: float


class Bin(Record, frozen=True):
    """Activations in (lower, upper]: how many tokens of the reference text and of the prompts."""

    lower: float
    upper: float
    reference: int
    prompts: int


class Neighbour(Record, frozen=True):
    """Another feature and the cosine between the decoder directions as they are applied."""

    feature: int
    cosine: float
    tokens: tuple[str, ...]


class CoActive(Record, frozen=True):
    """A feature that fires on `both` of the prompts' tokens together with the one described."""

    feature: int
    both: int
    jaccard: float
    """Tokens on which both fire over tokens on which any of them does."""
    tokens: tuple[str, ...]


class Described(Record, frozen=True, tag=True):
    """What is known about a feature. Reference figures are measured on the reference text."""

    feature: int
    density: float
    reference_maximum: float
    reference_count: int
    reference_tokens: int
    strongest: tuple[StrongToken, ...]
    promoted: tuple[TokenLogit, ...]
    suppressed: tuple[TokenLogit, ...]
    histogram: tuple[Bin, ...] = ()
    """Of activations above zero; adjoining bins from the smallest to the largest that holds any."""
    prompt_count: int = 0
    """On how many counted tokens of the prompts it fires."""
    neighbours: tuple[Neighbour, ...] = ()
    """Features whose decoder directions are closest to its own, the closest first."""
    antipodes: tuple[Neighbour, ...] = ()
    """Those that point most the other way, most so first."""
    co_active: tuple[CoActive, ...] = ()
    """Features that fire where it fires in the prompts, by Jaccard index."""
    effect: Effect | None = None
