"""What the engine says while a request runs, and at its end."""

from __future__ import annotations

from engine.records.attribution import Attribution, MinimalSet
from engine.records.base import Record
from engine.records.features import Described, Ranking, Shown, TokenFeatures
from engine.records.pair import Diagnosis, Loaded
from engine.records.replays import Replayed
from engine.records.texts import AnswersScored, Generated, ProbeTable

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
    more: tuple[str | None, ...] = ()
    """The token of each other row, in the order of Generated.more."""
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
