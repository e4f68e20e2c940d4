"""How a feature relates to others: decoder neighbours and antipodes, and the features that fire beside it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import torch

from engine.models.reference import Reference, reference_name
from engine.models.sae import SparseAutoencoder
from engine.models.tokens import Tokens
from engine.records import CoActive, Neighbour, Progress

STAGE = "describing the feature"

COPIED = 2**20
"""Numbers converted to float32 at a time: few enough to stay in a core's cache."""

PER_STEP = 2**25
"""Numbers processed between two events: some 20 ms on one core."""


def by_rows(
    weight_RD: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor]
) -> Generator[Progress, Any, torch.Tensor]:
    """Return a float32 number for every row: `compute` gets a block of rows in float32 and returns their numbers."""
    value_R = torch.empty(len(weight_RD), device=weight_RD.device)
    rows = max(1, COPIED // weight_RD.shape[1])
    buffer_RD = torch.empty_like(weight_RD[:rows], dtype=torch.float32)  # new memory per block would cost as much again
    done = 0
    for start in range(0, len(weight_RD), rows):
        if done >= PER_STEP:
            done = 0
            yield Progress(STAGE)
        block_RD = weight_RD[start : start + rows]
        if block_RD.dtype != torch.float32:
            block_RD = buffer_RD[: len(block_RD)].copy_(block_RD)
        value_R[start : start + rows] = compute(block_RD)
        done += block_RD.numel()
    return value_R


@torch.inference_mode()
def decoder_norms(sae: SparseAutoencoder) -> Generator[Progress, Any, torch.Tensor]:
    """Return the norms_F of the decoder's rows as stored; never 0, so that they can be divided by."""
    norm_F = yield from by_rows(sae.w_dec_FD, lambda block_RD: block_RD.norm(dim=-1))
    return norm_F.clamp(min=1e-8)


@torch.inference_mode()
def cosines(sae: SparseAutoencoder, feature: int, norm_F: torch.Tensor) -> Generator[Progress, Any, torch.Tensor]:
    """Return cosine_F of a feature's decoder direction with every feature's; 0 for a direction of norm 0.

    `norm_F` comes from `decoder_norms`. Edits may apply the directions divided by their norms: that changes no cosine.
    """
    direction_D = sae.w_dec_FD[feature].float() / norm_F[feature]
    product_F = yield from by_rows(sae.w_dec_FD, lambda block_RD: block_RD @ direction_D)
    return product_F / norm_F


def neighbours(
    tokens: Tokens, reference: Reference, feature: int, cosine_F: torch.Tensor, top: int
) -> tuple[tuple[Neighbour, ...], tuple[Neighbour, ...]]:
    """Return the `top` other features of largest positive cosine, and those of most negative cosine, if any."""

    def chosen(sign: int) -> tuple[Neighbour, ...]:
        signed_F = sign * cosine_F
        signed_F[feature] = -2  # behind all others
        best = signed_F.topk(min(top, len(signed_F)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return tuple(Neighbour(i, sign * c, reference_name(tokens, reference, i)) for i, c in pairs if c > 0)

    return chosen(1), chosen(-1)


class CoActivity:
    """Counts the prompts' tokens on which each feature fires, and on which it fires together with one given feature."""

    def __init__(self, d_sae: int) -> None:
        self.fires_F = torch.zeros(d_sae, dtype=torch.long)
        self.both_F = torch.zeros(d_sae, dtype=torch.long)
        self.count = 0

    def add(self, fires_T: torch.Tensor, token_N: torch.Tensor, feature_N: torch.Tensor) -> None:
        """Add some tokens to the counts.

        `fires_T` tells where the given feature fires, `token_N` and `feature_N` which features fire on which of these
        tokens.
        """
        self.count += int(fires_T.sum())
        size = len(self.fires_F)
        self.fires_F += torch.bincount(feature_N, minlength=size)
        self.both_F += torch.bincount(feature_N[fires_T[token_N]], minlength=size)

    def best(self, tokens: Tokens, reference: Reference, feature: int, top: int) -> tuple[CoActive, ...]:
        """Return the `top` other features by Jaccard index; ties go to the more frequent, then to the lower number."""
        scored = []
        for i in self.both_F.nonzero()[:, 0].tolist():
            both = int(self.both_F[i])
            if i != feature:
                scored.append((both / (self.count + int(self.fires_F[i]) - both), both, i))
        scored.sort(key=lambda entry: (-entry[0], -entry[1], entry[2]))
        return tuple(CoActive(i, both, j, reference_name(tokens, reference, i)) for j, both, i in scored[:top])
