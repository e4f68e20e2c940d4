"""Qwen-Scope: one pickled `layerN.sae.pt` a layer, in a repository such as Qwen/SAE-Res-Qwen3-8B-Base-W64K-L0_50.

Source: https://huggingface.co/Qwen. TopK, no normalisation, b_dec not subtracted at the input, trained with a leading
token. W_enc lies as (d_sae, d_in) and W_dec as (d_in, d_sae): the format says so, as no shape could where the two are
equal. Model, width and k stand in the repository's name only.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from engine.loading.formats.read_files import pick, present, read_pickle, transposed
from engine.loading.sae_files import QWEN
from engine.models.sae import SaeConfig
from engine.records.errors import SaeError

REPOSITORY = re.compile(r"SAE-Res-([\w.-]+?)-W(\d{1,6})K-L0_(\d{1,6})(?!\d)")


def recognises(place: Path) -> bool:
    """True for a file of that name."""
    return QWEN.fullmatch(place.name) is not None and place.is_file()


def load(place: Path, name: str, device: torch.device) -> tuple[SaeConfig, dict[str, torch.Tensor]]:
    """Reads the file. Raises SaeError where it is broken, and where no name gives k."""
    layer, found_names = QWEN.fullmatch(place.name), REPOSITORY.findall(name)
    if layer is None or not found_names:
        raise SaeError(
            f"{name}: k of a Qwen-Scope SAE stands in its repository's name only, and no folder here has it.",
            "Name the folder as the repository is called, such as SAE-Res-Qwen3-8B-Base-W64K-L0_50.",
        )
    model, _, k = found_names[-1]
    found = read_pickle(place, device)
    weights = {
        "W_enc": transposed(pick(found, "W_enc")),
        "W_dec": transposed(pick(found, "W_dec")),
        "b_enc": pick(found, "b_enc"),
        "b_dec": pick(found, "b_dec"),
    }
    config = SaeConfig(
        source=name,
        format="Qwen-Scope",
        encoder="topk",
        normalisation="none",
        apply_b_dec_to_input=False,
        hook=f"blocks.{int(layer[1])}.hook_resid_post",
        model=f"Qwen/{model}",
        prepend_bos=True,
        k=int(k),
    )
    return config, present(weights)
