"""The leaderboard over one SAE: pooled activations to columns, and the rows to be shown, scored exactly.

Prompts read in bfloat16 are encoded in bfloat16 for the columns over all features. The rows shown are scored again in
float32; of the half-precision pass they keep only s0, a median over all features. What compares a feature with all
others, its p and its worst rank without a prompt, stays that of the pass over all features.

Shape suffixes: P prompts, T tokens, D d_in, F features, K features scored exactly.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from math import isinf
from typing import Any

import numpy as np
import torch
from msgspec.structs import replace

from engine.features import contrast as statistics
from engine.features import permutation
from engine.features.activations import names
from engine.features.contrast import Floats
from engine.features.pooling import Pooled, pool_features, pool_prompts
from engine.models.pair import Events, Pair, Read
from engine.models.reference import Reference
from engine.models.sae import SparseAutoencoder
from engine.records import RANKED_BY, FeatureRow, Progress, Rank, Ranking
from engine.records.errors import UsageError
from engine.records.features import BY_NAME
from engine.records.words.numbers import in_letters

SPARE = 64
"""Rows scored exactly beyond the number to be shown: rounding may have kept one of them out."""


@dataclass(frozen=True)
class RankTable:
    """Every leaderboard column over all features, for one request whatever column it sorts by.

    `columns` holds the values of RANK_COLUMNS; None for a column that needs more prompts.
    """

    key: tuple[Any, ...]
    reads: list[Read]
    columns: dict[str, Any]
    active_F: np.ndarray[Any, Any]
    s0: float
    permutations: int
    """Number of labelings that p was counted over."""


def rank(pair: Pair, request: Rank) -> Events:
    """Rank every feature by how well it separates the positive from the negative prompts. Raises UsageError."""
    positive, negative = request.prompts.positive, request.prompts.negative
    check(request)
    sae, reference = pair.site.sae, pair.site.reference
    sae.columns(request.also)  # raises for a feature the SAE does not have
    table = pair.kept(RankTable)
    if table is None or table.key != key_of(request):
        reads = yield from pair.read([*positive, *negative], together=True)
        table = pair.keep((yield from build(sae, reference, reads, request)))
    rows = best(sae, reference, table, request)
    tokens = names(pair, [row.feature for row in rows], table.reads)
    count = statistics.labelings(len(positive), len(negative))
    lengths = [sum(r.fed.rank_mask) for r in table.reads]
    return Ranking(
        features=tuple(replace(row, tokens=t) for row, t in zip(rows, tokens, strict=True)),
        by=request.by,
        pool=request.pool,
        include_masked=request.include_masked,
        density_weight=request.density_weight,
        n_positive=len(positive),
        n_negative=len(negative),
        n_active_features=int(table.active_F.sum()),
        labelings=count,
        p_floor=1 / count,
        warnings=(
            *statistics.warnings(lengths[: len(positive)], lengths[len(positive) :], request.pool),
            *pair.beyond_context([len(r.fed.token_ids) for r in table.reads], "prompts"),
        ),
        prompts=tuple(r.fed for r in table.reads),
        permutations=table.permutations,
    )


def check(request: Rank) -> None:
    """Raise UsageError for a request that cannot be ranked."""
    if request.by not in RANKED_BY:
        raise UsageError(f"There is no column {request.by!r}.", f"Rank by one of {', '.join(RANKED_BY)}.")
    positive, negative = request.prompts.positive, request.prompts.negative
    if not positive or not negative:
        missing = "positive" if not positive else "negative"
        raise UsageError(
            f"The prompt set {request.prompts.name!r} has no {missing} prompts.",
            "A contrast needs prompts that show the behaviour and prompts that do not.",
        )
    column = BY_NAME[request.by]
    if not column.has_prompts(len(positive), len(negative)):
        least = in_letters(column.least_prompts)
        raise UsageError(f"{column.name} needs at least {least} prompts in each set.", "Rank by score, or add prompts.")
    if request.top < 1:
        raise UsageError("--top must be at least 1.")


def key_of(request: Rank) -> tuple[Any, ...]:
    """Return what the columns depend on: all of the request but its sorting and its number of rows."""
    positive, negative = request.prompts.positive, request.prompts.negative
    texts = tuple((p.text, p.format) for p in (*positive, *negative))
    return texts, len(positive), request.pool, request.include_masked, request.density_weight


def build(
    sae: SparseAutoencoder, reference: Reference, reads: list[Read], request: Rank
) -> Generator[Progress, Any, RankTable]:
    """Compute the columns over all features."""
    m = len(request.prompts.positive)
    pooled = yield from pool_prompts(sae, [r.h_TD for r in reads], masks(reads, request), request.pool, m)
    every_F = np.arange(sae.d_sae)
    columns, s0 = score(pooled, reference, request, every_F)
    z_PF, weight_F = pooled.value_PF, weight(reference, request, every_F)
    active_F = np.asarray((z_PF > 0).any(0))
    columns["loo"] = yield from permutation.leave_one_out(z_PF, m, weight_F, active_F)
    columns["p"], count = yield from permutation.p_values(z_PF, m, columns["score"], weight_F, s0, active_F)
    return RankTable(key_of(request), reads, columns, active_F, s0, count)


def masks(reads: Sequence[Read], request: Rank) -> list[torch.Tensor]:
    """Return which tokens of each prompt count."""
    return [torch.tensor(r.fed.rank_mask) | request.include_masked for r in reads]


def score(
    pooled: Pooled, reference: Reference, request: Rank, features_K: np.ndarray[Any, Any], s0: float | None = None
) -> tuple[dict[str, Any], float]:
    """Return (the columns of these features, s0); s0 is computed from these features unless given.

    Divides pooled.value_PF in place by each feature's unit: with hundreds of prompts it is the largest array there is.
    """
    m = len(request.prompts.positive)
    # Neutral text may never touch the behaviour's topic, so a maximum observed in the prompts counts too:
    # otherwise a feature silent on the reference would get an activation unit near zero.
    unit_K = np.maximum(reference.maximum_F.numpy()[features_K], pooled.maximum_F)
    z_PK = np.divide(pooled.value_PF, unit_K, out=pooled.value_PF, where=unit_K > 0)
    s0 = statistics.stabiliser(z_PK, m) if s0 is None else s0
    contrasted = statistics.contrast(z_PK[:m], z_PK[m:], weight(reference, request, features_K), s0)
    return {**vars(contrasted), "density": density(reference, features_K), "seed": pooled.sum_F / m}, s0


def density(reference: Reference, features_K: np.ndarray[Any, Any]) -> Floats:
    """Return the share of neutral tokens on which each of these features fires."""
    return np.asarray(reference.density_F().numpy().astype(np.float64)[features_K])


def weight(reference: Reference, request: Rank, features_K: np.ndarray[Any, Any]) -> Floats | None:
    """Return what t is multiplied by, from density alone; None where the request wants t itself."""
    if not request.density_weight:
        return None
    return statistics.density_weight(density(reference, features_K), reference.n_tokens)


def best(sae: SparseAutoencoder, reference: Reference, table: RankTable, request: Rank) -> list[FeatureRow]:
    """The rows to be shown, best first, then those asked for by number; their tokens are left empty."""
    active = np.flatnonzero(table.active_F)
    order = np.argsort(-table.columns[request.by][active], kind="stable")[: request.top + SPARE]
    candidates = [int(i) for i in active[order]]
    wanted = [*candidates, *(i for i in request.also if i not in candidates)]
    if not wanted:
        return []
    columns: dict[str, Any] = {name: None if c is None else c[wanted] for name, c in table.columns.items()}
    vectors = [r.h_TD for r in table.reads]
    if vectors[0].dtype != torch.float32:
        m = len(request.prompts.positive)
        pooled = pool_features(sae, vectors, masks(table.reads, request), request.pool, m, wanted)
        # p and loo compare a feature with all others, so they stay those of the pass over all
        columns |= score(pooled, reference, request, np.array(wanted), table.s0)[0]
    by_value = np.argsort(-columns[request.by][: len(candidates)], kind="stable")[: request.top].tolist()
    shown = {wanted[k] for k in by_value}
    by_number = [wanted.index(i) for i in dict.fromkeys(request.also) if i not in shown]
    return [feature_row(wanted[k], k, columns) for k in [*by_value, *by_number]]


def feature_row(feature: int, at: int, columns: dict[str, Any]) -> FeatureRow:
    """One row out of the columns; those that so few prompts do not have are None."""
    found: dict[str, Any] = {name: None if c is None else c[at].item() for name, c in columns.items()}
    infinite = [name for name, number in found.items() if number is not None and isinf(number)]
    return FeatureRow(feature, (), **found | dict.fromkeys(infinite) | {f"{name}_infinite": True for name in infinite})
