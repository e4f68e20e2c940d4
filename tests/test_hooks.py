"""Hook names against the modules they stand for."""

import numpy as np
import plain
import pytest
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

from engine.errors import HookError
from engine.hooks import HookPoint, find_blocks, resolve_hook
from engine.records import Prompt


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blocks.0.hook_resid_pre", HookPoint("blocks.0.hook_resid_pre", "model.layers.0", "input", 0)),
        ("blocks.2.hook_resid_post", HookPoint("blocks.2.hook_resid_post", "model.layers.2", "output", 2)),
        ("model.layers.1", HookPoint("model.layers.1", "model.layers.1", "output", 1)),
        ("model.layers.1.mlp", HookPoint("model.layers.1.mlp", "model.layers.1.mlp", "output", None)),
    ],
)
def test_a_name_becomes_a_module_and_a_side(model, name, expected):
    assert resolve_hook(model.module, name) == expected


@pytest.mark.parametrize(
    ("name", "hidden_state"),
    [
        ("blocks.0.hook_resid_pre", 0),
        ("blocks.0.hook_resid_post", 1),
        ("blocks.1.hook_resid_pre", 1),
        ("blocks.1.hook_resid_post", 2),
        ("model.layers.0", 1),
    ],
)
def test_captured_vectors_are_the_hidden_states_of_the_name(model, name, hidden_state):
    rows = [model.tokens.feed(Prompt(text)).ids for text in ("The nurse", "a much longer prompt ~", "x")]
    found = model.capture_batch(resolve_hook(model.module, name), rows)
    for ids, h_TD in zip(rows, found, strict=True):
        assert len(h_TD) == len(ids)
        np.testing.assert_allclose(h_TD.numpy(), plain.hidden(model.module, ids, hidden_state), rtol=1e-4, atol=1e-3)


def test_the_last_blocks_output_is_taken_before_the_final_norm(model):
    ids = model.tokens.feed(Prompt("The nurse")).ids
    (h_TD,) = model.capture_batch(resolve_hook(model.module, "blocks.2.hook_resid_post"), [ids])
    normed = plain.hidden(model.module, ids, 3)  # transformers' last entry has the norm applied
    np.testing.assert_allclose(model.module.model.norm(h_TD).numpy(), normed, rtol=1e-4, atol=1e-3)
    assert np.abs(h_TD.numpy() - normed).max() > 1


def test_blocks_are_found_in_other_families():
    small = {"vocab_size": 20, "num_hidden_layers": 2, "num_attention_heads": 1}
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=4, n_layer=2, n_head=1))
    neox = GPTNeoXForCausalLM(GPTNeoXConfig(**small, hidden_size=4, intermediate_size=8))
    assert resolve_hook(gpt2, "blocks.1.hook_resid_pre").path == "transformer.h.1"
    assert resolve_hook(neox, "blocks.1.hook_resid_pre").path == "gpt_neox.layers.1"


def test_a_layer_out_of_range_names_the_range(model):
    for name in ("blocks.3.hook_resid_pre", "blocks.99.hook_resid_post"):
        with pytest.raises(HookError, match="blocks 0 to 2"):
            resolve_hook(model.module, name)


@pytest.mark.parametrize(
    "name", ["blocks.1.hook_mlp_out", "blocks.1.attn.hook_z", "blocks.x.hook_resid_pre", "blocks.-1.hook_resid_pre"]
)
def test_a_kind_that_is_not_read_is_named(model, name):
    with pytest.raises(HookError, match="kind that is not read yet") as caught:
        resolve_hook(model.module, name)
    assert name in caught.value.message
    assert "hook_resid_post" in caught.value.remedy


@pytest.mark.parametrize("name", ["model.layers.3", "transformer.h.0", "resid_pre", "model..layers"])
def test_a_module_that_is_not_there_is_named(model, name):
    with pytest.raises(HookError, match="no module") as caught:
        resolve_hook(model.module, name)
    assert name in caught.value.message


def test_a_model_without_known_blocks_says_so():
    with pytest.raises(HookError, match="blocks of a Linear"):
        find_blocks(nn.Linear(2, 2))
