"""The table of verbs: which function runs which kind of request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.attribution.attribute import attribute
from engine.attribution.effect import describe
from engine.attribution.minimal_set import find_minimal_set
from engine.doctor.diagnose import diagnose
from engine.features.activations import features_at, show
from engine.features.rank import rank
from engine.files.recorded import replaying
from engine.generation.generate import generate
from engine.generation.probes import run_probes, score_answers
from engine.models.pair import Events, Pair
from engine.records import (
    Attribute,
    Describe,
    Doctor,
    FeaturesAt,
    FindMinimalSet,
    Generate,
    Rank,
    Replay,
    Request,
    RunProbes,
    ScoreAnswers,
    Show,
)
from engine.records.errors import UsageError


def replay(pair: Pair, request: Replay) -> Events:
    """Run a recorded result's request again and compare the results. Returns a Replayed."""
    recorded = request.recorded
    how = replaying(recorded)
    if how.is_remembered:
        pair.forget()
    again = yield from run_verb(pair, how.request_of(recorded))
    return how.compare(recorded, again)


VERBS: dict[type[Request], Callable[[Pair, Any], Events]] = {
    Rank: rank,
    Show: show,
    FeaturesAt: features_at,
    Describe: describe,
    Generate: generate,
    RunProbes: run_probes,
    ScoreAnswers: score_answers,
    Attribute: attribute,
    FindMinimalSet: find_minimal_set,
    Doctor: diagnose,
    Replay: replay,
}


def run_verb(pair: Pair, request: Request) -> Events:
    """Run the verb that a request asks for. Raises UsageError for a request of an unknown kind."""
    verb = VERBS.get(type(request))
    if verb is None:
        raise UsageError(f"Unknown request {type(request).__name__}.")
    return verb(pair, request)
