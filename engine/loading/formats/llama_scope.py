"""Llama Scope: `hyperparams.json` + `checkpoints/final.safetensors`, as OpenMOSS' Language-Model-SAEs writes them.

Source: https://github.com/OpenMOSS/Language-Model-SAEs. Vectors are scaled so that their average norm becomes
sqrt(d). The jump_relu_threshold was saved for unscaled vectors (the library folds the scale into biases and decoder
before it sets the threshold), while biases and weights are those for scaled vectors: so the threshold is scaled too,
as SAELens does. Where sparsity_include_decoder_norm is set, as it is by default, f times the norm of its decoder row
is compared with the threshold, and decides which k are the largest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engine.loading.formats.read_files import (
    AGAIN,
    brief,
    flag,
    number,
    pick,
    present,
    read_config,
    read_safetensors,
    text,
    transposed,
    whole_number,
)
from engine.models.sae import Normalisation, SaeConfig, row_norms
from engine.records.errors import SaeError

CONFIG, WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"

DECODER_NORM = "sparsity_include_decoder_norm"

ENCODERS = {"jumprelu": "jumprelu", "topk": "topk", "relu": "standard"}

NORMALISATIONS: dict[str, Normalisation] = {
    "dataset-wise": "expected_average_only_in",
    "token-wise": "constant_norm_rescale",
    "inference": "none",
}


def recognises(folder: Path) -> bool:
    """Return whether both of the format's files are there."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def load(folder: Path, name: str, device: torch.device) -> tuple[SaeConfig, dict[str, torch.Tensor]]:
    """Read the folder. Raises SaeError for broken files and for kinds this loader does not read."""
    raw = read_config(folder / CONFIG)
    config = parse_config(raw, name)
    tensors = read_safetensors(folder / WEIGHTS, device)
    weights = {
        "W_enc": transposed(pick(tensors, "encoder.weight")),
        "W_dec": transposed(pick(tensors, "decoder.weight")),
        "b_enc": pick(tensors, "encoder.bias"),
        "b_dec": pick(tensors, "decoder.bias"),
    }
    w_enc, w_dec = weights["W_enc"], weights["W_dec"]
    if w_enc is not None and w_enc.shape[:1] != (number(raw, "d_model", name),):
        raise SaeError(f"{name}: {CONFIG} gives d_model {brief(raw['d_model'])}, W_enc is {tuple(w_enc.shape)}.", AGAIN)
    if weights["b_dec"] is None and w_enc is not None and raw.get("use_decoder_bias") is False:
        weights["b_dec"] = torch.zeros(len(w_enc), device=device)
    if config.encoder == "jumprelu" and w_enc is not None:
        threshold = number(raw, "jump_relu_threshold", name) * config.scale
        threshold_F = torch.full(w_enc.shape[1:2], threshold, device=device)
        if flag(raw, DECODER_NORM, True, name) and w_dec is not None and w_dec.shape == w_enc.T.shape:
            threshold_F = threshold_F / row_norms(w_dec)
        weights["threshold"] = threshold_F
    return config, present(weights)


def parse_config(raw: dict[str, Any], name: str) -> SaeConfig:
    """Turn hyperparams.json into a SaeConfig. Raises SaeError."""
    if raw.get("hook_point_out", raw.get("hook_point_in")) != raw.get("hook_point_in"):
        raise SaeError(f"{name}: a transcoder is no SAE.", "Use a SAE of a repository such as Llama3_1-8B-Base-LXR-8x.")
    kind, normalisation = text(raw.get("act_fn")), text(raw.get("norm_activation", "dataset-wise"))
    if kind not in ENCODERS or normalisation not in NORMALISATIONS or raw.get("use_glu_encoder"):
        raise SaeError(
            f"{name}: cannot read act_fn {brief(kind)} with norm_activation {brief(normalisation)}"
            f"{' and a GLU encoder' if raw.get('use_glu_encoder') else ''}.",
            f"Supported: act_fn {', '.join(ENCODERS)} and norm_activation {', '.join(NORMALISATIONS)}.",
        )
    scale = 1.0
    if normalisation == "dataset-wise":
        norms = raw.get("dataset_average_activation_norm")
        norm = number(norms if isinstance(norms, dict) else {}, "in", name)
        scale = max(number(raw, "d_model", name), 0.0) ** 0.5 / norm if norm > 0 else 0.0
        if not 1e-12 < scale < 1e12:
            raise SaeError(f"{name}: {CONFIG} gives an average norm of {norm}, which cannot be right.", AGAIN)
    return SaeConfig(
        source=name,
        format="Llama Scope",
        encoder=ENCODERS[kind],  # type: ignore[arg-type]
        normalisation=NORMALISATIONS[normalisation],
        apply_b_dec_to_input=flag(raw, "apply_decoder_bias_to_pre_encoder", False, name),
        hook=text(raw.get("hook_point_in")),
        model="meta-llama/Llama-3.1-8B" if "llama3_1-8b" in name.lower() else "",
        prepend_bos=True,
        k=whole_number(raw.get("top_k")) if kind == "topk" else None,
        rescale_acts_by_decoder_norm=kind == "topk" and flag(raw, DECODER_NORM, True, name),
        scale=scale,
    )
