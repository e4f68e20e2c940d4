"""Goodfire's and qresearch's SAEs: one pickled file, `MODEL-SAE-lN.pt` or `.pth`, its model and layer in its name.

Sources: https://huggingface.co/Goodfire, https://huggingface.co/qresearch. Two torch Linears, `encoder_linear` and
`decoder_linear`, or `encoder` and `decoder`: a ReLU encoder at the residual stream after layer N, no normalisation,
b_dec not subtracted at the input.
"""

from __future__ import annotations

from pathlib import Path

import torch

from engine.loading.formats.read_files import pick, present, read_pickle, text, transposed
from engine.loading.sae_files import GOODFIRE
from engine.models.sae import SaeConfig

OWNERS = {"Llama-": "meta-llama", "DeepSeek-": "deepseek-ai"}
"""Whose model it is, by how its name begins."""


def recognises(place: Path) -> bool:
    """True for a file of such a name."""
    return GOODFIRE.fullmatch(place.name) is not None and place.is_file()


def load(place: Path, name: str, device: torch.device) -> tuple[SaeConfig, dict[str, torch.Tensor]]:
    """Reads the file. Raises SaeError where it is broken."""
    found = read_pickle(place, device)
    weights = {
        "W_enc": transposed(pick(found, "encoder_linear.weight", "encoder.weight")),
        "W_dec": transposed(pick(found, "decoder_linear.weight", "decoder.weight")),
        "b_enc": pick(found, "encoder_linear.bias", "encoder.bias"),
        "b_dec": pick(found, "decoder_linear.bias", "decoder.bias"),
    }
    return config_of(place.name, name), present(weights)


def config_of(file: str, name: str) -> SaeConfig:
    """What the file's name says."""
    known = GOODFIRE.fullmatch(file)
    model, layer = known.groups() if known else ("", "0")
    owner = next((owner for start, owner in OWNERS.items() if model.startswith(start)), "")
    return SaeConfig(
        source=name,
        format="Goodfire",
        encoder="standard",
        normalisation="none",
        apply_b_dec_to_input=False,
        hook=f"blocks.{int(layer)}.hook_resid_post",
        model=text(f"{owner}/{model}" if owner else model),
    )
