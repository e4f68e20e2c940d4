"""Compute a measure, with or without ablated features, by running only the layers above the hook.

    m = LSE_a log p(a | prompt) - LSE_b log p(b | prompt)     over the strings of two answers, in nats
    M = sum_p weight_p m_p                                    a mean over probes, or a slope on their covariate

Shape suffixes: B rows, T tokens, D width of the hooked vector, K chosen features, N scored positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.attribution.read_probes import Item
from engine.models.language_model import not_finite
from engine.models.sae import SparseAutoencoder
from engine.models.upper_layers import UpperLayers
from engine.records import Progress

BATCH_TOKENS = {"cpu": 1024, "cuda": 16_384}
"""Padded tokens in one run of the upper layers: bounds memory, and the time until a request can be stopped."""

GRADIENT_TOKENS = {"cpu": 1024, "cuda": 2048}
"""The same for runs that keep everything for the backward pass: some 4 MB a token in 14 layers of a 7B model."""

WITH_PAST = 4
"""Tokens run and tokens taken from the past may together reach this many times the limit."""

BATCH_ROWS = {"cpu": 64, "cuda": 512}
"""Rows in one run of the upper layers: each has logits over the whole vocabulary."""


@dataclass(frozen=True)
class Scored:
    """One item's m (`value`, in nats) and the probability of both answers together (`mass`)."""

    value: torch.Tensor
    mass: torch.Tensor


def score(
    upper: UpperLayers,
    items: Sequence[Item],
    deltas: Sequence[torch.Tensor | None] | torch.Tensor,
    start: int = 0,
) -> list[Scored]:
    """Score items in one run, with `deltas` (a delta_TD for each row, or one delta_BTD) added to the hooked vectors.

    Only positions from `start` on are run, so nothing may be added before it.
    """
    rows = [(item, row) for item in items for row in range(len(item.entry))]
    keep = [item.positions(row) for item, row in rows]
    past = [item.past[row] for item, row in rows] if start else []
    logits_NV = upper.logits([item.entry[row] for item, row in rows], deltas, keep, past, start)
    starts, at = [], 0
    for positions in keep:
        starts.append({position: at + n for n, position in enumerate(positions)})
        at += len(positions)
    results, first = [], 0
    for item in items:
        sides: dict[bool, list[torch.Tensor]] = {True: [], False: []}
        for target in item.targets:
            places = [starts[first + target.row][target.after + n] for n in range(len(target.ids))]
            logprobs_nV = torch.log_softmax(logits_NV[places], -1)
            sides[target.toward].append(logprobs_nV[range(len(target.ids)), list(target.ids)].sum())
        toward, against = (torch.stack(sides[side]).logsumexp(0) for side in (True, False))
        results.append(Scored(toward - against, toward.exp() + against.exp()))
        first += len(item.entry)
    return results


@dataclass(frozen=True, eq=False)
class Unit:
    """An item and the features ablated in it, none of which fires before position `start`."""

    item: Item
    features: tuple[int, ...]
    start: int

    @property
    def length(self) -> int:
        """Length of the item's longest row, in tokens."""
        return max(map(len, self.item.entry))


def batches(units: Iterable[Unit], device: torch.device, tokens: dict[str, int] | None = None) -> Iterator[list[Unit]]:
    """Group units of like starts and lengths into batches of about BATCH_TOKENS (or `tokens`) padded tokens to run."""
    limits = tokens or BATCH_TOKENS
    limit = limits.get(device.type, limits["cpu"])
    most = BATCH_ROWS.get(device.type, BATCH_ROWS["cpu"])
    batch: list[Unit] = []
    rows = longest = 0
    for unit in sorted(units, key=lambda u: (u.start, u.length)):
        first = batch[0].start if batch else unit.start
        new_rows, new_longest = rows + len(unit.item.entry), max(longest, unit.length)
        full = new_rows * (new_longest - first) > limit or new_rows * new_longest > WITH_PAST * limit
        if batch and (full or new_rows > most):
            yield batch
            batch, rows, longest = [], 0, 0
        batch.append(unit)
        rows, longest = rows + len(unit.item.entry), max(longest, unit.length)
    if batch:
        yield batch


def run_units(
    sae: SparseAutoencoder, upper: UpperLayers, units: Sequence[Unit], stage: str
) -> Generator[Progress, Any, list[Scored]]:
    """Each unit's m, in the order given; yields progress once a batch. Raises ModelError where one is not finite."""
    found: dict[Unit, Scored] = {}
    for batch in batches(units, upper.device):
        yield Progress(stage, len(found), len(units))
        with torch.inference_mode():
            deltas = [d for u in batch for d in ablation(sae, u.item.h, u.item.editable, u.features)]
            scored = score(upper, [unit.item for unit in batch], deltas, batch[0].start)
        if not bool(torch.isfinite(torch.stack([s.value for s in scored])).all()):
            raise not_finite(upper.dtype, "The numbers above the hook overflow on the probes")
        found |= dict(zip(batch, scored, strict=True))
    return [found[unit] for unit in units]


def total(items: Sequence[Item], values: Sequence[float]) -> float:
    """Return M, the sum over items of weight times m."""
    return sum(item.weight * value for item, value in zip(items, values, strict=True))


# ---- ablation


def activations(
    sae: SparseAutoencoder, h: Sequence[torch.Tensor], editable: Sequence[torch.Tensor], features: Sequence[int]
) -> list[torch.Tensor]:
    """Return f_TK, the activations of chosen features in each row; 0 at positions that no edit touches."""
    columns = sae.columns(features)
    return [
        sae.encode_features(sae.normalise(h_TD).x_TD, columns) * editable_T[:, None]
        for h_TD, editable_T in zip(h, editable, strict=True)
    ]


def ablation(
    sae: SparseAutoencoder, h: Sequence[torch.Tensor], editable: Sequence[torch.Tensor], features: Sequence[int]
) -> list[torch.Tensor | None]:
    """Return the delta_TD that ablating features adds to each row's hooked vectors; None where all are silent."""
    if not features:
        return [None] * len(h)
    w_dec_KD = sae.columns(features).w_dec_KD
    return [
        -sae.normalise(h_TD).u_T1 * (f_TK @ w_dec_KD) if bool((f_TK > 0).any()) else None
        for h_TD, f_TK in zip(h, activations(sae, h, editable, features), strict=True)
    ]
