"""SAELens folders: `cfg.json` + `sae_weights.safetensors`, from version 6 (nested `metadata`) and before.

Source: https://github.com/decoderesearch/SAELens. A BatchTopK SAE is saved by SAELens as jumprelu with its inference
threshold. Transcoders and the library's rarer architectures are refused by name.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from engine.loading.formats.read_files import brief, flag, number, read_config, read_safetensors, text, whole_number
from engine.models.sae import SaeConfig
from engine.records.errors import SaeError

CONFIG, WEIGHTS, SCALER = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"

ENCODERS = ("standard", "jumprelu", "topk", "gated")

NORMALISATIONS = ("none", "constant_norm_rescale", "layer_norm", "expected_average_only_in")

# JoshEngels/Mistral-7B-Residual-Stream-SAEs: the files say no normalisation, but the SAEs were trained with each
# token scaled to norm sqrt(d); SAELens corrects it in its registry of releases, not in the files.
TRAINED_WITH_CONSTANT_NORM = ("mistral-7b", 65536)


def recognises(folder: Path) -> bool:
    """Return whether both of the format's files are there."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def load(folder: Path, name: str, device: torch.device) -> tuple[SaeConfig, dict[str, torch.Tensor]]:
    """Read the folder. Raises SaeError for broken files and for kinds this loader does not read."""
    config = parse_config(read_config(folder / CONFIG), name)
    if config.normalisation == "expected_average_only_in" and (folder / SCALER).is_file():
        factor = number(read_config(folder / SCALER), "scaling_factor", name)
        if not 1e-12 < factor < 1e12:
            raise SaeError(f"{name}: {SCALER} gives the factor {factor}, which cannot be right.", f"Correct {SCALER}.")
        config = replace(config, scale=factor)
    weights = read_safetensors(folder / WEIGHTS, device)
    scaling = weights.pop("scaling_factor", None)
    if scaling is not None and not torch.allclose(scaling.float(), torch.ones(())):
        raise SaeError(f"{name}: cannot read a SAE with a finetuning scaling factor.", "Use another SAE.")
    return config, weights


def parse_config(raw: dict[str, Any], source: str) -> SaeConfig:
    """Turn cfg.json of either generation into a SaeConfig."""
    metadata = raw.get("metadata")
    # the SAE is described at the top, what it was trained on in `metadata`, or in old files at the top too
    fields: dict[str, Any] = {**raw, **(metadata if isinstance(metadata, dict) else {})}
    bos = fields.get("prepend_bos")
    encoder, k = encoder_of(raw, source)
    normalisation, notes = normalisation_of(raw, text(fields.get("model_name")), source)
    kwargs = fields.get("model_from_pretrained_kwargs")
    return SaeConfig(
        source=source,
        format="SAELens",
        encoder=encoder,  # type: ignore[arg-type]
        normalisation=normalisation,  # type: ignore[arg-type]
        # absent means True: the first generation's SAEs subtracted b_dec unless configured otherwise
        apply_b_dec_to_input=flag(raw, "apply_b_dec_to_input", True, source),
        hook=text(fields.get("hook_name")) or text(fields.get("hook_point")),
        model=text(fields.get("model_name")),
        prepend_bos=bos if isinstance(bos, bool) else None,
        k=k,
        rescale_acts_by_decoder_norm=encoder == "topk" and flag(raw, "rescale_acts_by_decoder_norm", False, source),
        centered=isinstance(kwargs, dict) and bool(kwargs.get("center_writing_weights")),
        neuronpedia=text(fields.get("neuronpedia_id")),
        notes=notes,
    )


def encoder_of(raw: dict[str, Any], source: str) -> tuple[str, int | None]:
    """Return the encoder's kind, and k of a topk encoder. Raises SaeError naming a kind that is not read."""
    # str(): a value of another type than expected is refused by name below, not by a crash
    kind = str(raw.get("architecture", "standard"))
    activation = str(raw.get("activation_fn_str") or raw.get("activation_fn") or "relu")
    kwargs = raw.get("activation_fn_kwargs")
    k = raw.get("k", kwargs.get("k") if isinstance(kwargs, dict) else None)
    if kind == "standard" and activation == "topk":  # how the first generation spelt it
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
    """Return the normalisation and notes about it for the user. Raises SaeError for one that is not read."""
    normalisation = raw.get("normalize_activations")
    if normalisation in (None, False):
        normalisation = "none"
    elif normalisation is True:
        normalisation = "expected_average_only_in"
    if normalisation not in NORMALISATIONS:
        raise SaeError(
            f"{source}: cannot read the normalisation {brief(normalisation)}.",
            f"Supported: {', '.join(NORMALISATIONS)}.",
        )
    name, d_sae = TRAINED_WITH_CONSTANT_NORM
    if normalisation == "none" and name in model.lower() and raw.get("d_sae") == d_sae:
        return "constant_norm_rescale", (
            f"{CONFIG} says no normalisation; these SAEs were trained with constant_norm_rescale (SAELens' registry)",
        )
    return normalisation, ()
