"""Linear layers with weights in the order that oneDNN multiplies in, for bfloat16 on a CPU.

torch hands oneDNN plain weights, which then takes them apart anew for every product: of one to three rows, as in
decoding, that costs as much again as the product. The packed weights are a second copy, so they are made only where
memory is plenty; the products are the same, bit for bit, which is checked for each layer.
"""

from __future__ import annotations

import logging
import warnings
from functools import cache
from typing import Any, List, Optional, Union  # noqa: UP035 - what TorchScript reads

import torch
from torch import nn

from engine.sources import memory

log = logging.getLogger("saescope")

ROWS = 3
"""How many rows the order is best for: those of a text without variants or samples."""
SHARE_OF_FREE = 0.25
"""The copy may take so much of the memory that is free."""


def _product(x: torch.Tensor, weight: torch.Tensor, bias: Optional[torch.Tensor]) -> torch.Tensor:  # noqa: UP045
    nothing: List[Optional[Union[int, float, complex]]] = []  # noqa: UP006, UP007, UP045
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", nothing, "")
    return found


@cache
def product() -> Any:
    """The product x W^T + b with packed W. As a script, for a trace does not know the operation's list."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripts are deprecated
        return torch.jit.script(_product)


class PackedLinear(nn.Module):
    """Stands in for a linear layer."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("weight", torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS))
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Like the layer it stands in for."""
        found: torch.Tensor = product()(x, self.weight, self.bias)
        return found


@torch.inference_mode()
def pack(model: nn.Module) -> nn.Module:
    """Puts packed layers in place of a model's linear ones, where that is of use and there is room; returns it."""
    linear = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and child.weight.dtype == torch.bfloat16 and child.weight.device.type == "cpu"
    ]
    size = sum(child.weight.numel() * child.weight.element_size() for _, _, child in linear)
    free = memory.free_bytes(torch.device("cpu"))
    if not linear or (free is not None and size > SHARE_OF_FREE * free):
        return model
    try:
        packed = [(parent, name, child, PackedLinear(child)) for parent, name, child in linear]
        if all(same(child, stand_in) for _, _, child, stand_in in packed):
            for parent, name, _, stand_in in packed:
                setattr(parent, name, stand_in)
    except (RuntimeError, AttributeError):  # a torch without oneDNN, or one that packs otherwise
        log.info("linear layers are not packed", exc_info=True)
    return model


def same(linear: nn.Linear, packed: PackedLinear) -> bool:
    """Whether both come to the same bits, of two rows."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 1, linear.in_features, generator=generator).to(linear.weight.dtype)
    return torch.equal(linear(x), packed(x))
