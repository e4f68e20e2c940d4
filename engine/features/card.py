"""The verb `describe`: everything known about one feature, gathered and remembered.

Cards are kept with the pair as long as nothing that they depend on has changed, so that going back and forth in a list
of features computes nothing twice. Shape suffixes: T tokens, F features of the SAE, N firings.
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
"""How many neighbours, antipodes and co-active features a card shows, each."""

KEPT = 256
"""Number of features whose cards are remembered."""

KEPT_FIRINGS = 2**24
"""Firings remembered over all prompts: 128 MB, hundreds of times what a usual SAE fires on a session's prompts."""


@dataclass(frozen=True)
class Firings:
    """Which features fire on which counted tokens of a prompt, both int32."""

    token_N: torch.Tensor
    feature_N: torch.Tensor


@dataclass(frozen=True)
class Card:
    """A feature's card, and the read prompts that it was made from."""

    reads: tuple[weakref.ref[Read], ...]
    described: Described

    def of(self, reads: Sequence[Read]) -> bool:
        """Return whether the card was made from these very reads: a prompt read again may differ in its last digits."""
        return len(reads) == len(self.reads) and all(a() is b for a, b in zip(self.reads, reads, strict=True))


@dataclass
class Cards:
    """What `describe` remembers for one pair."""

    norm_F: torch.Tensor | None = None
    """Norms of the decoder's rows, computed when first needed."""
    firings: Any = field(default_factory=WeakIdKeyDictionary)
    """Firings by read prompt; an entry goes when its prompt does."""
    cards: OrderedDict[Hashable, Card] = field(default_factory=OrderedDict)


def describe(pair: Pair, request: Describe) -> Events:
    """Return a Described: what is known about a feature, its effect on a measure excepted. Raises EditError.

    The feature's own activations are float32. Those of co-active features are in the dtype of the prompts' vectors, as
    in a ranking: close to a threshold, bfloat16 may count a token more or less.
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
    """Store the value as the newest; beyond KEPT, drop the oldest."""
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > KEPT:
        kept.popitem(last=False)


def _card(pair: Pair, kept: Cards, request: Describe, reads: list[Read]) -> Events:
    """Compute everything on the card but the effect on a measure."""
    model, sae, reference, feature = pair.model, pair.site.sae, pair.site.reference, request.feature
    tokens, limit = model.tokens, min(request.top, BESIDE)
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
    neighbours, antipodes = relations.neighbours(tokens, reference, feature, cosine_F, limit)
    co_activity = yield from _co_activity(pair, kept, reads, fires_by_read)
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
        co_active=co_activity.best(tokens, reference, feature, limit),
    )


def _fires(read: Read, row: Sequence[float]) -> torch.Tensor:
    """Return fires_T: on which counted tokens a feature fires, from its row of activations."""
    return (torch.tensor(row) > 0) & torch.tensor(read.fed.rank_mask)


# ---- which features fire where


def _co_activity(
    pair: Pair, kept: Cards, reads: list[Read], fires: list[torch.Tensor]
) -> Generator[Progress, Any, CoActivity]:
    """Count over the prompts which features fire together with the one that fires on the tokens `fires`."""
    co_activity = CoActivity(pair.site.sae.d_sae)
    for block in batches([len(read.h_TD) for read in reads]):
        firings = yield from _firings(pair, kept, [reads[p] for p in block])
        for p, firing in zip(block, firings, strict=True):
            co_activity.add(fires[p], firing.token_N, firing.feature_N)
    return co_activity


def _firings(pair: Pair, kept: Cards, reads: Sequence[Read]) -> Generator[Progress, Any, list[Firings]]:
    """Return the firings of a few prompts, each computed once as long as the prompt is not read anew."""
    by_read = {id(read): kept.firings.get(read) for read in reads}
    missing = list({id(read): read for read in reads if by_read[id(read)] is None}.values())
    if missing:
        computed = yield from _encode(pair, missing)
        if sum(len(f.token_N) for f in (*kept.firings.values(), *computed)) > KEPT_FIRINGS:
            kept.firings.clear()
        for read, firing in zip(missing, computed, strict=True):
            kept.firings[read] = by_read[id(read)] = firing
    return [by_read[id(read)] for read in reads]


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
    firings, start = [], 0
    for read in reads:
        here = (token_N >= start) & (token_N < start + len(read.h_TD))
        firings.append(Firings(token_N[here] - start, feature_N[here]))
        start += len(read.h_TD)
    return firings


def prompt_tokens(shown: Shown) -> list[StrongToken]:
    """Return every unmasked token of the prompts on which the feature fires."""
    tokens = []
    for fed, row in zip(shown.prompts, shown.activations, strict=True):
        for t, (value, keep) in enumerate(zip(row, fed.rank_mask, strict=True)):
            if value > 0 and keep:
                before = "".join(fed.tokens[max(0, t - CONTEXT_TOKENS) : t])
                after = "".join(fed.tokens[t + 1 : t + 1 + CONTEXT_TOKENS])
                tokens.append(StrongToken(value, fed.tokens[t], before, after, "prompt"))
    return tokens


def histogram(reference: Reference, feature: int, activations: Sequence[float]) -> tuple[Bin, ...]:
    """Return the bins from the lowest to the highest that is not empty, over the reference text and `activations`."""
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
