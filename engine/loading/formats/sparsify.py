"""EleutherAI's sparsify: `cfg.json` + `sae.safetensors`, in a folder named for the module it was trained at.

Source: https://github.com/EleutherAI/sparsify. TopK, b_dec subtracted at the input. Upstream keeps W_dec as (d_sae,
d_in); SAELens' loader transposes it and ties the subtraction to another setting: upstream is followed here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from engine.loading.formats.read_files import (
    brief,
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

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"

MODULE = re.compile(r"(?:[\w.]+\.)?(?:layers|h)\.\d+(?:\.\w+)*")


def recognises(folder: Path) -> bool:
    """Return whether both of the format's files are there."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def load(folder: Path, name: str, device: torch.device) -> tuple[SaeConfig, dict[str, torch.Tensor]]:
    """Read the folder. Raises SaeError for broken files and transcoders."""
    run_config = folder.parent / "config.json"  # describes the whole training run; not always there
    config = parse_config(read_config(folder / CONFIG), read_config(run_config) if run_config.is_file() else {}, name)
    tensors = read_safetensors(folder / WEIGHTS, device)
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
    """Turn cfg.json into a SaeConfig; the folder's name tells the hook point. Raises SaeError."""
    if raw.get("transcode") or raw.get("skip_connection"):
        raise SaeError(f"{name}: a transcoder is no SAE.", "Use a SAE.")
    activation = raw.get("activation", "topk")
    if activation != "topk" or raw.get("signed"):
        kind = f"signed {activation}" if raw.get("signed") else activation
        raise SaeError(f"{name}: cannot read a SAE of activation {brief(kind)}.", "Activation read here: topk.")
    last = Path(name).name
    # upstream wrote layers_10 before it wrote layers.10
    module = re.sub(r"^(layers|h)_", r"\1.", last)
    hook = module if MODULE.fullmatch(module) else ""
    return SaeConfig(
        source=name,
        format="sparsify",
        encoder="topk",
        normalisation="none",
        apply_b_dec_to_input=True,
        hook=hook,
        model=text(run.get("model")),
        k=whole_number(raw.get("k")),
        notes=() if hook else (f"the folder's name {last!r} does not say at which module it was trained",),
    )
