"""What there is to show of one feature: its strongest tokens, the logit lens, and the features beside it.

What passes over all weights comes in parts: it yields between them, and no weight is copied to float32 as a whole.
Shape suffixes: T tokens, D d_model, F features of the SAE, V vocabulary, R rows of a matrix, B bins of activations,
N features that fire on tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from engine.hooks import HookPoint, final_norm, route_to_residual
from engine.model import LanguageModel
from engine.records import Bin, CoActive, Neighbour, Progress, Shown, StrongToken, TokenLogit
from engine.reference import EDGES, Reference, bins_of
from engine.sae import SparseAutoencoder
from engine.tokens import Tokens

CONTEXT_TOKENS = 8
STAGE = "describing the feature"
COPIED = 2**20
"""Numbers converted to float32 at a time: few enough to stay in a core's cache."""
PER_STEP = 2**25
"""Numbers gone over between two events: some 20 ms on one core."""
Lens = tuple[tuple[TokenLogit, ...], tuple[TokenLogit, ...]]


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


def reference_name(tokens: Tokens, reference: Reference, feature: int) -> tuple[str, ...]:
    """Up to three distinct tokens of the reference text on which a feature fires most."""
    values, places = reference.strongest_FS[feature].tolist(), reference.position_FS[feature].tolist()
    pairs = [(v, tokens.string(int(reference.token_ids_T[at]))) for v, at in zip(values, places, strict=True) if v > 0]
    return distinct(pairs)


def histogram(reference: Reference, feature: int, activations: Sequence[float]) -> tuple[Bin, ...]:
    """Bins from the smallest to the largest that holds an activation above zero, of the reference text or of these."""
    counts = {k: (n, 0) for k, n in enumerate(reference.histogram_FB[feature].tolist(), reference.first_bin)}
    for k in bins_of(torch.tensor([value for value in activations if value > 0])).tolist():
        of_reference, of_prompts = counts.get(k, (0, 0))
        counts[k] = of_reference, of_prompts + 1
    used = [k for k, pair in counts.items() if any(pair)]
    if not used:
        return ()
    return tuple(
        Bin(EDGES[k - 1] if k else 0.0, EDGES[k], *counts.get(k, (0, 0))) for k in range(min(used), max(used) + 1)
    )


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


# ---- features beside it


def by_rows(
    weight_RD: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor]
) -> Generator[Progress, Any, torch.Tensor]:
    """A float32 number for every row: `compute` is given some rows at a time, in float32, and returns theirs."""
    found_R = torch.empty(len(weight_RD), device=weight_RD.device)
    rows = max(1, COPIED // weight_RD.shape[1])
    buffer_RD = torch.empty_like(weight_RD[:rows], dtype=torch.float32)  # new memory for each block costs as much again
    done = 0
    for start in range(0, len(weight_RD), rows):
        if done >= PER_STEP:
            done = 0
            yield Progress(STAGE)
        block_RD = weight_RD[start : start + rows]
        if block_RD.dtype != torch.float32:
            block_RD = buffer_RD[: len(block_RD)].copy_(block_RD)
        found_R[start : start + rows] = compute(block_RD)
        done += block_RD.numel()
    return found_R


@torch.inference_mode()
def decoder_norms(sae: SparseAutoencoder) -> Generator[Progress, Any, torch.Tensor]:
    """Norms_F of the decoder's rows as they are stored; never 0, to be divided by."""
    norm_F = yield from by_rows(sae.w_dec_FD, lambda block_RD: block_RD.norm(dim=-1))
    return norm_F.clamp(min=1e-8)


@torch.inference_mode()
def cosines(sae: SparseAutoencoder, feature: int, norm_F: torch.Tensor) -> Generator[Progress, Any, torch.Tensor]:
    """Cosine_F of a feature's decoder direction with every feature's, by `decoder_norms`; 0 for directions of norm 0.

    As they are applied, directions may be divided by their norms: that changes no cosine.
    """
    direction_D = sae.w_dec_FD[feature].float() / norm_F[feature]
    product_F = yield from by_rows(sae.w_dec_FD, lambda block_RD: block_RD @ direction_D)
    return product_F / norm_F


def neighbours(
    tokens: Tokens, reference: Reference, feature: int, cosine_F: torch.Tensor, top: int
) -> tuple[tuple[Neighbour, ...], tuple[Neighbour, ...]]:
    """The `top` other features that point most the same way, and those that point most the other way, if any do."""

    def chosen(sign: int) -> tuple[Neighbour, ...]:
        signed_F = sign * cosine_F
        signed_F[feature] = -2  # behind all others
        best = signed_F.topk(min(top, len(signed_F)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return tuple(Neighbour(i, sign * c, reference_name(tokens, reference, i)) for i, c in pairs if c > 0)

    return chosen(1), chosen(-1)


class CoActivity:
    """Counts, part by part of the prompts' counted tokens, on how many each feature fires alone and with one other."""

    def __init__(self, d_sae: int) -> None:
        self.fires_F = torch.zeros(d_sae, dtype=torch.long)
        self.both_F = torch.zeros(d_sae, dtype=torch.long)
        self.count = 0

    def add(self, fires_T: torch.Tensor, token_N: torch.Tensor, feature_N: torch.Tensor) -> None:
        """Counts tokens in: where the one feature fires, and which features fire on which of these tokens."""
        self.count += int(fires_T.sum())
        size = len(self.fires_F)
        self.fires_F += torch.bincount(feature_N, minlength=size)
        self.both_F += torch.bincount(feature_N[fires_T[token_N]], minlength=size)

    def best(self, tokens: Tokens, reference: Reference, feature: int, top: int) -> tuple[CoActive, ...]:
        """The `top` other features by Jaccard index; of equal ones the more frequent, then the lower number, first."""
        found = []
        for i in self.both_F.nonzero()[:, 0].tolist():
            both = int(self.both_F[i])
            if i != feature:
                found.append((both / (self.count + int(self.fires_F[i]) - both), both, i))
        found.sort(key=lambda entry: (-entry[0], -entry[1], entry[2]))
        return tuple(CoActive(i, both, j, reference_name(tokens, reference, i)) for j, both, i in found[:top])
