"""Edits of the hooked vectors, in float32, row by row of a batch.

h is the vector, f the SAE's activations, u and mu the scale and mean that undo its input normalisation, D a decoder row
as applied, M the feature's maximum and r the median of u on the reference text:

    scale        h + u (s f - f) D              the SAE's error term stays; nothing changes where f is 0
    set          h + u (v M - f) D
    steer        h + a M r D
    reconstruct  h becomes u (sum f' D + b_dec) + mu of all features, f' as edited: the error term is lost
    project      h + U (K - I) U+ (h - u b_dec - mu), U the unit decoder directions, K = diag(k)

In a list of several, scale and set read f as it is before any edit; steering follows, then projection. A TopK is not
run again after an edit. An edit acts at its positions; BOS and attention sinks are spared, except by `first-step`.

A pass of one token per row depends only on tensors, which keep their addresses while edits change, so that a captured
step follows the edits.

Shape suffixes: B rows, T tokens, D width of the hooked vector, K slots, F features of the SAE, N numbers or rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from engine.generation.edit_tensors import (
    ALLOWED,
    ALWAYS,
    GAIN,
    GENERATED,
    KINDS,
    LAST,
    LEVEL,
    OFFSET,
    PROJECTED,
    PROMPT,
    RECONSTRUCTED,
    STEER,
    Shape,
    Slots,
    Static,
)
from engine.models.hooks import HookPoint, changed
from engine.models.language_model import LanguageModel
from engine.models.pair import Pair
from engine.models.reference import Reference
from engine.models.sae import TOKENS_PER_BLOCK, Normalised, SparseAutoencoder
from engine.records import Edit

__all__ = ["GENERATED", "LAST", "PROMPT", "ResidualEditor", "changed"]


class ResidualEditor:
    """Applies one edit list per row of a batch at the hook point, inside `applied()`; () leaves a row unedited.

    Call `expect` before each forward pass with what the pass reads. Raises EditError for edits that cannot be applied.
    """

    def __init__(
        self,
        model: LanguageModel,
        sae: SparseAutoencoder,
        hook: HookPoint,
        reference: Reference,
        rows: Sequence[Sequence[Edit]],
    ) -> None:
        self.model, self.sae, self.hook, self.sink_norm = model, sae, hook, reference.sink_norm
        self._slots = Slots(sae, reference, len(rows))
        self._all_B = self._row_B = torch.arange(len(rows), device=sae.w_enc_DF.device)
        self._ids_BT = self._kind_BT = torch.zeros(len(rows), 0, dtype=torch.long)
        self._in_prompt = False
        self.allowed_BT = self.active_BT = torch.zeros(len(rows), 0, dtype=torch.bool)
        self.set_rows(rows)

    @property
    def rows(self) -> tuple[tuple[Edit, ...], ...]:
        """The edits in force, with `absolute` filled in where their kind has a unit."""
        return self._slots.rows

    @property
    def shape(self) -> Shape:
        """What a captured step depends on besides the contents of `tensors`."""
        return self._slots.shape

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All that set_rows writes and `edit` reads; their addresses stay the same as long as `shape` does."""
        return tuple(self._slots.static)

    def set_rows(self, rows: Sequence[Sequence[Edit]]) -> None:
        """Put other edits in force from the next pass on. Raises EditError, and then changes nothing."""
        self._slots.write(rows)

    def expect(
        self,
        ids_BT: torch.Tensor,
        kind_BT: torch.Tensor,
        in_prompt: bool | None = None,
        row_B: torch.Tensor | None = None,
    ) -> None:
        """Announce the next pass: its token ids and the kind of each position (PROMPT, LAST, GENERATED).

        `in_prompt` says whether some positions may belong to the prompt; None means: if there are several tokens per
        row. Such a pass takes paths that are faster for many tokens but cannot be captured. `row_B` says whose edits
        each row is under, for a pass that is not of all rows in order.
        """
        self._ids_BT, self._kind_BT = ids_BT, kind_BT
        self._row_B = self._all_B if row_B is None else row_B
        self._in_prompt = ids_BT.shape[1] > 1 if in_prompt is None else in_prompt

    def edit(self, h_BTD: torch.Tensor) -> torch.Tensor:
        """Return h' of the announced pass; rows and positions where no edit acts come back bit for bit."""
        if self._in_prompt and not any(self.rows):
            self.allowed_BT = self.active_BT = torch.zeros(h_BTD.shape[:2], dtype=torch.bool, device=h_BTD.device)
            return h_BTD
        static = self._slots.static
        h32_BTD = h_BTD.float()
        at_N = self._classes(h32_BTD).flatten()
        shape_BT = h_BTD.shape[:2]
        flags_BTN = static.flags.index_select(0, at_N).view(*shape_BT, -1)
        numbers_BTNK = static.numbers.index_select(0, at_N).view(*shape_BT, 4, -1)
        scaled = self.sae.normalise(h32_BTD)
        f_BTK = self._activations(scaled.x_TD, static)
        change_BTK = torch.addcmul(numbers_BTNK[..., OFFSET, :], numbers_BTNK[..., GAIN, :], f_BTK)
        weight_BTK = torch.addcmul(numbers_BTNK[..., STEER, :], change_BTK, scaled.u_T1)
        base_BTD = h32_BTD
        if self._reconstructs():
            whole_BTD = self._reconstructed(h32_BTD, scaled)
            base_BTD = torch.where(flags_BTN[..., RECONSTRUCTED, None], whole_BTD, h32_BTD)
        edited_BTD = base_BTD + weight_BTK @ static.w_dec_KD
        if static.analysis_BDP.shape[-1]:
            centred_BTD = edited_BTD - scaled.u_T1 * self.sae.b_dec_D - scaled.mu_T1
            part_BTP = centred_BTD @ static.analysis_BDP[self._row_B]
            projected_BTD = edited_BTD + part_BTP @ static.synthesis_BPD[self._row_B]
            edited_BTD = torch.where(flags_BTN[..., PROJECTED, None], projected_BTD, edited_BTD)
        self.allowed_BT = flags_BTN[..., ALLOWED]
        self.active_BT = flags_BTN[..., ALWAYS] | (f_BTK > numbers_BTNK[..., LEVEL, :]).any(-1)
        touched_BT = (weight_BTK != 0).any(-1) | flags_BTN[..., PROJECTED:].any(-1)
        return torch.where(touched_BT[..., None], edited_BTD.to(h_BTD.dtype), h_BTD)

    def _classes(self, h_BTD: torch.Tensor) -> torch.Tensor:
        """Return for each position which row of `numbers` and `flags` holds for it."""
        spared_BT = h_BTD.norm(dim=-1) > self.sink_norm
        if self.model.tokens.bos is not None:
            spared_BT = spared_BT | (self._ids_BT == self.model.tokens.bos)
        return torch.add(self._kind_BT + self._row_B[:, None] * (2 * KINDS), spared_BT, alpha=KINDS)

    def _activations(self, x_BTD: torch.Tensor, static: Static) -> torch.Tensor:
        """Return f_BTK of the slots, from normalised vectors."""
        if self.sae.config.encoder != "topk":
            a_BTK = x_BTD @ static.w_enc_DK + static.b_K
            return a_BTK * (a_BTK > static.level_K)
        capacity = len(static.b_K)
        if not self.shape.encodes:
            return x_BTD.new_zeros(*x_BTD.shape[:2], capacity)
        parts = []
        for x_TD in torch.split(x_BTD.flatten(0, 1), TOKENS_PER_BLOCK):
            value_Tk, feature_Tk = self.sae.top_k(x_TD)
            # a column after the slots' takes the features that have no slot
            f_TK = value_Tk.new_zeros(len(x_TD), capacity + 1)
            parts.append(f_TK.scatter_(1, static.slot_F[feature_Tk], value_Tk.clamp(min=0))[:, :capacity])
        return torch.cat(parts).view(*x_BTD.shape[:2], capacity)

    def _reconstructs(self) -> bool:
        """Return whether the announced pass may hold positions to reconstruct."""
        if not self._in_prompt:
            return self.shape.reconstructs
        return any(edit.kind == "reconstruct" for row in self.rows for edit in row)

    def _reconstructed(self, h_BTD: torch.Tensor, scaled: Normalised) -> torch.Tensor:
        """Return the SAE's reconstruction of the vectors, unedited; in a prompt only of rows with such an edit."""
        if not self._in_prompt:
            sum_TD = decoded(self.sae, scaled.x_TD.flatten(0, 1))
            return sum_TD.view(h_BTD.shape) * scaled.u_T1 + scaled.mu_T1
        whole_BTD = h_BTD.clone()
        for b, row in enumerate(self._row_B.tolist()):
            if any(edit.kind == "reconstruct" for edit in self.rows[row]):
                whole_BTD[b] = self.sae.reconstruct(h_BTD[b])[0]
        return whole_BTD

    @contextmanager
    def applied(self, module: nn.Module | None = None) -> Iterator[None]:
        """Inside, edit every pass through the module at the hook; the hook is removed afterwards, whatever happens.

        `module`: None for the model's own.
        """
        with changed(module or self.model.hooked_module(self.hook), self.hook, self.edit):
            yield


def make_editor(pair: Pair, rows: Sequence[Sequence[Edit]]) -> ResidualEditor:
    """Make an editor at the pair's site for a batch with one edit list per row. Raises EditError."""
    site = pair.site
    return ResidualEditor(pair.model, site.sae, site.writes_at, site.reference, rows)


def decoded(sae: SparseAutoencoder, x_TD: torch.Tensor) -> torch.Tensor:
    """Return f D + b_dec of a few normalised vectors, from dense feature blocks: no shape depends on what fires."""
    if sae.config.encoder == "topk":
        value_Tk, feature_Tk = sae.top_k(x_TD)
        value_Tk = value_Tk.clamp(min=0)
        if sae.norm_F is not None:
            value_Tk = value_Tk / sae.norm_F[feature_Tk]
        return sae.b_dec_D + (value_Tk[:, None] @ sae.w_dec_FD[feature_Tk].float())[:, 0]
    sum_TD = sae.b_dec_D.repeat(len(x_TD), 1)
    for features in sae.blocks():
        f_TF = sae.activate(sae.pre_activations(x_TD, features), features)
        if sae.norm_F is not None:
            f_TF = f_TF / sae.norm_F[features]
        sum_TD.addmm_(f_TF, sae.w_dec_FD[features].float())
    return sum_TD
