"""Generation against a plain loop of full forward passes, reproducibility, KL, stopping."""

import pytest
import torch
from test_edits import active_features, hooks_on

from engine.client import ask
from engine.decode import decode, kl_per_token, paired_logprobs
from engine.demo.model import finish
from engine.errors import UsageError
from engine.records import Edit, Generate, Generated, Prompt, Sampling

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


def test_kl_equals_the_formula_in_float64(explorer, ids, edits):
    new = plain_greedy(explorer, ids, (), 0, 6)
    base, edited = (x.double() for x in paired_logprobs(explorer.model, explorer.editor(edits), [*ids, *new], len(new)))
    expected = [float((b.exp() * (b - e)).sum()) for b, e in zip(base, edited, strict=True)]
    found = kl_per_token(explorer.model, explorer.editor(edits), ids, new)
    assert found == pytest.approx(expected, abs=1e-5)
    assert max(found) > 1e-3


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
    assert hooks_on(explorer) == before + 1
    steps.close()
    assert hooks_on(explorer) == before


@pytest.mark.parametrize("sampling", [{"max_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")}])
def test_sampling_settings_that_make_no_sense_are_refused(client, sampling):
    with pytest.raises(UsageError):
        generate(client, (), **sampling)
