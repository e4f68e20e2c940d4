"""Texts: generated, and answers scored, baseline and edited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

from engine.records.attribution import Attribute, FindMinimalSet
from engine.records.base import Record
from engine.records.edits import Edit
from engine.records.errors import UsageError
from engine.records.prompts import FedPrompt, Probe, Prompt


class Sampling(Record, frozen=True):
    """How tokens are chosen. Temperature 0 is greedy; all that follows but `stop` only matters above 0."""

    max_tokens: int = 64
    temperature: float = 0.0
    seed: int = 0
    top_k: int = 0
    """Only the so many likeliest tokens; 0: all."""
    top_p: float = 1.0
    """Only the likeliest tokens that together have this probability."""
    min_p: float = 0.0
    """Only tokens at least this probable in units of the likeliest one's probability."""
    stop: tuple[str, ...] = ()
    """A text ends once it contains one of these; the string stays in it."""


class EditsFrom(Record, frozen=True):
    """These edits were in force from the generated token with this index on."""

    token_index: int
    edits: tuple[Edit, ...]


class Generate(Record, frozen=True, tag=True):
    """Continues a prompt: baseline, edited and whatever else is asked for, as rows of one batch."""

    prompt: Prompt
    edits: tuple[Edit, ...] = ()
    sampling: Sampling = Sampling()
    prefill: str = ""
    """What is put into the model's mouth before it goes on."""
    samples: int = 1
    """How often both arms are sampled, each time with random numbers of its own."""
    variants: tuple[tuple[Edit, ...], ...] = ()
    """Other edits, each an arm of its own beside the edited one."""
    schedule: tuple[EditsFrom, ...] = ()
    """Later changes of `edits`, at tokens after the first."""
    branched_at: int | None = None
    """The text before this token is that of an earlier request, whose keys and values are used where they are still
    there. It comes out the same without them: edits and schedule say all about it."""


Reply = tuple[Edit, ...] | Literal["stop"] | None
"""What a generation is told between two tokens: other edits, to end here, or nothing."""


class ScoreAnswers(Record, frozen=True, tag=True):
    """The tracked answers' probabilities of one probe, baseline and edited, without generating."""

    probe: Probe
    edits: tuple[Edit, ...] = ()


class RunProbes(Record, frozen=True, tag=True):
    """Answers every probe, baseline and edited."""

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
    """Gap in nats between the two likeliest tokens, per generated token; a tiny one can flip by rounding."""


class OtherArm(Record, frozen=True):
    """A row beside the first baseline and edited one."""

    sample: int
    """Which sample it is of, counted from 0."""
    edited: bool
    variant: int | None
    """Index of its edits in Generated.variants; None: it goes under `edits`, or is a baseline."""
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

    Where edits changed on the way, each token counts under the edits in force when it was generated.
    """
    positions: int
    """How many positions of the edited arm the edit mask let through."""
    inactive_positions: int
    """Of those, the ones where every edited feature was silent: nothing changed there."""
    tokens_per_second: float
    variants: tuple[tuple[Edit, ...], ...] = ()
    more: tuple[OtherArm, ...] = ()
    """Variants and further samples."""
    branched_at: int | None = None
    """The generated token from which this text parts with an earlier one."""
    stopped: bool = False
    """The user stopped it."""
    fault: str = ""
    """What ended it early, in words: edits sent on the way that cannot be applied, or numbers that overflowed."""


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


@dataclass(frozen=True)
class Comparison:
    """An edited text and the baseline that was sampled with the same random numbers."""

    sample: int
    """Counted from 0."""
    variant: int | None
    """Index of its edits among the variants; None: they are the generation's own."""
    edits: tuple[Edit, ...]
    baseline: Arm
    edited: Arm
    positions: int
    inactive_positions: int


def comparisons(result: Generated) -> list[Comparison]:
    """All there are, sample by sample, the variants behind the edited text."""
    baselines = {0: result.baseline} | {o.sample: o.arm for o in result.more if not o.edited}
    found = [
        Comparison(0, None, result.edits, result.baseline, result.edited, result.positions, result.inactive_positions)
    ]
    for other in result.more:
        if other.edited:
            edits = result.edits if other.variant is None else result.variants[other.variant]
            counts = other.positions, other.inactive_positions
            found.append(Comparison(other.sample, other.variant, edits, baselines[other.sample], other.arm, *counts))
    return found


def edits_in_force(result: Generated) -> list[Edit]:
    """All that were in force anywhere in a text, in its variants too."""
    lists = (result.edits, *(change.edits for change in result.schedule), *result.variants)
    return [edit for edits in lists for edit in edits]


SEEDS = 2**63

MOST_SAMPLES = 4096
"""Rows that a batch may come to, some times over."""

MOST_CONTROLS = 10_000


def check_sampling(sampling: Sampling, samples: int = 1) -> None:
    """Raises UsageError for settings that make no sense."""
    if sampling.max_tokens < 1:
        raise UsageError("--max-tokens must be at least 1.")
    if not 0 <= sampling.temperature < inf:
        raise UsageError("--temperature must be 0 (greedy) or more.")
    if not 1 <= samples <= MOST_SAMPLES:
        raise UsageError(f"--samples must be between 1 and {MOST_SAMPLES:,}.")
    if samples > 1 and sampling.temperature == 0:
        raise UsageError(
            f"--samples {samples} needs a temperature: greedy samples are all the same text.", "Add --temperature 0.8."
        )
    if not 0 <= sampling.seed <= SEEDS - samples:
        raise UsageError(f"--seed must be between 0 and {SEEDS - samples}.")
    if sampling.top_k < 0:
        raise UsageError("--top-k must be 0 (all tokens) or more.")
    if not 0 < sampling.top_p <= 1:
        raise UsageError("--top-p must be above 0 and at most 1.")
    if not 0 <= sampling.min_p <= 1:
        raise UsageError("--min-p must be between 0 and 1.")
    if not all(sampling.stop):
        raise UsageError("--stop must not be empty.")
    check_encoding(*sampling.stop)


def check_encoding(*texts: str) -> None:
    """Raises UsageError for a text that no tokenizer takes, such as an odd byte on the command line."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{text!r} is not in UTF-8.", "Type it anew, or mend it where it comes from.") from error


def check_branch(request: Generate) -> None:
    """Raises UsageError for changes of edits, or a branch, at tokens there are not."""
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


def check_causes(request: Attribute | FindMinimalSet) -> None:
    """Raises UsageError for numbers of features that make no sense."""
    if not 0 <= request.controls <= MOST_CONTROLS:
        raise UsageError(f"--controls must be between 0 and {MOST_CONTROLS:,}.")
    if isinstance(request, Attribute) and (request.top < 1 or request.exact < 0):
        raise UsageError("--top must be at least 1, --exact at least 0.")


def first_difference(a: Sequence[int], b: Sequence[int]) -> int | None:
    """Index of the first place where two runs differ, the shorter one's end included; None if they are equal."""
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return None if len(a) == len(b) else min(len(a), len(b))
