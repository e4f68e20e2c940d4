"""Llama Scope of R1-Distill: `config.json` + `sae_weights.safetensors`, as newer Language-Model-SAEs writes them.

Source: https://huggingface.co/fnlp/Llama-Scope-R1-Distill. Read as Llama Scope, with two
differences: each feature has its own threshold, exp(log_jumprelu_threshold), which belongs to scaled vectors; and the
average norms are tensors, named after their hook point.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from engine.loading.formats.files import Folder, pick, read_config, read_safetensors
from engine.loading.formats.llama_scope import NORMS, in_units_of_f, parse_config, scale_of, weights_of
from engine.models.sae import DTYPES, SaeConfig

NAME = "Llama Scope R1"

CONFIG, WEIGHTS = "config.json", "sae_weights.safetensors"

FILES = Folder((CONFIG, WEIGHTS))

CONVERSIONS = ("llama_scope_r1_distill",)

MODEL = "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"


def load(place: Path, name: str, device: torch.device) -> tuple[SaeConfig, dict[str, torch.Tensor]]:
    """Read the folder. Raises SaeError for broken files and for kinds this loader does not read."""
    raw = read_config(place / CONFIG)
    config = parse_config(raw, name)
    tensors = read_safetensors(place / WEIGHTS, device)
    norms = {key.removeprefix(f"{NORMS}."): norm_of(tensor) for key, tensor in tensors.items() if key.startswith(NORMS)}
    if norms or NORMS in raw:  # otherwise the scale has to be published
        config = replace(config, scale=scale_of(raw, norms or raw[NORMS], name))
    weights = weights_of(tensors, raw, name)
    log_threshold_F = pick(tensors, "log_jumprelu_threshold", "activation_function.log_jumprelu_threshold")
    if config.encoder == "jumprelu" and log_threshold_F is not None and "W_enc" in weights:
        weights["threshold"] = in_units_of_f(exponential(log_threshold_F), weights, raw, name)
    model = MODEL if "r1-distill" in name.lower() else config.model
    return replace(config, format=NAME, model=model), weights


def exponential(log_F: torch.Tensor) -> torch.Tensor:
    """Return exp(log_F) in float32; a threshold that cannot be right stays one, which SparseAutoencoder refuses."""
    if log_F.dtype not in DTYPES:
        return log_F
    return torch.where(log_F.isfinite(), log_F.float().exp(), torch.nan)


def norm_of(tensor: torch.Tensor) -> float | None:
    """Return the number in a tensor; None where the tensor holds no single number."""
    return float(tensor) if tensor.numel() == 1 and tensor.is_floating_point() else None
