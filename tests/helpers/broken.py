"""Tiny SAEs of every format to be broken, and what must come of them: a SaeError with a remedy, or a SAE that works."""

import json
import time

import foreign
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import write_sae

from engine.loading.formats import load_sae
from engine.records.errors import SaeError

WEIGHTS = {
    "SAELens": "sae_weights.safetensors",
    "Gemma Scope": "params.npz",
    "Gemma Scope 2": "params.safetensors",
    "Llama Scope": "checkpoints/final.safetensors",
    "Llama Scope R1": "sae_weights.safetensors",
    "dictionary_learning": "ae.pt",
    "sparsify": "sae.safetensors",
    "Qwen-Scope": "layer8.sae.pt",
    "Goodfire": foreign.GOODFIRE_FILE,
    "attn-saes": foreign.ATTN_FILE,
}

CONFIG = {
    "SAELens": "cfg.json",
    "Gemma Scope 2": "config.json",
    "Llama Scope": "hyperparams.json",
    "Llama Scope R1": "config.json",
    "dictionary_learning": "config.json",
    "sparsify": "cfg.json",
    "attn-saes": foreign.ATTN_FILE.replace(".pt", "_cfg.json"),
}

WRITERS = {
    "SAELens": write_sae,
    "Gemma Scope": foreign.write_gemma_scope,
    "Gemma Scope 2": foreign.write_gemma_scope_2,
    "Llama Scope": foreign.write_llama_scope,
    "Llama Scope R1": foreign.write_llama_scope_r1,
    "dictionary_learning": foreign.write_dictionary,
    "sparsify": foreign.write_sparsify,
    "Qwen-Scope": foreign.write_qwen_scope,
    "Goodfire": foreign.write_goodfire,
    "attn-saes": foreign.write_attn_saes,
}


def refused(folder, match="", seconds=5):
    """The SaeError of loading it: on one line each, with a remedy, and soon."""
    start = time.process_time()
    with pytest.raises(SaeError, match=match or None) as caught:
        load_sae(folder)
    assert time.process_time() - start < seconds
    error = caught.value
    assert error.remedy and error.message
    assert len(error.message) < 1500 + len(str(folder)) and "\n" not in error.message + error.remedy
    (error.message + error.remedy).encode("utf-8")
    return error


def check(folder):
    """Either a SaeError as it should be, or a SAE that encodes and decodes."""
    try:
        sae = load_sae(folder)
    except SaeError as error:
        assert error.remedy and "\n" not in error.message
        (error.message + error.remedy).encode("utf-8")
        return False
    sae.reconstruct(foreign.vectors(3, sae.d_in))
    sae.encode_features(sae.normalise(foreign.vectors(3, sae.d_in)).x_TD, sae.columns([0]))
    json.dumps([sae.config.hook, sae.config.model, sae.config.notes], ensure_ascii=False).encode("utf-8")
    return True


def tensors_of(format, path):
    """The tensors in a weight file, whatever the format."""
    if format == "Gemma Scope":
        return {name: torch.from_numpy(array) for name, array in np.load(path).items()}
    return torch.load(path, weights_only=True) if path.suffix in (".pt", ".pth") else load_file(path)


def rewrite(format, path, tensors):
    """Writes a weight file anew: one that is mapped must not change under those who read it."""
    path.unlink()
    if format == "Gemma Scope":
        np.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})
    elif path.suffix in (".pt", ".pth"):
        torch.save(dict(tensors), path)
    else:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
