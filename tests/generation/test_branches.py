"""Going back in a text and on with other edits; stopping it; edits planned ahead."""

import msgspec
import pytest
from driven import driven as run
from editing import active_features

from engine.generation.decoding import Text
from engine.generation.generate import generate
from engine.records import Edit, EditsFrom, Generate, Generated, Progress, Prompt, Replay, Replayed, Sampling, TokenStep
from engine.records.errors import EditError, UsageError
from engine.serving.client import ask

TEXT = "The kettle boils on the beach, because she said"

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def edits(pair):
    return tuple(Edit(f, -3.0) for f in active_features(pair, pair.model.tokens.feed(Prompt(TEXT)).ids, 6))


@pytest.fixture(params=[0.0, 1.0], ids=["greedy", "sampled"])
def asked(request, edits):
    return Generate(Prompt(TEXT), edits[:2], Sampling(24, temperature=request.param, seed=3))


def same_text(one, other):
    fields = ("baseline", "edited", "kl", "schedule", "edits", "positions", "inactive_positions", "more", "variants")
    return [field for field in fields if getattr(one, field) != getattr(other, field)] == []


def branch(asked, at, edits):
    return replace(asked, schedule=(*asked.schedule, EditsFrom(at, edits)), branched_at=at)


def test_planned_changes_are_those_sent_at_the_token_before(pair, asked, edits):
    sent, _ = run(pair, asked, {4: edits, 9: ()})
    planned, _ = run(pair, replace(asked, schedule=(EditsFrom(5, edits), EditsFrom(10, ()))))
    assert same_text(sent, planned)
    assert [change.token_index for change in planned.schedule] == [0, 5, 10]


@pytest.mark.parametrize("at", [1, 7, 23])
def test_a_branch_reuses_the_text_before_it_and_comes_out_as_from_the_start(pair, asked, edits, at):
    whole, _ = run(pair, replace(asked, schedule=(EditsFrom(at, edits),)))
    old, _ = run(pair, asked)
    text = pair.kept(Text)
    found, events = run(pair, branch(asked, at, edits))
    assert pair.kept(Text) is text
    assert same_text(found, whole)
    assert found.branched_at == at
    assert [e.index for e in events if isinstance(e, TokenStep)] == list(
        range(at, 24)
    )  # what was told is not told again
    assert found.edited.token_ids[:at] == old.edited.token_ids[:at]
    assert found.baseline == old.baseline


def test_branches_of_branches_and_back_to_the_first_edits(pair, asked, edits):
    run(pair, asked)
    text = pair.kept(Text)
    first = branch(asked, 12, ())
    run(pair, first)
    second = replace(first, schedule=(EditsFrom(6, edits),), branched_at=6)  # before the first one's change
    found, _ = run(pair, second)
    assert pair.kept(Text) is text
    whole, _ = run(pair, replace(second, branched_at=None))
    assert same_text(found, whole)


def test_a_branch_with_the_edits_that_ruled_already_is_the_same_text(pair, asked):
    old, _ = run(pair, asked)
    found, _ = run(pair, replace(asked, branched_at=9))
    assert same_text(found, old)


def test_after_the_first_edits_were_changed_a_branch_before_it_goes_under_them(pair, asked, edits):
    """The editor still holds the later edits when the text is taken up again."""
    sent, _ = run(pair, asked, {10: edits})
    found, _ = run(pair, replace(asked, branched_at=5))
    plain, _ = run(pair, asked)
    assert not same_text(sent, plain)
    assert same_text(found, plain)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": Prompt("Seven ferries left at dawn, because")},
        {"sampling": Sampling(24, temperature=0.7, seed=9)},
        {"edits": ()},
        {"prefill": "it"},
        {"variants": ((),)},
        {"max_tokens": 400},  # more than there is room for
        {"seed": 9},
        {"top_k": 3},
        {"stop": ("zz",)},
    ],
)
def test_a_branch_of_a_text_that_is_not_there_is_generated_from_the_start(pair, asked, edits, change):
    run(pair, asked)
    text = pair.kept(Text)
    if set(change) <= set(Sampling.__struct_fields__):
        change = {"sampling": replace(asked.sampling, **change)}
    wanted = replace(branch(asked, 7, edits), **change)
    found, events = run(pair, wanted)
    assert pair.kept(Text) is not text
    whole, _ = run(pair, replace(wanted, branched_at=None))
    assert same_text(found, whole)
    steps = [e.index for e in events if isinstance(e, TokenStep)]
    assert steps == list(range(7, len(whole.baseline.token_ids))) or steps[0] == 7
    assert any(isinstance(e, Progress) and e.total == 7 for e in events)


def test_another_text_in_between_takes_the_keys_and_values_away(pair, asked, edits):
    run(pair, asked)
    text = pair.kept(Text)
    run(pair, replace(asked, prompt=Prompt("Who else fears feathers?")))
    found, _ = run(pair, branch(asked, 7, edits))
    assert pair.kept(Text) is not text
    whole, _ = run(pair, replace(asked, schedule=(EditsFrom(7, edits),)))
    assert same_text(found, whole)


def test_a_text_given_up_in_the_middle_can_be_taken_up(pair, asked, edits):
    work = generate(pair, asked)
    for event in work:
        if isinstance(event, TokenStep) and event.index == 11:
            break
    work.close()
    text = pair.kept(Text)
    found, _ = run(pair, branch(asked, 8, edits))
    assert pair.kept(Text) is text
    whole, _ = run(pair, replace(asked, schedule=(EditsFrom(8, edits),)))
    assert same_text(found, whole)


def test_samples_and_variants_branch_too(pair, edits):
    asked = Generate(Prompt(TEXT), edits[:2], Sampling(20, temperature=1.0), samples=2, variants=((edits[3],), ()))
    run(pair, asked)
    text = pair.kept(Text)
    found, _ = run(pair, branch(asked, 7, edits))
    assert pair.kept(Text) is text
    whole, _ = run(pair, replace(asked, schedule=(EditsFrom(7, edits),)))
    assert same_text(found, whole)
    assert found.more[0].arm.token_ids != found.edited.token_ids


def test_an_arm_that_had_ended_stays_ended_and_one_that_had_not_goes_on(pair, asked, edits, monkeypatch):
    free, _ = run(pair, asked)
    end = free.baseline.token_ids[4]
    monkeypatch.setattr(type(pair.model), "end_ids", lambda self: {end})
    whole, _ = run(pair, replace(asked, schedule=(EditsFrom(10, edits),)))
    run(pair, asked)
    found, _ = run(pair, branch(asked, 10, edits))
    assert len(found.baseline.token_ids) == len(found.kl) <= 5
    assert same_text(found, whole)


def test_a_longer_branch_goes_on_where_the_text_had_ended(pair, asked, edits):
    run(pair, asked)
    text = pair.kept(Text)
    longer = replace(branch(asked, 20, edits), sampling=replace(asked.sampling, max_tokens=40))
    found, _ = run(pair, longer)
    assert pair.kept(Text) is text
    whole, _ = run(pair, replace(longer, branched_at=None))
    assert same_text(found, whole)


def test_a_stopped_text_is_a_result(client, pair, asked):
    stopped, _ = run(pair, asked, {6: "stop"})
    whole, _ = run(pair, asked)
    assert stopped.stopped and not whole.stopped
    assert stopped.baseline.token_ids == whole.baseline.token_ids[:7]
    assert stopped.edited.token_ids == whole.edited.token_ids[:7]
    assert stopped.kl == whole.kl[:7]
    assert stopped.first_divergence in (None, *range(7))


@pytest.mark.parametrize("at", [23, 4])
def test_a_text_that_ends_by_itself_is_not_stopped(pair, asked, monkeypatch, at):
    if at == 4:
        free, _ = run(pair, asked)
        ends = {free.baseline.token_ids[4], free.edited.token_ids[4]}
        monkeypatch.setattr(type(pair.model), "end_ids", lambda self: ends)
    whole, _ = run(pair, asked)
    found, _ = run(pair, asked, {len(whole.baseline.token_ids) - 1: "stop"} if at == 4 else {at: "stop"})
    assert same_text(found, whole)
    assert not found.stopped or len(found.edited.token_ids) < len(whole.edited.token_ids)
    assert at == 4 or not found.stopped


def test_edits_sent_on_the_way_that_cannot_be_applied_end_the_text_and_keep_it(client, pair, asked):
    whole, _ = run(pair, asked)
    found, _ = run(pair, asked, {6: (Edit(999),)})
    assert "999" in found.fault and not found.stopped
    assert found.edited.token_ids == whole.edited.token_ids[:7] and found.schedule == whole.schedule
    assert ask(client, Replay(found), Replayed).same


def test_numbers_that_overflow_end_the_text_and_poison_no_other(client, pair, asked, edits):
    whole, _ = run(pair, asked)
    wild = tuple(Edit(edit.feature, 3e38) for edit in edits)
    found, _ = run(pair, asked, {6: wild})
    assert "overflow at token 8" in found.fault
    assert found.edited.token_ids == whole.edited.token_ids[:7] and found.schedule == whole.schedule
    text = pair.kept(Text)
    branched, _ = run(pair, replace(asked, branched_at=7))
    assert pair.kept(Text) is text and same_text(branched, whole)
    run(pair, asked, {6: wild})
    again, _ = run(pair, asked)
    assert same_text(again, whole)
    assert ask(client, Replay(found), Replayed).same
    with pytest.raises(EditError, match="overflow at token 1"):
        run(pair, replace(asked, edits=wild))
    again, _ = run(pair, asked)
    assert same_text(again, whole)


def test_planned_edits_that_cannot_be_applied_are_refused_before_the_text_begins(pair, asked):
    for wanted in (replace(asked, schedule=(EditsFrom(5, (Edit(999),)),)), replace(asked, variants=((Edit(999),),))):
        with pytest.raises(EditError, match="999"):
            next(generate(pair, wanted))


def test_a_text_that_has_ended_cannot_be_gone_on_with(pair, asked, edits, monkeypatch):
    free, _ = run(pair, asked)
    ends = {free.baseline.token_ids[0], free.edited.token_ids[0]}
    monkeypatch.setattr(type(pair.model), "end_ids", lambda self: ends)
    run(pair, asked)
    found, events = run(pair, branch(asked, 1, edits))
    whole, _ = run(pair, replace(asked, schedule=(EditsFrom(1, edits),)))
    assert same_text(found, whole)
    assert not [event for event in events if isinstance(event, TokenStep)]


def test_a_branch_beside_recorded_variants_reuses_the_text(pair, asked, edits):
    variants = ((Edit(edits[0].feature, 2.0, "steer"),), (Edit(edits[1].feature, 0.5, "set", "generated"),))
    old, _ = run(pair, replace(asked, variants=variants))
    assert old.variants != variants  # what the strengths came to is filled in
    text = pair.kept(Text)
    found, _ = run(pair, branch(replace(asked, variants=old.variants), 9, edits))
    assert pair.kept(Text) is text
    whole, _ = run(pair, replace(asked, variants=variants, schedule=(EditsFrom(9, edits),)))
    assert same_text(found, whole)
    run(pair, branch(replace(asked, variants=variants[:1]), 9, edits))
    assert pair.kept(Text) is not text


def test_branches_replay(client, pair, asked, edits):
    run(pair, asked)
    recorded, _ = run(pair, branch(asked, 7, edits))
    assert ask(client, Replay(recorded), Replayed).same


@pytest.mark.parametrize(
    "fields",
    [
        {"branched_at": 0},
        {"branched_at": 24},
        {"schedule": (EditsFrom(0, ()),)},
        {"schedule": (EditsFrom(24, ()),)},
        {"schedule": (EditsFrom(9, ()), EditsFrom(3, ()))},
        {"schedule": (EditsFrom(3, ()), EditsFrom(3, ()))},
    ],
)
def test_tokens_that_are_not_there_are_refused(client, asked, fields):
    with pytest.raises(UsageError):
        ask(client, replace(asked, **fields), Generated)


def test_the_schedule_says_what_strengths_came_to(pair, asked, edits):
    steered = (Edit(edits[0].feature, 2.0, "steer"),)
    found, _ = run(pair, replace(asked, schedule=(EditsFrom(5, steered),), variants=(steered,)))
    reference = pair.site.reference
    expected = 2.0 * float(reference.maximum_F[edits[0].feature]) * reference.median_u
    assert found.schedule[1].edits[0].absolute == pytest.approx(expected)
    assert found.variants[0][0].absolute == pytest.approx(expected)
