"""Llama Scope of R1-Distill: `config.json` + `sae_weights.safetensors`, as newer Language-Model-SAEs writes them.

Source: https://huggingface.co/fnlp/Llama-Scope-R1-Distill. The same SAEs as Llama Scope's, but with a threshold a
feature, the exponential of `log_jumprelu_threshold`, in the unit of scaled vectors; and with the average norms among
the tensors, by their hook point's name.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from engine.loading.formats.llama_scope import NORMS, in_units_of_f, parse_config, scale_of, weights_of
from engine.loading.formats.read_files import pick, read_config, read_safetensors
from engine.models.sae import DTYPES, SaeConfig

CONFIG, WEIGHTS = "config.json", "sae_weights.safetensors"

MODEL = "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"


def recognises(place: Path) -> bool:
    """True where both of the format's files are there."""
    return (place / CONFIG).is_file() and (place / WEIGHTS).is_file()


def load(place: Path, name: str, device: torch.device) -> tuple[SaeConfig, dict[str, torch.Tensor]]:
    """Reads the folder. Raises SaeError for broken files and for kinds this loader does not read."""
    raw = read_config(place / CONFIG)
    config = parse_config(raw, name)
    found = read_safetensors(place / WEIGHTS, device)
    norms = {key.removeprefix(f"{NORMS}."): norm_of(tensor) for key, tensor in found.items() if key.startswith(NORMS)}
    if norms or NORMS in raw:  # without any, only a registry knows the scale
        config = replace(config, scale=scale_of(raw, norms or raw[NORMS], name))
    weights = weights_of(found, raw, name)
    log_threshold_F = pick(found, "log_jumprelu_threshold", "activation_function.log_jumprelu_threshold")
    if config.encoder == "jumprelu" and log_threshold_F is not None and "W_enc" in weights:
        weights["threshold"] = in_units_of_f(exponential(log_threshold_F), weights, raw, name)
    model = MODEL if "r1-distill" in name.lower() else config.model
    return replace(config, format="Llama Scope R1", model=model), weights


def exponential(log_F: torch.Tensor) -> torch.Tensor:
    """The thresholds; what cannot be one is left to be refused by name."""
    if log_F.dtype not in DTYPES:
        return log_F
    return torch.where(log_F.isfinite(), log_F.float().exp(), torch.nan)


def norm_of(tensor: torch.Tensor) -> float | None:
    """The one number in a tensor."""
    return float(tensor) if tensor.numel() == 1 and tensor.is_floating_point() else None
