"""How a measure depends on features: one gradient estimates all effects; ablating features gives exact ones.

    A_i = sum_t f_ti (g_t . D_i) u_t,  g_t = dM/dh_t          error term, u and mu held fixed

Ablating feature i changes M by about -A_i.

Shape suffixes: B rows, T tokens, D width of the hooked vector, F features, N edited tokens of all rows.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.attribution.measure import GRADIENT_TOKENS, Unit, ablation, activations, batches, run_units, score
from engine.attribution.read_probes import Item
from engine.models.sae import SparseAutoencoder
from engine.models.upper_layers import UpperLayers
from engine.records import Progress


@dataclass(frozen=True)
class Gradient:
    """The gradient of M per feature: estimate_F is -A; strength_F is sum_t f ||D|| u over editable positions."""

    estimate_F: torch.Tensor
    strength_F: torch.Tensor


def gradient(
    sae: SparseAutoencoder, upper: UpperLayers, items: Sequence[Item], features: tuple[int, ...], stage: str
) -> Generator[Progress, Any, Gradient]:
    """Take the gradient of M with `features` already ablated; yield progress once a batch.

    Activations f are those of the hooked vectors as they were read, with nothing ablated.
    """
    sum_F = torch.zeros(sae.d_sae, device=upper.device)
    strength_F = torch.zeros_like(sum_F)
    done = 0
    for batch in batches([Unit(item, features, 0) for item in items], upper.device, GRADIENT_TOKENS):
        yield Progress(stage, done, len(items))
        batch_items = [unit.item for unit in batch]
        rows = [(item, row) for item in batch_items for row in range(len(item.entry))]
        delta_BTD = torch.zeros(len(rows), max(len(i.h[r]) for i, r in rows), sae.d_in, device=upper.device)
        deltas = [delta for item in batch_items for delta in ablation(sae, item.h, item.editable, features)]
        for b, delta_TD in enumerate(deltas):
            if delta_TD is not None:
                delta_BTD[b, : len(delta_TD)] = delta_TD
        g_BTD = _slope(upper, batch_items, delta_BTD)
        h_ND = torch.cat([item.h[r][item.editable[r]] for item, r in rows])
        g_ND = torch.cat([g_BTD[b, : len(i.h[r])][i.editable[r]] for b, (i, r) in enumerate(rows)])
        u_N1 = sae.normalise(h_ND).u_T1
        for active in sae.encode(h_ND):
            sae.add_projected(sum_F, active, g_ND * u_N1)
            strength_F.index_add_(0, active.feature_N, active.value_N * u_N1[active.token_N, 0])
        done += len(batch)
    return Gradient(-sum_F, strength_F * sae.decoder_norms())


def _slope(upper: UpperLayers, items: Sequence[Item], delta_BTD: torch.Tensor) -> torch.Tensor:
    """Return g_BTD, the gradient of the weighted sum of m with respect to `delta_BTD`, added to the hooked vectors."""
    with torch.inference_mode(False), torch.enable_grad():
        delta_BTD = delta_BTD.requires_grad_()
        scored = score(upper, items, delta_BTD)
        weighted = torch.stack([s.value * item.weight for s, item in zip(scored, items, strict=True)]).sum()
        gradient_BTD: torch.Tensor = torch.autograd.grad(weighted, delta_BTD)[0]
        return gradient_BTD


def first_firing(sae: SparseAutoencoder, item: Item, features: Sequence[int]) -> dict[int, int]:
    """Return the first position at which each feature fires and may be edited; silent features are left out."""
    first: dict[int, int] = {}
    for f_TK in activations(sae, item.h, item.editable, features):
        fires_TK = f_TK > 0
        at_K, any_K = fires_TK.int().argmax(0).tolist(), fires_TK.any(0).tolist()
        for feature, at, fires in zip(features, at_K, any_K, strict=True):
            if fires:
                first[feature] = min(at, first.get(feature, at))
    return first


def ablated(
    sae: SparseAutoencoder,
    upper: UpperLayers,
    items: Sequence[Item],
    plain: Sequence[float],
    sets: Sequence[Sequence[int]],
    stage: str,
) -> Generator[Progress, Any, list[list[float]]]:
    """Return every item's m with each set of features ablated; a silent set leaves it at `plain`, the unedited m."""
    every = sorted({feature for features in sets for feature in features})
    first = [first_firing(sae, item, every) if every else {} for item in items]
    units, places = [], []
    for s, features in enumerate(sets):
        for n, item in enumerate(items):
            firing = tuple(f for f in features if f in first[n])
            if firing:
                start = min(item.scored_from, *(first[n][f] for f in firing))
                units.append(Unit(item, firing, start))
                places.append((s, n))
    scored = yield from run_units(sae, upper, units, stage)
    values = [list(plain) for _ in sets]
    for (s, n), result in zip(places, scored, strict=True):
        values[s][n] = float(result.value)
    return values
