"""The layers above a hook point, run from cached vectors, against the whole model, in every family."""

import pytest
import torch
from families import D_MODEL, FAMILIES, LAYERS, PARALLEL, write_family
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from engine.loading.load_model import load_model
from engine.models.hooks import changed, resolve_hook
from engine.models.upper_check import checked_upper
from engine.models.upper_layers import Row, UpperLayers
from engine.records import Prompt
from engine.records.errors import HookError, ModelError

CPU = torch.device("cpu")

TEXTS = ("She said the tide is in.", "A doctor ate, about noon, all of it")  # longer than the sliding window

KINDS = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "attn.hook_z")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    folder = write_family(request.param, tmp_path_factory.mktemp("family") / request.param)
    model = load_model(str(folder), request.param, CPU, torch.float32)
    return request.param, model, [model.tokens.feed(Prompt(text)).ids for text in TEXTS]


def whole(model, ids, hook=None, delta_TD=None):
    """Logits_TV of one row by itself, with delta added at the hook."""
    row = torch.tensor([ids])
    if hook is None:
        return model.module(input_ids=row, use_cache=False).logits[0]
    with changed(model.hooked_module(hook), hook, lambda h: h + delta_TD):
        return model.module(input_ids=row, use_cache=False).logits[0]


def entries(model, upper, rows):
    """What enters the hook's block, with its ids."""
    return [Row(ids, h) for ids, h in zip(rows, model.capture_batch(upper.entry, rows), strict=True)]


def points(name):
    """Each kind of point in two of the layers; in all, within three families."""
    kinds = [k for k in KINDS if k != "hook_resid_mid" or name not in PARALLEL]
    turn = FAMILIES.index(name)
    return [f"blocks.{layer}.{k}" for n, k in enumerate(kinds) for layer in range(LAYERS) if layer != (n + turn) % 3]


def close(a, b):
    return torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


def test_logits_are_the_whole_models_with_and_without_a_change(family):
    name, model, rows = family
    for point in points(name):
        hook = resolve_hook(model.module, point)
        upper = UpperLayers(model, hook)
        entry = entries(model, upper, rows)
        h = upper.hooked(entry)
        for found, ids in zip(h, rows, strict=True):
            assert close(found, model.capture_batch(hook, [ids])[0])
        generator = torch.Generator().manual_seed(0)
        deltas = [torch.randn(len(i), hook.width or D_MODEL, generator=generator) for i in rows]
        keep = [range(len(ids)) for ids in rows]
        with torch.inference_mode():
            plain = upper.logits(entry, [None, None], keep).split([len(i) for i in rows])
            both = upper.logits(entry, [deltas[0], None], keep).split([len(i) for i in rows])
            for b, ids in enumerate(rows):
                assert close(plain[b], whole(model, ids)), point
            assert close(both[0], whole(model, rows[0], hook, deltas[0])), point
            assert close(both[1], plain[1])
            assert not close(both[0], plain[0])
            some = upper.logits(entry, [None, None], [[1, 3], [len(rows[1]) - 1]])
            assert close(some, torch.cat([plain[0][[1, 3]], plain[1][-1:]]))


def test_what_comes_before_a_change_can_be_taken_from_the_past(family):
    name, model, rows = family
    for point in points(name):
        hook = resolve_hook(model.module, point)
        upper = UpperLayers(model, hook)
        entry = entries(model, upper, rows)
        past = [upper.remember(row) for row in entry]
        generator = torch.Generator().manual_seed(0)
        for start in (1, 5, 11):  # the window of those that have one holds 8
            deltas = [torch.randn(len(i), hook.width or D_MODEL, generator=generator) for i in rows]
            for delta in deltas:
                delta[:start] = 0
            keep = [[start, len(ids) - 1] for ids in rows]
            with torch.inference_mode():
                whole_rows = upper.logits(entry, [deltas[0], None], keep)
                rest = upper.logits(entry, [deltas[0], None], keep, past, start)
            assert close(rest, whole_rows), (point, start)


def test_the_model_itself_is_left_alone(family):
    _, model, rows = family
    hook = resolve_hook(model.module, "blocks.1.hook_resid_pre")
    before = whole(model, rows[0])
    upper = UpperLayers(model, hook)
    upper.logits(entries(model, upper, rows), [None, None], [[0], [0]])
    assert torch.equal(whole(model, rows[0]), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in upper._module.modules())


def test_the_gradient_is_that_of_finite_differences(family):
    name, model, rows = family
    for point in points(name):
        hook = resolve_hook(model.module, point)
        upper = UpperLayers(model, hook)
        entry = entries(model, upper, rows[:1])
        keep = [[len(rows[0]) - 1]]
        delta_BTD = torch.zeros(1, len(rows[0]), hook.width or D_MODEL, requires_grad=True)

        def value(d, upper=upper, entry=entry, keep=keep):
            logprobs = torch.log_softmax(upper.logits(entry, d, keep).double(), -1)
            return logprobs[0, 5] - logprobs[0, 9]

        (g_BTD,) = torch.autograd.grad(value(delta_BTD), delta_BTD)
        direction = torch.randn(delta_BTD.shape, generator=torch.Generator().manual_seed(1))
        eps = 1e-3
        with torch.no_grad():
            slope = (value(eps * direction) - value(-eps * direction)) / (2 * eps)
        assert float((g_BTD * direction).sum()) == pytest.approx(float(slope), rel=2e-2, abs=2e-3), point


def test_half_precision_is_run_in_float32(tmp_path):
    folder = write_family("gemma2", tmp_path / "model")
    model = load_model(str(folder), "gemma2", CPU, torch.bfloat16)
    ids = model.tokens.feed(Prompt(TEXTS[0])).ids
    hook = resolve_hook(model.module, "blocks.1.hook_resid_pre")
    upper = UpperLayers(model, hook)
    assert upper.dtype == torch.float32 and model.dtype == torch.bfloat16
    entry = entries(model, upper, [ids])
    exact = load_model(str(folder), "gemma2", CPU, torch.float32)
    with torch.no_grad():
        for wide, half in zip(exact.module.parameters(), model.module.parameters(), strict=True):
            wide.copy_(half)
    wanted = UpperLayers(exact, hook).logits([Row(ids, entry[0].entry_TD.float())], [None], [range(len(ids))])
    assert close(upper.logits(entry, [None], [range(len(ids))]), wanted)


def test_a_hook_outside_the_blocks_has_no_layers_above_it(family):
    _, model, _ = family
    embedding = next(n for n, m in model.module.named_modules() if isinstance(m, torch.nn.Embedding))
    with pytest.raises(HookError, match="none of the model's blocks"):
        UpperLayers(model, resolve_hook(model.module, embedding))


# ---- where the layers above the hook cannot be run by themselves


PLAIN = LlamaDecoderLayer.forward


def looking_back(tmp_path, monkeypatch, change=lambda h_BTD: h_BTD):
    """A model whose blocks add what the first one was given: no twin without that one can stand for it."""
    given = {}

    def forward(block, hidden_states, *args, **kwargs):
        if block.self_attn.layer_idx == 0:
            given["h"] = hidden_states
        first = given["h"] if block.self_attn.layer_idx < LAYERS - 1 else given.pop("h")
        return PLAIN(block, change(hidden_states + first), *args, **kwargs)

    monkeypatch.setattr(LlamaDecoderLayer, "forward", forward)
    model = load_model(str(write_family("llama", tmp_path / "model")), "llama", CPU, torch.float32)
    return model, resolve_hook(model.module, "blocks.1.hook_resid_post")


def test_a_model_whose_upper_layers_need_the_lower_ones_is_run_whole(tmp_path, monkeypatch):
    model, hook = looking_back(tmp_path, monkeypatch)
    upper = checked_upper(model, hook)
    assert upper.whole and not upper.with_past
    rows = [model.tokens.feed(Prompt(text)).ids for text in TEXTS]
    vectors = model.capture_batch(upper.entry, rows)
    entry = [Row(ids, entry_TD) for ids, entry_TD in zip(rows, vectors, strict=True)]
    generator = torch.Generator().manual_seed(0)
    deltas = [torch.randn(len(ids), D_MODEL, generator=generator) for ids in rows]
    with torch.inference_mode():
        past = [upper.remember(row) for row in entry]
        logits_NV = upper.logits(entry, deltas, [range(len(ids)) for ids in rows], past, start=3)
        hooked = upper.hooked(entry)
        for b, ours_TV in enumerate(logits_NV.split([len(ids) for ids in rows])):
            assert close(ours_TV, whole(model, rows[b], hook, deltas[b]))
            assert close(hooked[b], model.capture_batch(hook, [rows[b]])[0])


def test_a_model_that_gives_other_numbers_in_a_batch_is_refused(tmp_path, monkeypatch):
    model, hook = looking_back(tmp_path, monkeypatch, lambda h_BTD: h_BTD * len(h_BTD))
    with pytest.raises(ModelError, match="cannot be measured in a LlamaForCausalLM") as caught:
        checked_upper(model, hook)
    assert "probes --ablate" in caught.value.remedy
