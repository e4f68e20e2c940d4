"""cfg.json of both generations, and files that are missing, broken or of another kind."""

import foreign
import numpy as np
import pytest
import torch
from foreign import assert_agrees, change_json
from safetensors.torch import save_file
from tiny import D_MODEL, D_SAE, sae_config, sae_weights, write_sae

from engine.loading.formats import load_sae
from engine.loading.formats.saelens import parse_config
from engine.records.errors import SaeError


def rewrite(folder, **changes):
    """Changes cfg.json; None takes a key out."""
    change_json(folder / "cfg.json", **changes)
    return folder


def test_the_new_generation_names_hook_and_model_in_its_metadata(tmp_path):
    config = load_sae(write_sae(tmp_path, hook="blocks.2.hook_resid_post", model_name="some/model")).config
    assert (config.hook, config.model) == ("blocks.2.hook_resid_post", "some/model")
    assert (config.encoder, config.normalisation) == ("jumprelu", "constant_norm_rescale")
    assert config.apply_b_dec_to_input is False
    assert config.source == str(tmp_path)


def test_the_old_generation_names_its_hook_point(tmp_path):
    config = load_sae(write_sae(tmp_path, "standard", old=True, hook="blocks.2.hook_resid_pre")).config
    assert config.hook == "blocks.2.hook_resid_pre"
    assert config.encoder == "standard"


@pytest.mark.parametrize(
    ("old", "written", "read"),
    [(True, None, True), (True, True, True), (True, False, False), (False, True, True), (False, False, False)],
)
def test_an_old_file_silent_about_b_dec_means_that_it_is_subtracted(tmp_path, old, written, read):
    sae = load_sae(write_sae(tmp_path, "standard", apply_b_dec_to_input=written, old=old))
    assert sae.config.apply_b_dec_to_input is read
    x_TD = sae.normalise(torch.zeros(1, D_MODEL)).x_TD
    torch.testing.assert_close(x_TD[0], -sae_weights("standard")["b_dec"] if read else torch.zeros(D_MODEL))


@pytest.mark.parametrize("written", ["none", None, False])
def test_no_normalisation_is_written_in_three_ways(written):
    assert parse_config(sae_config(normalisation=written), "x").normalisation == "none"


@pytest.mark.parametrize("name", ["mistral-7b", "mistralai/Mistral-7B-v0.1"])
@pytest.mark.parametrize("written", [False, "none"])
def test_the_mistral_saes_are_normalised_though_their_files_deny_it(name, written):
    raw = sae_config("standard", written, old=True, model_name=name) | {"d_sae": 65536, "d_in": 4096}
    assert parse_config(raw, "x").normalisation == "constant_norm_rescale"
    assert parse_config(raw | {"model_name": "gpt2-small"}, "x").normalisation == "none"
    assert parse_config(raw | {"d_sae": 16384}, "x").normalisation == "none"


def test_extra_tensors_and_keys_do_no_harm(tmp_path):
    write_sae(tmp_path, weights=sae_weights() | {"log_sparsity": torch.zeros(D_SAE), "n": torch.tensor(3)})
    assert load_sae(rewrite(tmp_path, reshape_activations="none", unheard_of={"a": 1})).d_sae == D_SAE


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk", "jumprelu_transcoder", "temporal"])
def test_kinds_that_are_not_read_are_refused_by_name(tmp_path, architecture):
    folder = rewrite(write_sae(tmp_path), architecture=architecture)
    with pytest.raises(SaeError, match=f"'{architecture}'") as caught:
        load_sae(folder)
    assert "standard, jumprelu" in caught.value.remedy


def test_an_old_topk_sae_is_not_taken_for_a_relu_one(tmp_path):
    folder = rewrite(write_sae(tmp_path, "standard", old=True), activation_fn_str="topk")
    with pytest.raises(SaeError, match="needs k"):
        load_sae(folder)
    rewrite(folder, activation_fn_kwargs={"k": 3})
    assert (load_sae(folder).config.encoder, load_sae(folder).config.k) == ("topk", 3)


def test_a_finetuning_scaling_factor_is_refused_unless_it_is_one(tmp_path):
    ones = sae_weights() | {"scaling_factor": torch.ones(D_SAE)}
    assert load_sae(write_sae(tmp_path, weights=ones)).d_sae == D_SAE
    with pytest.raises(SaeError, match="finetuning scaling factor"):
        load_sae(write_sae(tmp_path, weights=ones | {"scaling_factor": torch.full((D_SAE,), 2.0)}))


def test_an_unknown_normalisation_is_refused_by_name(tmp_path):
    folder = write_sae(tmp_path, normalisation="covariance_whitening")
    with pytest.raises(SaeError, match="'covariance_whitening'"):
        load_sae(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(SaeError, match="no SAE folder") as caught:
        load_sae(tmp_path / "nowhere")
    assert "cfg.json" in caught.value.remedy


def test_a_folder_without_the_files_says_what_it_found(tmp_path):
    with pytest.raises(SaeError, match=r"found: nothing"):
        load_sae(tmp_path)
    for name in ("cfg.json", "ae.pt"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(SaeError, match=r"found: ae.pt, cfg.json"):
        load_sae(tmp_path)


def test_a_truncated_weight_file_is_named(tmp_path):
    path = write_sae(tmp_path) / "sae_weights.safetensors"
    for size in (0, 5, 100, path.stat().st_size - 1):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(SaeError, match=r"sae_weights.safetensors cannot be read"):
            load_sae(tmp_path)
        write_sae(tmp_path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_enc", "b_dec", "threshold"])
def test_weights_that_are_not_numbers_are_named(tmp_path, name, bad):
    weights = sae_weights()
    weights[name].view(-1)[3] = bad
    with pytest.raises(SaeError, match=f"tensor {name} holds NaN or infinite"):
        load_sae(write_sae(tmp_path, weights=weights))


@pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_enc", "b_dec", "threshold"])
def test_a_missing_tensor_is_named_with_those_there_are(tmp_path, name):
    weights = sae_weights()
    del weights[name]
    with pytest.raises(SaeError, match=f"no tensor {name} \\(it has: ") as caught:
        load_sae(write_sae(tmp_path, weights=weights))
    assert all(other in caught.value.message for other in weights)


@pytest.mark.parametrize("text", ["", "{", '{"d_in": 16,}', "[]", "3", '"cfg"', "\x00\xff"])
def test_a_broken_config_is_named(tmp_path, text):
    (write_sae(tmp_path) / "cfg.json").write_text(text, "utf-8")
    with pytest.raises(SaeError, match=r"cfg.json"):
        load_sae(tmp_path)


@pytest.mark.parametrize(
    "changes", [{"normalize_activations": {"kind": "none"}}, {"architecture": ["jumprelu"]}, {"metadata": []}]
)
def test_config_values_of_the_wrong_type_are_refused_or_ignored_but_never_crash(tmp_path, changes):
    folder = rewrite(write_sae(tmp_path), **changes)
    try:
        assert load_sae(folder).d_in == D_MODEL
    except SaeError as error:
        assert str(tmp_path) in error.message


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
    rewrite(tmp_path, metadata={"architecture": "topk", "k": 3, "normalize_activations": "layer_norm"})
    config = load_sae(tmp_path).config
    assert (config.encoder, config.normalisation, config.k) == ("standard", "none", None)


@pytest.mark.parametrize("key", ["apply_b_dec_to_input", "rescale_acts_by_decoder_norm"])
def test_a_setting_written_as_a_word_is_refused_not_taken_for_true(tmp_path, key):
    write_sae(tmp_path, "standard", "none")
    rewrite(tmp_path, architecture="topk", k=3, **{key: "false"})
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
