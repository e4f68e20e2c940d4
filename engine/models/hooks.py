"""Hook points: TransformerLens names and plain module paths, turned into a module of the Hugging Face model.

    blocks.L.hook_resid_pre    what enters block L (for block 0 with position embeddings, where the model adds any)
    blocks.L.hook_resid_mid    the residual stream between attention and MLP; parallel blocks have none
    blocks.L.hook_resid_post   what leaves block L, before any final norm
    blocks.L.hook_attn_out     what attention adds to the residual stream, so in Gemma after its post-attention norm
    blocks.L.hook_mlp_out      what the MLP adds to the residual stream, likewise
    blocks.L.attn.hook_z       the input of attention's output projection, heads side by side: its own width

A plain path such as `model.layers.14` means that module's output; `.input` or `.output` may follow. It may be relative
to the base model (`layers.14`). All spellings of one vector resolve to one module and side, the one at which an edit
reaches everything that reads the vector. Knows nothing about running the model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engine.models.families import FINAL_NORMS, SIDES, Kind, Layout, Place, Side, layout_of
from engine.records.errors import HookError

BLOCK_LISTS = (
    "model.layers",
    "transformer.h",
    "gpt_neox.layers",
    "model.language_model.layers",
    "model.decoder.layers",
    "transformer.blocks",
)

BASES = ("", "model.", "transformer.", "gpt_neox.", "model.language_model.", "model.decoder.")
"""Prefixes that may be missing from a path."""

TEXT_BASE = re.compile(r"(language_model\.)?model\.")
"""How a path into a text-only model begins; in a multimodal wrapper the text model is elsewhere."""

HOOKS: dict[str, Kind] = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_mlp_out": "mlp_out",
    "hook_attn_out": "attn_out",
    "attn.hook_z": "z",
}

NAMES: dict[Kind, str] = {kind: name for name, kind in HOOKS.items()}

BLOCK_HOOK = re.compile(r"blocks\.(\d{1,6})\.(.+)")


@dataclass(frozen=True)
class HookPoint:
    """Where the SAE reads and writes: a module of the model and which side of it."""

    name: str
    path: str
    side: Side
    layer: int | None
    """The block that it is in, counted from 0; None outside the blocks."""
    kind: Kind = "other"
    width: int | None = None
    """Width of the hooked vector; None where neither the weights nor the kind tell."""


def find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Return path and list of the transformer blocks. Raises HookError where none of the known places has them."""
    for path in BLOCK_LISTS:
        try:
            blocks = model.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(blocks, nn.ModuleList):
            return path, blocks
    raise HookError(
        f"Cannot find the transformer blocks of a {type(model).__name__}.",
        f"Give --hook a module path of this model{_example(model)}.",
    )


def _example(model: nn.Module) -> str:
    """A module path of this very model for a remedy: one in the middle of its longest list of modules."""
    lists = [(len(child), path) for path, child in model.named_modules() if isinstance(child, nn.ModuleList)]
    length, path = max(lists, default=(0, ""))
    return f", such as {path}.{length // 2}" if length else ""


def resolve_hook(model: nn.Module, name: str) -> HookPoint:
    """Find the module that a hook name stands for. Raises HookError saying which hook points there are."""
    if name.startswith("blocks."):
        return _resolve_block_hook(model, name)
    path, side = _find_module(model, name)
    try:
        blocks_path, blocks = find_blocks(model)
    except HookError:
        blocks_path, blocks = "", nn.ModuleList()
    inside = re.fullmatch(rf"{re.escape(blocks_path)}\.(\d+)(?:\.(.+))?", path) if blocks_path else None
    if inside is None:
        return HookPoint(name, path, side, None, "other", _weight_width(model.get_submodule(path), side))
    layer = int(inside[1])
    layout = layout_of(model, blocks[layer])
    place = layout.canonical((inside[2] or "", side))
    return _hook_point(model, name, layer, layout.kind(place), place)


def same_place(model: nn.Module, a: str, b: str) -> bool:
    """Return whether two hook names stand for the same vector; False where this model lacks one of them."""
    if a == b:
        return True
    try:
        return _place_of(resolve_hook(model, a)) == _place_of(resolve_hook(model, b))
    except HookError:
        return False


def neighbours(model: nn.Module, hook: HookPoint) -> tuple[str, ...]:
    """Return the hook points of the same kind one layer below and one above, those that exist, below first.

    Those of the residual stream continue at the ends: above the last block's resid_pre is its resid_post, below the
    first block's resid_post its resid_pre.
    """
    if hook.layer is None:
        return ()
    path, blocks = find_blocks(model)
    names = [_name_at(path, len(blocks), hook, hook.layer + step) for step in (-1, 1)]
    return tuple(name for name in names if name)


def route_to_residual(model: nn.Module, hook: HookPoint) -> tuple[str, ...] | None:
    """Return the paths of the projections and norms between a hooked vector and the residual stream it is added to.

    None where the vector does not get there by these alone: a norm's output, queries, the inside of an MLP, the
    embeddings.
    """
    if hook.layer is None:
        return None
    path, blocks = find_blocks(model)
    block = f"{path}.{hook.layer}"
    route = layout_of(model, blocks[hook.layer]).route((hook.path.removeprefix(block).lstrip("."), hook.side))
    return None if route is None else tuple(f"{block}.{module}" for module in route)


def final_norm(model: nn.Module) -> nn.Module | None:
    """Return the norm that the residual stream passes before the unembedding; None where none is known."""
    try:
        path, _ = find_blocks(model)
    except HookError:
        return None
    parent = model.get_submodule(path.rpartition(".")[0])
    return next((norm for name in FINAL_NORMS if isinstance(norm := getattr(parent, name, None), nn.Module)), None)


def _resolve_block_hook(model: nn.Module, name: str) -> HookPoint:
    match = BLOCK_HOOK.fullmatch(name)
    kind = HOOKS.get(match[2]) if match else None
    if match is None or kind is None:
        raise HookError(
            f"Hook point {name!r} is of a kind that is not supported.",
            f"Supported are {', '.join(f'blocks.L.{known}' for known in HOOKS)}, or a module path.",
        )
    layer = int(match[1])
    _, blocks = find_blocks(model)
    if layer >= len(blocks):
        raise HookError(
            f"Hook point {name}: the model has blocks 0 to {len(blocks) - 1}.",
            "Is this the SAE's model? Check --model and --hook.",
        )
    layout = layout_of(model, blocks[layer])
    if kind not in layout.places:
        raise HookError(f"Hook point {name}: {layout.why_not(kind)}.", _offer(layout, layer))
    return _hook_point(model, name, layer, kind, layout.places[kind])


def _offer(layout: Layout, layer: int) -> str:
    known = ", ".join(f"blocks.{layer}.{NAMES[kind]}" for kind in NAMES if kind in layout.places)
    return f"This model has {known}, or give a module path."


def _hook_point(model: nn.Module, name: str, layer: int, kind: Kind, place: Place) -> HookPoint:
    blocks_path, _ = find_blocks(model)
    path = ".".join(filter(None, (blocks_path, str(layer), place[0])))
    own_width = kind in ("z", "other")
    width = _weight_width(model.get_submodule(path), place[1]) if own_width else _d_model(model)
    return HookPoint(name, path, place[1], layer, kind, width)


def _d_model(model: nn.Module) -> int | None:
    config = getattr(model, "config", None)
    return None if config is None else int(config.get_text_config().hidden_size)


def _weight_width(module: nn.Module, side: Side) -> int | None:
    """Return the width of what enters or leaves a projection, norm or embedding; None for other modules."""
    names = ("in_features", "nx") if side == "input" else ("out_features", "nf", "embedding_dim")
    for name in names:  # nx and nf: GPT-2's projections
        if isinstance(width := getattr(module, name, None), int):
            return width
    weight = getattr(module, "weight", None)
    return len(weight) if weight is not None and weight.ndim == 1 else None


def _find_module(model: nn.Module, name: str) -> tuple[str, Side]:
    """Return the full path and side that a plain path means. Raises HookError."""
    for path, side in _readings(name):
        try:
            model.get_submodule(path)
        except AttributeError:
            continue
        return path, side
    try:
        _, blocks = find_blocks(model)
        number = f" (its blocks are 0 to {len(blocks) - 1})"
    except HookError:
        number = ""
    raise HookError(
        f"The model has no module {name!r}{number}.",
        "Give --hook a name like blocks.15.hook_resid_pre or a module path like model.layers.14.",
    )


def _readings(name: str) -> Iterator[tuple[str, Side]]:
    """Yield what a plain path may mean, the likeliest first: as it stands, then without its side, then under a base."""
    stems: list[tuple[str, Side]] = [(name, "output")]
    stems += [(name.removesuffix(f".{side}"), side) for side in SIDES if name.endswith(f".{side}")]
    for base in BASES:
        for stem, side in stems:
            if stem:
                yield base + stem, side
    for stem, side in stems:
        if TEXT_BASE.match(stem):
            yield "model.language_model." + TEXT_BASE.sub("", stem, count=1), side


def _place_of(hook: HookPoint) -> tuple[str, Side | int]:
    """Return a key that all spellings of a vector share: what leaves a block is what enters the next."""
    if hook.layer is not None and hook.kind in ("resid_pre", "resid_post"):
        return "boundary", hook.layer + (hook.kind == "resid_post")
    return hook.path, hook.side


def _name_at(blocks_path: str, num_blocks: int, hook: HookPoint, layer: int) -> str:
    """Return the name of the same kind of hook at a layer; "" where there is none."""
    if not 0 <= layer < num_blocks:
        beyond = {("resid_pre", num_blocks): "resid_post", ("resid_post", -1): "resid_pre"}.get((hook.kind, layer))
        return f"blocks.{hook.layer}.hook_{beyond}" if beyond else ""
    if hook.kind in NAMES:
        return f"blocks.{layer}.{NAMES[hook.kind]}"
    return f"{blocks_path}.{layer}.{hook.path.removeprefix(f'{blocks_path}.{hook.layer}.')}.{hook.side}"


Change = Callable[[torch.Tensor], torch.Tensor]
"""Returns what replaces the hooked vectors h_BTD."""


@contextmanager
def changed(module: nn.Module, hook: HookPoint, change: Change) -> Iterator[None]:
    """Inside, every forward pass puts what passes the hook point, which is at `module`, through `change`."""

    def on_input(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if hook.kind == "resid_mid":
            # the block adds the MLP's output to the tensor that it gave the norm: both have to change
            args[0].copy_(change(args[0]))
            return args, kwargs
        if args:
            return (change(args[0]), *args[1:]), kwargs
        first = next(iter(kwargs))
        return args, {**kwargs, first: change(kwargs[first])}

    def on_output(_: Any, __: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    if hook.side == "input":
        handle = module.register_forward_pre_hook(on_input, with_kwargs=True)
    else:
        handle = module.register_forward_hook(on_output)
    try:
        yield
    finally:
        handle.remove()
