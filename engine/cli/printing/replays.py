"""Replays on a terminal: what came out the same and where the rest first diverges."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from engine.records import ArmReplay, Attribution, Causes, CausesReplayed, Generated, Ranking, RankReplayed, Replayed
from engine.records.words.rich_text import Text
from engine.records.words.tokens import visible


def rankings(out: Console, found: Sequence[tuple[Ranking, RankReplayed]]) -> None:
    """A line a ranking."""
    for ranking, again in found:
        what = f"ranking of {ranking.n_positive} against {ranking.n_negative} prompts"
        change = f"largest score change {again.largest_score_change:.2g}"
        row = (again.first_difference or 0) + 1
        where = "same features in the same order" if again.same else f"row {row} differs"
        out.print(f"{verdict(again.same)}  {what}: {where}, {change}", soft_wrap=True)


def generations(out: Console, found: Sequence[tuple[Generated, Replayed]]) -> None:
    """A line a generation, and where its arms part."""
    for result, again in found:
        out.print(Text(f"{verdict(again.same)}  {visible(result.prompt.text)}"))
        if not again.prompt_ids_same:
            out.print("    the prompt is fed as other token ids than recorded")
        for arm in again.arms:
            if not arm.same:
                where = f"{arm.name} first diverges at token {(arm.first_divergence or 0) + 1}"
                tokens = f"recorded {arm.recorded_token!r}, now {arm.replayed_token!r}"
                out.print(Text(f"    {where}: {tokens}{gap(arm)}"), soft_wrap=True)


def causal(out: Console, found: Sequence[tuple[Causes, CausesReplayed]]) -> None:
    """A line an attribution or a set."""
    for recorded, again in found:
        measure = recorded.request.measure
        whole = isinstance(recorded, Attribution)
        name, item, changed = ("attribution", "row", "effect") if whole else ("minimal set", "member", "share")
        place = (again.first_difference or 0) + 1
        where = (
            f"same {'features' if whole else 'members'} in the same order" if again.same else f"{item} {place} differs"
        )
        what = f"{name} of {measure.toward!r} against {measure.against!r}"
        change = f"largest {changed} change {again.largest_change:.2g}"
        out.print(Text(f"{verdict(again.same)}  {what}: {where}, {change}"), soft_wrap=True)


def verdict(same: bool) -> str:
    """Same, or not."""
    return "same" if same else "DIFFERS"


def gap(arm: ArmReplay) -> str:
    """How close the two likeliest tokens were where the runs part."""
    return "" if arm.margin is None else f"; the two likeliest tokens there are {arm.margin:.3g} nats apart"
