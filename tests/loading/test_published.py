"""SAELens' registry: every entry is read by one of our formats or refused by name; a bad entry harms no other."""

import pytest
import yaml

from engine.loading import published
from engine.loading.demo.model import finish
from engine.loading.find_sae import locate
from engine.loading.formats import FORMATS
from engine.loading.formats.files import OneFile
from engine.records.errors import SaeError

with_registry = pytest.mark.skipif(published.registry_file() is None, reason="SAELens is not installed")

NO_SAE = ("a transcoder and no SAE", "a cross-layer transcoder and no SAE", "a temporal SAE")

ATTN = "connor_rob_hook_z"
"""Its loader looks for a second file, which the registry does not name."""


def refused(text):
    with pytest.raises(SaeError) as found:
        finish(locate(text))
    return found.value


@with_registry
def test_every_entry_is_read_by_a_loader_or_refused_for_what_it_is():
    read, not_read = {}, {}
    one_file = {format.NAME for format in FORMATS if isinstance(format.FILES, OneFile)}
    for release, entry in published.saelens().items():
        for sae in entry["saes"]:
            known, conversion = published.from_saelens(entry, sae), entry.get("conversion_func")
            if known.unread:
                assert known.unread.startswith(NO_SAE), (release, sae["id"], known.unread)
                assert published.instead(known) if sae is entry["saes"][0] else True
                not_read[release] = not_read.get(release, 0) + 1
                continue
            # by the registry's own words, and not by ours
            assert not any("transcoder" in str(w) or "temporal" in str(w) for w in (release, conversion, sae["path"]))
            name = published.READ[conversion]
            files = {known.path} | ({f"{known.path.removesuffix('.pt')}_cfg.json"} if conversion == ATTN else set())
            of_file = [format.NAME for format in FORMATS if format.FILES.inside(files, known.path)]
            assert of_file[:1] == ([name] if name in one_file else [])
            read[name] = read.get(name, 0) + 1
    assert set(read) == {format.NAME for format in FORMATS} - {"sparsify"}  # which the registry lists nowhere
    assert sum(read.values()) > 10_000 and sum(not_read.values()) < 4_000


@with_registry
def test_every_release_is_known_by_its_name_and_by_its_place():
    for release, entry in published.saelens().items():
        sae = entry["saes"][0]
        known = published.by_release(f"{release}/{sae['id']}")
        assert known.repository == entry["repo_id"]
        assert published.by_place(known.repository, known.path) == known


@with_registry
def test_what_is_no_sae_is_refused_with_what_to_use_instead(cache):
    for text, what, remedy in (
        ("gemma-scope-2b-pt-transcoders/layer_0/width_16k/average_l0_76", NO_SAE[0], "gemma-scope-2b-pt-res"),
        ("gemma-scope-2-1b-it-transcoders/transcoder/layer_13_width_16k_l0_big", NO_SAE[0], "gemma-scope-2-1b-it-"),
        ("mwhanna-qwen3-8b-transcoders/layer_0", NO_SAE[0], "SAELens lists none"),
        ("mwhanna/qwen3-8b-transcoders/layer_0.safetensors", NO_SAE[0], "SAELens lists none"),
        ("mntss-gemma-2-2b-2.5m-clt-as-per-layer/layer_0", NO_SAE[1], "gemma-scope-2b-pt-res"),
        ("temporal-sae-llama-3.1-8b/blocks.15.hook_resid_post", NO_SAE[2], "llama_scope_lxr_8x"),
    ):
        error = refused(text)
        assert f"is {what}" in error.message and remedy in error.remedy, text


def test_what_saelens_learns_to_read_tomorrow_is_refused_by_its_name():
    entry = {"repo_id": "a/b", "conversion_func": "novel", "model": "gpt2-small", "saes": []}
    sae = {"id": "x", "path": "x"}
    assert published.from_saelens(entry, sae).unread == "of the kind 'novel' (SAELens' name for it)"
    for odd in ([1], {}, 3):
        assert "of the kind" in published.from_saelens(entry | {"conversion_func": odd}, sae).unread


# ---- bad entries


GOOD = {"id": "layer_1", "path": "layer_1", "l0": 30}

RELEASE = {"repo_id": "owner/saes", "model": "gpt2-small", "saes": [GOOD]}

BAD_SAES = [None, 5, "x", [], {}, {"id": "y"}, {"path": "y"}, {"id": None, "path": None}, {"id": [1], "path": {}}]

ODD = [None, 5, "x", [1], {"a": 1}, True, 1.5]


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """Puts a registry of these releases in the place of SAELens'."""

    def put(releases):
        path = tmp_path / "registry.yaml"
        path.write_text(yaml.safe_dump(releases), "utf-8")
        monkeypatch.setattr(published, "registry_file", lambda: path)
        forget()

    def forget():
        for cached in (published.text, published.saelens):
            cached.cache_clear()

    yield put
    forget()


def names_work():
    """The good SAE is known by both of its names, and what is not known is an error in words."""
    for known in (published.by_release("good/layer_1"), published.by_place("owner/saes", "layer_1")):
        assert (known.published["published_l0"], known.published["model"]) == (30, "openai-community/gpt2")
    assert published.by_release("elsewhere/layer_1") is None and published.by_place("owner/saes", "layer_9") is None
    assert isinstance(published.hint("goood/layer_1"), str)
    assert published.instead(published.Known("a", "b", {"model": "openai-community/gpt2"})).count("good") == 1


@pytest.mark.parametrize("bad", BAD_SAES, ids=str)
def test_a_bad_sae_harms_no_other_of_its_release_nor_of_others(registered, bad):
    registered(
        {"bad": {**RELEASE, "repo_id": "owner/bad", "saes": [bad, GOOD]}, "good": RELEASE | {"saes": [GOOD, bad]}}
    )
    names_work()
    assert published.by_release("bad/layer_1").repository == "owner/bad"
    with pytest.raises(SaeError, match="has no SAE nowhere"):
        published.by_release("bad/nowhere")


@pytest.mark.parametrize("odd", ODD, ids=str)
@pytest.mark.parametrize("key", ["repo_id", "saes", "model", "conversion_func", "config_overrides"])
def test_a_bad_release_harms_no_other(registered, key, odd):
    registered({"bad": RELEASE | {"model": "x", key: odd}, "worse": odd, "good": RELEASE})
    published.by_release("bad") if "bad" not in published.saelens() else published.by_release("bad/layer_1")
    names_work()


@pytest.mark.parametrize("odd", ODD, ids=str)
@pytest.mark.parametrize("key", ["model_name", "hook_name", "normalize_activations", "model_from_pretrained_kwargs"])
def test_a_bad_override_harms_no_other(registered, key, odd):
    registered({"bad": RELEASE | {"repo_id": "owner/bad", "config_overrides": {key: odd}}, "good": RELEASE})
    assert published.by_release("bad/layer_1").repository == "owner/bad"
    names_work()


@pytest.mark.parametrize("odd", ODD, ids=str)
@pytest.mark.parametrize("key", ["l0", "variance_explained", "neuronpedia", "norm_scaling_factor"])
def test_a_bad_figure_is_left_out(registered, key, odd):
    registered({"bad": RELEASE | {"repo_id": "owner/bad", "saes": [GOOD | {key: odd}]}, "good": RELEASE})
    fields = published.by_release("bad/layer_1").published
    assert all(isinstance(value, str | int | float | tuple) for value in fields.values())
    names_work()
