"""Gemma Scope (Gemma 2): one `params.npz` per SAE, no configuration.

Source: https://huggingface.co/google/gemma-scope. JumpReLU, no normalisation, b_dec not subtracted at the input,
trained with a leading token. Only the names of repository and folders give model and hook point, such as
gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71. The SAEs of embeddings, in embedding/, read the input of block
0: the embeddings scaled by Gemma, which SAELens calls hook_embed.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from engine.loading.formats.files import Folder, read_npz
from engine.models.sae import SaeConfig
from engine.records.errors import SaeError

NAME = "Gemma Scope"

WEIGHTS = "params.npz"

FILES = Folder((WEIGHTS,))

CONVERSIONS = ("gemma_2",)

REPOSITORY = re.compile(r"gemma-scope-(2b|9b|27b)-(pt|it)-(res|mlp|att)(?![a-z])")

TRANSCODERS = re.compile(r"gemma-scope-[\w.-]*transcoder")

EMBEDDING = re.compile(r"(^|/)embedding/width_")

HOOKS = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}


def load(place: Path, name: str, device: torch.device) -> tuple[SaeConfig, dict[str, torch.Tensor]]:
    """Read the folder. Raises SaeError for broken files and transcoders."""
    if TRANSCODERS.search(name):
        raise SaeError(
            f"{name}: a transcoder is no SAE.", "Use a SAE of a -res, -mlp or -att repository: layer_20/width_16k/…."
        )
    return config_of(name), read_npz(place / WEIGHTS, device)


def config_of(name: str) -> SaeConfig:
    """Return what the names of repository and folders say; of several layers in a path the last is the SAE's."""
    repository = REPOSITORY.search(name)
    layer, l0 = re.findall(r"layer_(\d{1,4})(?!\d)", name), re.findall(r"_l0_(\d{1,9})(?!\d)", name)
    model = hook = ""
    if repository:
        size, tuned, part = repository.groups()
        model = f"google/gemma-2-{size}{'-it' if tuned == 'it' else ''}"
        if layer:
            hook = f"blocks.{layer[-1]}.{HOOKS[part]}"
        elif EMBEDDING.search(name):
            hook = "blocks.0.hook_resid_pre"
    return SaeConfig(
        source=name,
        format=NAME,
        encoder="jumprelu",
        normalisation="none",
        apply_b_dec_to_input=False,
        hook=hook,
        model=model,
        prepend_bos=True,
        published_l0=float(l0[-1]) if l0 else None,
        notes=() if hook else ("params.npz names neither model nor hook point, and its folders do not either",),
    )
