"""Twins of a model: modules of their own, without anybody's hooks or wrappers, that share the model's weights.

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
    """A block that passes on what it is given; whatever else the model asks of it the block itself answers."""

    def __init__(self, block: nn.Module, layer: int) -> None:
        super().__init__()
        object.__setattr__(self, "_block", block)  # no submodule: its weights are not needed
        self._layer = layer

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """What came in. A cache is told how much that was, for it counts tokens by its first layer."""
        for value in (*args, *kwargs.values()):
            if isinstance(value, Cache):
                nothing = hidden_states.new_zeros(len(hidden_states), 1, hidden_states.shape[1], 1)
                value.update(nothing, nothing, self._layer)
        return hidden_states

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_block"), name)


def twin(
    module: nn.Module,
    dtype: torch.dtype | None = None,
    skipped: dict[int, int] | None = None,
    known: dict[int, Any] | None = None,
) -> Any:
    """A module of the same structure and weights, with hooks and wrappers of its own; in another dtype if one is given.

    `skipped`: the layer of each block that is left out, by id; `known`: what was copied already, so that tied weights
    stay tied.
    """
    skipped, known = skipped or {}, {} if known is None else known
    if id(module) in skipped:
        return Skipped(module, skipped[id(module)])
    if id(module) in known:
        return known[id(module)]
    found = known[id(module)] = copy.copy(module)
    vars(found).pop("forward", None)  # nnsight puts one on the instance, bound to the original
    for name, value in vars(module).items():
        if "hooks" in name and isinstance(value, dict):
            setattr(found, name, OrderedDict())
    found._parameters = {name: converted(p, dtype, known) for name, p in module._parameters.items()}
    found._buffers = dict(module._buffers)
    found._modules = {
        name: None if child is None else twin(child, dtype, skipped, known) for name, child in module._modules.items()
    }
    return found


def converted(parameter: nn.Parameter | None, dtype: torch.dtype | None, known: dict[int, Any]) -> nn.Parameter | None:
    """The parameter in another dtype; itself where it has it already."""
    if parameter is None or dtype in (None, parameter.dtype) or not parameter.is_floating_point():
        return parameter
    if id(parameter) not in known:
        known[id(parameter)] = nn.Parameter(parameter.to(dtype), requires_grad=False)
    found: nn.Parameter = known[id(parameter)]
    return found
