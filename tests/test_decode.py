"""Generation against a plain loop of full forward passes, reproducibility, KL, stopping."""

import plain
import pytest
import torch
from test_edits import active_features, hooks_on

from engine.client import ask
from engine.decode import decode, paired_logprobs
from engine.demo.model import finish
from engine.edits import ResidualEditor
from engine.errors import UsageError
from engine.records import Edit, EditsFrom, Generate, Generated, Prompt, Replay, Replayed, Sampling, Show, TokenStep

TEXT = "The kettle boils on the beach, because she said"


@pytest.fixture(scope="module")
def ids(explorer):
    return explorer.model.tokens.feed(Prompt(TEXT)).ids


@pytest.fixture(scope="module")
def edits(explorer, ids):
    return tuple(Edit(f, -3.0) for f in active_features(explorer, ids, 6))


def generate(client, edits, **sampling):
    return ask(client, Generate(Prompt(TEXT), edits, Sampling(**{"max_tokens": 16, **sampling})), Generated)


def plain_greedy(explorer, ids, edits, row, steps):
    """One full forward pass per token, no cache."""
    new = []
    for _ in range(steps):
        out = paired_logprobs(explorer.model, explorer.editor(edits), [*ids, *new, 0], 1)[row]
        new.append(int(out[-1].argmax()))
        if new[-1] in explorer.model.end_ids():
            break
    return new


def test_greedy_tokens_of_both_arms_equal_a_loop_without_cache(client, explorer, ids, edits):
    result = generate(client, edits)
    assert list(result.baseline.token_ids) == plain_greedy(explorer, ids, (), 0, 16)
    assert list(result.edited.token_ids) == plain_greedy(explorer, ids, edits, 1, 16)
    assert result.baseline.token_ids != result.edited.token_ids
    at = result.first_divergence
    assert result.baseline.token_ids[:at] == result.edited.token_ids[:at]
    assert result.baseline.token_ids[at] != result.edited.token_ids[at]


def test_logprobs_are_the_rows_own(client, explorer, ids, edits):
    result = generate(client, edits)
    for row, arm in enumerate((result.baseline, result.edited)):
        whole = [*ids, *arm.token_ids]
        expected = paired_logprobs(explorer.model, explorer.editor(edits), whole, len(arm.token_ids))[row]
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


def test_sampled_tokens_follow_the_distribution(explorer, ids):
    from engine.decode import choose

    logprobs = torch.log_softmax(torch.tensor([[0.0, 1.0, 2.0, -1.0]]), -1)
    generator = torch.Generator().manual_seed(0)
    counts = torch.bincount(torch.cat([choose(logprobs, 0.5, generator)[0] for _ in range(4000)]), minlength=4) / 4000
    assert torch.allclose(counts, torch.softmax(torch.tensor([0.0, 2.0, 4.0, -2.0]), -1), atol=0.02)


def test_kl_equals_the_formula_in_float64(client, explorer, ids, edits):
    result = generate(client, edits)
    whole = [*ids, *result.baseline.token_ids]
    base, edited = (x.double() for x in paired_logprobs(explorer.model, explorer.editor(edits), whole, 16))
    expected = [float((b.exp() * (b - e)).sum()) for b, e in zip(base, edited, strict=True)]
    assert list(result.kl) == pytest.approx(expected, abs=1e-5)
    assert max(result.kl) > 1e-3


def test_margins_are_the_gap_between_the_two_likeliest_tokens(client, explorer, ids, edits):
    result = generate(client, edits)
    for row, arm in enumerate((result.baseline, result.edited)):
        whole = [*ids, *arm.token_ids]
        logprobs = paired_logprobs(explorer.model, explorer.editor(edits), whole, len(arm.token_ids))[row]
        first, second = logprobs.topk(2).values.T
        assert list(arm.margins) == pytest.approx((first - second).tolist(), abs=1e-4)


def with_changes(explorer, ids, edits, changes, steps=12):
    """Tokens of both arms by one full pass a token, the KV cache's history kept: each position has its own edits."""
    work = decode(explorer.model, explorer.editor(edits), ids, Sampling(max_tokens=steps))
    answer = None
    while True:
        try:
            step = work.send(answer)
        except StopIteration as done:
            return done.value
        answer = changes.get(step.index)


def test_edits_sent_after_a_token_rule_from_the_next_one_on(explorer, ids, edits):
    off = with_changes(explorer, ids, edits, {})
    none = with_changes(explorer, ids, (), {})
    switched = with_changes(explorer, ids, (), {4: edits})
    assert switched.baseline.ids == off.baseline.ids == none.baseline.ids
    # up to token 4, and token 5's own distribution apart, nothing is edited
    assert switched.edited.ids[:5] == none.edited.ids[:5]
    assert switched.edited.logprobs[:5] == none.edited.logprobs[:5]
    assert switched.edited.logprobs[5] != none.edited.logprobs[5]
    assert switched.schedule == [EditsFrom(0, ()), EditsFrom(5, edits)]
    assert switched.kl[:5] == pytest.approx([0.0] * 5, abs=1e-7)
    assert max(switched.kl[5:]) > 1e-3


def test_the_token_after_a_switch_equals_a_pass_with_edits_at_its_position_alone(explorer, ids, edits):
    """A cache computed without edits, then one position fed with them: what a switch means, written out plainly."""
    from transformers import DynamicCache

    at = 4
    switched = with_changes(explorer, ids, (), {at: edits})
    fed = [*ids, *switched.edited.ids[: at + 1]]
    editor, cache = explorer.editor(edits), DynamicCache(config=explorer.model.module.config)
    with torch.inference_mode():
        explorer.model.module(input_ids=torch.tensor([fed[:-1]]), past_key_values=cache)
        last, rows = torch.tensor([fed[-1:]]), torch.tensor([True])
        editor.expect(last, rows)
        with editor.applied():
            out = explorer.model.module(input_ids=last, past_key_values=cache)
    logprobs = torch.log_softmax(out.logits[0, -1], -1)
    assert int(logprobs.argmax()) == switched.edited.ids[at + 1]
    assert float(logprobs.max()) == pytest.approx(switched.edited.logprobs[at + 1], abs=1e-4)


def test_edits_sent_again_or_after_the_last_token_change_nothing(explorer, ids, edits):
    plainly = with_changes(explorer, ids, edits, {})
    again = with_changes(explorer, ids, edits, {3: edits, 11: ()})
    assert (again.edited.ids, again.schedule) == (plainly.edited.ids, plainly.schedule)


def test_a_generation_whose_edits_changed_replays_the_same(client, explorer, ids, edits):
    work = explorer.generate(Generate(Prompt(TEXT), (), Sampling(max_tokens=12, temperature=1.0, seed=2)))
    answer = None
    while True:
        try:
            event = work.send(answer)
        except StopIteration as done:
            recorded = done.value
            break
        answer = {2: edits, 6: edits[:2], 9: ()}.get(event.index) if isinstance(event, TokenStep) else None
    assert [change.token_index for change in recorded.schedule] == [0, 3, 7, 10]
    assert ask(client, Replay(recorded), Replayed).same


def test_another_verb_may_run_between_two_tokens(client, explorer, edits):
    alone = generate(client, edits)
    work = explorer.generate(Generate(Prompt(TEXT), edits, Sampling(max_tokens=16)))
    while True:
        try:
            event = next(work)
        except StopIteration as done:
            found = done.value
            break
        if isinstance(event, TokenStep):
            explorer._reads.clear()
            for _ in explorer.show(Show(3, (Prompt("Seven ferries left"), Prompt("at dawn")))):
                pass
    assert (found.baseline, found.edited) == (alone.baseline, alone.edited)


def test_an_arm_ends_at_its_end_token_and_the_other_goes_on(explorer, ids, edits, monkeypatch):
    free = finish(decode(explorer.model, explorer.editor(edits), ids, Sampling(max_tokens=12)))
    end = next(t for t in free.baseline.ids if t not in free.edited.ids)
    monkeypatch.setattr(type(explorer.model), "end_ids", lambda self: {end})
    steps = list(decode(explorer.model, explorer.editor(edits), ids, Sampling(max_tokens=12)))
    stop = free.baseline.ids.index(end)
    assert [s.baseline is None for s in steps] == [i > stop for i in range(12)]
    assert all(s.edited is not None for s in steps)


def test_closing_a_generation_removes_its_hooks(explorer, ids, edits):
    before = hooks_on(explorer)
    steps = decode(explorer.model, explorer.editor(edits), ids, Sampling(max_tokens=50))
    next(steps)
    assert hooks_on(explorer) == before  # not even between two tokens
    steps.close()
    assert hooks_on(explorer) == before


@pytest.mark.parametrize("sampling", [{"max_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")}])
def test_sampling_settings_that_make_no_sense_are_refused(client, sampling):
    with pytest.raises(UsageError):
        generate(client, (), **sampling)


def test_the_baseline_does_not_depend_on_the_edits(client, edits):
    assert generate(client, ()).baseline == generate(client, edits).baseline


def test_scale_one_is_exact_in_bfloat16_too(model_bf16, explorer, ids):
    no_op = [Edit(f, 1.0) for f in range(40)]
    editor = ResidualEditor(model_bf16, explorer.sae, explorer.hook, no_op, explorer.reference.sink_norm)
    found = finish(decode(model_bf16, editor, ids, Sampling(max_tokens=16)))
    assert (found.baseline.ids, found.baseline.logprobs) == (found.edited.ids, found.edited.logprobs)


def test_the_logprobs_of_a_sampled_run_are_the_models_own_not_the_temperatures(client, explorer, ids):
    sampled = generate(client, (), temperature=2.0, seed=3, max_tokens=6).baseline
    whole = plain.logprobs(explorer.model.module, [*ids, *sampled.token_ids])
    expected = [whole[len(ids) - 1 + t, token] for t, token in enumerate(sampled.token_ids)]
    assert list(sampled.logprobs) == pytest.approx(expected, abs=1e-4)


def test_generation_ends_when_both_arms_have_ended(explorer, ids, monkeypatch):
    free = finish(decode(explorer.model, explorer.editor(()), ids, Sampling(max_tokens=12)))
    end = free.baseline.ids[4]
    monkeypatch.setattr(type(explorer.model), "end_ids", lambda self: {end})
    found = finish(decode(explorer.model, explorer.editor(()), ids, Sampling(max_tokens=12)))
    assert found.baseline.ids == found.edited.ids == free.baseline.ids[: free.baseline.ids.index(end) + 1]
    assert found.baseline.ended


def test_a_failing_forward_pass_removes_the_hooks(explorer, ids, edits, monkeypatch):
    before = hooks_on(explorer)
    editor = explorer.editor(edits)
    monkeypatch.setattr(editor, "edit", lambda h: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        finish(decode(explorer.model, editor, ids, Sampling(max_tokens=2)))
    assert hooks_on(explorer) == before


def test_an_abandoned_request_removes_the_hooks(client, explorer, edits):
    before = hooks_on(explorer)
    events = client.stream(Generate(Prompt(TEXT), edits))
    next(event for event in events if isinstance(event, TokenStep))
    events.close()
    assert hooks_on(explorer) == before


def test_positions_are_those_of_the_edited_arm(client, edits):
    result = generate(client, edits[:1])
    fed = len(result.prompt.token_ids) + len(result.edited.token_ids) - 1  # the last token is never fed
    assert result.positions == fed - 1  # the leading token
    assert 0 < result.inactive_positions < result.positions
    assert len(result.kl) == len(result.baseline.token_ids)
