"""Llama Scope: `hyperparams.json` + `checkpoints/final.safetensors`, as OpenMOSS' Language-Model-SAEs writes them.

Source: https://github.com/OpenMOSS/Language-Model-SAEs. Vectors are scaled so that their average norm is sqrt(d).
Weights and biases belong to scaled vectors, but jump_relu_threshold to the model's own: the library folds the scale
into biases and decoder before it sets the threshold. So this loader scales the threshold, as SAELens does. Where
sparsity_include_decoder_norm is true, its default, the library multiplies each f by its decoder row's norm before it
compares it with the threshold or chooses the k largest.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from engine.loading.formats.files import (
    AGAIN,
    Folder,
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

NAME = "Llama Scope"

CONFIG, WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"

FILES = Folder((CONFIG, WEIGHTS))

CONVERSIONS = ("llama_scope",)

DECODER_NORM, NORMS = "sparsity_include_decoder_norm", "dataset_average_activation_norm"

ENCODERS = {"jumprelu": "jumprelu", "topk": "topk", "relu": "standard"}

NORMALISATIONS: dict[str, Normalisation] = {
    "dataset-wise": "expected_average_only_in",
    "token-wise": "constant_norm_rescale",
    "inference": "none",
}


def load(place: Path, name: str, device: torch.device) -> tuple[SaeConfig, dict[str, torch.Tensor]]:
    """Read the folder. Raises SaeError for broken files and for kinds this loader does not read."""
    raw = read_config(place / CONFIG)
    config = replace(parse_config(raw, name), scale=scale_of(raw, raw.get(NORMS), name))
    weights = weights_of(read_safetensors(place / WEIGHTS, device), raw, name)
    if config.encoder == "jumprelu" and "W_enc" in weights:
        threshold = number(raw, "jump_relu_threshold", name) * config.scale
        threshold_F = torch.full(weights["W_enc"].shape[1:2], threshold, device=device)
        weights["threshold"] = in_units_of_f(threshold_F, weights, raw, name)
    return config, weights


def weights_of(tensors: dict[str, torch.Tensor], raw: dict[str, Any], name: str) -> dict[str, torch.Tensor]:
    """Return encoder and decoder by SAELens' names. Raises SaeError where W_enc's width is not the configuration's."""
    weights = {
        "W_enc": transposed(pick(tensors, "encoder.weight")),
        "W_dec": transposed(pick(tensors, "decoder.weight")),
        "b_enc": pick(tensors, "encoder.bias"),
        "b_dec": pick(tensors, "decoder.bias"),
    }
    w_enc = weights["W_enc"]
    if w_enc is not None and w_enc.shape[:1] != (number(raw, "d_model", name),):
        raise SaeError(
            f"{name}: its configuration gives d_model {brief(raw['d_model'])}, W_enc is {tuple(w_enc.shape)}.", AGAIN
        )
    if weights["b_dec"] is None and w_enc is not None and raw.get("use_decoder_bias") is False:
        weights["b_dec"] = torch.zeros(len(w_enc), device=w_enc.device)
    return present(weights)


def in_units_of_f(
    threshold_F: torch.Tensor, weights: dict[str, torch.Tensor], raw: dict[str, Any], name: str
) -> torch.Tensor:
    """Return the thresholds of f, from those of f times its decoder row's norm where the configuration says so."""
    w_enc, w_dec = weights["W_enc"], weights.get("W_dec")
    if flag(raw, DECODER_NORM, True, name) and w_dec is not None and w_dec.shape == w_enc.T.shape:
        return threshold_F / row_norms(w_dec) if threshold_F.shape == w_dec.shape[:1] else threshold_F
    return threshold_F


def scale_of(raw: dict[str, Any], norms: object, name: str) -> float:
    """Return the factor of vectors: sqrt(d_model) divided by their average norm at the hook point.

    `norms` gives the average norms by the keys "in" and "out", or by the hook points' names. Raises SaeError where it
    gives none, or where the two differ, since a SAE reads and writes at one hook point.
    """
    if text(raw.get("norm_activation", "dataset-wise")) != "dataset-wise":
        return 1.0
    by_key = norms if isinstance(norms, dict) else {}
    hook_in = text(raw.get("hook_point_in"))
    key_in = next((key for key in ("in", hook_in) if key in by_key), "in")
    key_out = next((key for key in ("out", text(raw.get("hook_point_out")) or hook_in) if key in by_key), key_in)
    norm, norm_out = number(by_key, key_in, name), number(by_key, key_out, name)
    if abs(norm_out - norm) > 1e-6 * abs(norm):
        raise SaeError(
            f"{name}: vectors have an average norm of {norm} where the SAE reads them and {norm_out} where it writes "
            "them, but a SAE reads and writes at one hook point.",
            "Use a SAE whose two norms are equal.",
        )
    scale = max(number(raw, "d_model", name), 0.0) ** 0.5 / norm if norm > 0 else 0.0
    if not 1e-12 < scale < 1e12:
        raise SaeError(f"{name}: its configuration gives an average norm of {norm}, which cannot be right.", AGAIN)
    return scale


def parse_config(raw: dict[str, Any], name: str) -> SaeConfig:
    """Return what the configuration says, except the scale. Raises SaeError for kinds that are not read."""
    if raw.get("hook_point_out", raw.get("hook_point_in")) != raw.get("hook_point_in"):
        raise SaeError(f"{name}: a transcoder is no SAE.", "Use a SAE of a repository such as Llama3_1-8B-Base-LXR-8x.")
    kind, normalisation = text(raw.get("act_fn")), text(raw.get("norm_activation", "dataset-wise"))
    if kind not in ENCODERS or normalisation not in NORMALISATIONS or raw.get("use_glu_encoder"):
        raise SaeError(
            f"{name}: cannot read act_fn {brief(kind)} with norm_activation {brief(normalisation)}"
            f"{' and a GLU encoder' if raw.get('use_glu_encoder') else ''}.",
            f"Read are act_fn {', '.join(ENCODERS)} and norm_activation {', '.join(NORMALISATIONS)}.",
        )
    return SaeConfig(
        source=name,
        format=NAME,
        encoder=ENCODERS[kind],  # type: ignore[arg-type]
        normalisation=NORMALISATIONS[normalisation],
        apply_b_dec_to_input=flag(raw, "apply_decoder_bias_to_pre_encoder", False, name),
        hook=text(raw.get("hook_point_in")),
        model="meta-llama/Llama-3.1-8B" if "llama3_1-8b" in name.lower() else "",
        prepend_bos=True,
        k=whole_number(raw.get("top_k")) if kind == "topk" else None,
        rescale_acts_by_decoder_norm=kind == "topk" and flag(raw, DECODER_NORM, True, name),
    )
