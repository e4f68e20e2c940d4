"""Running recorded results again."""

from __future__ import annotations

from typing import ClassVar

from engine.records.attribution import Attribution, MinimalSet
from engine.records.base import Record, VerbRequest
from engine.records.features import Ranking
from engine.records.texts import Generated, ProbeTable

Replayable = Ranking | Generated | Attribution | MinimalSet
"""Results that one request can run again; a table of probes is replayed text by text."""

Recorded = Replayable | ProbeTable
"""Results that a session keeps; files/recorded.py says what belongs to each kind."""


class Replay(VerbRequest, frozen=True, tag=True):
    """Run a recorded result again and compare."""

    waited_for: ClassVar[str] = "the replay"
    recorded: Replayable


class ArmReplay(Record, frozen=True):
    """One arm of a replayed generation. Index, tokens and margin are None if all tokens are the same."""

    name: str
    """Such as "baseline", "edited", "variant 1" and "sample 2 edited"."""
    same: bool
    first_divergence: int | None = None
    recorded_token: str | None = None
    replayed_token: str | None = None
    margin: float | None = None
    """Log-probability gap in nats between the two likeliest tokens at the divergence; a tiny gap means rounding."""


class Replayed(Record, frozen=True, tag=True):
    """How a result's second run compares with the recorded one."""

    same: bool
    first_difference: int | None = None
    """Index of the first row or member with a different feature; None if all are the same, and for texts."""
    largest_change: float = 0.0
    """Largest change of a score, of an effect in the measure's unit, or of a share, among the features in both runs; 0
    for texts."""
    prompt_ids_same: bool = True
    """Whether a text's prompt was fed as the same token ids."""
    arms: tuple[ArmReplay, ...] = ()
    """The arms of a text."""
