"""Packed linear layers: the same bits, where there is room, and the plain way wherever something speaks against it."""

import gc
import weakref

import pytest
import torch
from torch import nn

from engine.generation import steps
from engine.generation.decoding import Text, lists_of, rows_of
from engine.generation.edits import ResidualEditor
from engine.generation.steps import Steps
from engine.loading.demo.model import finish
from engine.loading.load_model import load_model
from engine.models import fast_layers as packed
from engine.models.bare import twin
from engine.models.fast_layers import PackedLinear, pack
from engine.records import Edit, Generate, Prompt, Sampling


def layers(dtype=torch.bfloat16):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(96, 64), nn.ReLU(), nn.Sequential(nn.Linear(64, 300, bias=False))).to(dtype)


def kinds(model):
    return [type(module) for module in model.modules() if hasattr(module, "in_features")]


needs_onednn = pytest.mark.skipif(
    not all(kind is PackedLinear for kind in kinds(pack(layers()))), reason="this torch packs no bfloat16 weights"
)


@needs_onednn
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (2, 40), (1, 7)])
def test_products_are_the_same_bits(shape):
    plain, model = layers(), pack(layers())
    x = torch.randn(*shape, 96, generator=torch.Generator().manual_seed(1)).bfloat16()
    with torch.inference_mode():
        assert torch.equal(model(x), plain(x))
        # of what is not in one piece plain layers round the product before they add the bias
        own, other = model(x.transpose(0, 1)), plain(x.transpose(0, 1))
        assert torch.allclose(own.float(), other.float(), atol=2e-2)
        assert torch.equal(own, model(x).transpose(0, 1))


@needs_onednn
def test_a_text_of_the_packed_model_is_that_of_the_plain_one(model_bf16, pair, monkeypatch):
    monkeypatch.setattr(steps, "CAPTURE_AFTER", {"cpu": 4})
    request = Generate(Prompt("Seven ferries left"), (Edit(3, -4.0), Edit(5, 6.0)), Sampling(24, temperature=1.0))
    ids, rows = model_bf16.tokens.feed(request.prompt).ids, rows_of(request)
    found = []
    for bare in (twin(model_bf16.module), pack(twin(model_bf16.module))):
        monkeypatch.setitem(vars(model_bf16), "bare", bare)
        lists = lists_of(request, rows, request.edits)
        editor = ResidualEditor(model_bf16, pair.site.sae, pair.site.reads_at, pair.site.reference, lists)
        own = Steps(model_bf16, editor, 128)
        found.append(finish(Text(model_bf16, own, rows, ids, request).run()))
        assert own._captured is not None
    assert PackedLinear in kinds(bare)
    assert [arm.ids for arm in found[0].arms] == [arm.ids for arm in found[1].arms]
    assert [arm.logprobs for arm in found[0].arms] == [arm.logprobs for arm in found[1].arms]


def test_the_model_itself_is_left_alone(model_bf16):
    pack(twin(model_bf16.module))
    assert set(kinds(model_bf16.module)) == {nn.Linear}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_dtypes_are_not_packed(dtype):
    assert set(kinds(pack(layers(dtype)))) == {nn.Linear}


def test_without_room_nothing_is_packed(monkeypatch):
    size = 2 * (96 * 64 + 64 * 300)
    monkeypatch.setattr(packed, "free_bytes", lambda device: 4 * size - 1)
    assert set(kinds(pack(layers()))) == {nn.Linear}


@needs_onednn
def test_with_just_enough_room_it_is(monkeypatch):
    size = 2 * (96 * 64 + 64 * 300)
    monkeypatch.setattr(packed, "free_bytes", lambda device: 4 * size)
    assert set(kinds(pack(layers()))) == {PackedLinear}


@pytest.mark.parametrize("fault", ["no operation", "other bits"])
def test_where_packing_fails_or_differs_layers_stay_as_they_are(monkeypatch, fault):
    if fault == "no operation":

        def missing():
            raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")

        monkeypatch.setattr(packed, "product", missing)
    else:
        monkeypatch.setattr(PackedLinear, "forward", lambda self, x: nn.functional.linear(x, torch.ones(1)))
    assert set(kinds(pack(layers()))) == {nn.Linear}


@needs_onednn
def test_layers_of_a_kind_of_their_own_are_not_touched():
    class Own(nn.Linear):
        pass

    model = nn.Sequential(Own(8, 8), nn.Linear(8, 8)).bfloat16()
    assert [type(module) for module in pack(model)] == [Own, PackedLinear]


@needs_onednn
def test_a_trace_does_not_hold_packed_weights(files, pair, monkeypatch):
    monkeypatch.setattr(steps, "CAPTURE_AFTER", {"cpu": 0})
    model = load_model(files.model, "tiny", torch.device("cpu"), torch.bfloat16)
    editor = ResidualEditor(model, pair.site.sae, pair.site.reads_at, pair.site.reference, [(), (Edit(3),)])
    own = Steps(model, editor, 16)
    own.prompt([7, 8])
    own.step(torch.tensor([9, 9]))
    assert own._captured is not None
    weight = weakref.ref(next(m.weight for m in model.bare.modules() if isinstance(m, PackedLinear)))
    del model, editor, own
    gc.collect()
    assert weight() is None
