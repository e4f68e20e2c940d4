"""Edit lists of a batch's rows as tensors that a forward pass reads: written when edits change, at fixed addresses.

A slot is a feature with an edit, in some row, whose kind takes a slot (EDIT_KINDS), such as scale, set and steer. Its
encoder is folded into one form, whatever the SAE's is:

    a = x w + b,  f = a if a > level else 0

where w and b include the gain of a gated encoder, or the decoder's norm where activations are rescaled. A topk encoder
has to look at all features; `slot_F` then says which of them have slots. What row b does with slot k depends on the
class c of the position: its kind, and whether it is a BOS or a sink.

Shape suffixes: B rows, C classes of positions, D width of the hooked vector, F features of the SAE, K slots,
P projected directions of a row, N numbers per row, class and slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import NamedTuple

import numpy as np
import torch
from msgspec.structs import replace

from engine.models.reference import Reference
from engine.models.sae import FeatureColumns, SparseAutoencoder
from engine.records import NO_FEATURE, Edit, Positions
from engine.records.edits import EDIT_KINDS, ZERO, SlotMaths, amount_of, has_no_amount
from engine.records.errors import EditError

PROMPT, LAST, GENERATED = 0, 1, 2
"""Kinds of positions: in the prompt before its last token, the prompt's last token, a generated token fed back."""

KINDS = 3

CLASSES: dict[Positions, tuple[int, ...]] = {
    "all": (PROMPT, LAST, GENERATED),
    "prompt": (PROMPT, LAST),
    "generated": (GENERATED,),
    "last": (LAST,),
    "first-step": (PROMPT, LAST, KINDS + PROMPT, KINDS + LAST),
}
"""The classes of positions at which an edit acts; a BOS or a sink has the class KINDS + its kind."""

GAIN, OFFSET, STEER, LEVEL = 0, 1, 2, 3
"""Numbers per row, class and slot: (u * (gain * f + offset) + steer) D is added; f above the level means that the edit
has something to act on."""

ALLOWED, ALWAYS, PROJECTED, RECONSTRUCTED = 0, 1, 2, 3
"""Flags per row and class: an edit may act; one acts whatever the features do; one projects; one reconstructs."""

LARGEST = torch.finfo(torch.float32).max

FIRST_SLOTS, FIRST_DIRECTIONS = 64, 8
"""First capacities, doubled when they do not suffice; that of directions is 0 until some are projected."""


class Shape(NamedTuple):
    """What a pass depends on besides the contents of its tensors."""

    slots: int
    """Capacity for slots."""
    directions: int
    """Capacity for projected directions per row."""
    reconstructs: bool
    """Whether a generated token may be reconstructed."""
    encodes: bool
    """Whether a topk encoder has to look at all features, because there are slots."""


class Static(NamedTuple):
    """All tensors of the edits that a pass reads."""

    w_enc_DK: torch.Tensor
    b_K: torch.Tensor
    level_K: torch.Tensor
    slot_F: torch.Tensor
    """The slot of each feature, K for none; empty unless the encoder is topk."""
    w_dec_KD: torch.Tensor
    """Decoder rows as they are applied."""
    numbers: torch.Tensor
    """(B * C, N * K), float32."""
    flags: torch.Tensor
    """(B * C, flags), bool."""
    analysis_BDP: torch.Tensor
    """An orthonormal basis of each row's projected directions."""
    synthesis_BPD: torch.Tensor
    """What is added per unit of each coordinate in that basis."""


class Slots:
    """The tensors of a batch's edits; `static` keeps its addresses as long as `shape` is the same."""

    def __init__(self, sae: SparseAutoencoder, reference: Reference, num_rows: int) -> None:
        self.sae, self.reference, self.num_rows = sae, reference, num_rows
        self.rows: tuple[tuple[Edit, ...], ...] = ((),) * num_rows
        self.shape = Shape(FIRST_SLOTS, 0, False, False)
        self.static = self._empty(FIRST_SLOTS, 0)

    def write(self, rows: Sequence[Sequence[Edit]]) -> None:
        """Put one edit list per row in force. Raises EditError, and then changes nothing."""
        if len(rows) != self.num_rows:
            raise ValueError(f"{len(rows)} lists of edits for {self.num_rows} rows")
        new_rows = tuple(tuple(settle(edit, self.reference, self.sae) for edit in checked(row)) for row in rows)
        features = sorted({edit.feature for row in new_rows for edit in row if EDIT_KINDS[edit.kind].slot})
        columns = self.sae.columns(features)
        projections = [self._projection([edit for edit in row if edit.kind == "project"]) for row in new_rows]
        capacity = grown(self.shape.slots, len(features), FIRST_SLOTS)
        directions = grown(self.shape.directions, max(p.shape[1] for p, _ in projections), FIRST_DIRECTIONS)
        if (capacity, directions) != self.shape[:2]:
            self.static = self._empty(capacity, directions)
        self._write_slots(columns)
        self._write_rows(new_rows, features)
        for b, (analysis_DP, synthesis_PD) in enumerate(projections):
            self.static.analysis_BDP[b, :, : analysis_DP.shape[1]] = analysis_DP
            self.static.synthesis_BPD[b].zero_()[: len(synthesis_PD)] = synthesis_PD
        later = any(e.kind == "reconstruct" and GENERATED in CLASSES[e.at] for row in new_rows for e in row)
        encodes = self.sae.config.encoder == "topk" and bool(features)
        self.rows, self.shape = new_rows, Shape(capacity, directions, later, encodes)

    @torch.inference_mode(False)  # an inference tensor could not be written outside that mode
    def _empty(self, capacity: int, directions: int) -> Static:
        """Return tensors with which nothing is edited."""
        sae, num_classes = self.sae, self.num_rows * 2 * KINDS
        device = sae.w_enc_DF.device
        size_F = sae.d_sae if sae.config.encoder == "topk" else 0
        return Static(
            w_enc_DK=torch.zeros(sae.d_in, capacity, device=device),
            b_K=torch.zeros(capacity, device=device),
            level_K=torch.zeros(capacity, device=device),
            slot_F=torch.full((size_F,), capacity, dtype=torch.long, device=device),
            w_dec_KD=torch.zeros(capacity, sae.d_in, device=device),
            numbers=torch.zeros(num_classes, 4 * capacity, device=device),
            flags=torch.zeros(num_classes, 4, dtype=torch.bool, device=device),
            analysis_BDP=torch.zeros(self.num_rows, sae.d_in, directions, device=device),
            synthesis_BPD=torch.zeros(self.num_rows, directions, sae.d_in, device=device),
        )

    def _write_slots(self, columns: FeatureColumns) -> None:
        """Write which feature each slot is. Other slots keep what is in them: no row does anything with them."""
        sae, static = self.sae, self.static
        at = slice(len(columns.features))
        static.w_dec_KD[at] = columns.w_dec_KD
        if sae.config.encoder == "topk":
            static.slot_F.fill_(len(static.b_K))
            static.slot_F[columns.index_K] = torch.arange(at.stop, device=static.slot_F.device)
            return
        b_enc_K = sae.b_enc_F[columns.index_K]
        if sae.gain_F is not None and sae.b_mag_F is not None and sae.b_gate_F is not None:
            gain_K, b_K = sae.gain_F[columns.index_K], sae.b_mag_F[columns.index_K]
            # x w + b_gate > 0 as a condition on a: the gain is positive
            level_K = (b_K - gain_K * sae.b_gate_F[columns.index_K]).clamp(min=0)
        else:
            gain_K = torch.ones_like(b_enc_K) if sae.norm_F is None else sae.norm_F[columns.index_K]
            b_K, level_K = b_enc_K * gain_K, sae.threshold_F[columns.index_K]
        static.w_enc_DK[:, at] = columns.w_enc_DK * gain_K
        static.b_K[at], static.level_K[at] = b_K, level_K

    def _write_rows(self, rows: Sequence[Sequence[Edit]], features: Sequence[int]) -> None:
        """Write what each row does with each slot at each class of positions."""
        static, slot_of = self.static, {feature: k for k, feature in enumerate(features)}
        numbers_BCNK = np.zeros((self.num_rows, 2 * KINDS, 4, len(static.b_K)), dtype=np.float32)
        numbers_BCNK[:, :, LEVEL] = np.inf
        flags_BCN = np.zeros((self.num_rows, 2 * KINDS, 4), dtype=bool)
        for b, row in enumerate(rows):
            for edit in row:
                classes = list(CLASSES[edit.at])
                flags_BCN[b, classes] |= flags_of(edit)
                if slot := EDIT_KINDS[edit.kind].slot:
                    numbers_BCNK[b, classes, :, slot_of[edit.feature]] = numbers_of(slot, amount_of(edit))
        static.numbers.copy_(torch.from_numpy(numbers_BCNK).view(static.numbers.shape))
        static.flags.copy_(torch.from_numpy(flags_BCN).view(static.flags.shape))

    def _projection(self, edits: Sequence[Edit]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (analysis_DP, synthesis_PD) of a row's project edits, computed in float64.

        Unit directions U (D, P) = Q R give U (K - I) U+ = Q core Q^T: unlike U+, neither factor is large where
        directions are almost parallel.
        """
        w_dec_PD = self.sae.columns([edit.feature for edit in edits]).w_dec_KD.double()
        q_DP, r_PP = torch.linalg.qr(torch.nn.functional.normalize(w_dec_PD, dim=-1).T)
        change_P = torch.tensor([edit.strength - 1 for edit in edits], dtype=torch.float64, device=q_DP.device)
        # directions that float32 weights cannot tell from parallel count as parallel
        core_PP = r_PP @ (change_P[:, None] * torch.linalg.pinv(r_PP, rtol=1e-6))
        return q_DP.float(), (q_DP @ core_PP).T.float()


def grown(capacity: int, wanted: int, first: int) -> int:
    """Return a capacity that suffices: the present one, or doubled from `first` on."""
    while capacity < wanted:
        capacity = max(first, 2 * capacity)
    return capacity


def numbers_of(slot: SlotMaths, amount: float) -> tuple[float, float, float, float]:
    """Return (gain, offset, steer, level) of an edit of this amount, where it acts."""
    level = 0.0 if slot.gain != ZERO else float("inf")  # without a gain it makes no difference what the feature does
    return slot.gain.at(amount), slot.offset.at(amount), slot.push.at(amount), level


def flags_of(edit: Edit) -> tuple[bool, bool, bool, bool]:
    """Return the flags (allowed, always, projected, reconstructed) that an edit sets where it acts."""
    slot = EDIT_KINDS[edit.kind].slot
    amount = amount_of(edit)
    always = slot is None or slot.offset.at(amount) != 0 or slot.push.at(amount) != 0
    return True, always, edit.kind == "project" and edit.strength != 1, edit.kind == "reconstruct"


def check(rows: Sequence[Sequence[Edit]], reference: Reference, sae: SparseAutoencoder) -> None:
    """Raise EditError for lists of edits that cannot be applied."""
    for row in rows:
        edits = [settle(edit, reference, sae) for edit in checked(row)]
        sae.columns([edit.feature for edit in edits if edit.kind != "reconstruct"])


def settle(edit: Edit, reference: Reference, sae: SparseAutoencoder) -> Edit:
    """Return the edit with `absolute` filled in where its kind has a unit. Raises EditError."""
    if not has_no_amount(edit):
        return edit
    sae.columns([edit.feature])  # raises for a feature the SAE does not have
    maximum = float(reference.maximum_F[edit.feature])
    if maximum == 0:
        raise EditError(
            f"Feature {edit.feature} never fires on the reference text, so there is no unit to {edit.kind} it in.",
            "Choose another feature, or give the reference a text on which it fires (--reference).",
        )
    absolute = edit.strength * maximum * (reference.median_u if EDIT_KINDS[edit.kind].unit == "vector" else 1.0)
    return checked([replace(edit, absolute=absolute)])[0]


def checked(edits: Sequence[Edit]) -> Sequence[Edit]:
    """Return the edits of one row. Raises EditError where they conflict or a strength is out of range."""
    seen: set[int] = set()
    for edit in edits:
        if edit.kind == "reconstruct" and edit.feature != NO_FEATURE:
            raise EditError(
                f"Feature {edit.feature} cannot be reconstructed by itself: reconstruct is about all features.",
                "Give it no feature.",
            )
        if edit.feature in seen:
            if edit.kind == "reconstruct":
                raise EditError("The vectors are to be reconstructed twice.", "Give one edit of kind reconstruct.")
            raise EditError(f"Feature {edit.feature} is edited twice.", "Give each feature one edit.")
        if not all(isfinite(number) for number in (edit.strength, edit.absolute or 0.0)):
            raise EditError(
                f"Feature {edit.feature}: the strength {edit.strength} is not a number.", "Give a finite number."
            )
        if max(abs(edit.strength), abs(edit.absolute or 0.0)) > LARGEST:
            raise EditError(
                f"Feature {edit.feature}: the strength {edit.strength:g} is beyond what the model can compute with.",
                "Give a smaller number.",
            )
        seen.add(edit.feature)
    if len({edit.at for edit in edits if edit.kind == "project"}) > 1:
        raise EditError(
            "Edits of kind project act at different positions, but directions are projected together.",
            "Give all of them the same positions.",
        )
    return edits
