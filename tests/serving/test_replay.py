"""Replays: what is the same, where a run first parts from its record, and by how much."""

import msgspec
import numpy as np
import plain
import pytest
from driven import driven
from tiny import SENTENCES

from engine.records import (
    Answer,
    Attribute,
    Attribution,
    Edit,
    EditsFrom,
    FindMinimalSet,
    Generate,
    Generated,
    Measure,
    MinimalSet,
    Probe,
    Prompt,
    PromptSet,
    Rank,
    Ranking,
    Replay,
    Replayed,
    Sampling,
)
from engine.serving.client import ask

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


# ---- generations with more arms and changes of edits

QUESTION = Prompt("The nurse", "chat")

EDITS = (Edit(3, 6.0, "set"), Edit(9, -4.0, at="prompt"), Edit(7, 3.0, "steer", "generated"))

PUBLISHED = (Edit(3, 0.125, at="first-step"), Edit(kind="reconstruct", at="first-step"))

SAMPLED = Sampling(8, temperature=1.0, seed=4, top_k=50, top_p=0.95, min_p=0.01)


@pytest.fixture(scope="module")
def arms(client):
    request = Generate(
        QUESTION, EDITS, SAMPLED, prefill="She", samples=2, variants=(PUBLISHED, (Edit(7, -3.0, "project"),))
    )
    return ask(client, request, Generated)


NAMES = [
    "baseline", "edited", "variant 1", "variant 2",
    "sample 2 baseline", "sample 2 edited", "sample 2 variant 1", "sample 2 variant 2",
]  # fmt: skip


def test_every_arm_replays_the_same(client, arms):
    again = ask(client, Replay(arms), Replayed)
    assert [arm.name for arm in again.arms] == NAMES
    assert again.same
    assert all(arm.same for arm in again.arms)
    assert len({arm.token_ids for arm in (arms.baseline, arms.edited, *(o.arm for o in arms.more))}) > 4


@pytest.mark.parametrize("which", range(6))
def test_another_arm_that_differs_is_named(client, arms, which):
    more = list(arms.more)
    more[which] = replace(more[which], arm=with_other_token(more[which].arm, 2))
    again = ask(client, Replay(replace(arms, more=tuple(more))), Replayed)
    assert not again.same
    assert [(arm.name, arm.first_divergence) for arm in again.arms if not arm.same] == [(NAMES[which + 2], 2)]


@pytest.mark.parametrize("field", ["edits", "variants", "sampling", "prompt"])
def test_every_arm_depends_on_what_is_recorded(client, arms, field):
    other = {
        "edits": (Edit(3, 6.0, "set", absolute=-90.0),),
        "variants": ((), ()),
        "sampling": replace(SAMPLED, seed=5),
        "prompt": replace(arms.prompt, prefill="It"),
    }
    assert not ask(client, Replay(replace(arms, **{field: other[field]})), Replayed).same


def live(client, changes, stop_at=None, edits=EDITS, max_tokens=10):
    """A text whose edits are changed while it runs, and which is stopped perhaps."""
    replies = {token - 1: edits_then for token, edits_then in changes.items()} | {stop_at: "stop"}
    return driven(client._pair, Generate(QUESTION, edits, Sampling(max_tokens)), replies)[0]


def test_edits_that_changed_on_the_way_change_again_at_the_same_tokens(client):
    recorded = live(client, {3: (), 5: (Edit(9, -9.0),)})
    assert [change.token_index for change in recorded.schedule] == [0, 3, 5]
    assert recorded.edited != live(client, {}).edited
    assert ask(client, Replay(recorded), Replayed).same
    for schedule in (recorded.schedule[:1], recorded.schedule[:2]):
        assert not ask(client, Replay(replace(recorded, schedule=schedule)), Replayed).arms[1].same


def test_a_stopped_text_is_compared_up_to_where_it_was_stopped(client):
    recorded = live(client, {2: (Edit(9, -9.0),)}, stop_at=4)
    assert recorded.stopped
    assert len(recorded.edited.token_ids) == 5
    assert ask(client, Replay(recorded), Replayed).same
    changed = replace(recorded, edited=with_other_token(recorded.edited, 4))
    assert ask(client, Replay(changed), Replayed).arms[1].first_divergence == 4


def test_a_branch_replays_without_the_text_it_parted_from(client):
    first = live(client, {})
    change = (EditsFrom(4, (Edit(9, -9.0),)),)
    branch = ask(client, Generate(QUESTION, EDITS, Sampling(10), schedule=change, branched_at=4), Generated)
    assert branch.edited.token_ids[:4] == first.edited.token_ids[:4]
    assert branch.edited != first.edited
    live(client, {}, edits=(), max_tokens=3)  # what is kept of the text is another's now
    assert ask(client, Replay(branch), Replayed).same


def test_what_an_edit_came_to_is_what_is_replayed(client):
    recorded = ask(client, Generate(QUESTION, EDITS, Sampling(8)), Generated)
    assert None not in [edit.absolute for edit in recorded.edits if edit.kind != "scale"]
    other = tuple(replace(edit, strength=0.0) if edit.absolute else edit for edit in recorded.edits)
    assert ask(client, Replay(replace(recorded, edits=other)), Replayed).same


@pytest.mark.parametrize(
    "settings", [{}, {"by": "auroc", "pool": "mean"}, {"include_masked": True, "density_weight": False, "top": 7}]
)
def test_a_ranking_replays_the_same_with_its_own_settings(client, settings):
    ranking = ask(client, Rank(SET, **settings), Ranking)
    assert ask(client, Replay(ranking), Replayed) == Replayed(True, None, 0.0)


def test_a_ranking_that_differs_names_the_row_and_the_change(client):
    ranking = ask(client, Rank(SET, top=6), Ranking)
    rows = list(ranking.features)
    rows[2] = replace(rows[2], score=rows[2].score + 0.5)
    changed = replace(ranking, features=tuple(rows))
    again = ask(client, Replay(changed), Replayed)
    assert (again.same, again.first_difference) == (True, None)
    assert again.largest_change == pytest.approx(0.5)
    rows[2], rows[3] = rows[3], rows[2]
    again = ask(client, Replay(replace(ranking, features=tuple(rows))), Replayed)
    assert (again.same, again.first_difference) == (False, 2)


# ---- causes

ANSWERS = (Answer("she", (" she",)), Answer("he", (" he",)))

MEASURE = Measure(
    tuple(Probe(s, "raw", "", ANSWERS, x) for s, x in zip(SENTENCES[:3], (2.0, -1.0, 0.5), strict=True)), "she", "he"
)


@pytest.fixture(scope="module")
def attribution(client):
    return ask(client, Attribute(MEASURE, top=6, exact=3, controls=2), Attribution)


@pytest.fixture(scope="module")
def smallest(client, attribution):
    candidates = tuple(row.feature for row in attribution.features if not row.control)
    found = ask(client, FindMinimalSet(MEASURE, candidates, 0.9, most=3, controls=2), MinimalSet)
    assert len(found.members) > 1  # else there is little to compare
    return found


def test_causes_replay_the_same_from_nothing_remembered(client, pair, attribution, smallest, monkeypatch):
    forgotten = []
    monkeypatch.setattr(pair, "forget", lambda: forgotten.append(True))
    for recorded in (attribution, smallest):
        assert ask(client, Replay(recorded), Replayed) == Replayed(True, None, 0.0)
    assert len(forgotten) == 2


def test_an_attribution_is_run_again_as_it_was_asked_for(client, attribution):
    other = replace(attribution, request=replace(attribution.request, top=2, exact=1, controls=0))
    again = ask(client, Replay(other), Replayed)
    assert (again.same, again.first_difference) == (False, 2)  # two rows were asked for


def changed_row(attribution, at, **changes):
    rows = list(attribution.features)
    rows[at] = replace(rows[at], **changes)
    return replace(attribution, features=tuple(rows))


def test_the_largest_change_is_of_exact_effects_and_of_estimates_where_there_are_none(client, attribution):
    first = attribution.features[0]
    exact = changed_row(attribution, 0, exact=first.exact + 0.5, estimate=first.estimate + 4)
    assert ask(client, Replay(exact), Replayed).largest_change == pytest.approx(0.5)
    at = next(n for n, row in enumerate(attribution.features) if row.exact is None)
    estimate = changed_row(attribution, at, estimate=attribution.features[at].estimate - 0.25)
    again = ask(client, Replay(estimate), Replayed)
    assert again.largest_change == pytest.approx(0.25)
    assert again.same  # as with a ranking, the order decides


def test_rows_in_another_order_are_not_the_same(client, attribution):
    rows = list(attribution.features)
    rows[1], rows[2] = rows[2], rows[1]
    again = ask(client, Replay(replace(attribution, features=tuple(rows))), Replayed)
    assert again == Replayed(False, 1, 0.0)
    shorter = replace(attribution, features=attribution.features[:-1])
    again = ask(client, Replay(shorter), Replayed)
    assert again == Replayed(False, len(attribution.features) - 1, 0.0)


@pytest.mark.parametrize("field", ["share", "share_with", "share_without"])
def test_a_set_of_other_members_or_shares_is_noticed(client, smallest, field):
    if field == "share":
        changed = replace(smallest, share=smallest.share + 0.125)
    else:
        last = smallest.members[-1]
        last = replace(last, **{field: getattr(last, field) - 0.125})
        changed = replace(smallest, members=(*smallest.members[:-1], last))
    again = ask(client, Replay(changed), Replayed)
    assert again.same
    assert again.largest_change == pytest.approx(0.125)
    fewer = replace(smallest, members=smallest.members[:-1])
    again = ask(client, Replay(fewer), Replayed)
    assert (again.same, again.first_difference) == (False, len(smallest.members) - 1)
