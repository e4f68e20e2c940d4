"""Numbers of the model's own that are NaN or infinite: said at loading and by every verb, and never blamed on edits."""

import json
from math import isnan

import msgspec
import pytest
import torch
from plain import hidden
from safetensors.torch import load_file, save_file
from tiny import make_tokenizer, write_model
from transformers import AutoModelForCausalLM

from engine.cli.run import main
from engine.models import reference as references
from engine.models.language_model import LanguageModel
from engine.records import (
    Answer,
    Attribute,
    Attribution,
    Describe,
    Described,
    Diagnosis,
    Doctor,
    Edit,
    FeaturesAt,
    FindMinimalSet,
    Generate,
    Generated,
    Loaded,
    Measure,
    MinimalSet,
    Probe,
    ProbeTable,
    Prompt,
    PromptSet,
    Rank,
    Ranking,
    RunProbes,
    Sampling,
    Show,
    Shown,
    TokenFeatures,
)
from engine.records.errors import EditError, ModelError
from engine.serving.client import ask
from engine.serving.local import LocalClient

WILD = "n"
"""The token whose embedding is too long for float16."""

BAD = Prompt("The wind", "raw")
GOOD = Prompt("A cab", "raw")
SIDES = (Answer("she", (" she",)), Answer("he", (" he",)))
LONG = (Answer("she", (" she.",)), Answer("he", (" he",)))


def changed(folder, factors):
    """A model with some weights multiplied: by tensor, or by one token's row of it."""
    weights = load_file(write_model(folder) / "model.safetensors")
    for (name, token), factor in factors.items():
        row = slice(None) if token is None else make_tokenizer().convert_tokens_to_ids(token)
        weights[name][row] *= factor
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return str(folder)


@pytest.fixture(scope="module")
def one_token(tmp_path_factory):
    """One token overflows in float16."""
    return changed(tmp_path_factory.mktemp("one"), {("model.embed_tokens.weight", WILD): 1e6})


@pytest.fixture(scope="module")
def above(tmp_path_factory):
    """The last block overflows in float16, above the hook."""
    return changed(tmp_path_factory.mktemp("above"), {("model.layers.2.mlp.down_proj.weight", None): 3e5})


def opened(load, **changes):
    client = LocalClient()
    loaded = ask(client, msgspec.structs.replace(load, **changes), Loaded)
    return client, loaded


@pytest.fixture(scope="module")
def wild(load, one_token, tmp_path_factory):
    """A client whose model overflows on one token, and a reference text without it."""
    text = tmp_path_factory.mktemp("text") / "calm.txt"
    text.write_text("\n".join(line for line in ["Hats are back", "cab grab dab", "Felt it"] * 8), "utf-8")
    client, loaded = opened(load, model=one_token, dtype="float16", reference=str(text))
    assert not any("float16" in doubt for doubt in loaded.doubts)
    return client


def test_plain_transformers_overflows_there_too(one_token):
    module = AutoModelForCausalLM.from_pretrained(one_token, dtype=torch.float16)
    for prompt, finite in ((BAD, False), (GOOD, True)):
        ids = torch.tensor([[0, *make_tokenizer()(prompt.text).input_ids]])
        assert bool(torch.isfinite(module(ids).logits).all()) is finite
    assert torch.isfinite(torch.tensor(hidden(module.float(), ids[0].tolist(), layer=1))).all()


BOTH = PromptSet("p", (GOOD, BAD), (GOOD,))

VERBS = [
    (Rank(BOTH), Ranking),
    (Show(3, (GOOD, BAD)), Shown),
    (Describe(3, (BAD,)), Described),
    (FeaturesAt(BAD, 1), TokenFeatures),
    (Generate(BAD, sampling=Sampling(max_tokens=2)), Generated),
    (Generate(GOOD, prefill=" nn", sampling=Sampling(max_tokens=2)), Generated),
    (RunProbes((Probe(BAD.text, "raw", answers=SIDES),), (), Sampling(max_tokens=2)), ProbeTable),
    (RunProbes((Probe("A cab", "raw", answers=(Answer("x", (" nnn",)),)),), (), Sampling(max_tokens=2)), ProbeTable),
    (Attribute(Measure((Probe(BAD.text, "raw", answers=SIDES),), "she", "he")), Attribution),
    (Describe(3, (), measure=Measure((Probe(BAD.text, "raw", answers=SIDES),), "she", "he")), Described),
    (FindMinimalSet(Measure((Probe(BAD.text, "raw", answers=SIDES),), "she", "he"), (3, 4)), MinimalSet),
]


@pytest.mark.parametrize(("request_", "kind"), VERBS, ids=lambda value: type(value).__name__)
def test_every_verb_says_that_the_model_overflows_and_how_it_does_not(wild, request_, kind):
    with pytest.raises(ModelError, match=r"overflow.*without any edit they are NaN or infinite in float16") as caught:
        ask(wild, request_, kind)
    assert caught.value.exit_code == 1 and "--dtype bfloat16" in caught.value.remedy


def test_what_does_not_overflow_is_still_read(wild):
    assert ask(wild, Show(3, (GOOD,)), Shown).prompts[0].text == GOOD.text


def test_a_model_that_overflows_on_any_text_is_refused_at_loading(load, above, capsys):
    with pytest.raises(ModelError, match=r"logits overflow on 'The sky is blue.'") as caught:
        opened(load, model=above, dtype="float16")
    assert "--dtype bfloat16" in caught.value.remedy
    pair = ["--model", above, "--sae", load.sae, "--reference", load.reference, "--device", "cpu"]
    assert main(["generate", "A cab", "--raw", *pair, "--dtype", "float16"]) == 1
    assert "without any edit" in capsys.readouterr().err
    assert main(["generate", "A cab", "--raw", "--json", "--max-tokens", "2", *pair, "--dtype", "bfloat16"]) == 0
    assert not any(map(isnan, json.loads(capsys.readouterr().out)["baseline"]["logprobs"]))


def test_float32_layers_above_the_hook_hide_no_overflow_from_an_attribution(load, above, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(LanguageModel, "check_logits", lambda *_: None)
        client, _ = opened(load, model=above, dtype="float16")
    with pytest.raises(ModelError, match=r"logits overflow on 'A cab she'"):
        ask(client, Attribute(Measure((Probe(GOOD.text, "raw", answers=LONG),), "she", "he")), Attribution)


def test_an_attribution_is_refused_where_the_layers_above_the_hook_overflow(load, tmp_path, monkeypatch):
    broken = changed(tmp_path, {("model.norm.weight", None): float("nan")})
    with monkeypatch.context() as patch:
        patch.setattr(LanguageModel, "check_logits", lambda *_: None)
        client, _ = opened(load, model=broken)
    with pytest.raises(ModelError, match=r"numbers above the hook overflow on the probes.*float32"):
        ask(client, Attribute(Measure((Probe(GOOD.text, "raw", answers=SIDES),), "she", "he")), Attribution)


def test_a_nan_in_the_weights_is_no_matter_of_dtype(load, tmp_path):
    broken = changed(tmp_path, {("model.norm.weight", None): float("nan")})
    with pytest.raises(ModelError, match="infinite in float32") as caught:
        opened(load, model=broken)
    assert "damaged" in caught.value.remedy and "--dtype" not in caught.value.remedy


def test_a_reference_text_that_overflows_almost_everywhere_is_refused(load, one_token, tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(["nine hens in one nest"] * 30), "utf-8")
    with pytest.raises(ModelError, match=r"vectors overflow at 660 of 660 tokens of text.txt") as caught:
        opened(load, model=one_token, dtype="float16", reference=str(tmp_path / "text.txt"))
    assert "--dtype bfloat16" in caught.value.remedy


def test_a_reference_text_that_overflows_here_and_there_is_doubted_and_the_rest_used(load, one_token, capsys):
    client, loaded = opened(load, model=one_token, dtype="float16")
    reference = client._pair.site.reference
    again, _ = opened(load, model=one_token, dtype="float16")  # from the cache
    assert again._pair.site.reference.unfinite == reference.unfinite > 100
    (doubt,) = [doubt for doubt in loaded.doubts if "float16" in doubt]
    assert doubt.startswith(f"{reference.unfinite:,} vectors are NaN or infinite") and "--dtype bfloat16" in doubt
    assert reference.n_tokens >= references.LEAST_TOKENS and reference.median_norm > 0
    assert torch.isfinite(reference.strongest_FS).all() and reference.density_F().max() <= 1
    calm = Measure((Probe(GOOD.text, "raw", answers=SIDES),), "she", "he")
    assert ask(client, FindMinimalSet(calm, (3, 4)), MinimalSet).kl is None
    with pytest.raises(ModelError, match="overflow"):  # its KL would be measured on this text
        ask(client, FindMinimalSet(calm, (3, 4), neutral_tokens=2000), MinimalSet)
    pair = ["--model", one_token, "--sae", load.sae, "--reference", load.reference, "--device", "cpu"]
    assert main(["generate", "A cab", "--raw", "--max-tokens", "1", *pair, "--dtype", "float16"]) == 0
    assert doubt in capsys.readouterr().err


def test_the_doctor_is_red_and_blames_no_edit(load, one_token, tmp_path):
    (tmp_path / "calm.txt").write_text("Hats are back\n" * 20, "utf-8")
    client, _ = opened(load, model=one_token, dtype="float16", reference=str(tmp_path / "calm.txt"))
    checks = {check.name: check for check in ask(client, Doctor(400), Diagnosis).checks}
    for name in ("finite numbers", "no-op edit exact"):
        assert checks[name].ok is False and "--dtype bfloat16" in checks[name].remedy


def test_edits_are_blamed_for_what_they_do_alone(wild):
    with pytest.raises(EditError, match="edits make the model's numbers overflow at token 1"):
        ask(wild, Generate(GOOD, (Edit(3, 1e6, "steer"),), Sampling(max_tokens=2)), Generated)


def test_an_overflow_on_the_way_keeps_the_text_and_names_the_model(load, files, monkeypatch):
    from engine.generation.steps import Steps

    client, _ = opened(load)
    step, seen = Steps.step, []

    def overflowing(self, ids_B):
        found = step(self, ids_B)
        if not self.plain:  # the steps of the comparison that comes first are plain ones
            seen.append(ids_B)
        return found._replace(logits_BV=found.logits_BV * (float("nan") if len(seen) == 3 else 1))

    monkeypatch.setattr(Steps, "step", overflowing)
    found = ask(client, Generate(GOOD, (Edit(3, 0.0),), Sampling(max_tokens=6)), Generated)
    assert len(found.baseline.token_ids) == 3
    assert found.fault.startswith("The model's logits overflow at token 4: without any edit")
