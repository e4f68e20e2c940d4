"""Fused layers against the layers they stand in for. On a CPU: a GPU's runs of them are in tests/cuda."""

import families
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from engine.models import fast_layers as fused
from engine.models.bare import twin

IDS = torch.arange(20, 60)[None]


@pytest.fixture
def everywhere(monkeypatch):
    """A CPU's model is fused too."""
    monkeypatch.setattr(fused, "DEVICES", ("cpu", "cuda"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fused_norm_is_the_formula(dtype):
    norm = LlamaRMSNorm(64, eps=1e-3).to(dtype)
    nn.init.normal_(norm.weight)
    x = torch.randn(3, 5, 64, dtype=dtype)
    x64 = x.double()
    wanted = x64 / (x64.square().mean(-1, keepdim=True) + 1e-3).sqrt() * norm.weight.double()
    assert torch.allclose(fused.FusedNorm(norm)(x).double(), wanted, rtol=fused.ROUNDING[dtype], atol=1e-6)


def test_joined_layers_share_one_product_and_their_weights_are_views_of_it():
    linears = [nn.Linear(8, n) for n in (6, 2, 2)]
    kept = [(linear.weight.clone(), linear.bias.clone()) for linear in linears]
    joined = fused.Joined(linears)
    layers = [fused.JoinedLinear(joined, n, linear) for n, linear in enumerate(linears)]
    assert {linear.weight.untyped_storage().data_ptr() for linear in linears} == {joined.weight.data_ptr()}
    for x in (torch.randn(2, 3, 8), torch.randn(1, 1, 8)):
        for order in ((0, 1, 2), (2, 0, 1), (1, 1, 0)):
            for n in order:
                weight, bias = kept[n]
                assert torch.allclose(layers[n](x), x @ weight.T + bias, atol=1e-6)
    layers[2](x)
    assert joined._input is None  # nothing is held once all have asked


def test_a_part_is_never_of_another_input():
    linears = [nn.Linear(8, 4, bias=False) for _ in range(3)]
    joined = fused.Joined(linears)
    layers = [fused.JoinedLinear(joined, n, linear) for n, linear in enumerate(linears)]
    one, other = torch.randn(1, 8), torch.randn(1, 8)
    layers[0](one)
    assert torch.allclose(layers[1](other), linears[1](other), atol=1e-6)
    assert torch.allclose(layers[1](one), linears[1](one), atol=1e-6)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_fused_models_compute_the_same(name, tmp_path, everywhere):
    model = AutoModelForCausalLM.from_pretrained(families.write_family(name, tmp_path)).eval()
    with torch.inference_mode():
        wanted = model(IDS).logits.clone()
        bare = fused.fuse(twin(model))
        assert torch.allclose(bare(IDS).logits, wanted, atol=1e-4)
        assert torch.equal(model(IDS).logits, wanted) or torch.allclose(model(IDS).logits, wanted, atol=1e-5)
    if name in ("llama", "mistral"):
        kinds = {type(module) for module in bare.modules()}
        assert {fused.FusedNorm, fused.JoinedLinear} <= kinds
        assert not any(isinstance(module, LlamaRMSNorm) for module in bare.modules())


def test_what_differs_is_left_alone(everywhere):
    """Gemma's norm multiplies by one plus the weight."""
    norm = GemmaRMSNorm(8)
    nn.init.normal_(norm.weight)
    norm.variance_epsilon = norm.eps
    model = fused.fuse(nn.Sequential(norm))
    assert model[0] is norm


def test_a_cpus_model_is_left_alone(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(families.write_family("llama", tmp_path))
    kinds = [type(module) for module in model.modules()]
    assert [type(module) for module in fused.fuse(model).modules()] == kinds
