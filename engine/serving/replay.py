"""Runs recorded results again and says where the second run first differs, and by how much."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from engine.attribution.attribute import attribute
from engine.attribution.minimal_set import find_minimal_set
from engine.features.rank import rank
from engine.generation.generate import generate
from engine.models.pair import Events, Pair
from engine.records import (
    Arm,
    ArmReplay,
    AttributedFeature,
    Attribution,
    CausesReplayed,
    Generate,
    Generated,
    MinimalSet,
    Prompt,
    PromptSet,
    Rank,
    Ranking,
    RankReplayed,
    Replay,
    ReplayCauses,
    Replayed,
    ReplayRank,
)
from engine.records.texts import first_difference
from engine.records.words.texts import arm_in_words


def generation(pair: Pair, request: Replay) -> Events:
    """Generates again with the recorded prompt, edits, sampling and seed; compares all arms' token ids.

    Edits that changed while the text was generated change again at the same tokens. One that was stopped is generated
    up to there.
    """
    recorded = request.recorded
    again: Generated = yield from generate(pair, request_of(recorded))
    arms = [
        compare("baseline", recorded.baseline, again.baseline),
        compare("edited", recorded.edited, again.edited),
    ]
    arms += [compare(arm_in_words(o), o.arm, n.arm) for o, n in zip(recorded.more, again.more, strict=True)]
    ids_same = again.prompt.token_ids == recorded.prompt.token_ids
    return Replayed(same=ids_same and all(arm.same for arm in arms), prompt_ids_same=ids_same, arms=tuple(arms))


def request_of(recorded: Generated) -> Generate:
    """The request that a recorded generation comes from."""
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


def compare(name: str, old: Arm, new: Arm) -> ArmReplay:
    """One arm; where it diverges, the margin between the two likeliest tokens decides what that means."""
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


def ranking(pair: Pair, request: ReplayRank) -> Events:
    """Ranks again with the recorded prompts and settings; compares the rows' features and scores."""
    recorded = request.recorded
    prompts = [Prompt(fed.text, fed.format) for fed in recorded.prompts]
    n = recorded.n_positive
    asked = Rank(
        prompts=PromptSet("replay", tuple(prompts[:n]), tuple(prompts[n:])),
        by=recorded.by,
        top=max(1, len(recorded.features)),
        pool=recorded.pool,
        include_masked=recorded.include_masked,
        density_weight=recorded.density_weight,
    )
    pair.forget()
    again: Ranking = yield from rank(pair, asked)
    scores = {row.feature: row.score for row in again.features}
    changes = [abs(row.score - scores[row.feature]) for row in recorded.features if row.feature in scores]
    at = first_difference([r.feature for r in recorded.features], [r.feature for r in again.features])
    return RankReplayed(same=at is None, first_difference=at, largest_score_change=max(changes, default=0.0))


def causal(pair: Pair, request: ReplayCauses) -> Events:
    """Attributes, or searches for a set, again as asked; compares rows and effects, or members and shares."""
    recorded = request.recorded
    pair.forget()
    if isinstance(recorded, Attribution):
        again: Attribution = yield from attribute(pair, recorded.request)
        return compare_attributions(recorded, again)
    found: MinimalSet = yield from find_minimal_set(pair, recorded.request)
    return compare_sets(recorded, found)


def compare_attributions(old: Attribution, new: Attribution) -> CausesReplayed:
    """Rows in order, and their exact effects where both were ablated, else estimates."""
    rows = {row.feature: row for row in new.features}
    changes = [change(row, rows[row.feature]) for row in old.features if row.feature in rows]
    return _replayed([r.feature for r in old.features], [r.feature for r in new.features], changes)


def change(old: AttributedFeature, new: AttributedFeature) -> float:
    """By how much a feature's effect differs."""
    if old.exact is None or new.exact is None:
        return abs(old.estimate - new.estimate)
    return abs(old.exact - new.exact)


def compare_sets(old: MinimalSet, new: MinimalSet) -> CausesReplayed:
    """Members in order, and the shares: the set's, and those with and without each member."""
    members = {member.feature: member for member in new.members}
    changes = [abs(old.share - new.share)]
    for member in old.members:
        if again := members.get(member.feature):
            changes.append(abs(member.share_with - again.share_with))
            changes.append(abs(member.share_without - again.share_without))
    return _replayed([m.feature for m in old.members], [m.feature for m in new.members], changes)


def _replayed(old: Sequence[int], new: Sequence[int], changes: Sequence[float]) -> CausesReplayed:
    at = first_difference(old, new)
    return CausesReplayed(same=at is None, first_difference=at, largest_change=max(changes, default=0.0))
