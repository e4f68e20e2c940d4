"""Where features fire: one feature on every token, the features of one token, and the tokens that name a feature.

Shape suffixes: T tokens, N activations above zero, K chosen features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.models.pair import Events, Pair, Read
from engine.models.reference import distinct, reference_tokens
from engine.records import FeatureAt, FeaturesAt, Show, Shown, TokenFeatures
from engine.records.errors import UsageError


def show(pair: Pair, request: Show) -> Events:
    """Return one feature's activation on every token, masked tokens included."""
    sae = pair.site.sae
    columns = sae.columns([request.feature])
    reads = yield from pair.read(request.prompts)
    rows = []
    maximum = float(pair.site.reference.maximum_F[request.feature])
    for read in reads:
        f_T = sae.encode_features(sae.normalise(read.h_TD).x_TD, columns)[:, 0].tolist()
        rows.append(tuple(f_T))
        maximum = max([maximum, *(f for f, keep in zip(f_T, read.fed.rank_mask, strict=True) if keep)])
    return Shown(request.feature, tuple(r.fed for r in reads), tuple(rows), maximum)


def features_at(pair: Pair, request: FeaturesAt) -> Events:
    """Return the features that fire most on one token. Raises UsageError where the prompt has no such token."""
    (read,) = yield from pair.read([request.prompt])
    if not 0 <= request.token_index < len(read.h_TD):
        raise UsageError(f"The prompt has {len(read.h_TD)} tokens, there is no token {request.token_index}.")
    at = request.token_index
    # one token is cheap enough for float32, in which activations are shown everywhere else
    active = list(pair.site.sae.encode(read.h_TD[at : at + 1].float()))
    value_N, feature_N = torch.cat([a.value_N for a in active]), torch.cat([a.feature_N for a in active])
    values, order = value_N.topk(min(request.top, len(value_N)))
    strongest = list(zip(feature_N[order].tolist(), values.tolist(), strict=True))
    tokens = names(pair, [feature for feature, _ in strongest], [read])
    return TokenFeatures(
        prompt=request.prompt,
        token_index=at,
        token=read.fed.tokens[at],
        features=tuple(FeatureAt(i, v, named) for (i, v), named in zip(strongest, tokens, strict=True)),
        n_active=len(value_N),
    )


def names(pair: Pair, features: Sequence[int], reads: Sequence[Read]) -> list[tuple[str, ...]]:
    """Return for each feature up to three distinct tokens it fires on most, in the prompts and the reference text."""
    if not features:
        return []
    sae = pair.site.sae
    columns = sae.columns(features)
    candidates = [
        [(s.activation, s.token) for s in reference_tokens(pair.model.tokens, pair.site.reference, feature)]
        for feature in features
    ]
    for read in reads:
        f_TK = sae.encode_features(sae.normalise(read.h_TD).x_TD, columns).cpu()
        f_TK[~torch.tensor(read.fed.rank_mask)] = 0
        for t, k in (f_TK > 0).nonzero().tolist():
            candidates[k].append((float(f_TK[t, k]), read.fed.tokens[t]))
    return [distinct(tokens) for tokens in candidates]
