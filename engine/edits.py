"""Edits of the hooked vector: h' = h + u * sum_i (f'_i - f_i) * D_i, the SAE's error term kept.

f' = scale * f per edited feature; scale 0 ablates. Bit-exact where f' = f, and zero where the feature is silent.
BOS and attention sinks are never edited. Formulas: the README's section on edits.

Shape suffixes: B batch rows, T tokens, D width of the hooked vector, K edited features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import Any

import torch
from torch import nn

from engine.errors import EditError
from engine.hooks import HookPoint
from engine.model import LanguageModel
from engine.records import Edit
from engine.sae import SparseAutoencoder

Change = Callable[[torch.Tensor], torch.Tensor]
"""From the hooked vectors h_BTD to what is to stand in their place."""


class ResidualEditor:
    """Applies edits at the hook point to chosen rows of a batch, inside `applied()`.

    Before each forward pass call `expect` with that pass's token ids.
    """

    def __init__(
        self, model: LanguageModel, sae: SparseAutoencoder, hook: HookPoint, edits: Sequence[Edit], sink_norm: float
    ) -> None:
        self.model, self.sae, self.hook, self.sink_norm = model, sae, hook, sink_norm
        self.set_edits(edits)
        self._rows_B = torch.zeros(0, dtype=torch.bool)
        self._editable_BT = torch.zeros(0, 0, dtype=torch.bool)
        self.num_edited_positions = 0
        self.num_inactive_positions = 0

    def set_edits(self, edits: Sequence[Edit]) -> None:
        """Puts other edits in force from the next pass on; positions counted so far stay counted. Raises EditError."""
        check_edits(edits)
        self.columns = self.sae.columns([edit.feature for edit in edits])
        self.gain_K = torch.tensor([edit.strength - 1 for edit in edits], device=self.model.device)
        self.edits = tuple(edits)

    def expect(self, ids_BT: torch.Tensor, rows_B: torch.Tensor, count_row: int | None = None) -> None:
        """Announces the next forward pass: its ids, which rows are edited, and which row's positions to count."""
        self._rows_B = rows_B
        self._editable_BT = torch.ones_like(ids_BT, dtype=torch.bool)
        if self.model.tokens.bos is not None:
            self._editable_BT = ids_BT != self.model.tokens.bos
        self._count_row = count_row

    def edit(self, h_BTD: torch.Tensor) -> torch.Tensor:
        """h' for the announced pass; rows and positions that are not edited come back bit for bit."""
        if not self.columns.features:
            return h_BTD
        scaled = self.sae.normalise(h_BTD)
        f_BTK = self.sae.encode_features(scaled.x_TD, self.columns)
        delta_BTD = scaled.u_T1 * ((f_BTK * self.gain_K) @ self.columns.w_dec_KD)
        is_sink_BT = h_BTD.float().norm(dim=-1) > self.sink_norm
        allowed_BT = self._editable_BT & ~is_sink_BT & self._rows_B[:, None]
        active_BT = allowed_BT & (f_BTK > 0).any(-1)
        if self._count_row is not None:
            allowed = int(allowed_BT[self._count_row].sum())
            self.num_edited_positions += allowed
            self.num_inactive_positions += allowed - int(active_BT[self._count_row].sum())
        return torch.where(active_BT[..., None], (h_BTD.float() + delta_BTD).to(h_BTD.dtype), h_BTD)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, every forward pass of the model is edited; the hook is gone afterwards, whatever happens."""
        with changed(self.model.hooked_module(self.hook), self.hook, self.edit):
            yield


@contextmanager
def changed(module: nn.Module, hook: HookPoint, change: Change) -> Iterator[None]:
    """Inside, what passes the hook point, which is at `module`, is put through `change`, in every forward pass."""

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


def check_edits(edits: Sequence[Edit]) -> None:
    """Raises EditError for two edits of one feature or a scale that is not a number."""
    seen: set[int] = set()
    for edit in edits:
        if edit.feature in seen:
            raise EditError(f"Feature {edit.feature} is edited twice.", "Give each feature one edit.")
        if not isfinite(edit.strength):
            raise EditError(
                f"Feature {edit.feature}: the scale {edit.strength} is not a number.", "Give a finite number."
            )
        seen.add(edit.feature)
