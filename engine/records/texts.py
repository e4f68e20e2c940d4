"""Texts: generated, and answers scored, baseline and edited."""

from __future__ import annotations

from typing import Literal

from engine.records.work import Edit, FedPrompt, Probe, Prompt, Record, Sampling


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
