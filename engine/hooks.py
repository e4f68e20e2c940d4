"""Hook points: TransformerLens names and plain module paths, turned into a module of the Hugging Face model.

`blocks.L.hook_resid_pre` is the input of block L, `blocks.L.hook_resid_post` its output (before any final norm).
A plain module path such as `model.layers.14` means that module's output. Knows nothing about running the model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from torch import nn

from engine.errors import HookError

BLOCK_LISTS = ("model.layers", "transformer.h", "gpt_neox.layers", "model.language_model.layers")
RESIDUAL = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|post)")


@dataclass(frozen=True)
class HookPoint:
    """Where the SAE reads and writes: a module of the model and which side of it."""

    name: str
    path: str
    side: Literal["input", "output"]
    layer: int | None
    """Number of blocks that run before the hooked vector exists is `layer` (input) or `layer + 1` (output)."""


def find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The list of transformer blocks and its path. Raises HookError where none of the known places has one."""
    for path in BLOCK_LISTS:
        try:
            blocks = model.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(blocks, nn.ModuleList):
            return path, blocks
    raise HookError(
        f"Cannot find the transformer blocks of a {type(model).__name__}.",
        "Give --hook a module path of this model, such as model.layers.14.",
    )


def resolve_hook(model: nn.Module, name: str) -> HookPoint:
    """Finds the module a hook name stands for. Raises HookError naming the range of layers there are."""
    if match := RESIDUAL.fullmatch(name):
        layer, side = int(match[1]), match[2]
        path, blocks = find_blocks(model)
        if layer >= len(blocks):
            raise HookError(
                f"Hook point {name}: the model has blocks 0 to {len(blocks) - 1}.",
                "Is this the SAE's model? Check --model and --hook.",
            )
        return HookPoint(name, f"{path}.{layer}", "input" if side == "pre" else "output", layer)
    if name.startswith("blocks."):
        raise HookError(
            f"Hook point {name!r} is of a kind that is not read yet.",
            "Kinds read: blocks.L.hook_resid_pre, blocks.L.hook_resid_post, or a module path.",
        )
    try:
        model.get_submodule(name)
    except AttributeError:
        raise HookError(
            f"The model has no module {name!r}.",
            "Give --hook a name like blocks.15.hook_resid_pre or a module path like model.layers.14.",
        ) from None
    number = re.search(r"\.(\d+)$", name)
    return HookPoint(name, name, "output", int(number[1]) if number else None)
