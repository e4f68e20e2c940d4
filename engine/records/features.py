"""Features: ranked, read token by token, and described."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from engine.records.attribution import Effect, Measure
from engine.records.base import Record, VerbRequest
from engine.records.prompts import FedPrompt, Prompt, PromptSet

Pool = Literal["max", "mean", "sum", "fraction"]


class Rank(VerbRequest, frozen=True, tag=True):
    """Which features tell the positive prompts from the negative ones?"""

    waited_for: ClassVar[str] = "the ranking"
    prompts: PromptSet
    by: str = "score"
    top: int = 20
    pool: Pool = "max"
    include_masked: bool = False
    """Whether to count every token, including special tokens and attention sinks."""
    density_weight: bool = True
    also: tuple[int, ...] = ()
    """Features that get a row whatever their rank: pinned ones, or one looked up by its number."""


class Show(VerbRequest, frozen=True, tag=True):
    """One feature's activation on every token of the prompts."""

    feature: int
    prompts: tuple[Prompt, ...]


class Describe(VerbRequest, frozen=True, tag=True):
    """What is known about one feature: its strongest tokens, its logit lens, related features."""

    feature: int
    prompts: tuple[Prompt, ...] = ()
    top: int = 10
    measure: Measure | None = None
    """The measure on which to compute the feature's exact effect; None computes no effect."""


class FeaturesAt(VerbRequest, frozen=True, tag=True):
    """Which features fire most strongly on one token of a prompt?"""

    prompt: Prompt
    token_index: int
    top: int = 10


class StrongToken(Record, frozen=True):
    """A token on which a feature fires strongly, with the text around it."""

    activation: float
    token: str
    before: str
    after: str
    source: str
    """"positive", "negative", "prompt" or "reference"."""


class FeatureRow(Record, frozen=True):
    """One row of the leaderboard; the README's section on ranking has the formulas."""

    feature: int
    tokens: tuple[str, ...]
    """Up to three distinct tokens on which the feature fires most, in the prompts and the reference text."""
    score: float
    diff: float
    auroc: float
    t: float
    g: float | None
    """Hedges' g; None if a set has fewer than four prompts, or if it is infinite."""
    coverage_positive: float
    coverage_negative: float
    density: float
    seed: float
    p: float | None = None
    """Max-T permutation p of the score, corrected for the number of features; None if there are too few labelings."""
    loo: int | None = None
    """Worst rank by score when each prompt is left out in turn; None if a set would be empty."""
    g_infinite: bool = False
    """Whether Hedges' g is infinite, with the sign of diff: the sets differ, and neither has any spread.

    A field of its own, because JSON has no infinity."""


NO_NUMBER = "–"


@dataclass(frozen=True)
class RankColumn:
    """A number of FeatureRow as a column of the leaderboard, on a terminal and in the app."""

    name: str
    """Name of the field of FeatureRow. If the number may be infinite, a field NAME_infinite says so."""
    meaning: str
    place: int
    """The column's position in the app, which shows as many columns as fit."""
    width: int
    """The column's width in the app, including the gap before it."""
    form: str = ".2f"
    """Format specification of the number."""
    app_form: str = ""
    """Format specification in the app; "" means the same as `form`."""
    app_heading: str = ""
    """Heading in the app; "" means the name."""
    heading: str = ""
    """Heading on a terminal; "" means the name. Columns that share a heading become one there, with / between their
    numbers."""
    drop: int = 0
    """A narrow terminal drops the column with the largest number first; 0 is never dropped."""
    ranks: bool = True
    """Whether features can be ranked by it; if not, the column is left out when no row has a number."""
    sorts_rows: bool = False
    """Whether the app sorts its rows by it, the smallest number first, without ranking again."""
    least_prompts: int = 1
    """Fewest prompts that each set must have for it."""
    in_report: bool = False
    """Whether a markdown report has the column."""
    note: str = ""
    """What a terminal says below rows with such a number; may contain {fields} of the Ranking."""

    def cell(self, row: FeatureRow, form: str = "") -> str:
        """Return the row's number as text."""
        value = self.value(row)
        if value is None or isinstance(value, str):
            return value or NO_NUMBER
        return format(value, form or self.form)

    def value(self, row: FeatureRow) -> float | str | None:
        """Return the row's number; "∞" or "-∞" if it is infinite, None if there is none."""
        if getattr(row, f"{self.name}_infinite", False):
            return "∞" if row.diff > 0 else "-∞"
        number: float | None = getattr(row, self.name)
        return number

    def has_prompts(self, positive: int, negative: int) -> bool:
        """Return whether sets of so many prompts are large enough for the number."""
        return min(positive, negative) >= self.least_prompts


RANK_COLUMNS = (
    RankColumn("score", "t, weighted towards rare features", 0, 7, ".3f", ".2f", in_report=True),
    RankColumn("diff", "difference of means", 4, 6, ".3f", ".2f", drop=7),
    RankColumn("auroc", "share of (positive, negative) pairs in which the positive is higher", 3, 7, in_report=True),
    RankColumn("t", "difference of means over its standard error", 2, 6, drop=1, in_report=True),
    RankColumn(
        "g", "Hedges' g; ∞ where neither set has any spread", 9, 6, drop=6, least_prompts=4, in_report=True,
    ),
    RankColumn(
        "p", "how often shuffled sets have any feature with such a score; – where too few shuffles are possible", 1, 8,
        ".3f", ".2g", drop=4, ranks=False, note="p over {permutations:,} labelings, corrected for all features",
    ),
    RankColumn(
        "loo", "its worst rank when one prompt is left out", 6, 6, "d", drop=5, ranks=False, sorts_rows=True,
        note="loo: worst rank by score when a prompt is left out",
    ),
    RankColumn(
        "coverage_positive", "share of positive prompts in which it fires", 7, 8, ".0%", app_heading="+fires",
        heading="cover +/−", drop=3,
    ),
    RankColumn(
        "coverage_negative", "share of negative prompts in which it fires", 8, 8, ".0%", app_heading="−fires",
        heading="cover +/−", drop=3,
    ),
    RankColumn("density", "share of neutral tokens on which it fires", 5, 9, ".2%", drop=2, in_report=True),
    RankColumn("seed", "plain sum over positives, leading token included", 10, 7, ".1f", drop=8),
)  # fmt: skip
"""Every number of FeatureRow, in the order of a terminal's columns. A new one needs its values in features/contrast, a
field of FeatureRow, and a row here."""

BY_NAME = {column.name: column for column in RANK_COLUMNS}

RANKED_BY = tuple(column.name for column in RANK_COLUMNS if column.ranks)
"""The columns by which features can be ranked."""


class Ranking(Record, frozen=True, tag=True):
    """Rows sorted by `by`, the largest first."""

    features: tuple[FeatureRow, ...]
    by: str
    pool: Pool
    include_masked: bool
    density_weight: bool
    n_positive: int
    n_negative: int
    n_active_features: int
    labelings: int
    """In how many ways the positives could be chosen among all prompts; counted up to 10**18."""
    p_floor: float
    warnings: tuple[str, ...]
    prompts: tuple[FedPrompt, ...]
    """The positive prompts, then the negative ones."""
    permutations: int = 0
    """Over how many labelings p was computed; 0 if it was not."""


class Shown(Record, frozen=True, tag=True):
    """One feature's activations, per prompt and token."""

    feature: int
    prompts: tuple[FedPrompt, ...]
    activations: tuple[tuple[float, ...], ...]
    maximum: float
    """Largest activation over the prompts' unmasked tokens and the reference text: the top of the colour scale."""


class FeatureAt(Record, frozen=True):
    """One feature that fires on a token, with up to three tokens on which it fires most."""

    feature: int
    activation: float
    tokens: tuple[str, ...]


class TokenFeatures(Record, frozen=True, tag=True):
    """The features that fire on one token, the strongest first."""

    prompt: Prompt
    token_index: int
    token: str
    features: tuple[FeatureAt, ...]
    n_active: int
    """How many features fire on the token (its L0)."""


class TokenLogit(Record, frozen=True):
    """A vocabulary token, and how much one unit of the feature's direction adds to its logit."""

    token_id: int
    token: str
    logit: float


class Bin(Record, frozen=True):
    """A histogram bin for activations in (lower, upper]: token counts in the reference text and in the prompts."""

    lower: float
    upper: float
    reference: int
    prompts: int


class Neighbour(Record, frozen=True):
    """Another feature, and the cosine between both decoder directions as they are applied."""

    feature: int
    cosine: float
    tokens: tuple[str, ...]


class CoActive(Record, frozen=True):
    """A feature that fires together with the described one on `both` of the prompts' tokens."""

    feature: int
    both: int
    jaccard: float
    """Tokens on which both features fire over tokens on which at least one does."""
    tokens: tuple[str, ...]


class Described(Record, frozen=True, tag=True):
    """What is known about a feature. Fields named `reference_…` are measured on the reference text."""

    feature: int
    density: float
    reference_maximum: float
    reference_count: int
    reference_tokens: int
    strongest: tuple[StrongToken, ...]
    promoted: tuple[TokenLogit, ...]
    suppressed: tuple[TokenLogit, ...]
    histogram: tuple[Bin, ...] = ()
    """Bins of the activations above zero, adjoining, from the smallest to the largest that is not empty."""
    prompt_count: int = 0
    """On how many counted tokens of the prompts the feature fires."""
    neighbours: tuple[Neighbour, ...] = ()
    """Features whose decoder directions are closest to its own, the closest first."""
    antipodes: tuple[Neighbour, ...] = ()
    """Features whose decoder directions are most opposed to its own, the most opposed first."""
    co_active: tuple[CoActive, ...] = ()
    """Features that fire on the same tokens of the prompts, by Jaccard index."""
    effect: Effect | None = None
