"""Runs recorded results again and says where the second run first differs, and by how much."""

from __future__ import annotations

from typing import Literal

from engine.decode import BASELINE, EDITED, check_sampling, paired_logprobs
from engine.explorer import Events, Explorer, first_difference
from engine.records import (
    ArmReplay,
    Generate,
    Generated,
    Prompt,
    PromptSet,
    Rank,
    Ranking,
    RankReplayed,
    Replayed,
)


def generation(explorer: Explorer, recorded: Generated) -> Events:
    """Generates again with the recorded prompt, edits, sampling and seed; compares both arms' token ids."""
    check_sampling(recorded.sampling)
    prompt = Prompt(recorded.prompt.text, recorded.prompt.format)
    again: Generated = yield from explorer.generate(Generate(prompt, recorded.edits, recorded.sampling))
    arms = (compare(explorer, recorded, again, BASELINE), compare(explorer, recorded, again, EDITED))
    ids_same = again.prompt.token_ids == recorded.prompt.token_ids
    return Replayed(same=ids_same and all(arm.same for arm in arms), prompt_ids_same=ids_same, arms=arms)


def compare(explorer: Explorer, recorded: Generated, again: Generated, row: int) -> ArmReplay:
    """One arm; where it diverges, the margin between the two likeliest tokens decides what that means."""
    name: Literal["baseline", "edited"] = "baseline" if row == BASELINE else "edited"
    old, new = (recorded.baseline, again.baseline) if row == BASELINE else (recorded.edited, again.edited)
    at = first_difference(old.token_ids, new.token_ids)
    if at is None:
        return ArmReplay(name, same=True)
    # one token more than the divergence, so that the last row is the distribution it was drawn from
    ids = [*again.prompt.token_ids, *new.token_ids[:at], 0]
    editor = explorer.editor(recorded.edits)
    top = paired_logprobs(explorer.model, editor, ids, 1)[row][-1].topk(2).values
    return ArmReplay(
        name,
        same=False,
        first_divergence=at,
        recorded_token=old.tokens[at] if at < len(old.tokens) else None,
        replayed_token=new.tokens[at] if at < len(new.tokens) else None,
        margin=float(top[0] - top[1]),
    )


def ranking(explorer: Explorer, recorded: Ranking) -> Events:
    """Ranks again with the recorded prompts and settings; compares the rows' features and scores."""
    prompts = [Prompt(fed.text, fed.format) for fed in recorded.prompts]
    n = recorded.n_positive
    request = Rank(
        prompts=PromptSet("replay", tuple(prompts[:n]), tuple(prompts[n:])),
        by=recorded.by,
        top=max(1, len(recorded.features)),
        pool=recorded.pool,
        include_masked=recorded.include_masked,
        density_weight=recorded.density_weight,
    )
    again: Ranking = yield from explorer.rank(request)
    scores = {row.feature: row.score for row in again.features}
    changes = [abs(row.score - scores[row.feature]) for row in recorded.features if row.feature in scores]
    at = first_difference([r.feature for r in recorded.features], [r.feature for r in again.features])
    return RankReplayed(same=at is None, first_difference=at, largest_score_change=max(changes, default=0.0))
