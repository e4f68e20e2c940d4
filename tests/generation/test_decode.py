"""Generation against a plain loop of full forward passes, reproducibility, KL, stopping."""

import plain
import pytest
import torch
from driven import driven
from editing import active_features

from engine.features.activations import show
from engine.generation.answers import paired_logprobs
from engine.generation.decoding import Text, lists_of, rows_of
from engine.generation.edits import GENERATED, ResidualEditor, make_editor
from engine.generation.generate import generate as generating
from engine.generation.steps import Steps
from engine.loading.demo.model import finish
from engine.records import Edit, EditsFrom, Generate, Generated, Prompt, Replay, Replayed, Sampling, Show, TokenStep
from engine.records.errors import UsageError
from engine.serving.client import ask

TEXT = "The kettle boils on the beach, because she said"


@pytest.fixture(scope="module")
def ids(pair):
    return pair.model.tokens.feed(Prompt(TEXT)).ids


@pytest.fixture(scope="module")
def edits(pair, ids):
    return tuple(Edit(f, -3.0) for f in active_features(pair, ids, 6))


def asked(edits, max_tokens=12, **fields):
    return Generate(Prompt(TEXT), tuple(edits), Sampling(max_tokens=max_tokens), **fields)


def hooks_on(pair):
    module = pair.model.bare.get_submodule(pair.site.reads_at.path)
    return len(module._forward_pre_hooks) + len(module._forward_hooks)


def generate(client, edits, **sampling):
    return ask(client, Generate(Prompt(TEXT), edits, Sampling(**{"max_tokens": 16, **sampling})), Generated)


def plain_greedy(pair, ids, edits, row, steps):
    """One full forward pass per token, no cache."""
    new = []
    for _ in range(steps):
        out = paired_logprobs(pair.model, make_editor(pair, [(), edits]), [*ids, *new, 0], 1)[row]
        new.append(int(out[-1].argmax()))
        if new[-1] in pair.model.end_ids():
            break
    return new


def test_greedy_tokens_of_both_arms_equal_a_loop_without_cache(client, pair, ids, edits):
    result = generate(client, edits)
    assert list(result.baseline.token_ids) == plain_greedy(pair, ids, (), 0, 16)
    assert list(result.edited.token_ids) == plain_greedy(pair, ids, edits, 1, 16)
    assert result.baseline.token_ids != result.edited.token_ids
    at = result.first_divergence
    assert result.baseline.token_ids[:at] == result.edited.token_ids[:at]
    assert result.baseline.token_ids[at] != result.edited.token_ids[at]


def test_logprobs_are_the_rows_own(client, pair, ids, edits):
    result = generate(client, edits)
    for row, arm in enumerate((result.baseline, result.edited)):
        whole = [*ids, *arm.token_ids]
        expected = paired_logprobs(pair.model, make_editor(pair, [(), edits]), whole, len(arm.token_ids))[row]
        chosen = expected.gather(1, torch.tensor(arm.token_ids)[:, None])[:, 0]
        assert torch.allclose(chosen, torch.tensor(arm.logprobs), atol=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_scale_of_one_gives_the_baseline_bit_for_bit(client, edits, temperature):
    no_op = tuple(Edit(e.feature, 1.0) for e in edits)
    result = generate(client, no_op, temperature=temperature, seed=3)
    assert result.baseline == result.edited
    assert result.first_divergence is None
    assert result.kl == pytest.approx([0.0] * len(result.kl), abs=1e-7)
    assert result.inactive_positions < result.positions


def test_sampling_repeats_with_its_seed_and_only_with_it(client, edits):
    first, again, other = (generate(client, edits, temperature=1.0, seed=s) for s in (5, 5, 6))
    assert first.baseline == again.baseline
    assert first.edited == again.edited
    assert first.baseline.token_ids != other.baseline.token_ids


def test_kl_equals_the_formula_in_float64(client, pair, ids, edits):
    result = generate(client, edits)
    whole = [*ids, *result.baseline.token_ids]
    base, edited = (x.double() for x in paired_logprobs(pair.model, make_editor(pair, [(), edits]), whole, 16))
    expected = [float((b.exp() * (b - e)).sum()) for b, e in zip(base, edited, strict=True)]
    assert list(result.kl) == pytest.approx(expected, abs=1e-5)
    assert max(result.kl) > 1e-3


def test_margins_are_the_gap_between_the_two_likeliest_tokens(client, pair, ids, edits):
    result = generate(client, edits)
    for row, arm in enumerate((result.baseline, result.edited)):
        whole = [*ids, *arm.token_ids]
        logprobs = paired_logprobs(pair.model, make_editor(pair, [(), edits]), whole, len(arm.token_ids))[row]
        first, second = logprobs.topk(2).values.T
        assert list(arm.margins) == pytest.approx((first - second).tolist(), abs=1e-4)


def with_changes(pair, ids, edits, changes, steps=12):
    """A generation whose edits are changed in answer to some of its tokens."""
    return driven(pair, asked(edits, steps), changes)[0]


def test_edits_sent_after_a_token_rule_from_the_next_one_on(pair, ids, edits):
    off = with_changes(pair, ids, edits, {})
    none = with_changes(pair, ids, (), {})
    switched = with_changes(pair, ids, (), {4: edits})
    assert switched.baseline.token_ids == off.baseline.token_ids == none.baseline.token_ids
    # up to token 4, and token 5's own distribution apart, nothing is edited
    assert switched.edited.token_ids[:5] == none.edited.token_ids[:5]
    assert switched.edited.logprobs[:5] == none.edited.logprobs[:5]
    assert switched.edited.logprobs[5] != none.edited.logprobs[5]
    assert switched.schedule == (EditsFrom(0, ()), EditsFrom(5, edits))
    assert switched.kl[:5] == pytest.approx([0.0] * 5, abs=1e-7)
    assert max(switched.kl[5:]) > 1e-3


def test_the_token_after_a_switch_equals_a_pass_with_edits_at_its_position_alone(pair, ids, edits):
    """A cache computed without edits, then one position fed with them: what a switch means, written out plainly."""
    from transformers import DynamicCache

    at = 4
    switched = with_changes(pair, ids, (), {at: edits})
    fed = [*ids, *switched.edited.token_ids[: at + 1]]
    editor, cache = make_editor(pair, [edits]), DynamicCache(config=pair.model.module.config)
    with torch.inference_mode():
        pair.model.module(input_ids=torch.tensor([fed[:-1]]), past_key_values=cache)
        last = torch.tensor([fed[-1:]])
        editor.expect(last, torch.tensor([[GENERATED]]))
        with editor.applied():
            out = pair.model.module(input_ids=last, past_key_values=cache)
    logprobs = torch.log_softmax(out.logits[0, -1], -1)
    assert int(logprobs.argmax()) == switched.edited.token_ids[at + 1]
    assert float(logprobs.max()) == pytest.approx(switched.edited.logprobs[at + 1], abs=1e-4)


def test_edits_sent_again_or_after_the_last_token_change_nothing(pair, ids, edits):
    plainly = with_changes(pair, ids, edits, {})
    again = with_changes(pair, ids, edits, {3: edits, 11: ()})
    assert (again.edited.token_ids, again.schedule) == (plainly.edited.token_ids, plainly.schedule)


def test_a_generation_whose_edits_changed_replays_the_same(client, pair, ids, edits):
    request = Generate(Prompt(TEXT), (), Sampling(max_tokens=12, temperature=1.0, seed=2))
    recorded, _ = driven(pair, request, {2: edits, 6: edits[:2], 9: ()})
    assert [change.token_index for change in recorded.schedule] == [0, 3, 7, 10]
    assert ask(client, Replay(recorded), Replayed).same


def test_another_verb_may_run_between_two_tokens(client, pair, edits):
    alone = generate(client, edits)
    work = generating(pair, Generate(Prompt(TEXT), edits, Sampling(max_tokens=16)))
    while True:
        try:
            event = next(work)
        except StopIteration as done:
            found = done.value
            break
        if isinstance(event, TokenStep):
            pair._reads.clear()
            for _ in show(pair, Show(3, (Prompt("Seven ferries left"), Prompt("at dawn")))):
                pass
    assert (found.baseline, found.edited) == (alone.baseline, alone.edited)


def test_an_arm_ends_at_its_end_token_and_the_other_goes_on(pair, ids, edits, monkeypatch):
    free = finish(generating(pair, asked(edits)))
    end = next(t for t in free.baseline.token_ids if t not in free.edited.token_ids)
    monkeypatch.setattr(type(pair.model), "end_ids", lambda self: {end})
    steps = [e for e in generating(pair, asked(edits)) if isinstance(e, TokenStep)]
    stop = free.baseline.token_ids.index(end)
    assert [s.baseline is None for s in steps] == [i > stop for i in range(12)]
    assert all(s.edited is not None for s in steps)


def test_closing_a_generation_removes_its_hooks(pair, ids, edits):
    steps = generating(pair, asked(edits, 50))
    while not isinstance(next(steps), TokenStep):
        pass
    assert not hooks_on(pair)  # not even between two tokens
    steps.close()
    assert not hooks_on(pair)


@pytest.mark.parametrize("sampling", [{"max_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")}])
def test_sampling_settings_that_make_no_sense_are_refused(client, sampling):
    with pytest.raises(UsageError):
        generate(client, (), **sampling)


def test_the_baseline_does_not_depend_on_the_edits(client, edits):
    assert generate(client, ()).baseline == generate(client, edits).baseline


def test_scale_one_is_exact_in_bfloat16_too(model_bf16, pair, ids):
    request = asked([Edit(f, 1.0) for f in range(40)], 40)  # long enough for the step to be captured
    rows = rows_of(request)
    lists = lists_of(request, rows, request.edits)
    editor = ResidualEditor(model_bf16, pair.site.sae, pair.site.reads_at, pair.site.reference, lists)
    baseline, edited, _ = finish(Text(model_bf16, Steps(model_bf16, editor, 128), rows, ids, request).run()).arms
    assert len(baseline.ids) > 20
    assert (baseline.ids, baseline.logprobs) == (edited.ids, edited.logprobs)


def test_the_logprobs_of_a_sampled_run_are_the_models_own_not_the_temperatures(client, pair, ids):
    sampled = generate(client, (), temperature=2.0, seed=3, max_tokens=6).baseline
    whole = plain.logprobs(pair.model.module, [*ids, *sampled.token_ids])
    expected = [whole[len(ids) - 1 + t, token] for t, token in enumerate(sampled.token_ids)]
    assert list(sampled.logprobs) == pytest.approx(expected, abs=1e-4)


def test_generation_ends_when_both_arms_have_ended(pair, ids, monkeypatch):
    free = finish(generating(pair, asked(())))
    end = free.baseline.token_ids[4]
    monkeypatch.setattr(type(pair.model), "end_ids", lambda self: {end})
    found = finish(generating(pair, asked(())))
    assert (
        found.baseline.token_ids
        == found.edited.token_ids
        == free.baseline.token_ids[: free.baseline.token_ids.index(end) + 1]
    )


def test_a_failing_forward_pass_removes_the_hooks(pair, ids, edits, monkeypatch):
    monkeypatch.setattr(ResidualEditor, "edit", lambda self, h: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        finish(generating(pair, asked(edits, 2)))
    assert not hooks_on(pair)


def test_an_abandoned_request_removes_the_hooks(client, pair, edits):
    events = client.stream(Generate(Prompt(TEXT), edits))
    next(event for event in events if isinstance(event, TokenStep))
    events.close()
    assert not hooks_on(pair)


def test_positions_are_those_of_the_edited_arm(client, edits):
    result = generate(client, edits[:1])
    fed = len(result.prompt.token_ids) + len(result.edited.token_ids) - 1  # the last token is never fed
    assert result.positions == fed - 1  # the leading token
    assert 0 < result.inactive_positions < result.positions
    assert len(result.kl) == len(result.baseline.token_ids)
