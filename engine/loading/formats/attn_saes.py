"""Kissane's and Krzyzanowski's SAEs of GPT-2's attention: a pickled `NAME.pt` with `NAME_cfg.json` beside it.

Source: https://huggingface.co/ckkissane/attn-saes-gpt2-small-all-layers. A ReLU encoder at attn.hook_z, its heads side
by side; b_dec subtracted at the input, no normalisation, trained with a leading token.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from engine.loading.formats.files import OneFile, pick, present, read_config, read_pickle, text
from engine.models.sae import SaeConfig

NAME = "attn-saes"

FILES = OneFile(re.compile(r".+\.pt"), "NAME.pt with NAME_cfg.json beside it", config_suffix="_cfg.json")

CONVERSIONS = ("connor_rob_hook_z",)

MODEL = "openai-community/gpt2"

FOLDED = (
    "TransformerLens folds attention's value biases out of hook_z unless told otherwise, and the SAE's files do not "
    "say whether it was trained so; saescope leaves them in hook_z, as SAELens does"
)


def load(place: Path, name: str, device: torch.device) -> tuple[SaeConfig, dict[str, torch.Tensor]]:
    """Read the two files. Raises SaeError where one is broken."""
    config_file = FILES.config_of(place.name)
    raw = read_config(place.with_name(config_file))
    tensors = read_pickle(place, device)
    hook = text(raw.get("act_name"))
    config = SaeConfig(
        source=name,
        format=NAME,
        encoder="standard",
        normalisation="none",
        apply_b_dec_to_input=True,
        hook=hook,
        model=MODEL if text(raw.get("model_name")) in ("", "gpt2", "gpt2-small") else text(raw.get("model_name")),
        prepend_bos=True,
        notes=(FOLDED,) if hook else (f"{config_file} names no hook point: give it with --hook",),
    )
    return config, present({key: pick(tensors, key) for key in ("W_enc", "W_dec", "b_enc", "b_dec")})
