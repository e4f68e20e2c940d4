"""What crosses the seam between a front end and the engine: requests, events and results.

Frozen, typed, made of plain numbers and strings only, so that the same records serve the in-process carrier,
the engine process and the session file. No functions, no torch. Activations are in the SAE's own units
(after its input normalisation, before its output is scaled back).
"""

from __future__ import annotations

from typing import Literal

import msgspec

RANK_COLUMNS = ("score", "diff", "auroc", "t", "g", "coverage_positive", "coverage_negative", "density", "seed")

Format = Literal["raw", "chat"]
Pool = Literal["max", "mean", "sum", "fraction"]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every record."""


# ---- what the user works with


class Prompt(Record, frozen=True):
    """One prompt; `chat` puts it through the model's chat template."""

    text: str
    format: Format = "raw"
    breaks: str = ""
    """For a negative prompt: the confound it rules out, such as "women without bias"."""


class Answer(Record, frozen=True):
    """An answer to track: a name and the strings that count as it, leading space included."""

    name: str
    strings: tuple[str, ...]


class Probe(Record, frozen=True):
    """A question whose answer shows whether the behaviour is there."""

    text: str
    format: Format = "chat"
    prefill: str = ""
    """Text put into the model's mouth before the answers are scored; not used for the free answer."""
    answers: tuple[Answer, ...] = ()


class PromptSet(Record, frozen=True):
    """Positive prompts show a behaviour, negative ones do not; probes measure it."""

    name: str
    positive: tuple[Prompt, ...] = ()
    negative: tuple[Prompt, ...] = ()
    probes: tuple[Probe, ...] = ()
    description: str = ""
    settings: dict[str, bool | float | str] = msgspec.field(default_factory=dict)
    """How a published study edited its feature; see prompts.Settings."""


class Edit(Record, frozen=True):
    """One feature's edit: its activation f becomes scale * f wherever the edit mask allows. 0 is ablation."""

    feature: int
    scale: float = 0.0


class Sampling(Record, frozen=True):
    """How tokens are chosen. Temperature 0 is greedy; the seed only matters above 0."""

    max_tokens: int = 64
    temperature: float = 0.0
    seed: int = 0


# ---- requests


class Load(Record, frozen=True, tag=True):
    """Loads a model and its SAE. None means the packaged demo's; `hook` None means the one the SAE names."""

    model: str | None = None
    sae: str | None = None
    hook: str | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    reference: str | None = None
    """Path of a text file that replaces the packaged neutral text."""


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


class Generate(Record, frozen=True, tag=True):
    """Continues a prompt, baseline and edited side by side as two rows of one batch."""

    prompt: Prompt
    edits: tuple[Edit, ...] = ()
    sampling: Sampling = Sampling()


class FeaturesAt(Record, frozen=True, tag=True):
    """Which features fire most on one token of a prompt?"""

    prompt: Prompt
    token_index: int
    top: int = 10


class ScoreAnswers(Record, frozen=True, tag=True):
    """The tracked answers' probabilities of one probe, baseline and edited, without generating."""

    probe: Probe
    edits: tuple[Edit, ...] = ()


class RunProbes(Record, frozen=True, tag=True):
    """Answers every probe, baseline and edited."""

    probes: tuple[Probe, ...]
    edits: tuple[Edit, ...] = ()
    sampling: Sampling = Sampling(max_tokens=24)


class Doctor(Record, frozen=True, tag=True):
    """Is the SAE wired right to this model?"""

    text_tokens: int = 4000
    """How many tokens of the reference text to measure on."""


# ---- results


class Loaded(Record, frozen=True, tag=True):
    """What is loaded: everything a result depends on apart from the request itself."""

    model: str
    model_fingerprint: str
    """sha256 over names, sizes, first and last MiB of the weight files; the config's hash for hub models."""
    sae: str
    sae_fingerprint: str
    hook: str
    hook_module: str
    d_model: int
    d_sae: int
    encoder: str
    normalisation: str
    device: str
    dtype: str
    threads: int
    versions: dict[str, str]
    reference: str
    reference_tokens: int
    reference_fingerprint: str = ""
    """sha256 over the reference text's token ids and the statistics' counts."""
    sae_format: str = ""
    """Which loader read the SAE, such as "Gemma Scope"."""
    published_l0: float | None = None
    """Mean number of active features per token, as published; None where nothing is."""
    published_variance_explained: float | None = None
    neuronpedia: str = ""
    """The SAE's page there, such as gpt2-small/8-res-jb; "" where it has none that is known."""
    centered: bool = False
    """The SAE reads vectors whose mean is taken away first."""
    rescaled: bool = False
    """Its activations are multiplied by the norms of their decoder rows."""
    notes: tuple[str, ...] = ()
    """What was decided about the SAE beyond or against its files, in words."""
    l0: float | None = None
    """Mean number of features that fire per token of the reference text; None in sessions of before it was kept."""
    variance_explained: float | None = None
    """Of the hooked vectors on the reference text."""
    doubts: tuple[str, ...] = ()
    """What these numbers, hook and model say against the wiring, in a few words each; () where all is as it should."""


class FedPrompt(Record, frozen=True):
    """The exact token ids a prompt was fed as. Masks are True where the token counts."""

    text: str
    format: Format
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    rank_mask: tuple[bool, ...]
    edit_mask: tuple[bool, ...]


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
    loo: int | None = None


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


class Arm(Record, frozen=True):
    """One row of a generation; log-probabilities (nats) are the row's own, per generated token."""

    text: str
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]
    margins: tuple[float, ...] = ()
    """Gap in nats between the two likeliest tokens, per generated token; a tiny one can flip by rounding."""


class EditsFrom(Record, frozen=True):
    """These edits were in force from the generated token with this index on."""

    token_index: int
    edits: tuple[Edit, ...]


class Generated(Record, frozen=True, tag=True):
    """Both arms of one generation."""

    prompt: FedPrompt
    sampling: Sampling
    edits: tuple[Edit, ...]
    schedule: tuple[EditsFrom, ...]
    rows: int
    baseline: Arm
    edited: Arm
    first_divergence: int | None
    """Index of the first generated token that differs; None if none does."""
    kl: tuple[float, ...]
    """KL(baseline || edited) in nats per baseline token, edited model teacher-forced on the baseline's tokens.

    Where edits changed on the way, each token counts under the edits in force when it was generated.
    """
    positions: int
    """How many positions of the edited arm the edit mask let through."""
    inactive_positions: int
    """Of those, the ones where every edited feature was silent: nothing changed there."""
    tokens_per_second: float


class AnswerRow(Record, frozen=True):
    """A tracked answer's probability after the probe's prefill, summed over its strings."""

    name: str
    baseline: float
    edited: float


class ProbeRow(Record, frozen=True):
    """One probe, both arms."""

    probe: Probe
    generated: Generated
    answers: tuple[AnswerRow, ...]
    flags: tuple[str, ...] = ()
    """Answer strings whose tokens could not be told apart from the prompt's end."""


class AnswersScored(Record, frozen=True, tag=True):
    """Tracked answers' probabilities, both arms."""

    probe: Probe
    edits: tuple[Edit, ...]
    answers: tuple[AnswerRow, ...]
    flags: tuple[str, ...] = ()
    """Answer strings whose tokens could not be told apart from the prompt's end."""


class ProbeTable(Record, frozen=True, tag=True):
    """Every probe × baseline/edited."""

    edits: tuple[Edit, ...]
    rows: tuple[ProbeRow, ...]


class Check(Record, frozen=True):
    """One line of the doctor's report. `ok` None: measured, nothing to compare it with; with a remedy, a doubt."""

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""
    """What to do about it, where it failed or is in doubt."""


class Diagnosis(Record, frozen=True, tag=True):
    """The doctor's report."""

    checks: tuple[Check, ...]
    l0: float
    variance_explained: float
    tokens: int


class ArmReplay(Record, frozen=True):
    """One arm of a replayed generation. Index, tokens and margin are None where all tokens are the same."""

    name: Literal["baseline", "edited"]
    same: bool
    first_divergence: int | None = None
    recorded_token: str | None = None
    replayed_token: str | None = None
    margin: float | None = None
    """Log-probability gap in nats between the two likeliest tokens where the runs part: tiny means rounding."""


class Replayed(Record, frozen=True, tag=True):
    """How a generation came out the second time."""

    same: bool
    prompt_ids_same: bool
    arms: tuple[ArmReplay, ...]


class RankReplayed(Record, frozen=True, tag=True):
    """How a ranking came out the second time."""

    same: bool
    first_difference: int | None
    """Index of the first row with another feature; None if all rows name the same features."""
    largest_score_change: float
    """Largest change of a score among the features in both lists."""


ResultValue = (
    Loaded
    | Ranking
    | Shown
    | Described
    | TokenFeatures
    | Generated
    | AnswersScored
    | ProbeTable
    | Diagnosis
    | Replayed
    | RankReplayed
)


# ---- requests that carry results


class Replay(Record, frozen=True, tag=True):
    """Runs a recorded generation again and compares."""

    recorded: Generated


class ReplayRank(Record, frozen=True, tag=True):
    """Runs a recorded ranking again and compares."""

    recorded: Ranking


Request = (
    Load | Rank | Show | Describe | FeaturesAt | Generate | ScoreAnswers | RunProbes | Doctor | Replay | ReplayRank
)


# ---- events


class Progress(Record, frozen=True, tag=True):
    """Work goes on. `total` 0 means the end is not known."""

    stage: str
    done: int = 0
    total: int = 0


class TokenStep(Record, frozen=True, tag=True):
    """One more token in each arm. None: that arm has ended."""

    index: int
    baseline: str | None
    edited: str | None
    probe: int | None = None
    kl: float | None = None
    """KL(baseline || edited) in nats before this token, both on the baseline's tokens; None once that has ended."""


class Finished(Record, frozen=True, tag=True):
    """The last event of a request that worked."""

    value: ResultValue


class Failed(Record, frozen=True, tag=True):
    """The last event of a request that did not."""

    kind: str
    """Class name from errors.py."""
    message: str
    remedy: str = ""
    exit_code: int = 1


class Cancelled(Record, frozen=True, tag=True):
    """The last event of a request the user stopped."""


class MemoryLeft(Record, frozen=True, tag=True):
    """Memory of the device the model is on, in bytes; not part of any request."""

    free: int
    total: int


Event = Progress | TokenStep | Finished | Failed | Cancelled | MemoryLeft
