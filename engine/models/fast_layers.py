"""Faster stand-ins for a model's layers, used only where they were seen to compute the same.

On a CPU in bfloat16: linear layers with weights in the order that oneDNN multiplies in. torch hands oneDNN plain
weights, which oneDNN reorders for every product: with one to three rows, as in decoding, that takes as long again as
the product. The packed weights are a second copy, so they are made only where there is plenty of memory; the products
are the same, bit for bit, which is checked for each layer.

On a GPU: a step of one token per row is bound by reading the weights once, unless small kernels stand between the large
ones. transformers writes an RMS norm as eight operations; torch has one kernel for it, which rounds once where those
round twice. The query, key and value projections of a layer read the same vector: as one product over their joined rows
they reach the memory's rate, which the small products do not. No weight is held twice: the layers' own weights become
views of the joined ones. Agreement is up to rounding.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, List, Optional, Union  # noqa: UP035 - what TorchScript reads

import torch
from torch import nn

from engine.models.device import free_bytes

log = logging.getLogger("saescope")

PACKED_ROWS = 3
"""Number of rows that the packed order is best for: those of a text without variants or samples."""

SHARE_OF_FREE = 0.25
"""Largest share of the free memory that the packed copy may take."""


def _product(x: torch.Tensor, weight: torch.Tensor, bias: Optional[torch.Tensor]) -> torch.Tensor:  # noqa: UP045
    nothing: List[Optional[Union[int, float, complex]]] = []  # noqa: UP006, UP007, UP045
    output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", nothing, "")
    return output


@cache
def product() -> Any:
    """Return the product x W^T + b with packed W, as a script: a trace cannot express the operation's list argument."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripts are deprecated
        return torch.jit.script(_product)


class PackedLinear(nn.Module):
    """Stands in for a linear layer, with packed weights."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("weight", torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), PACKED_ROWS))
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the linear layer would return."""
        output: torch.Tensor = product()(x, self.weight, self.bias)
        return output


@torch.inference_mode()
def pack(model: nn.Module) -> nn.Module:
    """Replace a model's linear layers by packed ones, where that helps and there is room; return the model."""
    linear = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and child.weight.dtype == torch.bfloat16 and child.weight.device.type == "cpu"
    ]
    size = sum(child.weight.numel() * child.weight.element_size() for _, _, child in linear)
    free = free_bytes(torch.device("cpu"))
    if not linear or (free is not None and size > SHARE_OF_FREE * free):
        return model
    try:
        packed = [(parent, name, child, PackedLinear(child)) for parent, name, child in linear]
        if all(same_bits(child, stand_in) for _, _, child, stand_in in packed):
            for parent, name, _, stand_in in packed:
                setattr(parent, name, stand_in)
    except (RuntimeError, AttributeError):  # a torch without oneDNN, or one that packs otherwise
        log.info("linear layers are not packed", exc_info=True)
    return model


def same_bits(linear: nn.Linear, packed: PackedLinear) -> bool:
    """Return whether both layers compute the same bits for two rows."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 1, linear.in_features, generator=generator).to(linear.weight.dtype)
    return torch.equal(linear(x), packed(x))


DEVICES = ("cuda",)

PROJECTIONS = ("q_proj", "k_proj", "v_proj")

ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2**-6, torch.float16: 2**-9}
"""How far a stand-in may be off, relative to the largest number: two roundings of the dtype, or a reordered sum."""


class FusedNorm(nn.Module):
    """Stands in for an RMS norm y = x / rms(x) * weight."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight: nn.Parameter = norm.weight  # type: ignore[assignment]
        self.eps = float(norm.variance_epsilon)  # type: ignore[arg-type]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return the normalised vectors, in their dtype."""
        return nn.functional.rms_norm(hidden_states, self.weight.shape, self.weight, self.eps)


class Joined:
    """Linear layers over the same input, computed as one product; their weights become views of the joined weight."""

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        self.weight = torch.cat([linear.weight.detach() for linear in linears])
        biases = [linear.bias.detach() for linear in linears if linear.bias is not None]
        self.bias = torch.cat(biases) if biases else None
        self.sizes = [linear.out_features for linear in linears]
        for linear, rows in zip(linears, torch.split(self.weight, self.sizes), strict=True):
            linear.weight.data = rows
        self._input: torch.Tensor | None = None
        self._outputs: list[torch.Tensor | None] = []

    def output(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """Return layer `index`'s output for x. The product is kept until every layer has asked for its part of it."""
        part = self._outputs[index] if self._input is x else None
        if part is None:
            self._input = x
            self._outputs = list(torch.split(nn.functional.linear(x, self.weight, self.bias), self.sizes, dim=-1))
            part = self._outputs[index]
        self._outputs[index] = None
        if not any(output is not None for output in self._outputs):
            self._input = None
        assert part is not None
        return part


class JoinedLinear(nn.Module):
    """Stands in for one of the linear layers of a Joined."""

    def __init__(self, joined: Joined, index: int, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self._joined, self._index = joined, index

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the linear layer would return."""
        return self._joined.output(self._index, x)


@torch.no_grad()
def fuse(model: nn.Module) -> nn.Module:
    """Replace a model's norms by fused and its projections by joined ones, unless on a CPU; return the model."""
    if next(model.parameters()).device.type not in DEVICES:
        return model
    for parent, name, norm in list(norms(model)):
        fused = FusedNorm(norm)
        if alike([norm], [fused], fused.weight.numel()):
            setattr(parent, name, fused)
    for attention, linears in list(projections(model)):
        joined = Joined(linears)
        stand_ins = [JoinedLinear(joined, index, linear) for index, linear in enumerate(linears)]
        if alike(linears, stand_ins, linears[0].in_features):
            for name, stand_in in zip(PROJECTIONS, stand_ins, strict=True):
                setattr(attention, name, stand_in)
    return model


def norms(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Yield parent, name and module of each norm that says it is an RMS norm over the last dimension."""
    for parent in model.modules():
        for name, child in parent.named_children():
            weight = getattr(child, "weight", None)
            plain = isinstance(weight, nn.Parameter) and weight.ndim == 1 and hasattr(child, "variance_epsilon")
            if plain and type(child).__name__.endswith("RMSNorm"):
                yield parent, name, child


def projections(model: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Linear]]]:
    """Yield each attention module whose query, key and value are plain linear layers, and these layers."""
    for module in model.modules():
        linears = [child for name in PROJECTIONS if type(child := getattr(module, name, None)) is nn.Linear]
        if len(linears) == len(PROJECTIONS) and len({linear.bias is None for linear in linears}) == 1:
            yield module, linears


def alike(modules: Sequence[nn.Module], stand_ins: Sequence[nn.Module], width: int) -> bool:
    """Return whether the stand-ins agree with the modules up to rounding, on two rows of random numbers."""
    weight: torch.Tensor = modules[0].weight  # type: ignore[assignment]
    x = torch.randn(2, 1, width, generator=torch.Generator().manual_seed(0)).to(weight.device, weight.dtype)
    for module, stand_in in zip(modules, stand_ins, strict=True):
        expected, actual = module(x).float(), stand_in(x).float()
        if not (actual - expected).abs().max() <= ROUNDING.get(weight.dtype, 0.0) * expected.abs().max():
            log.info("%s is not fused: what stands in for it differs", type(module).__name__)
            return False
    return True
