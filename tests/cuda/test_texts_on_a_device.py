"""Texts on a device: captured steps against plain ones, all kinds of edits, toggles, branches, samples."""

import gc

import pytest
from driven import driven
from editing import every_kind
from msgspec.structs import replace

from engine.generation import steps as steps_module
from engine.generation.decoding import Text
from engine.generation.generate import KeptSteps, generate
from engine.loading.demo.model import finish
from engine.records import Edit, Generate, Load, Loaded, Prompt, Sampling
from engine.serving.client import ask
from engine.serving.local import LocalClient

TEXT = "Seven ferries left at dawn, because"

CLOSE = 1e-3
"""Nats: a captured step may take other kernels than the plain one, the GPU other ones than the CPU."""

ENCODERS = [("standard", "none"), ("jumprelu", "constant_norm_rescale"), ("topk", "layer_norm"), ("gated", "none")]


@pytest.fixture(scope="module", params=ENCODERS, ids=lambda kind: kind[0])
def encoder(request, on_device, device, tmp_path_factory):
    """A pair of this encoder on the device, and the same on the CPU."""
    from tiny import sae_weights, write_sae

    kind, normalisation = request.param
    weights = None
    if kind == "gated":
        weights = sae_weights("standard")
        bias_F = weights.pop("b_enc")
        weights |= {"b_gate": bias_F, "b_mag": bias_F.clone(), "r_mag": 0.1 * bias_F}
    folder = write_sae(tmp_path_factory.mktemp(kind) / "sae", kind, normalisation, weights=weights)
    pairs = []
    for name in (str(device), "cpu"):
        client = LocalClient()
        request = Load(model=on_device.model, sae=str(folder), reference=on_device.reference, dtype="float32")
        ask(client, replace(request, device=name), Loaded)
        pairs.append(client._pair)
    return pairs


def at_once(monkeypatch):
    monkeypatch.setattr(steps_module, "CAPTURE_AFTER", {"cpu": 0, "cuda": 0})


def never(monkeypatch):
    monkeypatch.setattr(steps_module, "CAPTURE_AFTER", {})


def toggled(pair, num_tokens=32, **how):
    """A text during which every kind of edit is switched on, changed and off again, with a variant and a sample."""
    lists, every = every_kind(pair, TEXT), 4
    sampling = Sampling(num_tokens, seed=1, **how)
    request = Generate(Prompt(TEXT), lists[0], sampling, variants=(lists[1],), samples=2 if how else 1)
    replies = {index: lists[(index // every + 1) % len(lists)] for index in range(every - 1, num_tokens, every)}
    pair.drop(KeptSteps)
    return driven(pair, request, replies)[0]


def assert_alike(found, wanted):
    """Every arm the same tokens, with the same log-probabilities and KL."""
    arms = [(found.baseline, wanted.baseline), (found.edited, wanted.edited)]
    arms += [(a.arm, b.arm) for a, b in zip(found.more, wanted.more, strict=True)]
    for arm, wanted_arm in arms:
        assert arm.token_ids == wanted_arm.token_ids
        assert arm.logprobs == pytest.approx(wanted_arm.logprobs, abs=CLOSE)
    assert found.kl == pytest.approx(wanted.kl, abs=CLOSE)
    assert (found.positions, found.inactive_positions) == (wanted.positions, wanted.inactive_positions)


@pytest.mark.parametrize("how", [{}, {"temperature": 1.0, "top_p": 0.95}], ids=["greedy", "sampled"])
def test_captured_and_plain_steps_write_the_same_text(encoder, monkeypatch, how):
    pair, on_cpu = encoder
    at_once(monkeypatch)
    captured = toggled(pair, **how)
    assert pair.kept(Text).steps._captured is not None
    never(monkeypatch)
    plain = toggled(pair, **how)
    assert pair.kept(Text).steps._captured is None
    assert len(set(plain.edited.token_ids)) > 5
    assert_alike(captured, plain)
    assert_alike(plain, toggled(on_cpu, **how))


def test_an_edit_that_is_off_changes_no_bit(pair, monkeypatch):
    at_once(monkeypatch)
    pair.drop(KeptSteps)
    generated = finish(generate(pair, Generate(Prompt(TEXT), (Edit(3, 1.0), Edit(5, 0.0, "steer")), Sampling(24))))
    assert generated.edited.logprobs == generated.baseline.logprobs
    assert set(generated.kl) == {0.0}


def test_a_toggle_acts_on_the_next_token(pair, monkeypatch):
    at_once(monkeypatch)
    pair.drop(KeptSteps)
    request = Generate(Prompt(TEXT), (), Sampling(24))
    toggled, _ = driven(pair, request, {9: (Edit(3, 5.0, "steer"),)})
    assert toggled.kl[:10] == (0.0,) * 10 and toggled.kl[10] > 0
    assert [change.token_index for change in toggled.schedule] == [0, 10]


def test_a_branch_is_what_its_schedule_gives_from_the_start(pair, monkeypatch):
    at_once(monkeypatch)
    pair.drop(KeptSteps)
    first, _ = driven(pair, Generate(Prompt(TEXT), (), Sampling(24)), {5: (Edit(3, 5.0, "steer"),)})
    branch = Generate(Prompt(TEXT), (), Sampling(24), schedule=first.schedule[1:], branched_at=12)
    taken_up = finish(generate(pair, branch))
    pair.drop(KeptSteps)
    pair.drop(Text)
    anew = finish(generate(pair, branch))
    assert_alike(taken_up, anew)
    assert taken_up.schedule == anew.schedule


def test_many_samples(pair):
    request = Generate(Prompt(TEXT), (Edit(3, 3.0, "steer"),), Sampling(12, temperature=1.0, seed=5), samples=6)
    generated = finish(generate(pair, request))
    alone = finish(generate(pair, replace(request, samples=1, sampling=replace(request.sampling, seed=8))))
    fourth = [other.arm for other in generated.more if other.sample == 3]
    assert [arm.token_ids for arm in fourth] == [alone.baseline.token_ids, alone.edited.token_ids]


def test_a_capture_survives_graphs_that_become_garbage(pair, device, monkeypatch):
    at_once(monkeypatch)
    thresholds = gc.get_threshold()
    for _ in range(2):
        finish(generate(pair, Generate(Prompt(TEXT), (Edit(3),), Sampling(4))))
        cycle = [pair.kept(KeptSteps).popitem()]
        cycle.append(cycle)  # only the collector can free it
        del cycle
    pair.drop(Text)
    gc.set_threshold(1)
    try:
        finish(generate(pair, Generate(Prompt(TEXT), (Edit(3),), Sampling(4))))
    finally:
        gc.set_threshold(*thresholds)
    assert pair.kept(Text).steps._captured is not None
