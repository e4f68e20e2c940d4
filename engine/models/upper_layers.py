"""The layers above a hook point, run again and again from the vectors that enter the hook's block.

They belong to a twin that shares the model's weights, or holds float32 copies of the upper layers' where the model is
in half precision: in bfloat16 a single feature's effect would drown in rounding. The blocks below are left out.
Gradients flow to what is added at the hook point and stop there.

Shape suffixes: B rows, T tokens, D d_model or width of the hooked vector, N scored positions of all rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from transformers import DynamicCache

from engine.models.bare import twin
from engine.models.device import free_bytes
from engine.models.hooks import HookPoint, changed, find_blocks, resolve_hook
from engine.models.language_model import LanguageModel
from engine.records.errors import HookError


@dataclass(frozen=True)
class Past:
    """Keys and values_HTK of one row in every layer from the hook's block on, with nothing added: H heads, K width."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Row:
    """A text's token ids and the vectors entry_TD that enter the hook's block: some families' layers read both."""

    ids: Sequence[int]
    entry_TD: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)


class UpperLayers:
    """The layers from the hook's block on, or the whole model where `whole` is set.

    Raises HookError for a hook point outside the blocks. upper_check.py finds out whether a family's upper layers can
    be run by themselves.
    """

    def __init__(
        self, model: LanguageModel, hook: HookPoint, whole: bool = False, dtype: torch.dtype | None = None
    ) -> None:
        if hook.layer is None:
            raise HookError(
                f"{hook.name} is in none of the model's blocks, so there are no layers above it to run.",
                "Give --hook a hook point inside a block, such as blocks.15.hook_resid_pre.",
            )
        self.hook = hook
        self.entry = resolve_hook(model.module, f"blocks.{hook.layer}.hook_resid_pre")
        """What enters the hook's block: where a run starts."""
        path, blocks = find_blocks(model.module)
        below = [] if whole else list(blocks)[: hook.layer]
        self.dtype = dtype or dtype_for(model, list(blocks)[len(below) :])
        self.whole = whole
        self.with_past = not whole
        """Whether a run may go on from the rows' past."""
        self._first = hook.layer
        skipped = {id(block): n for n, block in enumerate(below)}
        self._module = twin(model.module, self.dtype, skipped, in_tuple=bool(below) and in_tuples(model, below[0]))
        self._block = self._module.get_submodule(f"{path}.{hook.layer}")
        self._hooked = self._module.get_submodule(hook.path)
        self._head = self._module.get_output_embeddings()
        self.device = model.device

    def logits(
        self,
        rows: Sequence[Row],
        delta: Sequence[torch.Tensor | None] | torch.Tensor,
        keep: Sequence[Sequence[int]],
        past: Sequence[Past] = (),
        start: int = 0,
    ) -> torch.Tensor:
        """Return logits_NV in float32 or better after the positions `keep` of each row, row by row.

        `delta`: what is added to the hooked vectors_TD of each row (None: nothing), or delta_BTD of all rows. Where
        nothing is added or kept before position `start`, the rows' `past` can stand for what is before it: then only
        the rest is run.
        """
        start = start if self.with_past else 0
        ids_BT, entry_BTD, mask_BT = self._padded(rows)
        keep_BT = torch.zeros_like(mask_BT)
        for b, positions in enumerate(keep):
            keep_BT[b, list(positions)] = True

        def change(h_BTD: torch.Tensor) -> torch.Tensor:
            if isinstance(delta, torch.Tensor):
                return h_BTD + delta.to(h_BTD.dtype)
            if all(d is None for d in delta):
                return h_BTD
            changed_BTD = h_BTD.clone()
            for b, delta_TD in enumerate(delta):
                if delta_TD is not None:
                    changed_BTD[b, : len(delta_TD) - start] += delta_TD[start:].to(h_BTD.dtype)
            return changed_BTD

        entering = self._entering(entry_BTD[:, start:])
        with entering, changed(self._hooked, self.hook, change), only(self._head, keep_BT[:, start:]):
            out = self._module(
                input_ids=ids_BT[:, start:],
                attention_mask=mask_BT.long(),
                past_key_values=self._cache(past, start) if start else None,
                use_cache=start > 0,
            )
        logits_NV: torch.Tensor = out.logits[0].to(torch.promote_types(self.dtype, torch.float32))
        return logits_NV

    def _cache(self, past: Sequence[Past], start: int) -> DynamicCache:
        """Return a cache of the rows' past before `start`, for a run that continues there."""
        cache = DynamicCache()  # without the model's configuration, with which sliding-window layers would drop tokens
        nothing = torch.zeros(len(past), 1, start, 1, device=self.device)
        for layer in range(self._first):
            cache.update(nothing, nothing, layer)
        for n in range(len(past[0].layers)):
            keys, values = (torch.stack([row.layers[n][side][:, :start] for row in past]) for side in (0, 1))
            cache.update(keys, values, self._first + n)
        return cache

    @torch.inference_mode()
    def remember(self, row: Row) -> Past:
        """Return a row's past, with nothing added; an empty one where runs do not go on from it."""
        if not self.with_past:
            return Past([])
        cache = DynamicCache()
        ids_BT, entry_BTD, _ = self._padded([row])
        with self._entering(entry_BTD):
            self._module(input_ids=ids_BT, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return Past([(layer.keys[0], layer.values[0]) for layer in cache.layers[self._first :]])

    @torch.inference_mode()
    def hooked(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """Return the hooked vectors_TD of rows, in float32."""
        if not self.whole and self.hook.path == self.entry.path and self.hook.side == self.entry.side:
            return [row.entry_TD.float() for row in rows]
        seen: list[torch.Tensor] = []

        def look(h_BTD: torch.Tensor) -> torch.Tensor:
            seen.append(h_BTD.float().clone())
            return h_BTD

        ids_BT, entry_BTD, mask_BT = self._padded(rows)
        with self._entering(entry_BTD), changed(self._hooked, self.hook, look):
            # no logits are needed: ask for those of one position, by its index (see steps.py)
            place = torch.zeros(1, dtype=torch.long, device=self.device)
            self._module(input_ids=ids_BT, attention_mask=mask_BT.long(), use_cache=False, logits_to_keep=place)
        return [seen[0][b, : len(row)] for b, row in enumerate(rows)]

    def _entering(self, entry_BTD: torch.Tensor) -> AbstractContextManager[None]:
        """Inside, the hook's block is given these vectors; a run of the whole model makes its own."""
        return nullcontext() if self.whole else changed(self._block, self.entry, lambda _: entry_BTD)

    def _padded(self, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """ids_BT, entry_BTD and mask_BT of rows."""
        entry_BTD, mask_BT = padded([row.entry_TD for row in rows], self.dtype)
        ids = [torch.tensor(list(row.ids), dtype=torch.long, device=self.device) for row in rows]
        return nn.utils.rnn.pad_sequence(ids, batch_first=True), entry_BTD, mask_BT


@torch.inference_mode()
def in_tuples(model: LanguageModel, block: nn.Module) -> bool:
    """Whether the blocks return tuples, of which the model takes the first: seen on one token."""
    seen: list[bool] = []
    handle = block.register_forward_hook(lambda _, __, output: seen.append(isinstance(output, tuple)))
    try:
        model.module(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)
    finally:
        handle.remove()
    return any(seen)


@contextmanager
def only(head: nn.Module, keep_BT: torch.Tensor) -> Iterator[None]:
    """Inside, the unembedding sees only the vectors of these positions, of all rows in one: its logits are (1, N, V).

    transformers' own `logits_to_keep` takes the same positions for every row in 5.17, a version that pyproject admits.
    """

    def select(_: nn.Module, args: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return args[0][keep_BT][None]

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def padded(rows: Sequence[torch.Tensor], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows_BTD padded on the right, and mask_BT: causal attention keeps the padding from the real tokens."""
    rows_BTD = nn.utils.rnn.pad_sequence([row.to(dtype) for row in rows], batch_first=True)
    length_B = torch.tensor([len(row) for row in rows], device=rows_BTD.device)
    return rows_BTD, torch.arange(rows_BTD.shape[1], device=rows_BTD.device) < length_B[:, None]


def dtype_for(model: LanguageModel, upper: Sequence[nn.Module]) -> torch.dtype:
    """Return float32, or the model's dtype where a float32 copy of the upper layers does not fit into free memory."""
    if model.dtype == torch.float32:
        return torch.float32
    num = sum(p.numel() for block in upper for p in block.parameters())
    num += sum(p.numel() for p in model.module.get_output_embeddings().parameters())
    free = free_bytes(model.device)
    return torch.float32 if free is None or 4 * num < 0.8 * free else model.dtype
