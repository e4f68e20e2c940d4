"""SAELens folders: `cfg.json` + `sae_weights.safetensors`, from version 6 (nested `metadata`) and before.

Source: https://github.com/decoderesearch/SAELens. A BatchTopK SAE is saved by SAELens as jumprelu with its inference
threshold. Transcoders and the library's rarer architectures are refused by name.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from engine.errors import SaeError
from engine.formats.files import read_config, read_safetensors
from engine.sae import SaeConfig, SparseAutoencoder

CONFIG, WEIGHTS, SCALER = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"
ENCODERS = ("standard", "jumprelu", "topk", "gated")
NORMALISATIONS = ("none", "constant_norm_rescale", "layer_norm", "expected_average_only_in")

# JoshEngels/Mistral-7B-Residual-Stream-SAEs: the files say no normalisation, but the SAEs were trained with each
# token scaled to norm sqrt(d); SAELens corrects it in its registry of releases, not in the files.
TRAINED_WITH_CONSTANT_NORM = ("mistral-7b", 65536)


def recognises(folder: Path) -> bool:
    """True where both of the format's files are there."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def load(folder: Path, name: str, device: torch.device) -> SparseAutoencoder:
    """Reads the folder. Raises SaeError for broken files and for kinds this loader does not read."""
    config = parse_config(read_config(folder / CONFIG), name)
    if config.normalisation == "expected_average_only_in" and (folder / SCALER).is_file():
        factor = read_config(folder / SCALER).get("scaling_factor")
        if isinstance(factor, float) and factor > 0:
            config = replace(config, scale=factor, notes=())
    weights = read_safetensors(folder / WEIGHTS, device)
    scaling = weights.pop("scaling_factor", None)
    if scaling is not None and not torch.allclose(scaling, torch.ones_like(scaling)):
        raise SaeError(f"{name}: cannot read a SAE with a finetuning scaling factor.", "Use another SAE.")
    return SparseAutoencoder(config, weights)


def parse_config(raw: dict[str, Any], source: str) -> SaeConfig:
    """Turns cfg.json of either generation into a SaeConfig."""
    metadata = raw.get("metadata")
    fields: dict[str, Any] = {**raw, **(metadata if isinstance(metadata, dict) else {})}
    subtracts, bos = fields.get("apply_b_dec_to_input"), fields.get("prepend_bos")
    encoder, k = encoder_of(fields, source)
    normalisation, notes = normalisation_of(fields, source)
    kwargs = fields.get("model_from_pretrained_kwargs")
    return SaeConfig(
        source=source,
        format="SAELens",
        encoder=encoder,  # type: ignore[arg-type]
        normalisation=normalisation,  # type: ignore[arg-type]
        # absent means True: the first generation's SAEs subtracted b_dec unless told otherwise
        apply_b_dec_to_input=True if subtracts is None else bool(subtracts),
        hook=str(fields.get("hook_name") or fields.get("hook_point") or ""),
        model=str(fields.get("model_name") or ""),
        prepend_bos=bos if isinstance(bos, bool) else None,
        k=k,
        rescale_acts_by_decoder_norm=bool(fields.get("rescale_acts_by_decoder_norm")),
        centered=isinstance(kwargs, dict) and bool(kwargs.get("center_writing_weights")),
        neuronpedia=str(fields.get("neuronpedia_id") or ""),
        notes=notes,
    )


def encoder_of(fields: dict[str, Any], source: str) -> tuple[str, int | None]:
    """The encoder's kind, and k of a topk one. Raises SaeError naming a kind that is not read."""
    # str(): a value of another type than expected is refused by name below, not by a crash
    kind = str(fields.get("architecture", "standard"))
    activation = str(fields.get("activation_fn_str") or fields.get("activation_fn") or "relu")
    kwargs = fields.get("activation_fn_kwargs")
    k = fields.get("k", kwargs.get("k") if isinstance(kwargs, dict) else None)
    if kind == "standard" and activation == "topk":  # how the first generation spelt it
        kind = "topk"
    elif activation not in ("relu", "topk"):
        kind = f"{kind} with activation {activation}"
    if kind not in ENCODERS:
        raise SaeError(
            f"{source}: cannot read a SAE of kind {kind!r}.",
            f"Kinds read: {', '.join(ENCODERS)}; BatchTopK as `save_inference_model` saves it. A transcoder is none.",
        )
    if kind == "topk" and (not isinstance(k, int) or isinstance(k, bool)):
        raise SaeError(f"{source}: a topk encoder needs k, {CONFIG} says {k!r}.", f"Correct k in {CONFIG}.")
    return kind, k if kind == "topk" else None


def normalisation_of(fields: dict[str, Any], source: str) -> tuple[str, tuple[str, ...]]:
    """The normalisation, and what is to be said about it. Raises SaeError for one that is not read."""
    found = fields.get("normalize_activations")
    if found in (None, False):
        found = "none"
    elif found is True:
        found = "expected_average_only_in"
    if found not in NORMALISATIONS:
        raise SaeError(
            f"{source}: cannot read the normalisation {found!r}.", f"Normalisations read: {', '.join(NORMALISATIONS)}."
        )
    name, d_sae = TRAINED_WITH_CONSTANT_NORM
    if found == "none" and name in str(fields.get("model_name")).lower() and fields.get("d_sae") == d_sae:
        return "constant_norm_rescale", (
            f"{CONFIG} says no normalisation; these SAEs were trained with constant_norm_rescale (SAELens' registry)",
        )
    if found == "expected_average_only_in":
        return found, ("the files do not say by which factor vectors are scaled; if none is published, they are not",)
    return found, ()
