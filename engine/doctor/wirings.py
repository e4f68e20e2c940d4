"""Measure how well a SAE explains vectors, as it is wired and with another normalisation, bias, encoder or layer.

A wrongly wired SAE loads without an error; another wiring that explains the same vectors much better proves it wrong.
Variants share the SAE's weights. Shape suffixes: T tokens, D d_in, F features of the SAE.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch

from engine.models.hooks import HookPoint, neighbours, resolve_hook
from engine.models.language_model import LanguageModel
from engine.models.reference import sink_limit
from engine.models.sae import Normalisation, SaeConfig, SparseAutoencoder, row_norms
from engine.records import Progress
from engine.records.errors import HookError

TOKENS_PER_STEP = 256
"""Tokens measured between two events, where a request can be stopped: 2 s on two cores for a SAE of 4096 x 65,536."""

SAMPLE, LEAST, WORK = 1024, 256, 5e9
"""Wirings are compared on SAMPLE tokens; on fewer, but at least LEAST, where tokens x d_in x d_sae would pass WORK."""

GAIN, LOOSE_GAIN, TOPK_GAIN = 0.015, 0.1, 0.05
"""How much more of the variance another wiring must explain to be better; TOPK_GAIN is for topk encoders. All are
measured on the same tokens, so differences are exact to some thousandths; but more active features always explain
more, hence LOOSE_GAIN where L0 grows too."""

SAME_L0 = 1.25
"""An L0 up to this many times the present one counts as not grown."""

NAMED_FROM = 0.3
"""A wiring that explains less than this is never named as better: it may only be less wrong than the present one."""

TOPK = (16, 32, 64, 128, 256)
"""Usual values of k, tried beside the published L0."""


@dataclass(frozen=True)
class Fit:
    """How well a SAE explains vectors."""

    variance_explained: float
    """1 - sum |h - h_hat|^2 / sum |h - mean h|^2 over all tokens; NaN without any."""
    l0: float
    most: int
    """The largest number of features that fire on one token."""


@dataclass(frozen=True)
class Wiring:
    """The SAE with another wiring."""

    changes: tuple[str, ...]
    """What is different, in words; () for the wiring as it is."""
    sae: SparseAutoencoder


@dataclass(frozen=True)
class Found:
    """A wiring with its fit; `changes` holds the hook point's name where layers are compared."""

    changes: tuple[str, ...]
    sae: SparseAutoencoder
    fit: Fit


def measure(sae: SparseAutoencoder, h_TD: torch.Tensor, stage: str) -> Generator[Progress, Any, Fit]:
    """Encode and decode vectors in the dtype they come in; yield progress every TOKENS_PER_STEP tokens."""
    if len(h_TD) == 0:
        return Fit(float("nan"), 0.0, 0)
    mean_D = h_TD.double().mean(0).float()
    residue = total = torch.zeros((), dtype=torch.float64, device=h_TD.device)
    fired: list[torch.Tensor] = []
    for at in range(0, len(h_TD), TOKENS_PER_STEP):
        yield Progress(stage, at, len(h_TD))
        batch_TD = h_TD[at : at + TOKENS_PER_STEP]
        h_hat_TD, l0_T = sae.reconstruct(batch_TD)
        residue = residue + (batch_TD.float() - h_hat_TD).double().square().sum()
        total = total + (batch_TD.float() - mean_D).double().square().sum()
        fired.append(l0_T)
    l0_T = torch.cat(fired)
    return Fit(float(1 - residue / total), float(l0_T.mean()), int(l0_T.max()))


def sample_size(sae: SparseAutoencoder) -> int:
    """Return the number of tokens on which wirings of this SAE are compared."""
    return int(min(SAMPLE, max(LEAST, WORK / (sae.d_in * sae.d_sae))))


def sample(h_TD: torch.Tensor, size: int) -> torch.Tensor:
    """Return at most `size` of the vectors, evenly spread over them."""
    size = min(size, len(h_TD))
    index_T = torch.linspace(0, len(h_TD) - 1, size).long() if size else torch.empty(0, dtype=torch.long)
    return h_TD[index_T.to(h_TD.device)]


def better(other: Fit, now: Fit, gain: float = GAIN) -> bool:
    """Whether another wiring explains clearly more, by at least `gain`, or LOOSE_GAIN where its L0 is larger too."""
    needed = gain if other.l0 <= now.l0 * SAME_L0 else max(gain, LOOSE_GAIN)
    # where the present wiring gives NaN, any number is better
    worse = not now.variance_explained >= other.variance_explained - needed
    return other.variance_explained >= NAMED_FROM and worse


# ---- other normalisations, biases and encoders


def variant(sae: SparseAutoencoder, config: SaeConfig) -> SparseAutoencoder:
    """Return a SAE of the same weights with another config."""
    other = copy.copy(sae)
    other.config = config
    if not config.rescale_acts_by_decoder_norm:
        other.norm_F = None
    elif other.norm_F is None or config.scale != sae.config.scale:
        other.norm_F = row_norms(sae.w_dec_FD) / config.scale  # as SparseAutoencoder computes it
    return other


def normalisations(sae: SparseAutoencoder, h_TD: torch.Tensor) -> list[tuple[Normalisation, float]]:
    """Return every kind of normalisation with its scale, the SAE's own first, none twice."""
    config = sae.config
    kinds: list[tuple[Normalisation, float]] = [(config.normalisation, config.scale)]
    scale = sae.d_in**0.5 / float(h_TD.float().norm(dim=-1).mean().clamp(min=1e-12))
    others: list[tuple[Normalisation, float]] = [("none", 1.0), ("constant_norm_rescale", 1.0), ("layer_norm", 1.0)]
    if abs(scale - 1) > 0.05:  # else it is the same as "none"
        others.append(("expected_average_only_in", scale))
    for kind, factor in others:
        if kind != config.normalisation or (
            kind == "expected_average_only_in" and abs(factor / config.scale - 1) > 0.05
        ):
            kinds.append((kind, factor))
    return kinds


def alternatives(sae: SparseAutoencoder, h_TD: torch.Tensor) -> list[Wiring]:
    """Return every other combination of normalisation, b_dec at the input and mean removal, fewest changes first.

    One more wiring switches the rescaling of activations by the decoder's norms, where that has an effect.
    """
    config = sae.config
    wirings = []
    subtracts = (False, True) if bool(sae.b_dec_D.abs().max() > 0) else (config.apply_b_dec_to_input,)
    for (kind, scale), subtract, centered in product(normalisations(sae, h_TD), subtracts, (False, True)):
        if kind == "layer_norm" and centered != config.centered:
            continue  # layer_norm removes the mean itself
        other = replace(config, normalisation=kind, scale=scale, apply_b_dec_to_input=subtract, centered=centered)
        if other != config:
            wirings.append(Wiring(tuple(changes(config, other)), variant(sae, other)))
    rescaled = config.rescale_acts_by_decoder_norm
    norms_F = row_norms(sae.w_dec_FD)
    if config.encoder in ("jumprelu", "topk") and float((norms_F - 1).abs().max()) > 0.02:
        other = replace(config, rescale_acts_by_decoder_norm=not rescaled)
        how = f"activations {'not ' if rescaled else ''}rescaled by the decoder's norms"
        wirings.append(Wiring((how,), variant(sae, other)))
    return sorted(wirings, key=lambda wiring: len(wiring.changes))


def changes(config: SaeConfig, other: SaeConfig) -> list[str]:
    """Say in words how `other` differs from `config`."""
    differences = []
    if (other.normalisation, other.scale) != (config.normalisation, config.scale):
        named = {"none": "no normalisation", "expected_average_only_in": f"every vector scaled by {other.scale:.3g}"}
        differences.append(named.get(other.normalisation, other.normalisation))
    if other.apply_b_dec_to_input != config.apply_b_dec_to_input:
        differences.append(f"b_dec {'' if other.apply_b_dec_to_input else 'not '}subtracted at the input")
    if other.centered != config.centered:
        differences.append(f"the mean over d_model {'removed' if other.centered else 'kept'}")
    return differences


def top_k_alternatives(sae: SparseAutoencoder, now: Fit) -> list[Wiring]:
    """Return a standard encoder's SAE read as topk, for each usual or published k that makes it much sparser."""
    if sae.config.encoder != "standard":
        return []
    published = sae.config.published_l0
    candidates = {*TOPK, *([round(published)] if published else [])}
    return [
        Wiring((f"a topk encoder with k = {k}",), variant(sae, replace(sae.config, encoder="topk", k=k)))
        for k in sorted(candidates)
        if 0 < k < min(0.6 * now.l0, sae.d_sae)
    ]


def compare(wirings: Sequence[Wiring], h_TD: torch.Tensor, stage: str) -> Generator[Progress, Any, list[Found]]:
    """Measure every wiring on the same vectors."""
    results = []
    for index, wiring in enumerate(wirings):
        yield Progress(stage, index, len(wirings))
        fit = yield from silently(measure(wiring.sae, h_TD, stage), Progress(stage, index, len(wirings)))
        results.append(Found(wiring.changes, wiring.sae, fit))
    return results


def silently(work: Generator[Progress, Any, Fit], progress: Progress) -> Generator[Progress, Any, Fit]:
    """Run a measurement that is part of a longer one: yield `progress` in place of its own progress."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            fit: Fit = done.value
            return fit
        yield progress


def best_of(candidates: Sequence[Found], now: Fit, gain: float = GAIN) -> Found | None:
    """Return the wiring that explains clearly more than `now`, if any; of about equal ones that with fewest changes."""
    good = [f for f in candidates if better(f.fit, now, gain)]
    if not good:
        return None
    top = max(f.fit.variance_explained for f in good)
    return min((f for f in good if f.fit.variance_explained > top - GAIN), key=lambda f: (len(f.changes), f.fit.l0))


# ---- neighbouring layers


def layers(
    model: LanguageModel,
    hook: HookPoint,
    passages: Sequence[Sequence[int]],
    vectors: Sequence[torch.Tensor],
    sae: SparseAutoencoder,
) -> Generator[Progress, Any, list[Found]]:
    """Measure the SAE on `vectors`, captured at `hook`, and on those at the same place one layer below and above.

    All on the same tokens, about `sample_size` of them; `changes` holds the hook point's name.
    """
    step = max(1, sum(map(len, passages)) // sample_size(sae))
    passages, vectors = passages[::step], vectors[::step]
    results = []
    try:
        names = neighbours(model.module, hook)
    except HookError:  # blocks of an unknown kind
        names = ()
    for name in (hook.name, *names):
        stage = "trying neighbouring layers"
        try:
            if name != hook.name:
                vectors = yield from model.capture(resolve_hook(model.module, name), passages, stage)
        except HookError:  # the model's layers are not all alike
            continue
        h_TD = kept(torch.cat(list(vectors)), passages, model.tokens.special)
        if h_TD.shape[-1] == sae.d_in:
            fit = yield from measure(sae, h_TD, stage)
            results.append(Found((name,), sae, fit))
    return results


def kept(
    h_TD: torch.Tensor, passages: Sequence[Sequence[int]], special: set[int], sink_norm: float | None = None
) -> torch.Tensor:
    """Return the vectors without special tokens and sinks (norms above `sink_norm`, else the `sink_limit`)."""
    norm_T = h_TD.float().norm(dim=-1)
    special_T = torch.tensor([i in special for ids in passages for i in ids], device=h_TD.device)
    limit = sink_limit(norm_T, special_T) if sink_norm is None else sink_norm
    return h_TD[~special_T & (norm_T <= limit)]
