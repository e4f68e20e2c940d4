"""What there is to show of one feature: its strongest tokens and the logit lens."""

from __future__ import annotations

import torch
from transformers.pytorch_utils import Conv1D

from engine.hooks import HookPoint, route_to_residual
from engine.model import LanguageModel
from engine.records import Shown, StrongToken, TokenLogit
from engine.reference import Reference
from engine.sae import SparseAutoencoder
from engine.tokens import Tokens

CONTEXT_TOKENS = 8


def reference_tokens(tokens: Tokens, reference: Reference, feature: int) -> list[StrongToken]:
    """The reference tokens on which a feature fires most, strongest first."""
    ids = reference.token_ids_T
    values, places = reference.strongest_FS[feature].tolist(), reference.position_FS[feature].tolist()
    return [
        StrongToken(
            activation=value,
            token=tokens.string(int(ids[at])),
            before=tokens.decode(ids[max(0, at - CONTEXT_TOKENS) : at].tolist()),
            after=tokens.decode(ids[at + 1 : at + 1 + CONTEXT_TOKENS].tolist()),
            source="reference",
        )
        for value, at in zip(values, places, strict=True)
        if value > 0
    ]


def prompt_tokens(shown: Shown) -> list[StrongToken]:
    """Every unmasked token of the prompts on which the feature fires."""
    found = []
    for fed, row in zip(shown.prompts, shown.activations, strict=True):
        for t, (value, keep) in enumerate(zip(row, fed.rank_mask, strict=True)):
            if value > 0 and keep:
                before = "".join(fed.tokens[max(0, t - CONTEXT_TOKENS) : t])
                after = "".join(fed.tokens[t + 1 : t + 1 + CONTEXT_TOKENS])
                found.append(StrongToken(value, fed.tokens[t], before, after, "prompt"))
    return found


def distinct(candidates: list[tuple[float, str]], limit: int = 3) -> tuple[str, ...]:
    """The first few distinct tokens, strongest first; case and surrounding space do not make two of one."""
    found: dict[str, str] = {}
    for _, token in sorted(candidates, key=lambda pair: -pair[0]):
        found.setdefault(token.strip().lower(), token)
    return tuple(list(found.values())[:limit])


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


@torch.inference_mode()
def logit_lens(
    model: LanguageModel, sae: SparseAutoencoder, feature: int, top: int, hook: HookPoint | None = None
) -> tuple[tuple[TokenLogit, ...], tuple[TokenLogit, ...]]:
    """Tokens that the feature's decoder direction raises and lowers most, read through the unembedding.

    Centred over the vocabulary; the final norm is left out, so the numbers rank tokens and have no unit. The direction
    is first taken to the residual stream from `hook` (None: it is there already). Both are empty where it does not
    get there in a straight line, from inside a norm or an MLP say: there is nothing to read then.
    """
    direction_D = to_residual(model, sae.columns([feature]).w_dec_KD[0], hook)
    if direction_D is None:
        return (), ()
    unembedding_VD = model.module.get_output_embeddings().weight
    logits_V = unembedding_VD.float() @ direction_D.to(unembedding_VD.device)
    logits_V -= logits_V.mean()

    def rows(values: torch.Tensor, ids: torch.Tensor) -> tuple[TokenLogit, ...]:
        pairs = zip(values.tolist(), ids.tolist(), strict=True)
        return tuple(TokenLogit(i, model.tokens.string(i), value) for value, i in pairs)

    top = min(top, len(logits_V))
    return rows(*logits_V.topk(top)), rows(*logits_V.topk(top, largest=False))
