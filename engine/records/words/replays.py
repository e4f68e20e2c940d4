"""Replays in sentences: what is the same as recorded, and where the rest first differs."""

from __future__ import annotations

from engine.records.attribution import Attribution, MinimalSet
from engine.records.features import Ranking
from engine.records.replays import ArmReplay, Replayable, Replayed
from engine.records.texts import Generated
from engine.records.words.tokens import visible


def replay_in_words(recorded: Replayable, again: Replayed) -> list[str]:
    """Return what was run again and how it compares; for a text, one more line per arm that differs."""
    match recorded:
        case Generated():
            return [visible(recorded.prompt.text), *_texts(again)]
        case Ranking():
            what = f"ranking of {recorded.n_positive} against {recorded.n_negative} prompts"
            return [_listed(what, "features", "row", "score", again)]
        case Attribution() | MinimalSet():
            measure = recorded.request.measure
            toward = f"of {measure.toward!r} against {measure.against!r}"
            if isinstance(recorded, Attribution):
                return [_listed(f"attribution {toward}", "features", "row", "effect", again)]
            return [_listed(f"minimal set {toward}", "members", "member", "share", again)]


def _listed(what: str, items: str, item: str, value: str, again: Replayed) -> str:
    if again.first_difference is None:
        where = f"same {items} in the same order"
    else:
        where = f"{item} {again.first_difference + 1} differs"
    return f"{what}: {where}, largest {value} change {again.largest_change:.2g}"


def _texts(again: Replayed) -> list[str]:
    lines = [] if again.prompt_ids_same else ["the prompt is fed as other token ids than recorded"]
    return lines + [_arm(arm) for arm in again.arms if not arm.same]


def _arm(arm: ArmReplay) -> str:
    where = f"{arm.name} first diverges at token {(arm.first_divergence or 0) + 1}"
    gap = "" if arm.margin is None else f"; the two likeliest tokens there are {arm.margin:.3g} nats apart"
    return f"{where}: recorded {arm.recorded_token!r}, now {arm.replayed_token!r}{gap}"
