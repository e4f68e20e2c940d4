"""The table of presets: every entry against SAELens' registry, and what --preset does on the command line."""

import json

import pytest

import prompts
from engine.cli.command import Command
from engine.cli.options import app_arguments
from engine.cli.printing import Printer
from engine.cli.run import main
from engine.loading import presets, published
from engine.records import Load
from engine.records.errors import UsageError

ALL = presets.everyone()

ON_HUB = [preset for preset in ALL if preset.sae]

with_registry = pytest.mark.skipif(published.registry_file() is None, reason="SAELens is not installed")

by_name = pytest.mark.parametrize("preset", ON_HUB, ids=lambda p: p.name)


@with_registry
@by_name
def test_an_entry_agrees_with_saelens_registry(preset):
    entry = published.saelens()[preset.release]
    sae = next(s for s in entry["saes"] if s["id"] == preset.sae_id)
    assert (entry["repo_id"], sae["path"]) == (preset.repository, preset.path)
    same_place = [
        s
        for other in published.saelens().values()
        if other["repo_id"] == preset.repository
        for s in other["saes"]
        if s["path"] == preset.path
    ]
    assert preset.l0 == next((s["l0"] for s in same_place if "l0" in s), None)
    assert preset.variance_explained == sae.get("variance_explained")
    assert preset.neuronpedia == (sae.get("neuronpedia") or "")
    overrides = entry.get("config_overrides") or {}
    kwargs = overrides.get("model_from_pretrained_kwargs") or {}
    assert preset.normalisation == (overrides.get("normalize_activations") or "")
    assert preset.centered == kwargs.get("center_writing_weights", False)
    assert entry["conversion_func"] in published.READ
    known = entry["model"].split("/")[-1]  # TransformerLens' name, or the hub's
    assert known in (preset.model.split("/")[-1], "gpt2-small", "mistral-7b")
    assert published.from_saelens(entry, sae).published["model"] == preset.model


@with_registry
def test_corrections_of_whole_repositories_agree_too():
    for repository in presets.table().repository:
        entries = [e for e in published.saelens().values() if e["repo_id"] == repository.name]
        assert entries
        for entry in entries:
            found = published.from_saelens(entry, entry["saes"][0]).published
            assert found.get("centered", False) == repository.centered
            assert found.get("normalisation", "") == repository.normalisation


@by_name
def test_an_entry_is_found_by_both_its_names_and_with_its_figures(preset):
    assert presets.of_sae(preset.sae) is preset
    assert presets.of_sae(f"{preset.release}/{preset.sae_id}") is preset
    known = published.by_release(f"{preset.release}/{preset.sae_id}")
    assert (known.repository, known.path) == (preset.repository, preset.path)
    assert known.published["model"] == preset.model
    assert known.published.get("published_l0") == preset.l0
    assert known.published.get("published_variance_explained") == preset.variance_explained


def test_the_table_as_it_is_meant():
    names = [preset.name for preset in ALL]
    assert len(names) == len(set(names)) >= 8 and "demo" in names
    for preset in ALL:
        assert prompts.load(preset.prompts).name == preset.prompts
        assert len(preset.title) <= 36  # fits its line in the app's chooser
    founding = presets.find("mistral-7b-gender-bias")
    assert [(p.feature, p.label) for p in founding.pinned] == [
        (48180, "gender bias (founding study)"),
        (27960, "bias in general (founding study)"),
    ]
    assert (founding.l0, founding.variance_explained, founding.prompts) == (74, 0.85, "founding_5v2")
    assert 16.4e9 < founding.bytes_needed() < 16.8e9
    assert founding.bytes_needed("float32") > 31e9
    assert presets.of_sae(None).name == "demo" and presets.of_sae("some/other/sae") is None


def test_a_request_left_open_is_filled_in():
    founding = presets.find("mistral-7b-gender-bias")
    assert presets.applied(founding, Load()) == Load(founding.model, founding.sae, founding.hook, bos="always")
    assert presets.applied(founding, Load(bos="never")).bos == "never"
    mine = presets.applied(founding, Load(model="/my/mistral", device="cpu"))
    assert mine == Load("/my/mistral", founding.sae, founding.hook, "cpu", bos="always")
    other = presets.applied(founding, Load(sae="/my/sae"))
    assert (other.sae, other.hook, other.bos) == ("/my/sae", None, "auto")  # those are of the preset's own SAE
    assert presets.applied(founding, Load(hook="blocks.3.hook_resid_pre")).hook == "blocks.3.hook_resid_pre"
    assert presets.applied(presets.find("demo"), Load()) == Load()


def test_an_unknown_name_lists_the_names_closest_first(capsys):
    assert main(["rank", "--preset", "gemma-2b"]) == 2
    said = capsys.readouterr().err
    assert "There is no preset 'gemma-2b'." in said and "Presets: gemma-2-2b, " in said and "demo" in said
    with pytest.raises(UsageError):
        presets.find("")


def test_presets_are_printed(capsys):
    assert main(["presets"]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("mistral-7b-gender-bias"))
    for part in ("mistralai/Mistral-7B-v0.1", "mistral_7b_layer_16", "74", "0.85", "16.6 GB", "founding study"):
        assert part in line
    assert main(["presets", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["presets"]
    assert [p["name"] for p in found] == [p.name for p in ALL]
    assert found[1]["bytes_needed"] == ALL[1].bytes_needed() and found[1]["pinned"][0]["feature"] == 48180


def test_a_preset_brings_its_prompts_unless_others_are_asked_for():
    from engine.cli.run import parser

    def command(*argv):
        return Command(parser().parse_args(argv), Printer(json=True), lambda: None)

    assert command("rank", "--preset", "mistral-7b-gender-bias").prompts().name == "founding_5v2"
    assert command("rank", "--preset", "mistral-7b-gender-bias", "--prompts", "hedging").prompts().name == "hedging"
    assert command("rank").prompts().name == "gender_bias"
    assert command("rank", "--preset", "demo").load == Load()


def test_gender_lists_are_the_demos(capsys):
    assert main(["generate", "x", "--preset", "gpt2-small", "--ablate", "@gender"]) == 2
    assert "The list @gender belongs to the demo SAE." in capsys.readouterr().err


def test_the_app_takes_a_preset():
    load, _, _, preset = app_arguments(["--preset", "gpt2-small", "--device", "cpu"])
    assert (load, preset) == (Load(device="cpu"), "gpt2-small")
    assert app_arguments(["presets"]) is None
