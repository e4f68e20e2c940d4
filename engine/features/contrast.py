"""Contrastive ranking: which features separate the positive prompts from the negative ones?

Pure statistics on pooled activations, in numpy. Knows nothing about models or tokens. A feature that ranks high is only
*associated* with the behaviour; only an edit shows whether it influences it.

Shape suffixes: P prompts, N negatives, M positives, F features. The t statistic with its stabiliser s0 follows SAM
(Tusher, Tibshirani and Chu 2001), g is Hedges' (1981).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, log

import numpy as np
import numpy.typing as npt

from engine.records import Pool
from engine.records.features import BY_NAME

Floats = npt.NDArray[np.float64]

MANY_LABELINGS = 10**18
"""Upper limit of `labelings`: hundreds of prompts have more than a 64-bit integer can hold."""

ROUNDING = 1e-6
"""A spread below this share of the largest value is none: the same float32 activation, read in another batch."""

GROWS: dict[Pool, str] = {"max": "maximum", "sum": "sum"}
"""The ways of pooling whose value grows with a prompt's length, and what messages call that value."""


@dataclass(frozen=True)
class Contrast:
    """One value per feature in each column; `g` is None below four prompts a set, infinite without any spread."""

    score: Floats
    diff: Floats
    auroc: Floats
    t: Floats
    g: Floats | None
    coverage_positive: Floats
    coverage_negative: Floats


def contrast(
    positive_MF: npt.NDArray[np.float32],
    negative_NF: npt.NDArray[np.float32],
    weight_F: Floats | None,
    s0: float | None = None,
) -> Contrast:
    """Compute every label-dependent column from pooled activations in units of each feature's maximum.

    `weight_F` multiplies t to give the score; if it is None, the score equals t. To contrast only some features, give
    the `stabiliser` of all of them as `s0`.
    """
    m, n = len(positive_MF), len(negative_NF)
    positive, negative = positive_MF.astype(np.float64), negative_NF.astype(np.float64)
    diff = positive.mean(0) - negative.mean(0)
    pooled_sd = pooled_deviation(positive, negative)
    largest = np.maximum(positive.max(0), negative.max(0))
    root = np.sqrt(1 / m + 1 / n)
    s0 = stabiliser(np.concatenate([positive, negative]), m) if s0 is None else s0
    t = np.divide(diff, pooled_sd * root + s0, out=np.zeros_like(diff), where=pooled_sd * root + s0 > 0)
    return Contrast(
        score=t if weight_F is None else t * weight_F,
        diff=diff,
        auroc=auroc(positive, negative),
        t=t,
        g=hedges_g(diff, pooled_sd, largest, m + n) if BY_NAME["g"].has_prompts(m, n) else None,
        coverage_positive=(positive > 0).mean(0),
        coverage_negative=(negative > 0).mean(0),
    )


def hedges_g(diff_F: Floats, pooled_sd_F: Floats, largest_F: Floats, prompts: int) -> Floats:
    """Hedges' g; infinite with the difference's sign where neither set has any spread and they differ."""
    with np.errstate(divide="ignore", invalid="ignore"):
        g_F = diff_F / pooled_sd_F * (1 - 3 / (4 * prompts - 9))
    apart_F = np.where(np.abs(diff_F) > ROUNDING * largest_F, np.copysign(np.inf, diff_F), 0.0)
    return np.where(pooled_sd_F > ROUNDING * largest_F, g_F, apart_F)


def pooled_deviation(positive_MF: Floats, negative_NF: Floats) -> Floats:
    """Return each feature's standard deviation, pooled over the two sets; 0 with one prompt in each."""
    m, n = len(positive_MF), len(negative_NF)
    squares = ((positive_MF - positive_MF.mean(0)) ** 2).sum(0) + ((negative_NF - negative_NF.mean(0)) ** 2).sum(0)
    return np.asarray(np.sqrt(squares / max(1, m + n - 2)))


def stabiliser(all_PF: npt.NDArray[np.floating], m: int) -> float:
    """Return s0: the median standard error over the features active anywhere, whichever `m` prompts are positive."""
    active = (all_PF > 0).any(0)
    if not active.any():
        return 0.0
    deviation = all_PF[:, active].std(0, ddof=1, dtype=np.float64)
    return median_error(deviation * np.sqrt(1 / m + 1 / (len(all_PF) - m)))


def median_error(error_F: Floats) -> float:
    """The median of standard errors; where it is 0, that of the others: 0 only where no feature varies at all.

    Prompts that begin alike have one maximum of most features. With s0 = 0, a feature that separates the sets without
    spread would have no t.
    """
    least = ROUNDING * error_F.max(initial=0.0)
    varies_F = error_F > least
    if not varies_F.any():
        return 0.0
    median = np.median(error_F)
    return float(median if median > least else np.median(error_F[varies_F]))


def auroc(positive_MF: Floats, negative_NF: Floats) -> Floats:
    """Return the share of (positive, negative) pairs whose positive prompt is higher; ties count half."""
    wins = np.zeros(positive_MF.shape[1])
    for row_F in positive_MF:
        wins += (row_F > negative_NF).sum(0) + 0.5 * (row_F == negative_NF).sum(0)
    return wins / (len(positive_MF) * len(negative_NF))


def density_weight(density_F: Floats, n_reference: int) -> Floats:
    """Return ln(1/density) / ln(2(N+1)): 1 for the rarest density the reference can show, 0 for always firing."""
    return np.log(1 / density_F) / log(2 * (n_reference + 1))


def labelings(m: int, n: int) -> int:
    """Return the number of ways to choose m positives among m + n prompts, at most MANY_LABELINGS."""
    return min(MANY_LABELINGS, comb(m + n, m))


def warnings(lengths_positive: list[int], lengths_negative: list[int], pool: Pool) -> list[str]:
    """Return what a reader must know before believing the ranking; lengths are in counted tokens, one per prompt."""
    m, n = len(lengths_positive), len(lengths_negative)
    messages = []
    count = labelings(m, n)
    if count < 1000:
        messages.append(f"{m} against {n} prompts has only {count} labelings: no p below {1 / count:.3g} is possible.")
    longer, shorter = sorted([np.mean(lengths_positive), np.mean(lengths_negative)], reverse=True)
    if longer > 1.5 * shorter and pool in GROWS:
        messages.append(
            f"The sets differ in length ({np.mean(lengths_positive):.0f} against {np.mean(lengths_negative):.0f} "
            f"tokens on average): a {GROWS[pool]} grows with length."
        )
    return messages
