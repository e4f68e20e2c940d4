"""Pool feature activations over each prompt's tokens, block by block, so that memory stays flat.

Shape suffixes: P prompts, T tokens of all prompts together, F features, N activations above zero, K chosen features.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from engine.models.sae import TOKENS_PER_BLOCK, SparseAutoencoder
from engine.records import Pool, Progress


@dataclass(frozen=True)
class Pooled:
    """Each feature's activation pooled over the counted tokens of each prompt.

    `sum_F` is the plain sum over every token of the positive prompts, `maximum_F` the largest activation over all
    counted tokens.
    """

    value_PF: npt.NDArray[np.float32]
    sum_F: npt.NDArray[np.float32]
    maximum_F: npt.NDArray[np.float32]


def pool_prompts(
    sae: SparseAutoencoder, vectors: Sequence[torch.Tensor], masks: Sequence[torch.Tensor], pool: Pool, n_positive: int
) -> Generator[Progress, None, Pooled]:
    """Pool each prompt's h_TD, the positive prompts first; yield progress once per block.

    A prompt without counted tokens pools to 0.
    """
    device = vectors[0].device
    total, done = sum(map(len, vectors)), 0
    value_PF = torch.zeros(len(vectors), sae.d_sae, device=device)
    sum_F, maximum_F = torch.zeros(sae.d_sae, device=device), torch.zeros(sae.d_sae, device=device)
    for block in batches([len(h) for h in vectors]):
        h_TD = torch.cat([vectors[p] for p in block])
        keep_T = torch.cat([masks[p] for p in block]).to(device)
        prompt_T = torch.tensor([p for p in block for _ in range(len(vectors[p]))], device=device)
        for active in sae.encode(h_TD):
            yield Progress("encoding", done + active.tokens.start, total)
            positive_N = prompt_T[active.token_N] < n_positive
            sum_F.index_add_(0, active.feature_N[positive_N], active.value_N[positive_N])
            counted_N = keep_T[active.token_N]
            feature_N, f_N = active.feature_N[counted_N], active.value_N[counted_N]
            maximum_F.scatter_reduce_(0, feature_N, f_N, "amax")
            cell_N = prompt_T[active.token_N[counted_N]] * sae.d_sae + feature_N
            if pool == "max":
                value_PF.view(-1).scatter_reduce_(0, cell_N, f_N, "amax")
            else:
                value_PF.view(-1).index_add_(0, cell_N, torch.ones_like(f_N) if pool == "fraction" else f_N)
        done += len(h_TD)
    if pool in ("mean", "fraction"):
        counted_P = torch.tensor([int(mask.sum()) for mask in masks], device=device)
        value_PF /= counted_P.clamp(min=1)[:, None]
    return Pooled(value_PF.cpu().numpy(), sum_F.cpu().numpy(), maximum_F.cpu().numpy())


def batches(lengths: Sequence[int]) -> Iterator[range]:
    """Yield ranges of prompts that fill an encoder block each, so that the vectors of all are never copied together."""
    start = tokens = 0
    for p, length in enumerate(lengths):
        if p > start and tokens + length > TOKENS_PER_BLOCK:
            yield range(start, p)
            start, tokens = p, 0
        tokens += length
    yield range(start, len(lengths))


def pool_features(
    sae: SparseAutoencoder,
    vectors: Sequence[torch.Tensor],
    masks: Sequence[torch.Tensor],
    pool: Pool,
    n_positive: int,
    features: Sequence[int],
) -> Pooled:
    """Pool the activations of `features` (K) only, in float32 whatever the vectors' dtype; arrays are of length K."""
    columns = sae.columns(features)
    values, totals, maxima = [], [], []
    for h_TD, keep_T in zip(vectors, masks, strict=True):
        f_TK = sae.encode_features(sae.normalise(h_TD).x_TD, columns)
        counted_TK = f_TK * keep_T.to(f_TK.device)[:, None]
        totals.append(f_TK.sum(0))
        maxima.append(counted_TK.amax(0))
        if pool == "max":
            values.append(maxima[-1])
        else:
            summed_K = ((counted_TK > 0).float() if pool == "fraction" else counted_TK).sum(0)
            values.append(summed_K / (max(1, int(keep_T.sum())) if pool in ("mean", "fraction") else 1))
    return Pooled(
        torch.stack(values).cpu().numpy(),
        torch.stack(totals[:n_positive]).sum(0).cpu().numpy(),
        torch.stack(maxima).amax(0).cpu().numpy(),
    )
