"""Llama Scope: `hyperparams.json` + `checkpoints/final.safetensors`, as OpenMOSS' Language-Model-SAEs writes them.

Source: https://github.com/OpenMOSS/Language-Model-SAEs. Vectors are scaled so that their average norm becomes
sqrt(d). The jump_relu_threshold was saved for vectors as the model makes them (the library folds the scale into
biases and decoder before it sets the threshold), while biases and weights are those of scaled vectors: the threshold
is scaled along, as SAELens does. Where sparsity_include_decoder_norm is set, f times its decoder row's norm is what
the threshold is compared with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engine.errors import SaeError
from engine.formats.files import pick, present, read_config, read_safetensors, transposed
from engine.sae import Normalisation, SaeConfig, SparseAutoencoder, row_norms

CONFIG, WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"
ENCODERS = {"jumprelu": "jumprelu", "topk": "topk", "relu": "standard"}
NORMALISATIONS: dict[str, Normalisation] = {
    "dataset-wise": "expected_average_only_in",
    "token-wise": "constant_norm_rescale",
    "inference": "none",
}


def recognises(folder: Path) -> bool:
    """True where both of the format's files are there."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def load(folder: Path, name: str, device: torch.device) -> SparseAutoencoder:
    """Reads the folder. Raises SaeError for broken files and for kinds this loader does not read."""
    raw = read_config(folder / CONFIG)
    config = parse_config(raw, name)
    found = read_safetensors(folder / WEIGHTS, device)
    weights = {
        "W_enc": transposed(pick(found, "encoder.weight")),
        "W_dec": transposed(pick(found, "decoder.weight")),
        "b_enc": pick(found, "encoder.bias"),
        "b_dec": pick(found, "decoder.bias"),
    }
    w_enc, w_dec = weights["W_enc"], weights["W_dec"]
    if weights["b_dec"] is None and w_enc is not None and raw.get("use_decoder_bias") is False:
        weights["b_dec"] = torch.zeros(len(w_enc), device=device)
    if config.encoder == "jumprelu" and w_dec is not None:
        threshold = number(raw, "jump_relu_threshold", name) * config.scale
        threshold_F = torch.full((len(w_dec),), threshold, device=device)
        include = raw.get("sparsity_include_decoder_norm")
        weights["threshold"] = threshold_F / row_norms(w_dec) if include else threshold_F
    return SparseAutoencoder(config, present(weights))


def parse_config(raw: dict[str, Any], name: str) -> SaeConfig:
    """What hyperparams.json says."""
    if raw.get("hook_point_out", raw.get("hook_point_in")) != raw.get("hook_point_in"):
        raise SaeError(f"{name}: a transcoder is no SAE.", "Use a SAE of a repository such as Llama3_1-8B-Base-LXR-8x.")
    kind, normalisation = str(raw.get("act_fn")), str(raw.get("norm_activation", "dataset-wise"))
    if kind not in ENCODERS or normalisation not in NORMALISATIONS or raw.get("use_glu_encoder"):
        raise SaeError(
            f"{name}: cannot read act_fn {kind!r} with norm_activation {normalisation!r}"
            f"{' and a GLU encoder' if raw.get('use_glu_encoder') else ''}.",
            f"Read are act_fn {', '.join(ENCODERS)} and norm_activation {', '.join(NORMALISATIONS)}.",
        )
    scale = 1.0
    if normalisation == "dataset-wise":
        norms = raw.get("dataset_average_activation_norm")
        norm = number(norms if isinstance(norms, dict) else {}, "in", name)
        scale = number(raw, "d_model", name) ** 0.5 / norm if norm > 0 else 0.0
        if not 0 < scale < float("inf"):
            raise SaeError(f"{name}: dataset_average_activation_norm is {norm}.", f"Correct {CONFIG}.")
    k = raw.get("top_k")
    return SaeConfig(
        source=name,
        format="Llama Scope",
        encoder=ENCODERS[kind],  # type: ignore[arg-type]
        normalisation=NORMALISATIONS[normalisation],
        apply_b_dec_to_input=bool(raw.get("apply_decoder_bias_to_pre_encoder")),
        hook=str(raw.get("hook_point_in") or ""),
        model="meta-llama/Llama-3.1-8B" if "llama3_1-8b" in name.lower() else "",
        prepend_bos=True,
        k=k if kind == "topk" and isinstance(k, int) else None,
        scale=scale,
    )


def number(raw: dict[str, Any], key: str, name: str) -> float:
    """A number of the configuration. Raises SaeError where there is none."""
    value = raw.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SaeError(f"{name}: {CONFIG} gives {value!r} for {key}, which should be a number.", "Download it again.")
    return float(value)
