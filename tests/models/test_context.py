"""Texts longer than those the SAE was trained on: said with every result, and by the doctor."""

import json

import msgspec
import pytest
from tiny import sae_config, write_sae

from engine.cli.run import main
from engine.files import session
from engine.files.export import formats as export
from engine.loading.formats import dictionary_learning, saelens, sparsify
from engine.records import (
    Answer,
    Attribute,
    Attribution,
    Diagnosis,
    Doctor,
    Edit,
    Generate,
    Generated,
    Loaded,
    Measure,
    Probe,
    ProbeTable,
    Prompt,
    PromptSet,
    Rank,
    Ranking,
    RunProbes,
    Sampling,
)
from engine.serving.client import ask
from engine.serving.local import LocalClient

CONTEXT = 32
SHORT, LONG = Prompt("A cab", "raw"), Prompt("A nurse fed the lab rats, she said so", "raw")
SAID = f"The SAE was trained on texts of up to {CONTEXT} tokens"


@pytest.fixture(scope="module")
def sae(tmp_path_factory):
    folder = write_sae(tmp_path_factory.mktemp("sae"))
    (folder / "cfg.json").write_text(json.dumps(sae_config() | {"context_size": CONTEXT}), "utf-8")
    return str(folder)


@pytest.fixture(scope="module")
def opened(load, sae):
    client = LocalClient()
    ask(client, msgspec.structs.replace(load, sae=sae), Loaded)
    return client


def length(opened, prompt):
    return len(opened._pair.model.tokens.tokenizer(prompt.text).input_ids) + 1  # its leading token


def test_a_ranking_says_how_many_prompts_are_longer(opened):
    found = ask(opened, Rank(PromptSet("p", (SHORT, LONG), (SHORT,))), Ranking)
    (said,) = [warning for warning in found.warnings if SAID in warning]
    assert f"1 of 3 prompts have more (up to {length(opened, LONG)})" in said
    found = ask(opened, Rank(PromptSet("p", (SHORT,), (SHORT,))), Ranking)
    assert not any(SAID in warning for warning in found.warnings)


@pytest.mark.parametrize(("tokens", "warns"), [(CONTEXT - 5, 0), (CONTEXT + 5, 1)])
def test_a_text_says_it_once_it_has_grown_longer(opened, monkeypatch, tokens, warns):
    monkeypatch.setattr(type(opened._pair.model), "end_ids", lambda _: set())
    sampling = Sampling(max_tokens=tokens - length(opened, SHORT))
    found = ask(opened, Generate(SHORT, (Edit(3),), sampling), Generated)
    assert len(found.warnings) == warns
    assert all(f"{SAID}, this one has {tokens}:" in warning for warning in found.warnings)


def test_probes_and_attributions_say_it(opened):
    probe = Probe(LONG.text, "raw", answers=(Answer("she", (" she",)), Answer("he", (" he",))))
    (row,) = ask(opened, RunProbes((probe,), (), Sampling(max_tokens=1)), ProbeTable).rows
    assert SAID in row.generated.warnings[0]
    found = ask(opened, Attribute(Measure((probe,), "she", "he"), exact=1), Attribution)
    assert any(SAID in warning for warning in found.warnings)


def test_the_doctor_says_how_long_they_were(opened, client):
    checks = {check.name: check for check in ask(opened, Doctor(300), Diagnosis).checks}
    assert checks["context"].detail.startswith(f"trained on texts of up to {CONTEXT} tokens")
    assert "context" not in {
        check.name for check in ask(client, Doctor(300), Diagnosis).checks
    }  # its files do not tell


@pytest.mark.parametrize("more", [[], ["--compare"]])
def test_the_command_line_and_a_report_show_it(load, sae, tmp_path, capsys, more):
    pair = ["--model", load.model, "--sae", sae, "--reference", load.reference, "--device", "cpu", "--dtype", "float32"]
    path = tmp_path / "kept.saescope.json"
    argv = ["generate", LONG.text, "--raw", "--ablate", "3", "--max-tokens", "2", "--session", str(path), *pair, *more]
    assert main(argv) == 0
    printed = capsys.readouterr()
    assert SAID in " ".join((printed.out if more else printed.err).split())
    kept = session.read(path)
    assert f"- *{SAID}" in export.to_markdown(kept)


@pytest.mark.parametrize("value", [None, True, 0, -1, "128", [128], 1e3])
def test_what_is_no_length_is_not_known(value):
    assert saelens.parse_config(sae_config() | {"context_size": value}, "x").context is None


def test_every_format_that_names_a_length_is_read():
    nested = sae_config()
    nested["metadata"] = nested["metadata"] | {"context_size": 128}
    assert saelens.parse_config(nested, "x").context == 128
    trainer = {"dict_class": "AutoEncoder", "layer": 1, "lm_name": "tiny"}
    assert dictionary_learning.parse_config({"trainer": trainer, "buffer": {"ctx_len": 64}}, "x").context == 64
    assert dictionary_learning.parse_config({"trainer": trainer, "buffer": 3}, "x").context is None
    assert sparsify.parse_config({"k": 4}, {"ctx_len": 2048}, "layers.1").context == 2048
