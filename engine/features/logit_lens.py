"""The logit lens of a decoder row: the tokens that it promotes and suppresses."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from engine.features.relations import by_rows
from engine.models.agreement import TEXTS
from engine.models.hooks import HookPoint, final_norm, find_blocks, resolve_hook, route_to_residual
from engine.models.language_model import LanguageModel
from engine.models.sae import SparseAutoencoder
from engine.records import Progress, Prompt, TokenLogit
from engine.records.errors import HookError

Lens = tuple[tuple[TokenLogit, ...], tuple[TokenLogit, ...]]

STRAIGHT = 0.999
"""Least cosine of the model's logits and those of final norm and unembedding alone, both centred."""

_straight: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def reads_straight(model: LanguageModel) -> bool:
    """Return whether the logits are the unembedding of the normed residual stream; measured on one text per model.

    They are not where something unknown lies between: a projection (OPT-350m's), or a norm of a name that we lack.
    """
    if model.module not in _straight:
        _straight[model.module] = _reads_straight(model)
    return _straight[model.module]


@torch.inference_mode()
def _reads_straight(model: LanguageModel) -> bool:
    ids = model.tokens.feed(Prompt(TEXTS[0])).ids
    try:
        last = len(find_blocks(model.module)[1]) - 1
        h_D = model.capture_batch(resolve_hook(model.module, f"blocks.{last}.hook_resid_post"), [ids])[0][-1]
    except HookError:
        return False
    norm, unembedding = final_norm(model.module), model.module.get_output_embeddings()
    if unembedding.weight.shape[1] != len(h_D):
        return False
    ours_V = unembedding(h_D if norm is None else norm(h_D)).float()
    logits_V = model.module(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0, -1].float()
    if cap := getattr(model.module.config.get_text_config(), "final_logit_softcapping", None):
        logits_V = cap * torch.atanh((logits_V / cap).clamp(-1 + 1e-6, 1 - 1e-6))
    cosine = torch.nn.functional.cosine_similarity(ours_V - ours_V.mean(), logits_V - logits_V.mean(), dim=0)
    return bool(cosine >= STRAIGHT)


def to_residual(model: LanguageModel, direction_D: torch.Tensor, hook: HookPoint | None) -> torch.Tensor | None:
    """Return what a float32 direction at the hook adds to the residual stream, up to a positive factor.

    The direction goes through the output projection (attention's for hook_z), without its bias, and through the gain of
    the norm that Gemma has after it. That norm's scale, which differs from token to token, is left out. None where no
    linear path leads to the residual stream.
    """
    route = () if hook is None else route_to_residual(model.module, hook)
    if route is None:
        return None
    for path in route:
        module = model.module.get_submodule(path)
        if module.weight.ndim == 1:
            # the gain is the norm's output for ones: some families store it less 1
            direction_D = direction_D * module(torch.ones_like(module.weight)).to(direction_D)
        else:
            weight_OI = module.weight.T if isinstance(module, Conv1D) else module.weight
            direction_D = weight_OI.to(direction_D) @ direction_D
    return direction_D


def through_norm(norm: nn.Module, direction_D: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return what a norm makes of a float32 direction, its scale held at 1: mean removed if it does so, times its gain.

    Both are read off the norm's outputs for +1 and -1 in turn, so that it does not matter how a family stores the gain;
    the bias drops out. `like` has the dtype and device of the norm's input.
    """
    signs_D = torch.ones_like(direction_D, dtype=like.dtype, device=like.device)
    signs_D[1::2] = -1
    out_D: torch.Tensor = norm(signs_D).float()
    gain_D: torch.Tensor = (out_D - norm(-signs_D).float()) / 2 * signs_D
    direction_D = direction_D.to(gain_D)
    # the norm removes the mean if adding 1 to every number changes nothing
    if (norm(signs_D + 1).float() - out_D).norm() < 0.01 * gain_D.norm():
        direction_D = direction_D - direction_D.mean()
    return gain_D * direction_D


@torch.inference_mode()
def logit_lens(
    model: LanguageModel, sae: SparseAutoencoder, feature: int, top: int, hook: HookPoint | None = None
) -> Generator[Progress, Any, Lens]:
    """Return the tokens that the feature's decoder direction raises and lowers most, by final norm and unembedding.

    The direction is first taken from `hook` to the residual stream (None: it is there already), then through the final
    norm: its gain, and LayerNorm's removal of the mean. Left out are the norm's scale, one over the token's root mean
    square, which depends on the token, and any soft cap on the logits: neither changes which tokens are raised most.
    The numbers are centred over the vocabulary; divided by a token's root mean square before the norm, they are the
    change of its logits per unit that the feature adds along D. Both tuples are empty where no linear path leads to the
    residual stream, from inside a norm or an MLP say, or none that is known leads on to the logits.
    """
    direction_D = to_residual(model, sae.columns([feature]).w_dec_KD[0], hook)
    if direction_D is None or not reads_straight(model):
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
