"""dictionary_learning folders: `config.json` (with `trainer.dict_class`) + the pickled state dict `ae.pt`.

Source: https://github.com/saprmarks/dictionary_learning. BatchTopK and its Matryoshka form use their one saved
threshold. AutoEncoder folds its decoder's norms into the activations when it is loaded, and so does this loader.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from engine.loading.formats.read_files import (
    brief,
    is_matrix,
    pick,
    present,
    read_config,
    read_pickle,
    text,
    transposed,
    whole_number,
)
from engine.models.sae import Encoder, SaeConfig
from engine.records.errors import SaeError

CONFIG, WEIGHTS = "config.json", "ae.pt"

ENCODERS: dict[str, Encoder] = {
    "AutoEncoder": "standard",
    "AutoEncoderNew": "standard",
    "GatedAutoEncoder": "gated",
    "JumpReluAutoEncoder": "jumprelu",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "jumprelu",
    "MatryoshkaBatchTopKSAE": "jumprelu",
}

NO_B_DEC_AT_THE_INPUT = ("JumpReluAutoEncoder", "AutoEncoderNew")


def recognises(folder: Path) -> bool:
    """Return whether both of the format's files are there."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def load(folder: Path, name: str, device: torch.device) -> tuple[SaeConfig, dict[str, torch.Tensor]]:
    """Read the folder. Raises SaeError for broken files and for kinds this loader does not read."""
    config = parse_config(read_config(folder / CONFIG), name)
    tensors = read_pickle(folder / WEIGHTS, device)
    if config.encoder == "topk":
        config = replace(config, k=agreed_k(config.k, pick(tensors, "k"), name))
    w_enc = pick(tensors, "W_enc")
    w_dec = pick(tensors, "W_dec")
    weights = {
        "W_enc": transposed(pick(tensors, "encoder.weight")) if w_enc is None else w_enc,
        "W_dec": transposed(pick(tensors, "decoder.weight")) if w_dec is None else w_dec,
        "b_enc": pick(tensors, "b_enc", "encoder.bias"),
        "b_dec": pick(tensors, "b_dec", "bias", "decoder_bias", "decoder.bias"),
        "b_gate": pick(tensors, "gate_bias"),
        "b_mag": pick(tensors, "mag_bias"),
        "r_mag": pick(tensors, "r_mag"),
    }
    # a topk SAE has a threshold too, but its `encode` takes each token's k largest
    threshold = pick(tensors, "threshold") if config.encoder == "jumprelu" else None
    if threshold is not None and threshold.ndim == 0 and is_matrix(weights["W_dec"]):
        if threshold.is_floating_point() and threshold < 0:
            raise SaeError(f"{name}: its threshold was never set ({float(threshold)}).", "Train it to the end.")
        threshold = threshold.expand(len(weights["W_dec"]))  # type: ignore[arg-type]
    weights["threshold"] = threshold
    return config, present(weights)


def parse_config(raw: dict[str, Any], name: str) -> SaeConfig:
    """Turn config.json into a SaeConfig. Raises SaeError."""
    trainer = raw.get("trainer")
    if not isinstance(trainer, dict):
        raise SaeError(f"{name}: {CONFIG} has no section `trainer`.", "This is not a dictionary_learning SAE.")
    kind, layer = text(trainer.get("dict_class")), whole_number(trainer.get("layer"))
    if kind not in ENCODERS:
        raise SaeError(f"{name}: cannot read a SAE of class {brief(kind)}.", f"Classes read: {', '.join(ENCODERS)}.")
    submodule = text(trainer.get("submodule_name")) or "resid_post"
    is_residual = layer is not None and "mlp" not in submodule and "att" not in submodule
    return SaeConfig(
        source=name,
        format="dictionary_learning",
        encoder=ENCODERS[kind],
        normalisation="none",
        apply_b_dec_to_input=kind not in NO_B_DEC_AT_THE_INPUT,
        hook=f"blocks.{layer}.hook_resid_post" if is_residual else "",
        model=text(trainer.get("lm_name")),
        k=whole_number(trainer.get("k")) if ENCODERS[kind] == "topk" else None,
        rescale_acts_by_decoder_norm=kind == "AutoEncoder",
        notes=() if is_residual else (f"trained at {submodule!r} of layer {layer}: give its hook point with --hook",),
    )


def agreed_k(configured: int | None, saved: torch.Tensor | None, name: str) -> int | None:
    """Return k of a topk encoder. Raises SaeError where configuration and weights differ, as the library does."""
    k = int(saved) if saved is not None and saved.ndim == 0 and saved.dtype in (torch.int32, torch.int64) else None
    if configured is not None and k is not None and configured != k:
        raise SaeError(f"{name}: k is {configured} in {CONFIG} and {k} in {WEIGHTS}.", f"Correct k in {CONFIG}.")
    return k if configured is None else configured
