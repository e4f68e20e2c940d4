"""Whatever a user gives, the answer is a result or an error in words: no traceback, no "Unexpected error"."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.cli.run import main

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"


def replaced(name, content):
    """Writes a file anew, or changes it."""

    def damage(folder):
        path = folder / name
        data = content(path.read_bytes()) if callable(content) else content
        path.write_bytes(data)

    return damage


def removed(name):
    return lambda folder: (folder / name).unlink()


def config(**changes):
    """Changes entries of config.json or cfg.json."""

    def damage(folder):
        path = next(folder / name for name in ("config.json", "cfg.json") if (folder / name).exists())
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")

    return damage


def tensors(change):
    """Changes the tensors of a folder's one safetensors file."""

    def damage(folder):
        (path,) = folder.glob("*.safetensors")
        found = load_file(path)
        change(found)
        save_file(found, path)

    return damage


def template(text):
    return replaced("chat_template.jinja", text.encode())


def half(data):
    return data[: len(data) // 2]


MODELS = {
    "whole": lambda folder: None,
    "cut weights": replaced("model.safetensors", half),
    "a pointer": replaced("model.safetensors", POINTER),
    "no weights": removed("model.safetensors"),
    "no config": removed("config.json"),
    "a config of nonsense": replaced("config.json", b"\xff{"),
    "a config that is a list": replaced("config.json", b"[]"),
    "an unknown type": config(model_type="frob"),
    "no layers": config(num_hidden_layers=0),
    "layers of text": config(num_hidden_layers="three"),
    "heads that do not divide": config(num_attention_heads=5),
    "an unknown quantisation": config(quantization_config={"quant_method": "frob"}),
    "a quantisation that is a list": config(quantization_config=[1]),
    "a layer missing": tensors(lambda t: t.pop("model.layers.1.mlp.down_proj.weight")),
    "NaN": tensors(lambda t: t["model.layers.1.mlp.down_proj.weight"].fill_(float("nan"))),
    "embeddings too small": tensors(lambda t: t.update({"model.embed_tokens.weight": torch.zeros(9, 16)})),
    "no tokenizer": removed("tokenizer.json"),
    "a tokenizer cut short": replaced("tokenizer.json", half),
    "a tokenizer of nonsense": replaced("tokenizer.json", b"{}"),
    "tokenizer_config of nonsense": replaced("tokenizer_config.json", b"[1, 2]"),
    "a template that raises": template("{{ raise_exception('System first') }}"),
    "a template of unknown names": template("{{ foo.bar }}"),
    "a template left open": template("{% for m in messages %}"),
    "a template that divides by zero": template("{{ 1 // 0 }}"),
    "a template that says nothing": template(""),
}

SAES = {
    "cut weights": replaced("sae_weights.safetensors", half),
    "a pointer": replaced("sae_weights.safetensors", POINTER),
    "no weights": removed("sae_weights.safetensors"),
    "no cfg": removed("cfg.json"),
    "a cfg of nonsense": replaced("cfg.json", b"\xff{"),
    "a cfg that is a list": replaced("cfg.json", b"[]"),
    "d_in of text": config(d_in="sixteen"),
    "another hook": config(metadata={"hook_name": "blocks.99.hook_resid_pre"}),
    "a hook that is a number": config(metadata={"hook_name": 7}),
    "an unknown architecture": config(architecture="frob"),
    "another width": tensors(lambda t: t.update({"W_enc": torch.zeros(8, 96), "W_dec": torch.zeros(96, 8)})),
    "NaN": tensors(lambda t: t["W_dec"].fill_(float("nan"))),
    "no decoder": tensors(lambda t: t.pop("W_dec")),
}

ARGUMENTS = {
    "mps": ["--device", "mps"],
    "xpu": ["--device", "xpu"],
    "meta": ["--device", "meta"],
    "cuda:99": ["--device", "cuda:99"],
    "cpu:9": ["--device", "cpu:9"],
    "no device": ["--device", "\x00"],
    "int8": ["--dtype", "int8"],
    "float16": ["--dtype", "float16"],
    "no threads": ["--threads", "0"],
    "a hook of nonsense": ["--hook", "model.layers[1]"],
    "an empty hook": ["--hook", " "],
    "no such model": ["--model", "nobody/nothing"],
    "a model that is a file": ["--model", __file__],
    "no such SAE": ["--sae", "nobody/nothing/layer_1"],
    "a SAE that is a file": ["--sae", __file__],
    "a reference that is a folder": ["--reference", "."],
    "a null in a path": ["--reference", "a\x00b"],
    "a preset of nonsense": ["--preset", "frob"],
}


@pytest.fixture
def answered(files, capsys, caplog):
    """Runs verbs in turn; each must end with a result or an error in words."""

    def run(pair, more=(), verbs=(["generate", "The nurse", "--ablate", "3", "--max-tokens", "3"],)):
        for verb in verbs:
            code = main([verb[0], *verb[1:], *pair, "--dtype", "float32", "--device", "cpu", *more])
            out, err = capsys.readouterr()
            assert code in (0, 1, 2), (verb, code)
            for text in (out, err, caplog.text):
                assert "Unexpected error" not in text and "Traceback" not in text, (verb, text)
            assert code == 0 or "error: " in err or verb[0] == "doctor", (verb, err)
            assert not [r for r in caplog.records if r.levelno >= logging.ERROR], caplog.text

    return run


GENERATE, DOCTOR = ["generate", "The nurse", "--ablate", "3", "--max-tokens", "3"], ["doctor"]


def copied(source, tmp_path, damage):
    folder = Path(shutil.copytree(source, tmp_path / "copy"))
    damage(folder)
    return str(folder)


@pytest.mark.parametrize("damage", MODELS)
def test_a_damaged_model(answered, files, tmp_path, damage):
    model = copied(files.model, tmp_path, MODELS[damage])
    answered(["--model", model, "--sae", files.sae, "--reference", files.reference], (), (GENERATE, DOCTOR))


@pytest.mark.parametrize("damage", SAES)
def test_a_damaged_sae(answered, files, tmp_path, damage):
    sae = copied(files.sae, tmp_path, SAES[damage])
    answered(["--model", files.model, "--sae", sae, "--reference", files.reference], (), (GENERATE, DOCTOR))


@pytest.mark.parametrize("given", ARGUMENTS)
def test_an_argument_that_makes_no_sense(answered, files, given, cache):
    pair = ["--model", files.model, "--sae", files.sae, "--reference", files.reference]
    try:
        answered(pair, ARGUMENTS[given], (GENERATE,))
    except SystemExit as error:  # argparse says it
        assert error.code == 2
