"""The logit lens of a decoder row: the tokens that it promotes and suppresses."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from engine.features.relations import by_rows
from engine.models.hooks import HookPoint, final_norm, route_to_residual
from engine.models.language_model import LanguageModel
from engine.models.sae import SparseAutoencoder
from engine.records import Progress, TokenLogit

Lens = tuple[tuple[TokenLogit, ...], tuple[TokenLogit, ...]]

# ---- the logit lens


def to_residual(model: LanguageModel, direction_D: torch.Tensor, hook: HookPoint | None) -> torch.Tensor | None:
    """What a float32 direction at the hook adds to the residual stream, up to a positive factor; None: nothing linear.

    It goes through attention's output projection (hook_z), without its bias, and through the gain of Gemma's norm
    behind it. That norm's scale, which differs from token to token, is left out.
    """
    route = () if hook is None else route_to_residual(model.module, hook)
    if route is None:
        return None
    for path in route:
        module = model.module.get_submodule(path)
        if module.weight.ndim == 1:
            # a norm's gain is what it makes of ones: some families store it less 1
            direction_D = direction_D * module(torch.ones_like(module.weight)).to(direction_D)
        else:
            weight_OI = module.weight.T if isinstance(module, Conv1D) else module.weight
            direction_D = weight_OI.to(direction_D) @ direction_D
    return direction_D


def through_norm(norm: nn.Module, direction_D: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """What a norm makes of a float32 direction, its scale held at 1: its mean removed, if it does so, times the gain.

    Both are found by what it makes of +1 and -1 in turn, so that no family's way of storing its gain matters; its bias
    drops out. `like` has the dtype and device of the norm's input.
    """
    signs_D = torch.ones_like(direction_D, dtype=like.dtype, device=like.device)
    signs_D[1::2] = -1
    out_D: torch.Tensor = norm(signs_D).float()
    gain_D: torch.Tensor = (out_D - norm(-signs_D).float()) / 2 * signs_D
    direction_D = direction_D.to(gain_D)
    if (norm(signs_D + 1).float() - out_D).norm() < 0.01 * gain_D.norm():  # the same but for its mean came out the same
        direction_D = direction_D - direction_D.mean()
    return gain_D * direction_D


@torch.inference_mode()
def logit_lens(
    model: LanguageModel, sae: SparseAutoencoder, feature: int, top: int, hook: HookPoint | None = None
) -> Generator[Progress, Any, Lens]:
    """Tokens that the feature's decoder direction raises and lowers most, read through final norm and unembedding.

    The direction is first taken to the residual stream from `hook` (None: it is there already), then through the final
    norm: its gain, and LayerNorm's removal of the mean. The norm's scale, one over the token's root mean square,
    depends on the token and is left out, as is any soft cap on the logits behind: neither changes which tokens are
    raised most. Centred over the vocabulary; divided by a token's root mean square before the norm, the numbers are
    the change of its logits per unit that the feature adds along D. Both are empty where the direction does not get to
    the residual stream in a straight line, from inside a norm or an MLP say: there is nothing to read then.
    """
    direction_D = to_residual(model, sae.columns([feature]).w_dec_KD[0], hook)
    if direction_D is None:
        return (), ()
    unembedding_VD = model.module.get_output_embeddings().weight
    norm = final_norm(model.module)
    if norm is not None:
        direction_D = through_norm(norm, direction_D, unembedding_VD[0])
    direction_D = direction_D.to(unembedding_VD.device)
    logits_V = yield from by_rows(unembedding_VD, lambda block_RD: block_RD @ direction_D)
    logits_V -= logits_V.mean()

    def rows(values: torch.Tensor, ids: torch.Tensor) -> tuple[TokenLogit, ...]:
        pairs = zip(values.tolist(), ids.tolist(), strict=True)
        return tuple(TokenLogit(i, model.tokens.string(i), value) for value, i in pairs)

    top = min(top, len(logits_V))
    return rows(*logits_V.topk(top)), rows(*logits_V.topk(top, largest=False))
