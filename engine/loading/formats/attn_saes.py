"""Kissane's and Krzyzanowski's SAEs of GPT-2's attention: a pickled `NAME.pt` with `NAME_cfg.json` beside it.

Source: https://huggingface.co/ckkissane/attn-saes-gpt2-small-all-layers. A ReLU encoder at attn.hook_z, its heads side
by side; b_dec subtracted at the input, no normalisation, trained with a leading token.
"""

from __future__ import annotations

from pathlib import Path

import torch

from engine.loading.formats.read_files import pick, present, read_config, read_pickle, text
from engine.loading.sae_files import configuration_of
from engine.models.sae import SaeConfig

MODEL = "openai-community/gpt2"

FOLDED = (
    "TransformerLens folds attention's value biases out of hook_z unless told otherwise, and the SAE's files do not "
    "say whether it was trained so; here they are in it, as in SAELens"
)


def recognises(place: Path) -> bool:
    """True for a pickled file with its configuration beside it."""
    return place.suffix == ".pt" and place.is_file() and place.with_name(configuration_of(place.name)).is_file()


def load(place: Path, name: str, device: torch.device) -> tuple[SaeConfig, dict[str, torch.Tensor]]:
    """Reads the two files. Raises SaeError where one is broken."""
    raw = read_config(place.with_name(configuration_of(place.name)))
    found = read_pickle(place, device)
    hook = text(raw.get("act_name"))
    config = SaeConfig(
        source=name,
        format="attn-saes",
        encoder="standard",
        normalisation="none",
        apply_b_dec_to_input=True,
        hook=hook,
        model=MODEL if text(raw.get("model_name")) in ("", "gpt2", "gpt2-small") else text(raw.get("model_name")),
        prepend_bos=True,
        notes=(FOLDED,) if hook else (f"{configuration_of(place.name)} names no hook point: give it with --hook",),
    )
    return config, present({key: pick(found, key) for key in ("W_enc", "W_dec", "b_enc", "b_dec")})
