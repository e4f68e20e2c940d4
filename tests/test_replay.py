"""Replays: what is the same, where a run first parts from its record, and by how much."""

import msgspec
import numpy as np
import plain
import pytest
from tiny import SENTENCES

from engine.client import ask
from engine.records import (
    Edit,
    Generate,
    Generated,
    Prompt,
    PromptSet,
    Rank,
    Ranking,
    RankReplayed,
    Replay,
    Replayed,
    ReplayRank,
    Sampling,
)

replace = msgspec.structs.replace
SET = PromptSet("tiny", tuple(map(Prompt, SENTENCES[:3])), tuple(map(Prompt, SENTENCES[3:])))


@pytest.fixture(scope="module", params=[Sampling(8), Sampling(8, temperature=1.0, seed=4)], ids=["greedy", "sampled"])
def recorded(request, client):
    return ask(client, Generate(Prompt("The nurse", "chat"), (Edit(3, -8.0),), request.param), Generated)


def with_other_token(arm, at):
    ids = list(arm.token_ids)
    ids[at] = (ids[at] + 1) % 260
    return replace(arm, token_ids=tuple(ids))


def test_a_generation_replays_the_same(client, recorded):
    again = ask(client, Replay(recorded), Replayed)
    assert again.same
    assert again.prompt_ids_same
    assert [(a.name, a.same, a.first_divergence, a.margin) for a in again.arms] == [
        ("baseline", True, None, None),
        ("edited", True, None, None),
    ]


@pytest.mark.parametrize("at", [0, 3, 7])
def test_the_margin_is_the_gap_between_the_two_likeliest_tokens_where_the_runs_part(client, model, recorded, at):
    changed = replace(recorded, baseline=with_other_token(recorded.baseline, at))
    again = ask(client, Replay(changed), Replayed)
    baseline, edited = again.arms
    assert not again.same
    assert edited.same
    assert (baseline.first_divergence, baseline.replayed_token) == (at, recorded.baseline.tokens[at])
    fed = [*recorded.prompt.token_ids, *recorded.baseline.token_ids[:at]]
    second, first = np.sort(plain.logprobs(model.module, fed)[-1])[-2:]
    assert baseline.margin == pytest.approx(first - second, abs=1e-3)


def test_a_record_that_stops_early_parts_where_it_ends(client, recorded):
    arm = recorded.edited
    cut = replace(arm, token_ids=arm.token_ids[:5], tokens=arm.tokens[:5], logprobs=arm.logprobs[:5])
    _, edited = ask(client, Replay(replace(recorded, edited=cut)), Replayed).arms
    assert (edited.first_divergence, edited.recorded_token) == (5, None)
    assert edited.replayed_token == arm.tokens[5]
    assert edited.margin >= 0


def test_another_tokenisation_of_the_prompt_is_noticed(client, recorded):
    fed = replace(recorded.prompt, token_ids=recorded.prompt.token_ids[1:])
    again = ask(client, Replay(replace(recorded, prompt=fed)), Replayed)
    assert not again.same
    assert not again.prompt_ids_same
    assert all(arm.same for arm in again.arms)


@pytest.mark.parametrize(
    "settings", [{}, {"by": "auroc", "pool": "mean"}, {"include_masked": True, "density_weight": False, "top": 7}]
)
def test_a_ranking_replays_the_same_with_its_own_settings(client, settings):
    ranking = ask(client, Rank(SET, **settings), Ranking)
    assert ask(client, ReplayRank(ranking), RankReplayed) == RankReplayed(True, None, 0.0)


def test_a_ranking_that_differs_names_the_row_and_the_change(client):
    ranking = ask(client, Rank(SET, top=6), Ranking)
    rows = list(ranking.features)
    rows[2] = replace(rows[2], score=rows[2].score + 0.5)
    changed = replace(ranking, features=tuple(rows))
    again = ask(client, ReplayRank(changed), RankReplayed)
    assert (again.same, again.first_difference) == (True, None)
    assert again.largest_score_change == pytest.approx(0.5)
    rows[2], rows[3] = rows[3], rows[2]
    again = ask(client, ReplayRank(replace(ranking, features=tuple(rows))), RankReplayed)
    assert (again.same, again.first_difference) == (False, 2)
