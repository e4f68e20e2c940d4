"""Qwen-Scope: one pickled `layerN.sae.pt` a layer, in a repository such as Qwen/SAE-Res-Qwen3-8B-Base-W64K-L0_50.

Source: https://huggingface.co/Qwen. TopK, no normalisation, b_dec not subtracted at the input, trained with a leading
token. The files store W_enc as (d_sae, d_in) and W_dec as (d_in, d_sae), also where d_sae = d_in. Only the repository's
name gives model, width and k.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from engine.loading.formats.files import OneFile, pick, present, read_pickle, transposed
from engine.models.sae import SaeConfig
from engine.records.errors import SaeError

NAME = "Qwen-Scope"

FILES = OneFile(re.compile(r"layer(\d{1,4})\.sae\.pt"), "layerN.sae.pt")

CONVERSIONS = ("qwen_scope",)

REPOSITORY = re.compile(r"SAE-Res-([\w.-]+?)-W(\d{1,6})K-L0_(\d{1,6})(?!\d)")


def load(place: Path, name: str, device: torch.device) -> tuple[SaeConfig, dict[str, torch.Tensor]]:
    """Read the file. Raises SaeError where it is broken, and where `name` does not give k."""
    layer, repositories = FILES.pattern.fullmatch(place.name), REPOSITORY.findall(name)
    if layer is None or not repositories:
        raise SaeError(
            f"{name}: k of a Qwen-Scope SAE stands in its repository's name only, and no folder here has it.",
            "Name the folder as the repository is called, such as SAE-Res-Qwen3-8B-Base-W64K-L0_50.",
        )
    model, _, k = repositories[-1]
    tensors = read_pickle(place, device)
    weights = {
        "W_enc": transposed(pick(tensors, "W_enc")),
        "W_dec": transposed(pick(tensors, "W_dec")),
        "b_enc": pick(tensors, "b_enc"),
        "b_dec": pick(tensors, "b_dec"),
    }
    config = SaeConfig(
        source=name,
        format=NAME,
        encoder="topk",
        normalisation="none",
        apply_b_dec_to_input=False,
        hook=f"blocks.{int(layer[1])}.hook_resid_post",
        model=f"Qwen/{model}",
        prepend_bos=True,
        k=int(k),
    )
    return config, present(weights)
