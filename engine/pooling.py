"""Pools feature activations over each prompt's tokens, block by block, so that memory stays flat.

Shape suffixes: P prompts, T tokens of all prompts together, F features.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from engine.records import Pool, Progress
from engine.sae import SparseAutoencoder


@dataclass(frozen=True)
class Pooled:
    """Per prompt and feature the pooled value over counted tokens.

    sum_F is the plain sum over every token of the positive prompts, maximum_F the largest activation over all counted
    tokens.
    """

    value_PF: npt.NDArray[np.float32]
    sum_F: npt.NDArray[np.float32]
    maximum_F: npt.NDArray[np.float32]


def pool_prompts(
    sae: SparseAutoencoder, vectors: Sequence[torch.Tensor], masks: Sequence[torch.Tensor], pool: Pool, n_positive: int
) -> Generator[Progress, None, Pooled]:
    """Pools h_TD of each prompt, positives first; yields progress once a block.

    A prompt without counted tokens pools to 0.
    """
    h_TD = torch.cat(list(vectors))
    device = h_TD.device
    ends = np.cumsum([len(h) for h in vectors]).tolist()
    keep_T1 = torch.cat(list(masks)).to(device)[:, None]
    shape = (len(vectors), sae.d_sae)
    value_PF = torch.zeros(shape, device=device)
    sum_F, maximum_F = torch.zeros(sae.d_sae, device=device), torch.zeros(sae.d_sae, device=device)
    for tokens, features, acts_TF in sae.encode_blocks(h_TD):
        yield Progress("encoding", tokens.start, len(h_TD))
        counted_TF = acts_TF * keep_T1[tokens]
        maximum_F[features] = torch.maximum(maximum_F[features], counted_TF.amax(0))
        for prompt, rows in rows_of_prompts(ends, tokens):
            if prompt < n_positive:
                sum_F[features] += acts_TF[rows].sum(0)
            here_TF, so_far_F = counted_TF[rows], value_PF[prompt, features]
            if pool == "max":
                value_PF[prompt, features] = torch.maximum(so_far_F, here_TF.amax(0))
            else:
                value_PF[prompt, features] += ((here_TF > 0).float() if pool == "fraction" else here_TF).sum(0)
    if pool in ("mean", "fraction"):
        counted_P = torch.tensor([int(mask.sum()) for mask in masks], device=device)
        value_PF /= counted_P.clamp(min=1)[:, None]
    return Pooled(value_PF.cpu().numpy(), sum_F.cpu().numpy(), maximum_F.cpu().numpy())


def rows_of_prompts(ends: list[int], block: slice) -> Iterator[tuple[int, slice]]:
    """(prompt, its rows within the block) for every prompt that has some there; ends are the prompts' ends."""
    start = 0
    for prompt, end in enumerate(ends):
        first, last = max(start, block.start), min(end, block.stop)
        if first < last:
            yield prompt, slice(first - block.start, last - block.start)
        start = end
