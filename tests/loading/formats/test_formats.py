"""Every format written as its own library writes it: recognised by its files, configuration read, formulas equal."""

import json
import re
from pathlib import Path

import foreign
import numpy as np
import pytest
import torch
from foreign import CLASSES, assert_agrees, dense, vectors
from safetensors.torch import load_file, save_file
from tiny import D_MODEL, D_SAE, write_sae

from engine.loading.formats import load_sae
from engine.records.errors import SaeError

WRITERS = {
    "Gemma Scope": foreign.write_gemma_scope,
    "Gemma Scope 2": foreign.write_gemma_scope_2,
    "Llama Scope": foreign.write_llama_scope,
    "Llama Scope R1": foreign.write_llama_scope_r1,
    "sparsify": foreign.write_sparsify,
    "sparsify groupmax": lambda folder: foreign.write_sparsify(folder, activation="groupmax"),
    "Qwen-Scope": foreign.write_qwen_scope,
    "Goodfire": foreign.write_goodfire,
    "Goodfire, qresearch": lambda folder: foreign.write_goodfire(folder, suffix=""),
    "attn-saes": foreign.write_attn_saes,
    **{
        f"dictionary_learning {kind}": lambda folder, kind=kind: foreign.write_dictionary(folder, kind)
        for kind in CLASSES
    },
}


NAMED = foreign.QWEN_NAME
"""A folder's name by which every format's SAE can be read."""


def change(path, **changes):
    """Rewrites keys of a JSON file; None takes one out."""
    raw = json.loads(path.read_text("utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in raw.items() if value is not None}), "utf-8")


@pytest.mark.parametrize("name", WRITERS)
def test_a_format_is_recognised_by_its_files_and_computes_what_its_library_does(tmp_path, name):
    formula = WRITERS[name](tmp_path / NAMED)
    sae = load_sae(tmp_path / NAMED)
    assert name.startswith(sae.config.format) and (sae.d_in, sae.d_sae) == (D_MODEL, D_SAE)
    assert Path(sae.config.source) in (tmp_path / NAMED, *(tmp_path / NAMED).iterdir())
    assert_agrees(sae, formula)


def test_saelens_is_recognised_by_its_files(tmp_path):
    assert load_sae(write_sae(tmp_path / "renamed")).config.format == "SAELens"


@pytest.mark.parametrize("name", WRITERS)
def test_a_token_activates_alone_what_it_activates_in_any_batch(tmp_path, name):
    WRITERS[name](tmp_path / NAMED)
    sae, h_TD = load_sae(tmp_path / NAMED), vectors()
    together = dense(sae, h_TD)
    for t in range(len(h_TD)):
        foreign.assert_same(dense(sae, h_TD[t : t + 1]), together[t : t + 1])
    louder = h_TD.clone()
    louder[5:] *= 1000  # with a top k over the batch, the others would take every place
    foreign.assert_same(dense(sae, louder)[:5], together[:5])


@pytest.mark.parametrize("name", WRITERS)
def test_decoding_twice_gives_the_same(tmp_path, name):
    WRITERS[name](tmp_path / NAMED)
    sae = load_sae(tmp_path / NAMED)
    assert torch.equal(sae.reconstruct(vectors())[0], sae.reconstruct(vectors())[0])
    (first, *_) = sae.encode(vectors())
    twice = [torch.zeros(len(vectors()), D_MODEL) for _ in range(2)]
    for sum_TD in twice:
        sae.add_decoded(sum_TD, first)
    assert torch.equal(*twice)


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
    change(tmp_path / "x" / "config.json", model_name="gemma-v3-270m-pt")
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


# ---- Llama Scope


LLAMA = [
    {"act_fn": act_fn, "norm_activation": wise, "sparsity_include_decoder_norm": include}
    for act_fn in ("jumprelu", "topk", "relu")
    for wise in ("dataset-wise", "token-wise", "inference")
    for include in (False, True)
]


@pytest.mark.parametrize("changes", LLAMA, ids=lambda changes: " ".join(map(str, changes.values())))
def test_llama_scopes_variants_compute_what_the_library_does(tmp_path, changes):
    formula = foreign.write_llama_scope(tmp_path, **changes)
    assert_agrees(load_sae(tmp_path), formula)


def test_llama_scopes_threshold_is_scaled_along_with_the_vectors(tmp_path):
    foreign.write_llama_scope(tmp_path, norm_in=2.0)
    sae = load_sae(tmp_path)
    assert sae.config.scale == D_MODEL**0.5 / 2
    torch.testing.assert_close(sae.threshold_F, torch.full((D_SAE,), 0.6 * D_MODEL**0.5 / 2))
    change(tmp_path / "hyperparams.json", sparsity_include_decoder_norm=True)
    norms = load_sae(tmp_path).w_dec_FD.norm(dim=1)
    torch.testing.assert_close(load_sae(tmp_path).threshold_F * norms, sae.threshold_F)
    change(tmp_path / "hyperparams.json", sparsity_include_decoder_norm=None)  # the library's default is True
    torch.testing.assert_close(load_sae(tmp_path).threshold_F * norms, sae.threshold_F)


def test_llama_scopes_norms_may_be_told_by_their_hook_point(tmp_path):
    formula = foreign.write_llama_scope(tmp_path)
    change(tmp_path / "hyperparams.json", dataset_average_activation_norm={"blocks.8.hook_resid_post": 6.3125})
    assert_agrees(load_sae(tmp_path), formula)


def test_llama_scope_with_its_bias_subtracted_first(tmp_path):
    formula = foreign.write_llama_scope(tmp_path, apply_decoder_bias_to_pre_encoder=True)
    assert load_sae(tmp_path).config.apply_b_dec_to_input
    assert_agrees(load_sae(tmp_path), formula)


def test_llama_scope_says_where_it_belongs(tmp_path):
    folder = tmp_path / "Llama3_1-8B-Base-L8R-8x"
    foreign.write_llama_scope(folder)
    config = load_sae(folder).config
    assert (config.hook, config.model) == ("blocks.8.hook_resid_post", "meta-llama/Llama-3.1-8B")
    assert config.prepend_bos is True
    assert load_sae(folder.rename(tmp_path / "x")).config.model == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hook_point_out": "blocks.8.hook_mlp_out"}, "a transcoder is no SAE"),
        ({"use_glu_encoder": True}, "GLU"),
        ({"act_fn": "gelu"}, "'gelu'"),
        ({"norm_activation": "batch-wise"}, "'batch-wise'"),
        ({"dataset_average_activation_norm": {"in": 0.0, "out": 1.0}}, "average norm of 0"),
        ({"dataset_average_activation_norm": 6.3}, "gives None for in"),
        ({"dataset_average_activation_norm": {"in": 6.3, "out": 9.1}}, "6.3 where the SAE reads them and 9.1"),
        ({"dataset_average_activation_norm": {"in": 6.3, "out": "6.3"}}, "'6.3' for out"),
        ({"dataset_average_activation_norm": {"blocks.9.hook_resid_post": 6.3}}, "gives None for in"),
        ({"jump_relu_threshold": "0.6"}, "'0.6' for jump_relu_threshold"),
        ({"jump_relu_threshold": float("nan")}, "nan for jump_relu_threshold"),
        ({"d_model": 4096}, "d_model 4096"),
        ({"d_model": -16}, "cannot be"),
        ({"d_model": 10**400}, "for d_model, not a number"),
        ({"sparsity_include_decoder_norm": "false"}, "'false' for sparsity_include_decoder_norm"),
    ],
)
def test_llama_scopes_that_are_not_read_are_refused_by_name(tmp_path, changes, reason):
    foreign.write_llama_scope(tmp_path)
    change(tmp_path / "hyperparams.json", **changes)
    with pytest.raises(SaeError, match=re.escape(reason)):
        load_sae(tmp_path)


# ---- Llama Scope R1


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("norm", [0.75, 6.3125])
def test_the_newer_llama_scopes_norm_and_thresholds_are_those_among_its_tensors(tmp_path, norm, include):
    formula = foreign.write_llama_scope_r1(tmp_path / "Llama-Scope-R1-Distill", norm=norm, include=include)
    sae = load_sae(tmp_path / "Llama-Scope-R1-Distill")
    assert sae.config.scale == D_MODEL**0.5 / norm
    assert (sae.config.hook, sae.config.model) == (foreign.R1_HOOK, "deepseek-ai/DeepSeek-R1-Distill-Llama-8B")
    assert_agrees(sae, formula)


def test_a_newer_llama_scope_without_its_norm_takes_the_published_scale_or_says_so(tmp_path):
    foreign.write_llama_scope_r1(tmp_path, norm=None)
    assert "by which factor" in load_sae(tmp_path).config.notes[-1]
    formula = foreign.write_llama_scope_r1(tmp_path / "with", norm=2.0)
    assert_agrees(load_sae(tmp_path, published={"scale": D_MODEL**0.5 / 2}), formula)
    for odd in (0.0, -1.0, float("nan"), [1.0, 2.0], 3):
        weights = load_file(tmp_path / "with" / "sae_weights.safetensors")
        weights[f"dataset_average_activation_norm.{foreign.R1_HOOK}"] = torch.tensor(odd)
        (tmp_path / "with" / "sae_weights.safetensors").unlink()
        save_file(weights, tmp_path / "with" / "sae_weights.safetensors")
        with pytest.raises(SaeError, match=r"norm|blocks\.8"):
            load_sae(tmp_path / "with")


# ---- dictionary_learning


@pytest.mark.parametrize("kind", CLASSES)
def test_dictionary_learnings_configuration_says_where_it_belongs(tmp_path, kind):
    foreign.write_dictionary(tmp_path, kind)
    config = load_sae(tmp_path).config
    assert (config.hook, config.model) == ("blocks.8.hook_resid_post", "EleutherAI/pythia-70m-deduped")
    assert config.apply_b_dec_to_input is (kind not in ("AutoEncoderNew", "JumpReluAutoEncoder"))
    assert config.k == (5 if kind == "AutoEncoderTopK" else None)


@pytest.mark.parametrize("submodule", ["mlp_out_layer_8", "attention_8"])
def test_a_dictionary_of_another_place_says_so_and_names_no_hook(tmp_path, submodule):
    foreign.write_dictionary(tmp_path, submodule_name=submodule)
    config = load_sae(tmp_path).config
    assert config.hook == "" and submodule in config.notes[0] and "--hook" in config.notes[0]


def test_a_topk_dictionary_is_not_taken_for_a_relu_one(tmp_path):
    foreign.write_dictionary(tmp_path, "AutoEncoderTopK")
    assert (dense(load_sae(tmp_path), vectors()) > 0).sum(1).max() == 5
    change(tmp_path / "config.json", trainer=json.loads((tmp_path / "config.json").read_text())["trainer"] | {"k": 7})
    with pytest.raises(SaeError, match=r"k is 7 in config.json and 5 in ae.pt"):
        load_sae(tmp_path)
    trainer = {"dict_class": "AutoEncoderTopK", "layer": 1}
    change(tmp_path / "config.json", trainer=trainer)
    assert load_sae(tmp_path).config.k == 5


def test_a_batch_topk_dictionary_whose_threshold_was_never_set_is_refused(tmp_path):
    foreign.write_dictionary(tmp_path, "BatchTopKSAE")
    state = torch.load(tmp_path / "ae.pt", weights_only=True) | {"threshold": torch.tensor(-1.0)}
    torch.save(state, tmp_path / "ae.pt")
    with pytest.raises(SaeError, match="threshold was never set"):
        load_sae(tmp_path)


@pytest.mark.parametrize("kind", ["IdentityDict", "CrossCoder", None, 3])
def test_dictionaries_of_other_classes_are_refused_by_name(tmp_path, kind):
    foreign.write_dictionary(tmp_path, dict_class=kind)
    with pytest.raises(SaeError, match="cannot read a SAE of class") as caught:
        load_sae(tmp_path)
    assert "MatryoshkaBatchTopKSAE" in caught.value.remedy


def test_parameters_saved_as_such_do_not_make_activations_remember_how(tmp_path):
    formula = foreign.write_dictionary(tmp_path, "AutoEncoder")
    state = torch.load(tmp_path / "ae.pt", weights_only=True)
    torch.save({name: torch.nn.Parameter(tensor) for name, tensor in state.items()}, tmp_path / "ae.pt")
    sae = load_sae(tmp_path)
    assert not dense(sae, vectors()).requires_grad
    assert_agrees(sae, formula)


# ---- sparsify


@pytest.mark.parametrize(
    ("folder", "hook"),
    [
        ("layers.10", "layers.10"),
        ("layers_10", "layers.10"),
        ("layers.3.mlp", "layers.3.mlp"),
        ("model.layers.3", "model.layers.3"),
        ("h.7.attn", "h.7.attn"),
        ("mine", ""),
    ],
)
def test_sparsifys_folder_is_the_module_it_was_trained_at(tmp_path, folder, hook):
    foreign.write_sparsify(tmp_path / "run" / folder)
    (tmp_path / "run" / "config.json").write_text('{"model": "HuggingFaceTB/SmolLM2-135M"}')
    config = load_sae(tmp_path / "run" / folder).config
    assert (config.hook, config.model) == (hook, "HuggingFaceTB/SmolLM2-135M")
    assert bool(config.notes) is (hook == "")
    assert (config.encoder, config.k, config.apply_b_dec_to_input) == ("topk", 5, True)


@pytest.mark.parametrize("normalize_decoder", [False, True])
def test_sparsify_subtracts_its_bias_whatever_the_decoder_is(tmp_path, normalize_decoder):
    formula = foreign.write_sparsify(tmp_path, normalize_decoder=normalize_decoder)
    assert_agrees(load_sae(tmp_path), formula)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"transcode": True}, "a transcoder is no SAE"),
        ({"skip_connection": True}, "a transcoder is no SAE"),
        ({"activation": "batchtopk"}, "'batchtopk'"),
        ({"activation": "groupmax", "k": 7}, "40 features cannot be divided into k = 7 groups"),
        ({"signed": True}, "signed topk"),
        ({"k": None}, "k is None"),
        ({"k": 0}, "k is 0"),
        ({"k": D_SAE + 1}, f"k is {D_SAE + 1}"),
        ({"k": True}, "k is None"),
    ],
)
def test_sparsifys_that_are_not_read_are_refused_by_name(tmp_path, changes, reason):
    foreign.write_sparsify(tmp_path)
    change(tmp_path / "cfg.json", **changes)
    with pytest.raises(SaeError, match=reason):
        load_sae(tmp_path)


def test_a_sparsify_skip_transcoder_is_known_by_its_weights_too(tmp_path):
    foreign.write_sparsify(tmp_path)
    save_file(load_file(tmp_path / "sae.safetensors") | {"W_skip": torch.eye(D_MODEL)}, tmp_path / "sae.safetensors")
    with pytest.raises(SaeError, match="skip connection"):
        load_sae(tmp_path)


# ---- the founding SAE


def test_the_founding_saes_files_deny_the_normalisation_it_was_trained_with(tmp_path):
    """cfg.json as JoshEngels' Mistral SAEs have it, 65,536 features of a 4-wide stand-in; the formula in float64."""
    d, f = 4, 65536
    random = foreign.Random(1)
    weights = {
        "W_enc": random(d, f, scale=0.5),
        "W_dec": torch.nn.functional.normalize(random(f, d)),
        "b_enc": random(f, scale=0.2, mean=-2.0),
        "b_dec": random(d, scale=0.5),
    }
    save_file(weights, tmp_path / "sae_weights.safetensors")
    foreign.write_json(
        tmp_path / "cfg.json",
        {
            "architecture": "standard",
            "activation_fn_str": "relu",
            "d_in": d,
            "d_sae": f,
            "dtype": "torch.float32",
            "normalize_activations": False,
            "apply_b_dec_to_input": False,
            "finetuning_scaling_factor": False,
            "prepend_bos": False,
            "context_size": 256,
            "model_name": "mistral-7b",
            "hook_point": "blocks.16.hook_resid_pre",
            "hook_point_layer": 16,
            "hook_point_head_index": None,
        },
    )
    w = foreign.to64(weights)

    def formula(h_TD):
        u_T1 = np.sqrt((h_TD**2).sum(1, keepdims=True)) / np.sqrt(d)
        f_TF = np.maximum(h_TD / u_T1 @ w["W_enc"] + w["b_enc"], 0)
        return f_TF, (f_TF @ w["W_dec"] + w["b_dec"]) * u_T1

    sae = load_sae(tmp_path)
    assert_agrees(sae, formula)
    assert sae.config.normalisation == "constant_norm_rescale" and not sae.config.apply_b_dec_to_input
    assert sae.config.prepend_bos is False
    assert (sae.config.hook, sae.config.model) == ("blocks.16.hook_resid_pre", "mistral-7b")
    assert "trained with constant_norm_rescale" in sae.config.notes[0]


# ---- SAELens' configuration


def test_what_a_sae_is_stands_at_the_top_of_its_configuration(tmp_path):
    write_sae(tmp_path, "standard", "none")
    change(tmp_path / "cfg.json", metadata={"architecture": "topk", "k": 3, "normalize_activations": "layer_norm"})
    config = load_sae(tmp_path).config
    assert (config.encoder, config.normalisation, config.k) == ("standard", "none", None)


@pytest.mark.parametrize("key", ["apply_b_dec_to_input", "rescale_acts_by_decoder_norm"])
def test_a_setting_written_as_a_word_is_refused_not_taken_for_true(tmp_path, key):
    write_sae(tmp_path, "standard", "none")
    change(tmp_path / "cfg.json", architecture="topk", k=3, **{key: "false"})
    with pytest.raises(SaeError, match=f"'false' for {key}"):
        load_sae(tmp_path)


def test_a_scale_that_no_file_and_no_registry_names_is_said(tmp_path):
    folder = write_sae(tmp_path, "standard", "expected_average_only_in")
    assert "by which factor" in load_sae(folder).config.notes[-1]
    sae = load_sae(folder, published={"scale": 2.0, "published_l0": 12.0})
    assert (sae.config.scale, sae.config.published_l0, sae.config.notes) == (2.0, 12.0, ())
    (folder / "activation_scaler.json").write_text('{"scaling_factor": 0.5}')
    assert load_sae(folder).config.scale == 0.5
    for broken in ("0", "-1", "NaN", "Infinity", "1e999", '"2"', "null", "true"):
        (folder / "activation_scaler.json").write_text(f'{{"scaling_factor": {broken}}}')
        with pytest.raises(SaeError, match="factor"):
            load_sae(folder)


def test_what_would_disturb_a_terminal_is_not_taken_over(tmp_path):
    hook = "blocks.1\x1b]0;title\x07\n" + "x" * 10_000
    config = load_sae(write_sae(tmp_path, hook=hook, model_name="a\u202eb")).config
    assert config.hook.isprintable() and len(config.hook) <= 200
    assert config.model == "a�b"


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32"])
def test_weights_stay_in_their_dtype_and_where_they_lie(tmp_path, name):
    dtype = getattr(torch, name)
    sae = load_sae(write_sae(tmp_path / "a", dtype=dtype))
    assert sae.w_enc_DF.dtype == sae.w_dec_FD.dtype == dtype
    foreign.write_sparsify(tmp_path / "b", dtype=dtype)
    sae = load_sae(tmp_path / "b")
    assert sae.w_enc_DF.dtype == sae.w_dec_FD.dtype == dtype
    assert sae.w_enc_DF.stride() == (1, D_MODEL)  # a view of the file's matrix, the other way round


def anonymous_bytes() -> int:
    """Memory of this process that no file holds."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells a process' memory in /proc")
@pytest.mark.parametrize("format", ["SAELens", "Llama Scope", "dictionary_learning"])
def test_loading_maps_the_file_instead_of_copying_it(tmp_path, monkeypatch, format):
    d, f = 512, 24_576  # 48 MB a matrix
    monkeypatch.setattr(foreign, "D_MODEL", d)
    monkeypatch.setattr(foreign, "D_SAE", f)
    if format == "SAELens":
        w = foreign.gemma_weights(d=d, f=f)
        write_sae(tmp_path, weights=w)
        del w
    elif format == "Llama Scope":
        foreign.write_llama_scope(tmp_path, sparsity_include_decoder_norm=True)
    else:
        foreign.write_dictionary(tmp_path, "AutoEncoder")
    before = anonymous_bytes()
    sae = load_sae(tmp_path)
    assert anonymous_bytes() - before < 24 << 20
    assert sae.w_enc_DF.shape == (d, f)
