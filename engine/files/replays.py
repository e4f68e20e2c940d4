"""Replays of recorded results: the request that gives a result again, how the two compare, and that in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from engine.records import (
    Arm,
    ArmReplay,
    AttributedFeature,
    Attribution,
    Generate,
    Generated,
    MinimalSet,
    Prompt,
    PromptSet,
    Rank,
    Ranking,
    Replayed,
)
from engine.records.texts import first_difference
from engine.records.words.safe_text import visible
from engine.records.words.texts import arm_in_words

# ---- rankings


def ranking_again(recorded: Ranking) -> Rank:
    """Return the request that gives a recorded ranking again."""
    prompts = [Prompt(fed.text, fed.format) for fed in recorded.prompts]
    n = recorded.n_positive
    return Rank(
        prompts=PromptSet("replay", tuple(prompts[:n]), tuple(prompts[n:])),
        by=recorded.by,
        top=max(1, len(recorded.features)),
        pool=recorded.pool,
        include_masked=recorded.include_masked,
        density_weight=recorded.density_weight,
    )


def compare_rankings(old: Ranking, new: Ranking) -> Replayed:
    """Compare the rows in order, and the scores of features that are in both."""
    scores = {row.feature: row.score for row in new.features}
    changes = [abs(row.score - scores[row.feature]) for row in old.features if row.feature in scores]
    return _replayed([r.feature for r in old.features], [r.feature for r in new.features], changes)


def ranking_in_words(recorded: Ranking, again: Replayed) -> list[str]:
    """Return what was run again and how it compares."""
    what = f"ranking of {recorded.n_positive} against {recorded.n_negative} prompts"
    return [_listed(what, "features", "row", "score", again)]


# ---- texts


def text_again(recorded: Generated) -> Generate:
    """Return the request that gives a recorded text again.

    Edits that changed while the text was generated change again at the same tokens. A text that was stopped or failed
    is generated up to that token.
    """
    sampling = recorded.sampling
    if recorded.stopped or recorded.fault:
        arms = (recorded.baseline, recorded.edited, *(other.arm for other in recorded.more))
        sampling = replace(sampling, max_tokens=max(len(arm.token_ids) for arm in arms))
    return Generate(
        Prompt(recorded.prompt.text, recorded.prompt.format),
        recorded.edits,
        sampling,
        prefill=recorded.prompt.prefill,
        samples=1 + max((other.sample for other in recorded.more), default=0),
        variants=recorded.variants,
        schedule=recorded.schedule[1:],
    )


def compare_texts(old: Generated, new: Generated) -> Replayed:
    """Compare the token ids of all arms and of the prompt."""
    arms = [compare_arms("baseline", old.baseline, new.baseline), compare_arms("edited", old.edited, new.edited)]
    arms += [compare_arms(arm_in_words(o), o.arm, n.arm) for o, n in zip(old.more, new.more, strict=True)]
    ids_same = new.prompt.token_ids == old.prompt.token_ids
    return Replayed(same=ids_same and all(arm.same for arm in arms), prompt_ids_same=ids_same, arms=tuple(arms))


def compare_arms(name: str, old: Arm, new: Arm) -> ArmReplay:
    """Compare one arm.

    Where it diverges, the margin between the two likeliest tokens tells rounding (small) from a real difference.
    """
    at = first_difference(old.token_ids, new.token_ids)
    if at is None:
        return ArmReplay(name, same=True)
    return ArmReplay(
        name,
        same=False,
        first_divergence=at,
        recorded_token=old.tokens[at] if at < len(old.tokens) else None,
        replayed_token=new.tokens[at] if at < len(new.tokens) else None,
        margin=new.margins[at] if at < len(new.margins) else None,
    )


def text_in_words(recorded: Generated, again: Replayed) -> list[str]:
    """Return which text was generated again, and a line more for each arm that differs."""
    lines = [] if again.prompt_ids_same else ["the prompt is fed as other token ids than recorded"]
    return [visible(recorded.prompt.text), *lines, *(_arm(arm) for arm in again.arms if not arm.same)]


def _arm(arm: ArmReplay) -> str:
    where = f"{arm.name} first diverges at token {(arm.first_divergence or 0) + 1}"
    gap = "" if arm.margin is None else f"; the two likeliest tokens there are {arm.margin:.3g} nats apart"
    return f"{where}: recorded {arm.recorded_token!r}, now {arm.replayed_token!r}{gap}"


# ---- attributions and minimal sets


def compare_attributions(old: Attribution, new: Attribution) -> Replayed:
    """Compare the rows in order, and their exact effects where both were ablated, else their estimates."""
    rows = {row.feature: row for row in new.features}
    changes = [change(row, rows[row.feature]) for row in old.features if row.feature in rows]
    return _replayed([r.feature for r in old.features], [r.feature for r in new.features], changes)


def change(old: AttributedFeature, new: AttributedFeature) -> float:
    """Return by how much a feature's effect differs, as a positive number."""
    if old.exact is None or new.exact is None:
        return abs(old.estimate - new.estimate)
    return abs(old.exact - new.exact)


def attribution_in_words(recorded: Attribution, again: Replayed) -> list[str]:
    """Return what was run again and how it compares."""
    return [_listed(f"attribution {_toward(recorded)}", "features", "row", "effect", again)]


def compare_sets(old: MinimalSet, new: MinimalSet) -> Replayed:
    """Compare the members in order, the set's share, and the shares with and without each member."""
    members = {member.feature: member for member in new.members}
    changes = [abs(old.share - new.share)]
    for member in old.members:
        if again := members.get(member.feature):
            changes.append(abs(member.share_with - again.share_with))
            changes.append(abs(member.share_without - again.share_without))
    return _replayed([m.feature for m in old.members], [m.feature for m in new.members], changes)


def set_in_words(recorded: MinimalSet, again: Replayed) -> list[str]:
    """Return what was run again and how it compares."""
    return [_listed(f"minimal set {_toward(recorded)}", "members", "member", "share", again)]


def _toward(recorded: Attribution | MinimalSet) -> str:
    measure = recorded.request.measure
    return f"of {measure.toward!r} against {measure.against!r}"


# ---- lists of features


def _replayed(old: Sequence[int], new: Sequence[int], changes: Sequence[float]) -> Replayed:
    at = first_difference(old, new)
    return Replayed(same=at is None, first_difference=at, largest_change=max(changes, default=0.0))


def _listed(what: str, items: str, item: str, value: str, again: Replayed) -> str:
    if again.first_difference is None:
        where = f"same {items} in the same order"
    else:
        where = f"{item} {again.first_difference + 1} differs"
    return f"{what}: {where}, largest {value} change {again.largest_change:.2g}"
