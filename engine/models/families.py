"""How the blocks of each model family are built: which module and side is which hook point.

Families are told apart by the model type of their configuration: blocks that look alike may add different vectors in
different places. Of any other family only the two ends of its blocks are known. Knows nothing about names of hooks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

Side = Literal["input", "output"]

SIDES: tuple[Side, ...] = ("input", "output")

Kind = Literal["resid_pre", "resid_mid", "resid_post", "mlp_out", "attn_out", "z", "other"]

Place = tuple[str, Side]
"""A module's path inside its block ("" is the block itself) and a side of it."""


@dataclass(frozen=True)
class Layout:
    """Where the hook points are in a block."""

    parallel: bool
    """Attention and MLP read the same vector: there is no residual stream between them."""
    places: dict[Kind, Place]
    aliases: dict[Place, Place] = field(default_factory=dict)
    """Other places of the same vector, each with its canonical place."""
    routes: dict[Place, tuple[str, ...]] = field(default_factory=dict)
    """The projections and norms on the way from a place to the residual stream."""

    def canonical(self, place: Place) -> Place:
        """Return the one place that stands for all spellings of a vector."""
        return self.aliases.get(place, place)

    def kind(self, place: Place) -> Kind:
        """Return the kind of hook point at a canonical place."""
        return next((kind for kind, at in self.places.items() if at == place), "other")

    def route(self, place: Place) -> tuple[str, ...] | None:
        """Return the modules between a canonical place and the residual stream; None where there is no such way."""
        if place in self.routes:
            return self.routes[place]
        return None if self.kind(place) == "other" else ()

    def why_not(self, kind: Kind) -> str:
        """Return in words why this block has no such hook point."""
        if kind == "resid_mid" and self.parallel:
            return "in this model attention and MLP run in parallel, nothing lies between them"
        return "where that is in a model of this family is not known"


def family(
    attention: str,
    projection: str,
    down: str,
    first_norm: str,
    mid_norm: str = "",
    norm_behind_attention: str = "",
    norm_behind_mlp: str = "",
    parallel: bool = False,
) -> Layout:
    """Return the layout of a block from the names of its parts; `down` is in the MLP, named `mlp` in every family."""
    projection, down = f"{attention}.{projection}", f"mlp.{down}"
    behind = {attention: norm_behind_attention, "mlp": norm_behind_mlp}
    places: dict[Kind, Place] = {
        "resid_pre": ("", "input"),
        "resid_post": ("", "output"),
        "attn_out": (norm_behind_attention or attention, "output"),
        "mlp_out": (norm_behind_mlp or "mlp", "output"),
        "z": (projection, "input"),
    }
    aliases: dict[Place, Place] = {
        (first_norm, "input"): ("", "input"),
        (projection, "output"): (attention, "output"),
        (down, "output"): ("mlp", "output"),
    }
    routes: dict[Place, tuple[str, ...]] = {}
    for inner, outer in ((projection, attention), (down, "mlp")):
        norms = tuple(filter(None, (behind[outer],)))
        routes[inner, "input"] = (inner, *norms)
        routes[outer, "output"] = norms
        for norm in norms:
            aliases[norm, "input"] = (outer, "output")
    if mid_norm and parallel:
        aliases[mid_norm, "input"] = ("", "input")
    elif mid_norm:
        places["resid_mid"] = (mid_norm, "input")
    return Layout(parallel, places, aliases, routes)


ENDS = Layout(False, {"resid_pre": ("", "input"), "resid_post": ("", "output")})

LLAMA = family("self_attn", "o_proj", "down_proj", "input_layernorm", "post_attention_layernorm")

GEMMA_2 = family(
    "self_attn",
    "o_proj",
    "down_proj",
    "input_layernorm",
    "pre_feedforward_layernorm",
    "post_attention_layernorm",
    "post_feedforward_layernorm",
)

NEOX = ("attention", "dense", "dense_4h_to_h", "input_layernorm", "post_attention_layernorm")

FAMILIES: dict[str, Layout] = {
    "gemma": LLAMA,
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "phi3": LLAMA,
    "gemma2": GEMMA_2,
    "gemma3_text": GEMMA_2,
    "gpt2": family("attn", "c_proj", "c_proj", "ln_1", "ln_2"),
    "gpt_neox": family(*NEOX, parallel=True),
    "phi": family("self_attn", "dense", "fc2", "input_layernorm", parallel=True),
}
"""Layouts by `model_type` of the text model's configuration."""

SEQUENTIAL_NEOX = family(*NEOX)

FINAL_NORMS = ("norm", "ln_f", "norm_f", "final_layer_norm", "final_layernorm", "final_norm", "embedding_norm")
"""The families' names for the norm between last block and unembedding; it stands beside the list of blocks."""


def layout_of(model: nn.Module, block: nn.Module) -> Layout:
    """Return how this block of the model is built."""
    config = getattr(model, "config", None)
    layout = FAMILIES.get(config.get_text_config().model_type, ENDS) if config is not None else ENDS
    return SEQUENTIAL_NEOX if getattr(block, "use_parallel_residual", True) is False else layout
