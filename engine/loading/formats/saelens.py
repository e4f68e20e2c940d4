"""SAELens: a folder with `cfg.json` and `sae_weights.safetensors`, from version 6 (nested `metadata`) and before.

Source: https://github.com/decoderesearch/SAELens, which saves a BatchTopK SAE as jumprelu with its inference threshold.
Transcoders and the library's rarer architectures are refused by name.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from engine.loading.formats.files import (
    Folder,
    brief,
    flag,
    length,
    number,
    read_config,
    read_safetensors,
    text,
    whole_number,
)
from engine.models.sae import SaeConfig
from engine.records.errors import SaeError

NAME = "SAELens"

CONFIG, WEIGHTS, SCALER = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"

FILES = Folder((CONFIG, WEIGHTS), optional=(SCALER,))

CONVERSIONS = (None, "sae_lens")

ENCODERS = ("standard", "jumprelu", "topk", "gated")

NORMALISATIONS = ("none", "constant_norm_rescale", "layer_norm", "expected_average_only_in")

TRAINED_WITH_CONSTANT_NORM = ("mistral-7b", 65536)
"""Model and d_sae of JoshEngels/Mistral-7B-Residual-Stream-SAEs, whose files say no normalisation.

They were trained on vectors scaled to norm sqrt(d_model); SAELens corrects it in its registry.
"""


def load(place: Path, name: str, device: torch.device) -> tuple[SaeConfig, dict[str, torch.Tensor]]:
    """Read the folder. Raises SaeError for broken files and for kinds this loader does not read."""
    config = parse_config(read_config(place / CONFIG), name)
    if config.normalisation == "expected_average_only_in" and (place / SCALER).is_file():
        factor = number(read_config(place / SCALER), "scaling_factor", name)
        if not 1e-12 < factor < 1e12:
            raise SaeError(f"{name}: {SCALER} gives the factor {factor}, which cannot be right.", f"Correct {SCALER}.")
        config = replace(config, scale=factor)
    weights = read_safetensors(place / WEIGHTS, device)
    scaling = weights.pop("scaling_factor", None)
    if scaling is not None and not torch.allclose(scaling.float(), torch.ones(())):
        raise SaeError(f"{name}: cannot read a SAE with a finetuning scaling factor.", "Use another SAE.")
    return config, weights


def parse_config(raw: dict[str, Any], source: str) -> SaeConfig:
    """Return what cfg.json of any version says. Raises SaeError for kinds of SAEs that are not read."""
    metadata = raw.get("metadata")
    # `metadata` holds what the SAE was trained on; before version 6 this was at the top
    fields: dict[str, Any] = {**raw, **(metadata if isinstance(metadata, dict) else {})}
    bos = fields.get("prepend_bos")
    encoder, k = encoder_of(raw, source)
    normalisation, notes = normalisation_of(raw, text(fields.get("model_name")), source)
    kwargs = fields.get("model_from_pretrained_kwargs")
    return SaeConfig(
        source=source,
        format=NAME,
        encoder=encoder,  # type: ignore[arg-type]
        normalisation=normalisation,  # type: ignore[arg-type]
        # true where it is absent: old SAEs subtracted b_dec unless configured otherwise
        apply_b_dec_to_input=flag(raw, "apply_b_dec_to_input", True, source),
        hook=text(fields.get("hook_name")) or text(fields.get("hook_point")),
        model=text(fields.get("model_name")),
        prepend_bos=bos if isinstance(bos, bool) else None,
        context=length(fields.get("context_size")),
        k=k,
        rescale_acts_by_decoder_norm=encoder == "topk" and flag(raw, "rescale_acts_by_decoder_norm", False, source),
        centered=isinstance(kwargs, dict) and bool(kwargs.get("center_writing_weights")),
        neuronpedia=text(fields.get("neuronpedia_id")),
        notes=notes,
    )


def encoder_of(raw: dict[str, Any], source: str) -> tuple[str, int | None]:
    """Return the encoder's kind, and k where it is topk. Raises SaeError naming a kind that is not read."""
    # as strings, so that values of other types are refused by name below
    kind = str(raw.get("architecture", "standard"))
    activation = str(raw.get("activation_fn_str") or raw.get("activation_fn") or "relu")
    kwargs = raw.get("activation_fn_kwargs")
    k = raw.get("k", kwargs.get("k") if isinstance(kwargs, dict) else None)
    if kind == "standard" and activation == "topk":  # how files before version 6 name it
        kind = "topk"
    elif activation not in ("relu", kind):
        kind = f"{kind} with activation {activation}"
    if kind not in ENCODERS:
        raise SaeError(
            f"{source}: cannot read a SAE of kind {brief(kind)}.",
            f"Kinds read: {', '.join(ENCODERS)}; BatchTopK as `save_inference_model` saves it; no transcoders.",
        )
    if kind == "topk" and whole_number(k) is None:
        raise SaeError(f"{source}: a topk encoder needs k, {CONFIG} says {brief(k)}.", f"Correct k in {CONFIG}.")
    return kind, whole_number(k) if kind == "topk" else None


def normalisation_of(raw: dict[str, Any], model: str, source: str) -> tuple[str, tuple[str, ...]]:
    """Return the normalisation, with notes for the user. Raises SaeError for one that is not read."""
    normalisation = raw.get("normalize_activations")
    if normalisation in (None, False):
        normalisation = "none"
    elif normalisation is True:
        normalisation = "expected_average_only_in"
    if normalisation not in NORMALISATIONS:
        raise SaeError(
            f"{source}: cannot read the normalisation {brief(normalisation)}.", f"Read are {', '.join(NORMALISATIONS)}."
        )
    name, d_sae = TRAINED_WITH_CONSTANT_NORM
    if normalisation == "none" and name in model.lower() and raw.get("d_sae") == d_sae:
        return "constant_norm_rescale", (
            f"{CONFIG} says no normalisation; these SAEs were trained with constant_norm_rescale (SAELens' registry)",
        )
    return normalisation, ()
