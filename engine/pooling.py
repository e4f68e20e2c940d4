"""Pools feature activations over each prompt's tokens, block by block, so that memory stays flat.

Shape suffixes: P prompts, T tokens of all prompts together, F features.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from engine.records import Pool, Progress
from engine.sae import SparseAutoencoder


@dataclass(frozen=True)
class Pooled:
    """Per prompt and feature: the pooled value over counted tokens, and the plain sum over every token.

    maximum_F is the largest activation over all counted tokens.
    """

    value_PF: npt.NDArray[np.float32]
    sum_PF: npt.NDArray[np.float32]
    maximum_F: npt.NDArray[np.float32]


def pool_prompts(
    sae: SparseAutoencoder, vectors: Sequence[torch.Tensor], masks: Sequence[torch.Tensor], pool: Pool
) -> Generator[Progress, None, Pooled]:
    """Pools h_TD of each prompt; yields progress once a block. A prompt without counted tokens pools to 0."""
    h_TD = torch.cat(list(vectors))
    device = h_TD.device
    prompt_T = torch.repeat_interleave(torch.arange(len(vectors)), torch.tensor([len(h) for h in vectors])).to(device)
    keep_T1 = torch.cat(list(masks)).to(device)[:, None]
    shape = (len(vectors), sae.d_sae)
    value_PF, sum_PF = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
    maximum_F = torch.zeros(sae.d_sae, device=device)
    for tokens, features, acts_TF in sae.encode_blocks(h_TD):
        yield Progress("encoding", tokens.start, len(h_TD))
        segment_T = prompt_T[tokens]
        sum_PF[:, features].index_add_(0, segment_T, acts_TF)
        acts_TF = acts_TF * keep_T1[tokens]
        maximum_F[features] = torch.maximum(maximum_F[features], acts_TF.amax(0))
        target_PF = value_PF[:, features]
        if pool == "max":
            target_PF.index_reduce_(0, segment_T, acts_TF, "amax")
        else:
            target_PF.index_add_(0, segment_T, (acts_TF > 0).float() if pool == "fraction" else acts_TF)
    if pool in ("mean", "fraction"):
        counted_P = torch.zeros(len(vectors), device=device).index_add_(0, prompt_T, keep_T1[:, 0].float())
        value_PF /= counted_P.clamp(min=1)[:, None]
    return Pooled(value_PF.cpu().numpy(), sum_PF.cpu().numpy(), maximum_F.cpu().numpy())
