"""The wrong thing given as a SAE teaches what the right one is; pipes, links and forbidden files are not waited for."""

import json
import os
import re
import tempfile
from pathlib import Path

import foreign
import pytest
import torch
from broken import CONFIG, WEIGHTS, WRITERS, refused
from tiny import D_SAE, write_model, write_sae

from engine.loading import formats
from engine.loading.formats import load_sae


@pytest.fixture(params=WRITERS)
def written(request, tmp_path):
    """(format, folder) of a SAE that works, in each format."""
    folder = tmp_path / f"a SAE, or {foreign.QWEN_NAME}"
    WRITERS[request.param](folder)
    return request.param, folder


# ---- things that are not files


def test_pipes_folders_and_links_named_like_files_are_not_waited_for(written):
    format, folder = written
    names = [name for name in (CONFIG.get(format), WEIGHTS[format]) if name]
    if format == "Gemma Scope 2":
        names = [WEIGHTS[format]]  # it can do without a configuration
    for name in names:
        path, kept = folder / name, folder / "kept"
        path.rename(kept)
        for make in (os.mkfifo, os.mkdir, lambda p: os.symlink(p, p), lambda p: os.symlink("/dev/zero", p)):
            make(path)
            refused(folder, "holds no SAE of a known format", seconds=2)
            os.rmdir(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        kept.rename(path)
    assert load_sae(folder).d_sae == D_SAE


def test_an_optional_file_that_is_none_is_passed_over(tmp_path):
    for format, name in (("SAELens", "activation_scaler.json"), ("Gemma Scope 2", "config.json")):
        folder = tmp_path / format
        WRITERS[format](
            folder, **({"normalisation": "expected_average_only_in"} if format == "SAELens" else {"config": None})
        )
        os.mkfifo(folder / name)
        assert load_sae(folder).d_sae == D_SAE
    foreign.write_sparsify(tmp_path / "run" / "layers.1")
    os.mkfifo(tmp_path / "run" / "config.json")
    assert load_sae(tmp_path / "run" / "layers.1").d_sae == D_SAE


def test_links_that_lead_in_circles_end(tmp_path):
    os.symlink("b", tmp_path / "a")
    os.symlink("a", tmp_path / "b")
    refused(tmp_path / "a", "a link that leads nowhere")
    (tmp_path / "c").mkdir()
    os.symlink("..", tmp_path / "c" / "up")
    os.symlink(".", tmp_path / "c" / "here")
    refused(tmp_path / "c", "holds no SAE", seconds=5)


@pytest.fixture
def open_folder():
    """A folder whose parents anybody may look into; pytest's own are the user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def as_nobody(function):
    """What the function returns where rights count: root may read everything, so as root another process asks."""
    if os.geteuid() != 0:
        return function()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(writing, json.dumps(function()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text or '"it broke down"')


@pytest.mark.parametrize("what", ["sae", "", "sae/sae_weights.safetensors", "sae/cfg.json"])
def test_what_may_not_be_read_is_said(open_folder, what):
    write_sae(open_folder / "parent" / "sae")
    path = open_folder / "parent" / what
    path.chmod(0)

    def message():
        error = refused(open_folder / "parent" / "sae")
        return error.message + error.remedy

    try:
        assert re.search("Permission denied", as_nobody(message), re.IGNORECASE)
    finally:
        path.chmod(0o700)


# ---- the wrong thing given


def test_the_wrong_thing_given_teaches(tmp_path):
    assert "cfg.json" in refused(tmp_path / "nowhere", "no SAE folder").remedy
    (tmp_path / "empty").mkdir()
    assert "params.npz" in refused(tmp_path / "empty", "found: nothing").remedy
    refused(tmp_path / ("x" * 5000), "File name too long|no SAE folder")
    refused(tmp_path / "a\0b", "no SAE folder")
    assert "--model" in refused(write_model(tmp_path / "model"), "holds no SAE").remedy
    (tmp_path / "gguf").mkdir()
    (tmp_path / "gguf" / "model-q8.gguf").write_bytes(b"GGUF")
    assert "--model" in refused(tmp_path / "gguf", "holds no SAE").remedy


def test_a_folder_above_saes_names_them(tmp_path):
    below = write_sae(tmp_path / "snapshots" / "0f1e" / "res" / "layer_3" / "width_16k")
    assert refused(tmp_path, "holds no SAE").remedy == f"There is a SAE in {below}: give --sae that folder."
    foreign.write_gemma_scope(tmp_path / "near")
    remedy = refused(tmp_path, "holds no SAE").remedy
    assert remedy == f"There are 2 SAEs in it: give --sae the folder of one, such as {tmp_path / 'near'}."
    foreign.write_llama_scope(tmp_path / "llama")
    assert str(tmp_path / "llama") in refused(tmp_path / "llama" / "checkpoints", "holds no SAE").remedy


def test_a_file_given_names_its_folder(tmp_path):
    write_sae(tmp_path / "sae")
    for name in ("sae_weights.safetensors", "cfg.json"):
        assert refused(tmp_path / "sae" / name, "is a file").remedy == f"Give --sae the folder {tmp_path / 'sae'}."
    foreign.write_llama_scope(tmp_path / "llama")
    weights = tmp_path / "llama" / "checkpoints" / "final.safetensors"
    assert refused(weights, "is a file").remedy == f"Give --sae the folder {tmp_path / 'llama'}."
    (tmp_path / "loose.safetensors").write_bytes(b"")
    refused(tmp_path / "loose.safetensors", "is a file")


@pytest.mark.parametrize("name", ["ae.pt", "layer_3.pt", "sae.pth", "pytorch_sae.bin"])
def test_a_lone_pickle_says_what_is_missing(tmp_path, name):
    torch.save({"W_enc": torch.zeros(2)}, tmp_path / name)
    remedy = refused(tmp_path, "holds no SAE").remedy
    assert ("config.json" if name == "ae.pt" else "Pickled weights") in remedy


@pytest.mark.parametrize("format", ["SAELens", "Llama Scope", "dictionary_learning", "sparsify"])
def test_an_unfinished_download_says_which_file_is_missing(tmp_path, format):
    config, weights = CONFIG[format], WEIGHTS[format]
    for missing, there in ((config, weights), (weights, config)):
        folder = tmp_path / missing.replace("/", " ")
        WRITERS[format](folder)
        (folder / missing).unlink()
        remedy = refused(folder, "holds no SAE").remedy
        if there != "config.json":
            assert there in remedy and missing in remedy and "complete" in remedy


def test_a_large_folder_is_not_searched_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MOST_FOLDERS", 50)
    for i in range(200):
        (tmp_path / f"{i:03}").mkdir()
    write_sae(tmp_path / "199")
    refused(tmp_path, "holds no SAE", seconds=1)
    seen = []
    real = formats.format_of
    monkeypatch.setattr(formats, "format_of", lambda folder: seen.append(folder) or real(folder))
    refused(tmp_path, "holds no SAE")
    assert len(seen) <= 1 + 50  # the folder itself, and those below it


def test_names_of_files_are_shown_in_a_way_that_can_be_printed(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9\x1b[2J.bin")).write_bytes(b"")
    assert "\\x1b" in refused(tmp_path, "holds no SAE").message
