"""The verb `describe`: all that is known about one feature, put together and remembered.

What was found is kept with the pair, as long as nothing that it depends on has changed, so that going back and
forth in a list of features computes nothing twice. Shape suffixes: T tokens, F features of the SAE, N firings.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Generator, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from msgspec.structs import replace
from torch.utils.weak import WeakIdKeyDictionary

from engine.features import relations
from engine.features.activations import show
from engine.features.logit_lens import logit_lens
from engine.features.pooling import batches
from engine.features.relations import STAGE, CoActivity, cosines, decoder_norms
from engine.models.pair import Events, Pair, Read
from engine.models.reference import CONTEXT_TOKENS, EDGES, Reference, bins_of, reference_tokens
from engine.records import Bin, Describe, Described, Progress, Show, Shown, StrongToken

T = TypeVar("T")

BESIDE = 8
"""Neighbours, antipodes and co-active features shown, each."""

KEPT = 256
"""Features whose cards are remembered."""

KEPT_FIRINGS = 2**24
"""Of all prompts together: 128 MB, hundreds of times what a usual SAE fires on the prompts of a session."""


@dataclass(frozen=True)
class Firings:
    """Which features fire on which counted tokens of a prompt, int32."""

    token_N: torch.Tensor
    feature_N: torch.Tensor


@dataclass(frozen=True)
class Card:
    """A feature's card, and the vectors that it was made from."""

    reads: tuple[weakref.ref[Read], ...]
    described: Described

    def of(self, reads: Sequence[Read]) -> bool:
        """Whether it was made from these very vectors: a prompt read again may differ in its last digits."""
        return len(reads) == len(self.reads) and all(a() is b for a, b in zip(self.reads, reads, strict=True))


@dataclass
class Cards:
    """What is remembered for one pair."""

    norm_F: torch.Tensor | None = None
    """The decoder's, once they are needed."""
    firings: Any = field(default_factory=WeakIdKeyDictionary)
    """Of each read prompt, gone when it is."""
    cards: OrderedDict[Hashable, Card] = field(default_factory=OrderedDict)


def describe(pair: Pair, request: Describe) -> Events:
    """What is known about a feature, its effect on a measure apart; returns a Described. Raises EditError.

    Its own activations are float32. Those of the features that fire beside it are in the dtype of the prompts'
    vectors, as in a ranking: close to a threshold, bfloat16 may count a token more or less.
    """
    pair.site.sae.columns([request.feature])  # raises for a feature the SAE does not have
    reads = yield from pair.read(request.prompts)
    kept = pair.kept_or(Cards, Cards)
    key = replace(request, measure=None)
    card = kept.cards.get(key)
    if card is None or not card.of(reads):
        described = yield from _card(pair, kept, key, reads)
        card = Card(tuple(weakref.ref(read) for read in reads), described)
    keep_newest(kept.cards, key, card)
    return card.described


def keep_newest(kept: OrderedDict[Hashable, T], key: Hashable, value: T) -> None:
    """Remembers it as the newest, and forgets the oldest."""
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > KEPT:
        kept.popitem(last=False)


def _card(pair: Pair, kept: Cards, request: Describe, reads: list[Read]) -> Events:
    """Everything but the effect."""
    model, sae, reference, feature = pair.model, pair.site.sae, pair.site.reference, request.feature
    tokens, beside = model.tokens, min(request.top, BESIDE)
    shown: Shown = yield from show(pair, Show(feature, request.prompts))
    fires_by_read = [_fires(read, row) for read, row in zip(reads, shown.activations, strict=True)]
    in_prompts = prompt_tokens(shown)
    strongest = reference_tokens(tokens, reference, feature) + in_prompts
    strongest.sort(key=lambda s: -s.activation)
    yield Progress(STAGE)
    promoted, suppressed = yield from logit_lens(model, sae, feature, request.top, pair.site.reads_at)
    if kept.norm_F is None:
        kept.norm_F = yield from decoder_norms(sae)
    cosine_F = yield from cosines(sae, feature, kept.norm_F)
    neighbours, antipodes = relations.neighbours(tokens, reference, feature, cosine_F, beside)
    beside_it = yield from _co_activity(pair, kept, reads, fires_by_read)
    return Described(
        feature=feature,
        density=float(reference.density_F()[feature]),
        reference_maximum=float(reference.maximum_F[feature]),
        reference_count=int(reference.count_F[feature]),
        reference_tokens=reference.n_tokens,
        strongest=tuple(strongest[: request.top]),
        promoted=promoted,
        suppressed=suppressed,
        histogram=histogram(reference, feature, [s.activation for s in in_prompts]),
        prompt_count=len(in_prompts),
        neighbours=neighbours,
        antipodes=antipodes,
        co_active=beside_it.best(tokens, reference, feature, beside),
    )


def _fires(read: Read, row: Sequence[float]) -> torch.Tensor:
    """On which counted tokens_T a feature fires."""
    return (torch.tensor(row) > 0) & torch.tensor(read.fed.rank_mask)


# ---- which features fire where


def _co_activity(
    pair: Pair, kept: Cards, reads: list[Read], fires: list[torch.Tensor]
) -> Generator[Progress, Any, CoActivity]:
    """Counts over the prompts which features fire together with the one whose firings are given."""
    found = CoActivity(pair.site.sae.d_sae)
    for some in batches([len(read.h_TD) for read in reads]):
        firings = yield from _firings(pair, kept, [reads[p] for p in some])
        for p, firing in zip(some, firings, strict=True):
            found.add(fires[p], firing.token_N, firing.feature_N)
    return found


def _firings(pair: Pair, kept: Cards, reads: Sequence[Read]) -> Generator[Progress, Any, list[Firings]]:
    """Those of a few prompts, computed once as long as a prompt is not read anew."""
    found = {id(read): kept.firings.get(read) for read in reads}
    missing = list({id(read): read for read in reads if found[id(read)] is None}.values())
    if missing:
        computed = yield from _encode(pair, missing)
        if sum(len(f.token_N) for f in (*kept.firings.values(), *computed)) > KEPT_FIRINGS:
            kept.firings.clear()
        for read, firing in zip(missing, computed, strict=True):
            kept.firings[read] = found[id(read)] = firing
    return [found[id(read)] for read in reads]


def _encode(pair: Pair, reads: Sequence[Read]) -> Generator[Progress, Any, list[Firings]]:
    tokens: list[torch.Tensor] = []
    features: list[torch.Tensor] = []
    counted_T = torch.tensor([keep for read in reads for keep in read.fed.rank_mask])
    for active in pair.site.sae.encode(torch.cat([read.h_TD for read in reads])):
        token_N = active.token_N.cpu()
        keep_N = counted_T[token_N]
        tokens.append(token_N[keep_N].int())
        features.append(active.feature_N.cpu()[keep_N].int())
        yield Progress(STAGE)
    token_N, feature_N = torch.cat(tokens), torch.cat(features)
    found, start = [], 0
    for read in reads:
        here = (token_N >= start) & (token_N < start + len(read.h_TD))
        found.append(Firings(token_N[here] - start, feature_N[here]))
        start += len(read.h_TD)
    return found


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
