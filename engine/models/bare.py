"""Twins of a model: copies of its modules that share its weights but nobody's hooks or wrappers.

A twin may be in another dtype, and may leave blocks out.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from transformers import Cache


class Skipped(nn.Module):
    """Stands in for a block that is left out: passes its input on; other attributes are those of the block.

    `in_tuple`: whether the model expects it as the first of a tuple.
    """

    def __init__(self, block: nn.Module, layer: int, in_tuple: bool) -> None:
        super().__init__()
        object.__setattr__(self, "_block", block)  # no submodule: its weights are not needed
        self._layer, self._in_tuple = layer, in_tuple

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor | tuple[torch.Tensor]:
        """Return the input. A cache gets zeros for as many tokens, because it counts tokens by its first layer."""
        for value in (*args, *kwargs.values()):
            if isinstance(value, Cache):
                nothing = hidden_states.new_zeros(len(hidden_states), 1, hidden_states.shape[1], 1)
                value.update(nothing, nothing, self._layer)
        return (hidden_states,) if self._in_tuple else hidden_states

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_block"), name)


def twin(
    module: nn.Module,
    dtype: torch.dtype | None = None,
    skipped: dict[int, int] | None = None,
    known: dict[int, Any] | None = None,
    in_tuple: bool = False,
) -> Any:
    """Return a copy of the module that shares its weights but not its hooks and wrappers; in another dtype if given.

    `skipped` maps the id of each block to leave out to its layer, `in_tuple` says whether the model's blocks return
    tuples; `known` holds what was copied already, by id, so that tied weights stay tied.
    """
    skipped, known = skipped or {}, {} if known is None else known
    if id(module) in skipped:
        return Skipped(module, skipped[id(module)], in_tuple)
    if id(module) in known:
        return known[id(module)]
    copied = known[id(module)] = copy.copy(module)
    vars(copied).pop("forward", None)  # nnsight puts one on the instance, bound to the original
    for name, value in vars(module).items():
        if "hooks" in name and isinstance(value, dict):
            setattr(copied, name, OrderedDict())
    copied._parameters = {name: converted(p, dtype, known) for name, p in module._parameters.items()}
    copied._buffers = dict(module._buffers)
    copied._modules = {
        name: None if child is None else twin(child, dtype, skipped, known, in_tuple)
        for name, child in module._modules.items()
    }
    return copied


def converted(parameter: nn.Parameter | None, dtype: torch.dtype | None, known: dict[int, Any]) -> nn.Parameter | None:
    """Return the parameter in another dtype; itself where it has it already."""
    if parameter is None or dtype in (None, parameter.dtype) or not parameter.is_floating_point():
        return parameter
    if id(parameter) not in known:
        known[id(parameter)] = nn.Parameter(parameter.to(dtype), requires_grad=False)
    result: nn.Parameter = known[id(parameter)]
    return result
