"""Hook names against the modules they stand for."""

import numpy as np
import plain
import pytest
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

from engine.models.hooks import HookPoint, find_blocks, neighbours, resolve_hook, same_place
from engine.records import Prompt
from engine.records.errors import HookError

LAYER = "model.layers.1"

MID = f"{LAYER}.post_attention_layernorm"


@pytest.mark.parametrize(
    ("name", "path", "side", "layer", "kind", "width"),
    [
        ("blocks.0.hook_resid_pre", "model.layers.0", "input", 0, "resid_pre", 16),
        ("blocks.2.hook_resid_post", "model.layers.2", "output", 2, "resid_post", 16),
        ("blocks.1.hook_resid_mid", MID, "input", 1, "resid_mid", 16),
        ("blocks.1.hook_attn_out", f"{LAYER}.self_attn", "output", 1, "attn_out", 16),
        ("blocks.1.hook_mlp_out", f"{LAYER}.mlp", "output", 1, "mlp_out", 16),
        ("blocks.1.attn.hook_z", f"{LAYER}.self_attn.o_proj", "input", 1, "z", 16),
        (LAYER, LAYER, "output", 1, "resid_post", 16),
        (f"{LAYER}.input", LAYER, "input", 1, "resid_pre", 16),
        ("layers.1.output", LAYER, "output", 1, "resid_post", 16),
        ("layers.1.mlp", f"{LAYER}.mlp", "output", 1, "mlp_out", 16),
        (f"{LAYER}.mlp.down_proj.input", f"{LAYER}.mlp.down_proj", "input", 1, "other", 32),
        (f"{LAYER}.mlp.gate_proj", f"{LAYER}.mlp.gate_proj", "output", 1, "other", 32),
        (f"{LAYER}.mlp.act_fn", f"{LAYER}.mlp.act_fn", "output", 1, "other", None),
        (f"{LAYER}.input_layernorm.input", LAYER, "input", 1, "resid_pre", 16),
        (f"{LAYER}.input_layernorm", f"{LAYER}.input_layernorm", "output", 1, "other", 16),
        ("model.embed_tokens", "model.embed_tokens", "output", None, "other", 16),
        ("norm.input", "model.norm", "input", None, "other", 16),
    ],
)
def test_a_name_becomes_a_module_and_a_side(model, name, path, side, layer, kind, width):
    assert resolve_hook(model.module, name) == HookPoint(name, path, side, layer, kind, width)


SPELLINGS = [
    (
        "blocks.0.hook_resid_post",
        "blocks.1.hook_resid_pre",
        "layers.0",
        "model.layers.0.output",
        "model.layers.1.input",
    ),
    ("blocks.1.hook_resid_mid", f"{MID}.input"),
    ("blocks.1.hook_attn_out", f"{LAYER}.self_attn", f"{LAYER}.self_attn.o_proj", "layers.1.self_attn.output"),
    ("blocks.1.hook_mlp_out", f"{LAYER}.mlp.output", "layers.1.mlp.down_proj"),
    ("blocks.1.attn.hook_z", f"{LAYER}.self_attn.o_proj.input"),
    ("blocks.0.hook_resid_pre",),
    ("blocks.2.hook_resid_post", "layers.2"),
    (f"{LAYER}.mlp.input",),
    (f"{MID}.output",),
]


def test_spellings_of_one_place_are_told_from_other_places(model):
    named = [(name, number) for number, names in enumerate(SPELLINGS) for name in names]
    for a, place_a in named:
        for b, place_b in named:
            assert same_place(model.module, a, b) == (place_a == place_b), (a, b)


def test_a_name_this_model_has_not_is_only_the_same_as_itself(model):
    assert same_place(model.module, "transformer.h.3", "transformer.h.3")
    assert not same_place(model.module, "transformer.h.3", "blocks.1.hook_resid_pre")
    assert not same_place(model.module, "blocks.1.hook_resid_pre", "blocks.7.hook_resid_pre")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blocks.1.hook_resid_pre", ("blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre")),
        ("blocks.2.hook_resid_pre", ("blocks.1.hook_resid_pre", "blocks.2.hook_resid_post")),
        ("blocks.0.hook_resid_pre", ("blocks.1.hook_resid_pre",)),
        ("layers.0", ("blocks.0.hook_resid_pre", "blocks.1.hook_resid_post")),
        ("blocks.2.hook_resid_post", ("blocks.1.hook_resid_post",)),
        ("blocks.1.attn.hook_z", ("blocks.0.attn.hook_z", "blocks.2.attn.hook_z")),
        ("blocks.0.hook_mlp_out", ("blocks.1.hook_mlp_out",)),
        ("layers.1.mlp.input", ("model.layers.0.mlp.input", "model.layers.2.mlp.input")),
        ("model.norm", ()),
    ],
)
def test_neighbours_are_one_layer_below_and_above(model, name, expected):
    found = neighbours(model.module, resolve_hook(model.module, name))
    assert found == expected
    assert not any(same_place(model.module, name, other) for other in found)


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
    "name",
    [
        "blocks.1.hook_mlp_in",
        "blocks.1.attn.hook_q",
        "blocks.1.ln2.hook_normalized",
        "blocks.x.hook_resid_pre",
        "blocks.-1.hook_resid_pre",
    ],
)
def test_a_kind_that_is_not_supported_is_named(model, name):
    with pytest.raises(HookError, match="kind that is not supported") as caught:
        resolve_hook(model.module, name)
    assert name in caught.value.message
    for kind in ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_mlp_out", "hook_attn_out", "attn.hook_z"):
        assert f"blocks.L.{kind}" in caught.value.remedy


@pytest.mark.parametrize(
    "name", ["model.layers.3", "transformer.h.0", "resid_pre", "model..layers", ".output", "hook_embed"]
)
def test_a_module_that_is_not_there_is_named(model, name):
    with pytest.raises(HookError, match="no module") as caught:
        resolve_hook(model.module, name)
    assert name in caught.value.message


def test_a_model_without_known_blocks_says_so():
    with pytest.raises(HookError, match="blocks of a Linear"):
        find_blocks(nn.Linear(2, 2))
