"""Generated texts and scored answers, baseline and edited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from sys import float_info
from typing import Any, ClassVar, Literal

from engine.records.base import Record, VerbRequest
from engine.records.edits import Edit
from engine.records.errors import UsageError
from engine.records.prompts import FedPrompt, Probe, Prompt


class Sampling(Record, frozen=True):
    """How tokens are chosen. Temperature 0 is greedy; the settings after it, except `stop`, only matter above 0."""

    max_tokens: int = 64
    temperature: float = 0.0
    seed: int = 0
    top_k: int = 0
    """Choose among the `top_k` likeliest tokens only; 0 means all."""
    top_p: float = 1.0
    """Choose among the likeliest tokens that together have this probability."""
    min_p: float = 0.0
    """Choose among tokens whose probability is at least this share of the likeliest token's."""
    stop: tuple[str, ...] = ()
    """A text ends once it contains one of these strings; the string stays in it."""


SEEDS = 2**63


@dataclass(frozen=True)
class Setting:
    """A field of Sampling: its command-line option, its field in the form, its limits and its texts."""

    field: str
    label: str
    """Its name in the form and in sentences."""
    must_be: str
    """The limits in words, such as "a whole number, 0 or more"."""
    help: str
    """The option's help text; %(default)s stands for its default."""
    hint: str = ""
    """Shown in the form's field while it is empty."""
    metavar: str | None = None
    read_as: Callable[[str], Any] = int
    """Converts what is typed: int, float, or str for a field that holds several texts."""
    least: float = 0
    above_least: bool = False
    """Whether `least` itself is too small."""
    most: float = float_info.max
    most_in_form: float | None = None
    """The app's own upper limit, if it is lower."""
    limits_choice: bool = False
    """Whether it leaves fewer tokens to choose from; a sampled text states it if it differs from the default."""

    @property
    def option(self) -> str:
        """Name of the command-line option."""
        return f"--{self.field.replace('_', '-')}"

    @property
    def repeats(self) -> bool:
        """Whether it holds several values, each given by its own option."""
        return self.read_as is str

    def read(self, text: str) -> Any:
        """Convert one typed value. Raises ValueError if it is beyond the limits."""
        value = self.read_as(text)
        if not self.allows(value):
            raise ValueError(self.must_be)
        return value

    def allows(self, value: Any) -> bool:
        """Return whether one value is within the limits."""
        if self.repeats:
            return bool(value)
        return bool(self.least <= value <= self.most and not (self.above_least and value == self.least))


SAMPLING = (
    Setting("max_tokens", "tokens at most", "a whole number, at least 1", "(%(default)s)", least=1, most_in_form=4096),
    Setting(
        "stop", "stop strings", "a text that is not empty", "end once it is there; repeatable", "The end | \\n\\n",
        metavar="STRING", read_as=str,
    ),
    Setting("temperature", "temperature", "0 (greedy) or more", "0 is greedy (0)", "0: greedy", read_as=float),
    Setting(
        "seed", "seed", "a whole number, 0 or more", "this and the next three for a temperature above 0 (0)",
        "for a temperature above 0, as all below", most=SEEDS - 1,
    ),
    Setting(
        "top_k", "top-k", "a whole number, or 0 for all tokens", "only the N likeliest tokens (0: all)",
        "only the N likeliest tokens; 0: all", metavar="N", most=10**9, limits_choice=True,
    ),
    Setting(
        "top_p", "top-p", "above 0 and at most 1, which is all tokens", "the likeliest that together have P (1)",
        "only the likeliest with this probability together; 1: all", metavar="P", read_as=float, above_least=True,
        most=1, limits_choice=True,
    ),
    Setting(
        "min_p", "min-p", "from 0, which is all tokens, to 1",
        "those at least P times as probable as the likeliest (0)",
        "only those with this share of the likeliest one's; 0: all", metavar="P", read_as=float, most=1,
        limits_choice=True,
    ),
)  # fmt: skip
"""Every field of Sampling, in the form's order. A new one needs its field, a row here, and its effect in
generation/sampling."""


class EditsFrom(Record, frozen=True):
    """Edits that were in force from the generated token with this index on."""

    token_index: int
    edits: tuple[Edit, ...]


class Generate(VerbRequest, frozen=True, tag=True):
    """Continue a prompt: baseline, edited, and any variants and further samples, as rows of one batch."""

    waited_for: ClassVar[str] = "the generation"
    prompt: Prompt
    edits: tuple[Edit, ...] = ()
    sampling: Sampling = Sampling()
    prefill: str = ""
    """Text put at the start of the model's reply."""
    samples: int = 1
    """How often to sample both arms, each time with its own random numbers."""
    variants: tuple[tuple[Edit, ...], ...] = ()
    """Other lists of edits, each with an arm of its own beside the edited one."""
    schedule: tuple[EditsFrom, ...] = ()
    """Later changes of `edits`, at tokens after the first."""
    branched_at: int | None = None
    """The text before this token is taken from an earlier request, whose cached keys and values are reused if they are
    still there. The text is the same without them: edits and schedule describe it completely."""


Reply = tuple[Edit, ...] | Literal["stop"] | None
"""The caller's answer between two tokens of a generation: new edits, "stop" to end here, or None to go on."""


class ScoreAnswers(VerbRequest, frozen=True, tag=True):
    """Compute the probabilities of one probe's tracked answers, baseline and edited, without generating."""

    probe: Probe
    edits: tuple[Edit, ...] = ()


class RunProbes(VerbRequest, frozen=True, tag=True):
    """Answer every probe, baseline and edited."""

    waited_for: ClassVar[str] = "the probes"
    probes: tuple[Probe, ...]
    edits: tuple[Edit, ...] = ()
    sampling: Sampling = Sampling(max_tokens=24)


class Arm(Record, frozen=True):
    """One row of a generation; log-probabilities (nats) are the row's own, per generated token."""

    text: str
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]
    margins: tuple[float, ...] = ()
    """Gap in nats between the two likeliest tokens, per generated token; rounding can flip a tiny one."""


class OtherArm(Record, frozen=True):
    """A row beyond the first baseline and the first edited one."""

    sample: int
    """Index of its sample, counted from 0."""
    edited: bool
    variant: int | None
    """Index of its edits in Generated.variants; None if it uses `edits` or is a baseline."""
    arm: Arm
    positions: int = 0
    inactive_positions: int = 0


class Generated(Record, frozen=True, tag=True):
    """The arms of one generation."""

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

    Where edits changed on the way, each token counts under the edits in force when it was generated."""
    positions: int
    """How many positions of the edited arm the edit mask let through."""
    inactive_positions: int
    """How many of those positions had every edited feature silent, so that nothing changed there."""
    tokens_per_second: float
    variants: tuple[tuple[Edit, ...], ...] = ()
    more: tuple[OtherArm, ...] = ()
    """Variants and further samples."""
    branched_at: int | None = None
    """Index of the generated token at which this text leaves an earlier one."""
    stopped: bool = False
    """Whether the user stopped it."""
    fault: str = ""
    """What ended it early, in words: edits sent on the way that cannot be applied, or numbers that overflowed."""
    warnings: tuple[str, ...] = ()
    """What a reader must know before believing what edits did."""


class AnswerRow(Record, frozen=True):
    """A tracked answer's probability after the probe's prefill, summed over its strings."""

    name: str
    baseline: float
    edited: float


class ProbeRow(Record, frozen=True):
    """One probe's results in both arms."""

    probe: Probe
    generated: Generated
    answers: tuple[AnswerRow, ...]
    flags: tuple[str, ...] = ()
    """Answer strings whose tokens could not be separated from the end of the prompt."""


class AnswersScored(Record, frozen=True, tag=True):
    """The tracked answers' probabilities in both arms."""

    probe: Probe
    edits: tuple[Edit, ...]
    answers: tuple[AnswerRow, ...]
    flags: tuple[str, ...] = ()
    """Answer strings whose tokens could not be separated from the end of the prompt."""


class ProbeTable(Record, frozen=True, tag=True):
    """Every probe's results, baseline and edited."""

    edits: tuple[Edit, ...]
    rows: tuple[ProbeRow, ...]


@dataclass(frozen=True)
class Comparison:
    """An edited text and the baseline that was sampled with the same random numbers."""

    sample: int
    """Counted from 0."""
    variant: int | None
    """Index of its edits among the variants; None if they are the generation's own edits."""
    edits: tuple[Edit, ...]
    baseline: Arm
    edited: Arm
    positions: int
    inactive_positions: int


def comparisons(result: Generated) -> list[Comparison]:
    """Return every edited text with its baseline, sample by sample, variants after the edited text."""
    baselines = {0: result.baseline} | {o.sample: o.arm for o in result.more if not o.edited}
    pairs = [
        Comparison(0, None, result.edits, result.baseline, result.edited, result.positions, result.inactive_positions)
    ]
    for other in result.more:
        if other.edited:
            edits = result.edits if other.variant is None else result.variants[other.variant]
            counts = other.positions, other.inactive_positions
            pairs.append(Comparison(other.sample, other.variant, edits, baselines[other.sample], other.arm, *counts))
    return pairs


def edits_in_force(result: Generated) -> list[Edit]:
    """Return all edits that were in force anywhere in a text or its variants."""
    lists = (result.edits, *(change.edits for change in result.schedule), *result.variants)
    return [edit for edits in lists for edit in edits]


MOST_SAMPLES = 4096
"""Most samples of one request; a batch may have several rows for each."""


def check_sampling(sampling: Sampling, samples: int = 1) -> None:
    """Raise UsageError for settings that make no sense."""
    for setting in SAMPLING:
        value = getattr(sampling, setting.field)
        if not all(map(setting.allows, value if setting.repeats else (value,))):
            raise UsageError(f"{setting.option} must be {setting.must_be}.")
    if not 1 <= samples <= MOST_SAMPLES:
        raise UsageError(f"--samples must be between 1 and {MOST_SAMPLES:,}.")
    if samples > 1 and sampling.temperature == 0:
        raise UsageError(
            f"--samples {samples} needs a temperature: greedy samples are all the same text.", "Add --temperature 0.8."
        )
    if not 0 <= sampling.seed <= SEEDS - samples:
        raise UsageError(f"--seed must be between 0 and {SEEDS - samples}.")
    check_encoding(*sampling.stop)


def check_encoding(*texts: str) -> None:
    """Raise UsageError for a text that no tokenizer accepts, such as an odd byte on the command line."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{text!r} is not in UTF-8.", "Type it anew, or mend it where it comes from.") from error


def check_branch(request: Generate) -> None:
    """Raise UsageError for a branch or a change of edits at a token that the text cannot have."""
    last = request.sampling.max_tokens - 1
    places = [change.token_index for change in request.schedule]
    if places != sorted(set(places)) or not all(0 < place <= last for place in places):
        raise UsageError(f"Edits can change at tokens 1 to {last} of this text, in order.")
    if request.branched_at is not None and not 0 < request.branched_at <= last:
        raise UsageError(
            f"The text has at most {last + 1:,} tokens: there is nothing to generate from token "
            f"{request.branched_at + 1:,} on.",
            "Allow more tokens, or go back further.",
        )


def first_difference(one: Sequence[object], other: Sequence[object]) -> int | None:
    """Return the first index at which two runs differ, or at which the shorter one ends; None if they are equal."""
    at = first_unlike(one, other)
    return min(len(one), len(other)) if at is None and len(one) != len(other) else at


def first_unlike(one: Sequence[object], other: Sequence[object], start: int = 0) -> int | None:
    """Return the first index from `start` on at which both have an item and the items differ; None if there is none."""
    return next((i for i in range(start, min(len(one), len(other))) if one[i] != other[i]), None)
