"""Goodfire's and qresearch's SAEs: one pickled file, `MODEL-SAE-lN.pt` or `.pth`, its model and layer in its name.

Sources: https://huggingface.co/Goodfire, https://huggingface.co/qresearch. Two torch Linears, `encoder_linear` and
`decoder_linear`, or `encoder` and `decoder`: a ReLU encoder at the residual stream after layer N, no normalisation,
b_dec not subtracted at the input.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from engine.loading.formats.files import OneFile, pick, present, read_pickle, text, transposed
from engine.models.sae import SaeConfig

NAME = "Goodfire"

FILES = OneFile(re.compile(r"(.+)-SAE-l(\d{1,4})\.pth?"), "MODEL-SAE-lN.pt or .pth")

CONVERSIONS = ("goodfire", "deepseek_r1")

OWNERS = {"Llama-": "meta-llama", "DeepSeek-": "deepseek-ai"}
"""The model's owner on the hub, by how the model's name begins."""


def load(place: Path, name: str, device: torch.device) -> tuple[SaeConfig, dict[str, torch.Tensor]]:
    """Read the file. Raises SaeError where it is broken."""
    tensors = read_pickle(place, device)
    weights = {
        "W_enc": transposed(pick(tensors, "encoder_linear.weight", "encoder.weight")),
        "W_dec": transposed(pick(tensors, "decoder_linear.weight", "decoder.weight")),
        "b_enc": pick(tensors, "encoder_linear.bias", "encoder.bias"),
        "b_dec": pick(tensors, "decoder_linear.bias", "decoder.bias"),
    }
    return config_of(place.name, name), present(weights)


def config_of(file: str, name: str) -> SaeConfig:
    """Return what the file's name says: model and layer."""
    parts = FILES.pattern.fullmatch(file)
    model, layer = parts.groups() if parts else ("", "0")
    owner = next((owner for start, owner in OWNERS.items() if model.startswith(start)), "")
    return SaeConfig(
        source=name,
        format=NAME,
        encoder="standard",
        normalisation="none",
        apply_b_dec_to_input=False,
        hook=f"blocks.{int(layer)}.hook_resid_post",
        model=text(f"{owner}/{model}" if owner else model),
    )
