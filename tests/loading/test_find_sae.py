"""Where a SAE or a model is: folders, files, the hub and its cache, SAELens' names; what is said where it is not."""

import subprocess
import sys

import pytest
import torch
from hub_cache import files_in, write_cached
from tiny import write_sae

from engine.loading import find_sae as sources
from engine.loading import published
from engine.loading.demo.model import finish
from engine.loading.find_sae import locate
from engine.loading.formats import files_of_sae, load_sae, saes_in
from engine.records.errors import SaeError

CPU = torch.device("cpu")

FOUNDING = "JoshEngels/Mistral-7B-Residual-Stream-SAEs"

with_registry = pytest.mark.skipif(published.registry_file() is None, reason="SAELens is not installed")


@pytest.fixture
def no_registry(monkeypatch):
    """As if SAELens were not installed."""
    monkeypatch.setattr(published, "registry_file", lambda: None)
    for cached in (published.text, published.saelens):
        cached.cache_clear()
    yield
    for cached in (published.text, published.saelens):
        cached.cache_clear()


def located(text):
    return finish(locate(str(text)))


def refused(text):
    with pytest.raises(SaeError) as found:
        located(text)
    return found.value


# ---- on this machine


@pytest.mark.parametrize("file", ["", "cfg.json", "sae_weights.safetensors"])
def test_a_folder_or_a_file_in_it(tmp_path, file):
    folder = write_sae(tmp_path / "sae")
    found = located(folder / file)
    assert (found.place, found.name, found.published) == (folder, str(folder), {})


def test_a_file_in_checkpoints_is_its_saes(tmp_path):
    file = tmp_path / "l15" / "checkpoints" / "final.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    assert located(file).place == tmp_path / "l15"
    assert located(file.parent).place == file.parent  # a folder of that name is a folder


def test_what_is_here_wins_over_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_sae(tmp_path / "owner" / "repo" / "sae")
    assert located("owner/repo/sae").place.resolve() == tmp_path / "owner" / "repo" / "sae"


def test_a_copy_that_keeps_its_name_keeps_what_is_published(tmp_path, no_registry):
    folder = write_sae(tmp_path / FOUNDING / "mistral_7b_layer_16", normalisation="none")
    found = located(folder)
    assert found.name == f"{FOUNDING}/mistral_7b_layer_16"
    assert found.published["normalisation"] == "constant_norm_rescale"
    assert (found.published["published_l0"], found.published["published_variance_explained"]) == (74, 0.85)
    config = load_sae(found.place, found.name, CPU, found.published).config
    assert (config.normalisation, config.published_l0) == ("constant_norm_rescale", 74)
    assert config.model == "mistralai/Mistral-7B-v0.1"


def test_a_folder_that_is_not_there():
    assert "There is no SAE folder /nowhere/at/all" in refused("/nowhere/at/all").message
    assert "There is no SAE folder nowhere" in refused("nowhere").message
    assert "OWNER/REPOSITORY/PATH" in refused("nowhere").remedy


# ---- in the hub's cache


def test_a_sae_in_the_cache_needs_no_network(tmp_path, cache):
    sae = write_sae(tmp_path / "sae")
    snapshot = write_cached(cache, "owner/saes", {**files_in(sae, "layer_1/"), **files_in(sae, "layer_2/a/")})
    for text in ("owner/saes/layer_1", "owner/saes/layer_1/", "owner/saes/layer_1/cfg.json"):
        found = located(text)
        assert (found.place, found.name) == (snapshot / "layer_1", "owner/saes/layer_1")
    url = "https://hub.example/owner/saes/blob/main/layer_2/a/sae_weights.safetensors"
    assert located(url).name == "owner/saes/layer_2/a"
    assert located(snapshot / "layer_1").name == "owner/saes/layer_1"  # the cache's own path


def test_a_repository_that_is_one_sae(tmp_path, cache):
    snapshot = write_cached(cache, "owner/one", files_in(write_sae(tmp_path / "sae")))
    assert located("owner/one") == sources.Located(snapshot, "owner/one")
    assert located("owner/one/cfg.json").place == snapshot


def test_a_path_that_is_not_there_lists_what_is(tmp_path, cache):
    sae = write_sae(tmp_path / "sae")
    folders = ("blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre", "deep/x/y")
    write_cached(cache, "owner/saes", {k: v for f in folders for k, v in files_in(sae, f + "/").items()})
    error = refused("owner/saes/blocks.2.hook_resid_pr")
    assert error.message.startswith("owner/saes has no SAE in blocks.2.hook_resid_pr")
    assert error.remedy.startswith("It has: blocks.2.hook_resid_pre, blocks.1.hook_resid_pre, deep/x/y.")
    assert "It has: deep/x/y." in refused("owner/saes/deep").remedy
    assert refused("owner/saes").message.startswith("owner/saes is no SAE itself")


def test_only_the_files_of_the_one_sae_are_wanted():
    files = ["a/cfg.json", "a/sae_weights.safetensors", "a/sparsity.safetensors", "a/evil.pt", "b/config.json",
             "b/ae.pt", "c/hyperparams.json", "c/checkpoints/final.safetensors", "c/checkpoints/other.safetensors",
             "d/params.npz", "e/params.safetensors", "e/config.json", "README.md"]  # fmt: skip
    assert files_of_sae(files, "a") == ["a/cfg.json", "a/sae_weights.safetensors"]
    assert files_of_sae(files, "b") == ["b/config.json", "b/ae.pt"]
    assert files_of_sae(files, "c") == ["c/hyperparams.json", "c/checkpoints/final.safetensors"]
    assert files_of_sae(files, "e") == ["e/params.safetensors", "e/config.json"]
    assert files_of_sae(files, "") == [] and files_of_sae(files, "c/checkpoints") == []
    assert saes_in(files) == ["a", "b", "c", "d", "e"]


def test_nothing_cached_and_no_network_says_how_to_fetch_it(cache):
    error = refused("owner/saes/layer_1")
    assert error.message == "owner/saes is not in the cache of this machine, and HF_HUB_OFFLINE is set."
    assert "`hf download owner/saes --include 'layer_1/*' --local-dir owner/saes`" in error.remedy


# ---- by SAELens' names


def test_a_preset_is_known_by_its_release_without_saelens(tmp_path, cache, no_registry):
    repository = "jbloom/GPT2-Small-SAEs-Reformatted"
    sae = write_sae(tmp_path / "sae")
    write_cached(
        cache, repository, {k: v for i in (5, 8) for k, v in files_in(sae, f"blocks.{i}.hook_resid_pre/").items()}
    )
    for text in ("gpt2-small-res-jb/blocks.8.hook_resid_pre", f"{repository}/blocks.8.hook_resid_pre"):
        found = located(text)
        assert found.name == f"{repository}/blocks.8.hook_resid_pre"
        assert found.published["centered"] is True and found.published["published_l0"] == 60
        assert "trained on a residual stream without its mean" in found.published["notes"][0]
    assert located(f"{repository}/blocks.5.hook_resid_pre").published["centered"] is True
    assert "pip install 'saescope[saelens]'" in refused("gpt2-small-res-jbb/blocks.8").remedy


@with_registry
def test_the_registry_knows_releases_and_places(tmp_path, cache):
    sae = write_sae(tmp_path / "sae")
    repository = "jbloom/GPT2-Small-SAEs-Reformatted"
    write_cached(cache, repository, files_in(sae, "blocks.5.hook_resid_pre/"))
    by_name = located("gpt2-small-res-jb/blocks.5.hook_resid_pre")
    assert by_name == located(f"{repository}/blocks.5.hook_resid_pre")
    assert by_name.published["published_l0"] == 41 and by_name.published["neuronpedia"] == "gpt2-small/5-res-jb"
    assert by_name.published["model"] == "openai-community/gpt2" and by_name.published["centered"] is True


@with_registry
def test_ids_may_hold_slashes_and_figures_that_are_absent_stay_so():
    found = published.by_release("gemma-scope-2b-pt-res-canonical/layer_20/width_16k/canonical")
    assert (found.repository, found.path) == ("google/gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71")
    assert found.published["published_l0"] == 71  # from the release that lists it too
    assert "published_variance_explained" not in found.published
    assert published.by_release("mistral-7b-res-wg/blocks.16.hook_resid_pre").published["normalisation"]
    scaled = published.by_release("gpt2-small-mlp-tm/blocks.0.hook_mlp_out")
    assert scaled.published["scale"] > 1
    assert "scale" not in published.by_release("llama_scope_lxr_8x/l15r_8x").published
    pythia = published.by_release("pythia-70m-deduped-res-sm/blocks.3.hook_resid_post").published
    assert "published_l0" not in pythia and "published_variance_explained" not in pythia


@with_registry
def test_a_wrong_id_lists_the_closest():
    error = refused("gpt2-small-res-jb/blocks.18.hook_resid_pre")
    assert "release gpt2-small-res-jb has no SAE blocks.18.hook_resid_pre" in error.message
    assert "one of: blocks.8.hook_resid_pre" in error.remedy and "and 5 more" in error.remedy
    assert "has more than one SAE" in refused("gpt2-small-res-jb").message
    assert "release of SAELens: gpt2-small-res-jb" in refused("gpt2-small-res-jbb/blocks.8.hook_resid_pre").remedy


@with_registry
def test_the_registry_is_read_without_importing_saelens():
    code = (
        "import sys; from engine.loading import published;"
        "assert published.by_release('gpt2-small-res-jb/blocks.8.hook_resid_pre');"
        "print('sae_lens' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_a_registry_of_another_layout_is_passed_over(tmp_path, monkeypatch, no_registry):
    for content in (
        "- a list",
        "x: {saes: 3, repo_id: a/b}",
        "x: {repo_id: a/b, saes: [{id: y}]}",
        ": : :",
        "x: !!python/name:os.x",
    ):
        path = tmp_path / "registry.yaml"
        path.write_text(content, "utf-8")
        monkeypatch.setattr(published, "registry_file", lambda path=path: path)
        published.text.cache_clear()
        published.saelens.cache_clear()
        assert published.saelens() == {}
