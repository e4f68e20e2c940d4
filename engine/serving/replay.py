"""The verb `replay`: run a recorded result again, and say where the second run first differs and by how much."""

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
    Generate,
    Generated,
    MinimalSet,
    Prompt,
    PromptSet,
    Rank,
    Ranking,
    Replay,
    Replayable,
    Replayed,
)
from engine.records.texts import first_difference
from engine.records.words.texts import arm_in_words


def replay(pair: Pair, request: Replay) -> Events:
    """Run a recorded result's request again and compare the results. Returns a Replayed.

    Compared are, of a text, all arms' token ids; of a ranking, the rows' features and scores; of an attribution, the
    rows and effects; of a minimal set, the members and shares.
    """
    recorded = request.recorded
    if not isinstance(recorded, Generated):
        pair.forget()
    match recorded:
        case Generated():
            again: Replayable = yield from generate(pair, request_of(recorded))
        case Ranking():
            again = yield from rank(pair, request_of_ranking(recorded))
        case Attribution():
            again = yield from attribute(pair, recorded.request)
        case MinimalSet():
            again = yield from find_minimal_set(pair, recorded.request)
    return compare(recorded, again)


def compare(old: Replayable, new: Replayable) -> Replayed:
    """Compare a recorded result with the same one run again."""
    match old, new:
        case Generated(), Generated():
            return compare_texts(old, new)
        case Ranking(), Ranking():
            return compare_rankings(old, new)
        case Attribution(), Attribution():
            return compare_attributions(old, new)
        case MinimalSet(), MinimalSet():
            return compare_sets(old, new)
    raise TypeError(f"a {type(old).__name__} came out as a {type(new).__name__}")


def request_of(recorded: Generated) -> Generate:
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


def request_of_ranking(recorded: Ranking) -> Rank:
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


def compare_rankings(old: Ranking, new: Ranking) -> Replayed:
    """Compare the rows in order, and the scores of features that are in both."""
    scores = {row.feature: row.score for row in new.features}
    changes = [abs(row.score - scores[row.feature]) for row in old.features if row.feature in scores]
    return _replayed([r.feature for r in old.features], [r.feature for r in new.features], changes)


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


def compare_sets(old: MinimalSet, new: MinimalSet) -> Replayed:
    """Compare the members in order, the set's share, and the shares with and without each member."""
    members = {member.feature: member for member in new.members}
    changes = [abs(old.share - new.share)]
    for member in old.members:
        if again := members.get(member.feature):
            changes.append(abs(member.share_with - again.share_with))
            changes.append(abs(member.share_without - again.share_without))
    return _replayed([m.feature for m in old.members], [m.feature for m in new.members], changes)


def _replayed(old: Sequence[int], new: Sequence[int], changes: Sequence[float]) -> Replayed:
    at = first_difference(old, new)
    return Replayed(same=at is None, first_difference=at, largest_change=max(changes, default=0.0))
