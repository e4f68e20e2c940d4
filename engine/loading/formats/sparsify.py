"""EleutherAI's sparsify: `cfg.json` + `sae.safetensors`, in a folder named for the module it was trained at.

Source: https://github.com/EleutherAI/sparsify. TopK or groupmax, b_dec subtracted at the input, W_dec stored as
(d_sae, d_in). SAELens' loader differs in both: it transposes W_dec, and subtracts b_dec only with another setting.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from engine.loading.formats.files import (
    Folder,
    brief,
    length,
    pick,
    present,
    read_config,
    read_safetensors,
    text,
    transposed,
    whole_number,
)
from engine.models.sae import SaeConfig
from engine.records.errors import SaeError

NAME = "sparsify"

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"

FILES = Folder((CONFIG, WEIGHTS))

CONVERSIONS = ("sparsify",)

MODULE = re.compile(r"(?:[\w.]+\.)?(?:layers|h)\.\d+(?:\.\w+)*")


def load(place: Path, name: str, device: torch.device) -> tuple[SaeConfig, dict[str, torch.Tensor]]:
    """Read the folder. Raises SaeError for broken files and transcoders."""
    run = place.parent / "config.json"  # of the training run; not always there
    config = parse_config(read_config(place / CONFIG), read_config(run) if run.is_file() else {}, name)
    tensors = read_safetensors(place / WEIGHTS, device)
    if "W_skip" in tensors:
        raise SaeError(f"{name}: a transcoder with a skip connection is no SAE.", "Use a SAE.")
    weights = {
        "W_enc": transposed(pick(tensors, "encoder.weight")),
        "W_dec": pick(tensors, "W_dec"),
        "b_enc": pick(tensors, "encoder.bias"),
        "b_dec": pick(tensors, "b_dec"),
    }
    return config, present(weights)


def parse_config(raw: dict[str, Any], run: dict[str, Any], name: str) -> SaeConfig:
    """Return what cfg.json and the training run's configuration say; the folder's name gives the hook point.

    Raises SaeError for transcoders and other activations than topk and groupmax.
    """
    if raw.get("transcode") or raw.get("skip_connection"):
        raise SaeError(f"{name}: a transcoder is no SAE.", "Use a SAE.")
    activation = raw.get("activation", "topk")
    if activation not in ("topk", "groupmax") or raw.get("signed"):
        kind = f"signed {activation}" if raw.get("signed") else activation
        raise SaeError(
            f"{name}: cannot read a SAE of activation {brief(kind)}.", "Activations read here: topk, groupmax."
        )
    last = Path(name).name
    # early versions wrote layers_10, later ones layers.10
    module = re.sub(r"^(layers|h)_", r"\1.", last)
    hook = module if MODULE.fullmatch(module) else ""
    return SaeConfig(
        source=name,
        format=NAME,
        encoder="topk",
        normalisation="none",
        apply_b_dec_to_input=True,
        hook=hook,
        model=text(run.get("model")),
        context=length(run.get("ctx_len")),
        k=whole_number(raw.get("k")),
        groups=activation == "groupmax",
        notes=() if hook else (f"the folder's name {last!r} does not say at which module it was trained",),
    )
