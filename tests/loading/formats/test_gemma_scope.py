"""Gemma Scope and Gemma Scope 2: model and hook point from names, encoders and folders that are refused."""

import foreign
import pytest
import torch
from foreign import assert_agrees, change_json
from safetensors.torch import load_file, save_file
from tiny import D_MODEL, D_SAE

from engine.loading.formats import load_sae
from engine.records.errors import SaeError

# ---- Gemma Scope


@pytest.mark.parametrize(
    ("repository", "model", "hook"),
    [
        ("gemma-scope-2b-pt-res", "google/gemma-2-2b", "blocks.20.hook_resid_post"),
        ("gemma-scope-9b-pt-mlp", "google/gemma-2-9b", "blocks.20.hook_mlp_out"),
        ("gemma-scope-9b-it-res", "google/gemma-2-9b-it", "blocks.20.hook_resid_post"),
        ("gemma-scope-2b-pt-att", "google/gemma-2-2b", "blocks.20.attn.hook_z"),
        ("gemma-scope-27b-pt-res-all", "google/gemma-2-27b", "blocks.20.hook_resid_post"),
    ],
)
def test_gemma_scopes_names_say_where_it_belongs(tmp_path, repository, model, hook):
    folder = tmp_path / "layer_3 experiments" / repository / "layer_20" / "width_16k" / "average_l0_71"
    foreign.write_gemma_scope(folder)
    for name in (None, f"google/{repository}/layer_20/width_16k/average_l0_71"):
        config = load_sae(folder, name).config
        assert (config.model, config.hook, config.published_l0) == (model, hook, 71)
        assert (config.prepend_bos, config.apply_b_dec_to_input, config.normalisation) == (True, False, "none")
        assert config.notes == ()


def test_a_renamed_gemma_scope_folder_says_that_nothing_names_its_hook(tmp_path):
    foreign.write_gemma_scope(tmp_path / "x")
    config = load_sae(tmp_path / "x").config
    assert (config.model, config.hook, config.published_l0) == ("", "", None)
    assert "neither model nor hook point" in config.notes[0]


def test_gemma_scopes_saes_of_embeddings_read_what_enters_the_first_block(tmp_path):
    name = "google/gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6"
    formula = foreign.write_gemma_scope(tmp_path / name)
    for given in (None, name):
        sae = load_sae(tmp_path / name, given)
        assert (sae.config.hook, sae.config.model) == ("blocks.0.hook_resid_pre", "google/gemma-2-2b")
        assert_agrees(sae, formula)


def test_gemma_scopes_transcoders_are_refused_by_name(tmp_path):
    name = "google/gemma-scope-2b-pt-transcoders/layer_5/width_16k/average_l0_8"
    foreign.write_gemma_scope(tmp_path / name)
    for given in (None, name):
        with pytest.raises(SaeError, match="a transcoder is no SAE") as caught:
            load_sae(tmp_path / name, given)
        assert "layer_20" in caught.value.remedy


def test_a_folder_of_the_user_that_speaks_of_transcoders_is_no_reason_to_refuse(tmp_path):
    foreign.write_gemma_scope(tmp_path / "embedding-and-transcoder-study" / "mine")
    assert load_sae(tmp_path / "embedding-and-transcoder-study" / "mine").d_sae == D_SAE
    place = tmp_path / "clt and transcoders" / "gemma-scope-2-4b-it" / "resid_post" / "layer_17_width_16k_l0_medium"
    foreign.write_gemma_scope_2(place)
    assert load_sae(place).config.hook == "model.layers.17.output"


# ---- Gemma Scope 2


def test_gemma_scope_2s_configuration_names_module_and_model(tmp_path):
    foreign.write_gemma_scope_2(tmp_path / "x")
    config = load_sae(tmp_path / "x").config
    assert (config.hook, config.model) == ("model.layers.17.output", "google/gemma-3-4b-it")
    assert (config.prepend_bos, config.apply_b_dec_to_input, config.encoder) == (True, False, "jumprelu")
    change_json(tmp_path / "x" / "config.json", model_name="gemma-v3-270m-pt")
    assert load_sae(tmp_path / "x").config.model == "google/gemma-3-270m"


@pytest.mark.parametrize(
    ("place", "hook"),
    [
        ("resid_post", "model.layers.17.output"),
        ("attn_out", "model.layers.17.self_attn.o_proj.input"),
        ("mlp_out", "model.layers.17.post_feedforward_layernorm.output"),
    ],
)
def test_gemma_scope_2_without_a_configuration_goes_by_its_folder(tmp_path, place, hook):
    folder = tmp_path / "layer_1" / "gemma-scope-2-4b-it" / place / "layer_17_width_16k_l0_medium"
    formula = foreign.write_gemma_scope_2(folder, config=None)
    sae = load_sae(folder)
    assert (sae.config.hook, sae.config.model) == (hook, "google/gemma-3-4b-it")
    assert_agrees(sae, formula)
    (folder / "params.safetensors").rename(tmp_path / "params.safetensors")
    nameless = load_sae(tmp_path).config
    assert nameless.hook == "" and "at which hook point" in nameless.notes[0]


def test_gemma_scope_2s_transcoders_are_refused(tmp_path):
    for number, (name, config) in enumerate(
        [
            ("gemma-scope-2-4b-it/transcoder/layer_17_width_16k_l0_small", None),
            ("gemma-scope-2-4b-it/transcoder_all/layer_17_width_16k_l0_small_affine", None),
            ("x", {"architecture": "jump_relu", "hf_hook_point_out": "model.layers.17.mlp.output"}),
        ]
    ):
        folder = tmp_path / str(number) / name
        foreign.write_gemma_scope_2(folder, config=config)
        with pytest.raises(SaeError, match="a transcoder is no SAE"):
            load_sae(folder)
    skipping = tmp_path / "skip"
    foreign.write_gemma_scope_2(skipping)
    weights = load_file(skipping / "params.safetensors") | {"affine_skip_connection": torch.eye(D_MODEL)}
    save_file(weights, skipping / "params.safetensors")
    with pytest.raises(SaeError, match="skip connection"):
        load_sae(skipping)


def test_gemma_scope_2_of_another_architecture_is_refused_by_name(tmp_path):
    foreign.write_gemma_scope_2(tmp_path, config={"architecture": "matryoshka"})
    with pytest.raises(SaeError, match="'matryoshka'"):
        load_sae(tmp_path)
