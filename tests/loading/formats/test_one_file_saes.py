"""SAEs that are one pickled file each: k, model and layer from names, the one file of a folder of many, no guesses."""

import shutil

import foreign
import numpy as np
import pytest
import torch
from foreign import assert_agrees, dense, vectors
from hub_cache import files_in, write_cached
from tiny import D_MODEL, D_SAE

from engine.loading.demo.model import finish
from engine.loading.find_sae import locate
from engine.loading.formats import files_of_sae, load_sae, saes_in
from engine.loading.open_pair import sae_fingerprint
from engine.records.errors import SaeError

QWEN = f"Qwen/{foreign.QWEN_NAME}"


def located(text):
    return finish(locate(str(text)))


def refused(text):
    with pytest.raises(SaeError) as found:
        located(text)
    return found.value


def read(text):
    """The SAE that --sae TEXT names."""
    found = located(text)
    return load_sae(found.place, found.name, published=found.published)


# ---- Qwen-Scope


@pytest.mark.parametrize("name", [QWEN, f"mine/{foreign.QWEN_NAME}-copy"])
def test_a_folder_of_layers_gives_each_by_its_file(tmp_path, name):
    folder = tmp_path / name
    formulas = {n: foreign.write_qwen_scope(folder, seed=n, file=f"layer{n}.sae.pt") for n in (0, 8, 27)}
    for n, formula in formulas.items():
        sae = read(folder / f"layer{n}.sae.pt")
        assert (sae.config.hook, sae.config.model, sae.config.k) == (
            f"blocks.{n}.hook_resid_post",
            "Qwen/Qwen3-1.7B-Base",
            5,
        )
        assert (sae.config.prepend_bos, sae.config.apply_b_dec_to_input) == (True, False)
        assert_agrees(sae, formula)
    with pytest.raises(SaeError) as caught:
        load_sae(folder)
    assert (
        caught.value.remedy
        == f"There are 3 SAEs in it: give --sae the file of one, such as {folder / 'layer0.sae.pt'}."
    )
    assert sae_fingerprint(folder / "layer0.sae.pt") != sae_fingerprint(folder / "layer8.sae.pt")


def test_a_square_sae_lies_as_the_format_says(tmp_path):
    formula = foreign.write_qwen_scope(tmp_path / foreign.QWEN_NAME, f=D_MODEL)
    sae = load_sae(tmp_path / foreign.QWEN_NAME)
    assert sae.d_in == sae.d_sae == D_MODEL
    assert_agrees(sae, formula)


def test_without_the_repositorys_name_k_is_not_guessed(tmp_path):
    foreign.write_qwen_scope(tmp_path / "mine")
    with pytest.raises(SaeError, match="k of a Qwen-Scope SAE stands in its repository's name") as caught:
        load_sae(tmp_path / "mine")
    assert "SAE-Res-Qwen3-8B-Base-W64K-L0_50" in caught.value.remedy
    foreign.write_qwen_scope(tmp_path / "SAE-Res-a-W1K-L0_9" / "SAE-Res-b-W1K-L0_5")
    assert load_sae(tmp_path / "SAE-Res-a-W1K-L0_9" / "SAE-Res-b-W1K-L0_5").config.k == 5


def test_layers_of_a_repository_are_found_in_the_cache(tmp_path, cache):
    for n in (0, 1):
        foreign.write_qwen_scope(tmp_path / "q", seed=n, file=f"layer{n}.sae.pt")
    snapshot = write_cached(cache, QWEN, files_in(tmp_path / "q"))
    address = f"https://hub.example/{QWEN}/blob/main/layer1.sae.pt"
    for text in (f"{QWEN}/layer1.sae.pt", address, snapshot / "layer1.sae.pt"):
        found = located(text)
        assert (found.place, found.name) == (snapshot / "layer1.sae.pt", f"{QWEN}/layer1.sae.pt")
        assert load_sae(found.place, found.name).config.k == 5
    assert "It has: layer0.sae.pt, layer1.sae.pt." in refused(QWEN).remedy
    by_hand = refused("Qwen/SAE-Res-Qwen3-8B-Base-W64K-L0_50/layer0.sae.pt").remedy
    assert "--include 'layer0.sae*'" in by_hand and "--sae Qwen/SAE-Res-Qwen3-8B-Base-W64K-L0_50/layer0" in by_hand


# ---- Goodfire, qresearch


@pytest.mark.parametrize(
    ("repository", "file", "suffix", "model", "layer"),
    [
        ("Goodfire/Llama-3.1-8B-Instruct-SAE-l19", foreign.GOODFIRE_FILE, "_linear",
         "meta-llama/Llama-3.1-8B-Instruct", 19),
        ("Goodfire/Llama-3.3-70B-Instruct-SAE-l50", "Llama-3.3-70B-Instruct-SAE-l50.pt", "_linear",
         "meta-llama/Llama-3.3-70B-Instruct", 50),
        ("qresearch/DeepSeek-R1-Distill-Llama-8B-SAE-l19", "DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt", "",
         "deepseek-ai/DeepSeek-R1-Distill-Llama-8B", 19),
    ],
)  # fmt: skip
def test_a_file_named_for_its_model_and_layer_is_found_however_it_is_given(
    tmp_path, cache, repository, file, suffix, model, layer
):
    formula = foreign.write_goodfire(tmp_path / "here", file=file, suffix=suffix)
    write_cached(cache, repository, files_in(tmp_path / "here"))
    for text in (repository, f"{repository}/{file}", tmp_path / "here", tmp_path / "here" / file):
        sae = read(text)
        assert (sae.config.hook, sae.config.model) == (f"blocks.{layer}.hook_resid_post", model)
        assert_agrees(sae, formula)


# ---- attn-saes


def test_a_configuration_beside_a_pickle_says_where_it_belongs(tmp_path, cache):
    repository = "ckkissane/attn-saes-gpt2-small-all-layers"
    formula = foreign.write_attn_saes(tmp_path / "here")
    other = foreign.write_attn_saes(tmp_path / "here", seed=1, file="other.pt", act_name="blocks.7.attn.hook_z")
    snapshot = write_cached(cache, repository, files_in(tmp_path / "here"))
    for file, expected, layer in ((foreign.ATTN_FILE, formula, 5), ("other.pt", other, 7)):
        for text in (f"{repository}/{file}", tmp_path / "here" / file, snapshot / file):
            sae = read(text)
            assert (sae.config.hook, sae.config.model) == (f"blocks.{layer}.attn.hook_z", "openai-community/gpt2")
            assert "value biases" in sae.config.notes[0]
            assert_agrees(sae, expected)
    names = [path.name for path in (tmp_path / "here").iterdir()]
    assert files_of_sae(names, "other.pt") == ["other.pt", "other_cfg.json"]
    assert saes_in(names) == sorted(["other.pt", foreign.ATTN_FILE])


def test_groupmax_lets_one_feature_of_each_group_fire_and_topk_another_set(tmp_path):
    formula = foreign.write_sparsify(tmp_path, activation="groupmax")
    sae = load_sae(tmp_path)
    assert_agrees(sae, formula)
    fired = dense(sae, vectors()) > 0
    assert fired.view(len(fired), 5, D_SAE // 5).sum(-1).max() == 1
    shutil.copytree(tmp_path, tmp_path / "topk")
    foreign.write_sparsify(tmp_path / "topk")
    assert (fired != (dense(load_sae(tmp_path / "topk"), vectors()) > 0)).any()


@pytest.mark.parametrize("k", [1, 2, 40])
def test_groups_of_any_size_and_in_any_block_fire_the_same(tmp_path, monkeypatch, k):
    monkeypatch.setattr("engine.models.sae.FEATURES_PER_BLOCK", 24)  # two groups of 10, a part of one of 40
    formula = foreign.write_sparsify(tmp_path, k=k, activation="groupmax")
    sae = load_sae(tmp_path)
    f_TF, h_hat_TD = formula(vectors().double().numpy())
    foreign.assert_same(dense(sae, vectors()), f_TF)
    np.testing.assert_allclose(sae.reconstruct(vectors())[0], h_hat_TD, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("writer", [foreign.write_qwen_scope, foreign.write_goodfire, foreign.write_attn_saes])
def test_a_pickle_that_holds_more_than_tensors_is_not_opened(tmp_path, writer):
    folder = tmp_path / foreign.QWEN_NAME
    writer(folder)
    (path,) = [*folder.glob("*.pt"), *folder.glob("*.pth")]
    state = torch.load(path, weights_only=True)
    torch.save(state | {"more": refused}, path)
    with pytest.raises(SaeError, match="could run code"):
        load_sae(path)
