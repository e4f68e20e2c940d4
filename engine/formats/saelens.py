"""SAELens folders: `cfg.json` + `sae_weights.safetensors`, from version 6 (nested `metadata`) and before.

Formats: https://github.com/decoderesearch/SAELens. BatchTopK SAEs are saved by SAELens as jumprelu with their
inference threshold. Reads `standard` and `jumprelu` architectures; anything else is refused by name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from engine.errors import SaeError
from engine.sae import SaeConfig, SparseAutoencoder

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
ENCODERS = {"standard": "standard", "jumprelu": "jumprelu"}
NORMALISATIONS = {
    "none": "none",
    None: "none",
    False: "none",
    "constant_norm_rescale": "constant_norm_rescale",
    "layer_norm": "layer_norm",
}

# JoshEngels/Mistral-7B-Residual-Stream-SAEs: the files say no normalisation, but the SAEs were trained with each
# token scaled to norm sqrt(d); SAELens corrects it in its registry of releases, not in the files.
TRAINED_WITH_CONSTANT_NORM = ("mistral-7b", 65536)


def recognises(folder: Path) -> bool:
    """True where both of the format's files are there."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def load(folder: Path) -> SparseAutoencoder:
    """Reads the folder. Raises SaeError for broken files and for kinds this loader does not read."""
    raw = read_config(folder / CONFIG)
    config = parse_config(raw, str(folder))
    try:
        weights = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError, ValueError) as error:
        raise SaeError(f"{folder / WEIGHTS} cannot be read: {error}.", "Download the file again.") from error
    missing = {"W_enc", "W_dec", "b_enc", "b_dec"} - set(weights)
    if config.encoder == "jumprelu":
        missing |= {"threshold"} - set(weights)
    if missing:
        raise SaeError(
            f"{folder / WEIGHTS} has no tensor {', '.join(sorted(missing))} (it has: {', '.join(sorted(weights))}).",
            "The file is not a SAELens SAE of the kind its cfg.json names.",
        )
    check_numbers(weights, folder / WEIGHTS)
    return SparseAutoencoder(config, weights)


def read_config(path: Path) -> dict[str, Any]:
    """The parsed cfg.json; SaeError names the line where it is broken."""
    try:
        raw = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SaeError(f"{path} cannot be read: {error}.", "Download the file again.") from error
    if not isinstance(raw, dict):
        raise SaeError(f"{path} should hold a JSON object, not {type(raw).__name__}.", "Download the file again.")
    return raw


def parse_config(raw: dict[str, Any], source: str) -> SaeConfig:
    """Turns cfg.json of either generation into a SaeConfig."""
    metadata = raw.get("metadata")
    modern = isinstance(metadata, dict)
    fields: dict[str, Any] = {**raw, **(metadata if isinstance(metadata, dict) else {})}
    # str(): a value of another type than expected is refused by name below, not by a crash
    architecture = str(fields.get("architecture", "standard"))
    activation = fields.get("activation_fn_str") or fields.get("activation_fn") or "relu"
    if architecture not in ENCODERS or activation != "relu":
        kind = architecture if architecture not in ENCODERS else f"{architecture} with activation {activation}"
        raise SaeError(f"{source}: cannot read a SAE of kind {kind!r} yet.", f"Kinds read: {', '.join(ENCODERS)}.")
    for unread in ("rescale_acts_by_decoder_norm", "finetuning_scaling_factor"):
        if fields.get(unread):
            raise SaeError(f"{source}: cannot read a SAE with {unread} yet.", "Use another SAE.")
    normalisation = fields.get("normalize_activations", "none")
    model, subtracts = str(fields.get("model_name") or ""), fields.get("apply_b_dec_to_input")
    name, d_sae = TRAINED_WITH_CONSTANT_NORM
    if normalisation in ("none", None, False) and name in model.lower() and fields.get("d_sae") == d_sae:
        normalisation = "constant_norm_rescale"
    if isinstance(normalisation, dict | list) or normalisation not in NORMALISATIONS:
        raise SaeError(
            f"{source}: cannot read the normalisation {normalisation!r} yet.",
            f"Normalisations read: {', '.join(str(n) for n in NORMALISATIONS if n)}.",
        )
    return SaeConfig(
        source=source,
        encoder=ENCODERS[architecture],  # type: ignore[arg-type]
        normalisation=NORMALISATIONS[normalisation],  # type: ignore[arg-type]
        # absent in the older generation means True: its SAEs subtracted b_dec unless told otherwise
        apply_b_dec_to_input=not modern if subtracts is None else bool(subtracts),
        hook=str(fields.get("hook_name") or fields.get("hook_point") or ""),
        model=model,
        prepend_bos=leading if isinstance(leading := fields.get("prepend_bos"), bool) else None,
    )


def check_numbers(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Raises SaeError if any weight is NaN or infinite."""
    for name, tensor in weights.items():
        if tensor.ndim == 0 or tensor.numel() == 0:
            continue
        # the sum is NaN or infinite as soon as one number is; float64 so that it cannot overflow by itself
        if not torch.isfinite(tensor.sum(dtype=torch.float64)):
            raise SaeError(f"{path}: tensor {name} holds NaN or infinite numbers.", "Download the file again.")
