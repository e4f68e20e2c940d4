"""dictionary_learning: a folder with `config.json` (and in it `trainer.dict_class`) and the pickled weights `ae.pt`.

Source: https://github.com/saprmarks/dictionary_learning. BatchTopK and its Matryoshka form have one saved threshold for
all features, and use it as a JumpReLU. An AutoEncoder's activations are multiplied by its decoder rows' norms, as the
library does when it loads one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from engine.loading.formats.files import (
    Folder,
    brief,
    is_matrix,
    length,
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

NAME = "dictionary_learning"

CONFIG, WEIGHTS = "config.json", "ae.pt"

FILES = Folder((CONFIG, WEIGHTS))

CONVERSIONS = ("dictionary_learning_1",)

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


def load(place: Path, name: str, device: torch.device) -> tuple[SaeConfig, dict[str, torch.Tensor]]:
    """Read the folder. Raises SaeError for broken files and for kinds this loader does not read."""
    config = parse_config(read_config(place / CONFIG), name)
    tensors = read_pickle(place / WEIGHTS, device)
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
    # a topk SAE has a threshold too, but the library keeps each token's k largest
    threshold = pick(tensors, "threshold") if config.encoder == "jumprelu" else None
    if threshold is not None and threshold.ndim == 0 and is_matrix(weights["W_dec"]):
        if threshold.is_floating_point() and threshold < 0:
            raise SaeError(f"{name}: its threshold was never set ({float(threshold)}).", "Train it to the end.")
        threshold = threshold.expand(len(weights["W_dec"]))  # type: ignore[arg-type]
    weights["threshold"] = threshold
    return config, present(weights)


def parse_config(raw: dict[str, Any], name: str) -> SaeConfig:
    """Return what config.json says. Raises SaeError for a class of SAE that is not read."""
    trainer = raw.get("trainer")
    if not isinstance(trainer, dict):
        raise SaeError(f"{name}: {CONFIG} has no section `trainer`.", "This is not a dictionary_learning SAE.")
    buffer = raw.get("buffer")
    kind, layer = text(trainer.get("dict_class")), whole_number(trainer.get("layer"))
    if kind not in ENCODERS:
        raise SaeError(f"{name}: cannot read a SAE of class {brief(kind)}.", f"Classes read: {', '.join(ENCODERS)}.")
    submodule = text(trainer.get("submodule_name")) or "resid_post"
    is_residual = layer is not None and "mlp" not in submodule and "att" not in submodule
    return SaeConfig(
        source=name,
        format=NAME,
        encoder=ENCODERS[kind],
        normalisation="none",
        apply_b_dec_to_input=kind not in NO_B_DEC_AT_THE_INPUT,
        hook=f"blocks.{layer}.hook_resid_post" if is_residual else "",
        model=text(trainer.get("lm_name")),
        context=length(buffer.get("ctx_len")) if isinstance(buffer, dict) else None,
        k=whole_number(trainer.get("k")) if ENCODERS[kind] == "topk" else None,
        rescale_acts_by_decoder_norm=kind == "AutoEncoder",
        notes=() if is_residual else (f"trained at {submodule!r} of layer {layer}: give its hook point with --hook",),
    )


def agreed_k(configured: int | None, saved: torch.Tensor | None, name: str) -> int | None:
    """Return k of a topk encoder. Raises SaeError where configuration and weights disagree, as the library does."""
    k = int(saved) if saved is not None and saved.ndim == 0 and saved.dtype in (torch.int32, torch.int64) else None
    if configured is not None and k is not None and configured != k:
        raise SaeError(f"{name}: k is {configured} in {CONFIG} and {k} in {WEIGHTS}.", f"Correct k in {CONFIG}.")
    return k if configured is None else configured
