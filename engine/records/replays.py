"""Running recorded results again."""

from __future__ import annotations

from engine.records.attribution import Causes
from engine.records.base import Record
from engine.records.features import Ranking
from engine.records.texts import Generated


class Replay(Record, frozen=True, tag=True):
    """Runs a recorded generation again and compares."""

    recorded: Generated


class ReplayRank(Record, frozen=True, tag=True):
    """Runs a recorded ranking again and compares."""

    recorded: Ranking


class ReplayCauses(Record, frozen=True, tag=True):
    """Runs a recorded attribution or search for a set again and compares."""

    recorded: Causes


class ArmReplay(Record, frozen=True):
    """One arm of a replayed generation. Index, tokens and margin are None where all tokens are the same."""

    name: str
    """Such as "baseline", "edited", "variant 1" and "sample 2 edited"."""
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


class CausesReplayed(Record, frozen=True, tag=True):
    """How it came out the second time."""

    same: bool
    first_difference: int | None
    """Index of the first row or member with another feature; None if all name the same."""
    largest_change: float
    """Of an effect, in the measure's unit, or of a share."""
