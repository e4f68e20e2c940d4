"""Gemma Scope 2 (Gemma 3): `params.safetensors` with lower-case keys, mostly beside a `config.json`.

Source: https://huggingface.co/google/gemma-scope-2-4b-it. JumpReLU, no normalisation, b_dec not subtracted at the
input, trained with a leading token. The configuration names a module of the Hugging Face model and its input or output;
without a configuration the folder's name says it: resid_post/layer_17_width_16k_l0_medium, attn_out/…, mlp_out/….
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from engine.loading.formats.files import Folder, brief, pick, present, read_config, read_safetensors, text
from engine.models.sae import SaeConfig
from engine.records.errors import SaeError

NAME = "Gemma Scope 2"

CONFIG, WEIGHTS = "config.json", "params.safetensors"

FILES = Folder((WEIGHTS,), optional=(CONFIG,))

CONVERSIONS = ("gemma_3",)

HOOKS = {
    "resid_post": "model.layers.{}.output",
    "attn_out": "model.layers.{}.self_attn.o_proj.input",
    "mlp_out": "model.layers.{}.post_feedforward_layernorm.output",
}


def load(place: Path, name: str, device: torch.device) -> tuple[SaeConfig, dict[str, torch.Tensor]]:
    """Read the folder. Raises SaeError for broken files and transcoders."""
    raw = read_config(place / CONFIG) if (place / CONFIG).is_file() else {}
    config = parse_config(raw, name)
    tensors = read_safetensors(place / WEIGHTS, device)
    if "affine_skip_connection" in tensors:
        raise SaeError(f"{name}: a transcoder with a skip connection is no SAE.", "Use a SAE.")
    weights = {
        "W_enc": pick(tensors, "w_enc"),
        "W_dec": pick(tensors, "w_dec"),
        **{key: pick(tensors, key) for key in ("b_enc", "b_dec", "threshold")},
    }
    return config, present(weights)


def parse_config(raw: dict[str, Any], name: str) -> SaeConfig:
    """Return what config.json says, or else the names of the SAE's folder and the folder above it.

    Raises SaeError for transcoders and other encoders than JumpReLU.
    """
    place = "/".join(Path(name).parts[-2:])
    if re.search(r"(^|/)(transcoder|clt)", place) or raw.get("hf_hook_point_out"):
        raise SaeError(f"{name}: a transcoder is no SAE.", "Use a SAE of a resid_post, mlp_out or attn_out folder.")
    if raw.get("architecture", "jump_relu") != "jump_relu":
        raise SaeError(f"{name}: cannot read a SAE of kind {brief(raw['architecture'])}.", "Kind read here: jump_relu.")
    hook, model = text(raw.get("hf_hook_point_in")), text(raw.get("model_name"))
    part, layer = re.search("|".join(HOOKS), place), re.search(r"layer_(\d{1,4})(?!\d)", place)
    if not hook and part and layer:
        hook = HOOKS[part[0]].format(layer[1])
    if not model and (repository := re.search(r"gemma-scope-2-(\w+-(?:pt|it))", name)):
        model = f"gemma-3-{repository[1]}"
    # the hub has every base model with -pt but the smallest
    model = model.replace("gemma-v3", "gemma-3").replace("gemma-3-270m-pt", "gemma-3-270m")
    return SaeConfig(
        source=name,
        format=NAME,
        encoder="jumprelu",
        normalisation="none",
        apply_b_dec_to_input=False,
        hook=hook,
        model=f"google/{model}" if model.startswith("gemma-") else model,
        prepend_bos=True,
        notes=()
        if hook
        else ("neither a configuration nor the folder's name says at which hook point it was trained",),
    )
