"""All requests, all results, and the events that the engine sends while a request runs and at its end."""

from __future__ import annotations

import msgspec

from engine.records.attribution import Attribute, Attribution, FindMinimalSet, MinimalSet
from engine.records.base import Record
from engine.records.features import Describe, Described, FeaturesAt, Rank, Ranking, Show, Shown, TokenFeatures
from engine.records.pair import Diagnosis, Doctor, Load, Loaded
from engine.records.replays import Replay, Replayed
from engine.records.texts import AnswersScored, Generate, Generated, ProbeTable, RunProbes, ScoreAnswers

Request = (
    Load
    | Rank
    | Show
    | Describe
    | FeaturesAt
    | Generate
    | ScoreAnswers
    | RunProbes
    | Doctor
    | Attribute
    | FindMinimalSet
    | Replay
)

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
    | Attribution
    | MinimalSet
    | Replayed
)


class Progress(Record, frozen=True, tag=True):
    """Work goes on. `total` 0 means that the total is unknown."""

    stage: str
    done: int = 0
    total: int = 0


class TokenStep(Record, frozen=True, tag=True):
    """One more token in each arm. None means that the arm has ended."""

    index: int
    baseline: str | None
    edited: str | None
    probe: int | None = None
    more: tuple[str | None, ...] = ()
    """The token of each other row, in the order of Generated.more."""
    kl: float | None = None
    """KL(baseline || edited) in nats at this token, with both models fed the baseline's tokens; None once the baseline
    has ended."""


class Finished(Record, frozen=True, tag=True):
    """The last event of a request that succeeded."""

    value: ResultValue


class Failed(Record, frozen=True, tag=True):
    """The last event of a request that failed."""

    kind: str
    """Name of the error's class in errors.py."""
    message: str
    remedy: str = ""
    exit_code: int = 1


class Cancelled(Record, frozen=True, tag=True):
    """The last event of a request that the user stopped."""


class MemoryLeft(Record, frozen=True, tag=True):
    """Free and total memory of the model's device, in bytes; not part of any request."""

    free: int
    total: int


Event = Progress | TokenStep | Finished | Failed | Cancelled | MemoryLeft

DETAILS = "The log has the details."
"""The remedy where the engine failed for no reason that it knows. Its client says where that log is."""


def fault(message: str) -> Failed:
    """Return the event of a failure whose traceback is in the log."""
    return Failed("EngineFault", message, DETAILS)


def unexpected(error: Exception) -> Failed:
    """Return the event of an exception that is not a SaescopeError."""
    return fault(f"Unexpected error: {type(error).__name__}: {error}")


def naming_log(event: Event, remedy: str) -> Event:
    """Return the event with this remedy where the log is all that it points to."""
    if isinstance(event, Failed) and event.remedy == DETAILS:
        return msgspec.structs.replace(event, remedy=remedy)
    return event
