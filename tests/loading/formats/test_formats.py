"""Every format written as its own library writes it: recognised by its files, configuration read, formulas equal."""

import json
import re
from pathlib import Path

import foreign
import pytest
import torch
from foreign import CLASSES, assert_agrees, change_json, dense, vectors
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
    change_json(tmp_path / "hyperparams.json", sparsity_include_decoder_norm=True)
    norms = load_sae(tmp_path).w_dec_FD.norm(dim=1)
    torch.testing.assert_close(load_sae(tmp_path).threshold_F * norms, sae.threshold_F)
    change_json(tmp_path / "hyperparams.json", sparsity_include_decoder_norm=None)  # the library's default is True
    torch.testing.assert_close(load_sae(tmp_path).threshold_F * norms, sae.threshold_F)


def test_llama_scopes_norms_may_be_told_by_their_hook_point(tmp_path):
    formula = foreign.write_llama_scope(tmp_path)
    change_json(tmp_path / "hyperparams.json", dataset_average_activation_norm={"blocks.8.hook_resid_post": 6.3125})
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
    change_json(tmp_path / "hyperparams.json", **changes)
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
    change_json(
        tmp_path / "config.json", trainer=json.loads((tmp_path / "config.json").read_text())["trainer"] | {"k": 7}
    )
    with pytest.raises(SaeError, match=r"k is 7 in config.json and 5 in ae.pt"):
        load_sae(tmp_path)
    trainer = {"dict_class": "AutoEncoderTopK", "layer": 1}
    change_json(tmp_path / "config.json", trainer=trainer)
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
    change_json(tmp_path / "cfg.json", **changes)
    with pytest.raises(SaeError, match=reason):
        load_sae(tmp_path)


def test_a_sparsify_skip_transcoder_is_known_by_its_weights_too(tmp_path):
    foreign.write_sparsify(tmp_path)
    save_file(load_file(tmp_path / "sae.safetensors") | {"W_skip": torch.eye(D_MODEL)}, tmp_path / "sae.safetensors")
    with pytest.raises(SaeError, match="skip connection"):
        load_sae(tmp_path)


# ---- what a configuration and weights become


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
