"""Writes files of a SAE and of a language model, of a given size and random weights, for the bench to load."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

WIDTH = 2048
"""d_model of the large files; tiny ones are WIDTH / 32 wide."""


def write_sae(folder: Path, size: int, dtype: torch.dtype) -> None:
    """Write a SAE of about `size` bytes into a new folder, in SAELens' format."""
    folder.mkdir()
    d_in = WIDTH if size > 10_000_000 else WIDTH // 32
    d_sae = max(1, size // (2 * d_in * dtype.itemsize))
    weights = {
        "W_enc": numbers((d_in, d_sae), dtype),
        "W_dec": numbers((d_sae, d_in), dtype),
        "b_enc": numbers((d_sae,), dtype),
        "b_dec": numbers((d_in,), dtype),
    }
    config = {"architecture": "standard", "d_in": d_in, "d_sae": d_sae, "normalize_activations": "none"}
    (folder / "cfg.json").write_text(json.dumps(config), "utf-8")
    save_file(weights, folder / "sae_weights.safetensors")


def write_model(folder: Path, size: int, dtype: torch.dtype) -> None:
    """Write a Llama of about `size` bytes and a tokenizer of a few words, in the files that save_pretrained writes."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    width = WIDTH if size > 10_000_000 else WIDTH // 32
    config = LlamaConfig(
        vocab_size=16_000 if width == WIDTH else 64,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=max(1, round(size / dtype.itemsize / (14.5 * width**2))),  # weights of a block / width²
        num_attention_heads=16,
        num_key_value_heads=4,
        tie_word_embeddings=True,
        dtype=dtype,
        architectures=["LlamaForCausalLM"],
    )
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in LlamaForCausalLM(config).named_parameters()}
    folder.mkdir()
    config.save_pretrained(folder)
    words = Tokenizer(WordLevel({"<s>": 0, "</s>": 1, "word": 2}, unk_token="word"))
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    weights = {name: numbers(size, dtype) for name, size in shapes.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def numbers(size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return small random numbers; the same million is repeated, for speed."""
    count = torch.Size(size).numel()
    repeated = torch.randn(min(count, 1 << 20), generator=torch.Generator().manual_seed(0)).mul_(0.02).to(dtype)
    return repeated.repeat(-(-count // len(repeated)))[:count].reshape(size)
