"""How robust a ranking is: max-T permutation p of each feature, and each feature's rank without any one prompt.

p is the share of labelings (assignments of the prompts to the two sets) in which the *best* of all features scores at
least as high as the feature does with the true labels. Comparing with the best corrects for the number of features
(Westfall and Young 1993). s0 and the density weight do not depend on the labels, so a labeling changes only the
difference of means d. With Q a feature's sum of squares about its mean over all prompts, c = 1/m + 1/n and s the sum of
its centred values over the m positives,

    d = c s,    sum of squares within the two sets = Q - d^2 / c,

and s of all labelings is one matrix product, computed block by block. Sums are float64, because Q - d^2 / c is a small
difference of large numbers where a feature hardly varies within the sets. Knows nothing about models or tokens.

Shape suffixes: P prompts, F features, A features active anywhere, L labelings, B features of a block.
"""

from __future__ import annotations

from collections.abc import Generator
from itertools import combinations

import numpy as np
import numpy.typing as npt

from engine.features import contrast
from engine.features.contrast import Floats
from engine.records import Progress

Pooled = npt.NDArray[np.float32]

FEWEST = 20
"""With fewer labelings p is always above 0.05, so none is given."""

ALL_UP_TO = 210_000
"""Largest number of labels (labelings times prompts) for which all labelings are used, so that p is exact.

8 against 8 prompts have 12,870 labelings of 16 labels.
"""

RANDOM = 1_000
"""Number of labelings drawn where there are more, the true one included: at p = 0.05 the standard error is 0.007."""

SEED = 0

FEATURES_PER_BLOCK = 512

LABELINGS_PER_BLOCK = 256
"""A block of scores, 1 MB, stays in the processor's cache."""

ONE_THREAD_UP_TO = 64
"""Prompts up to which a product is so small that one thread is fast enough."""

TIE = 1e-6
"""Scores that differ by less than this share of the largest count as equal.

Rounding leaves about 1e-16 instead of 0 as the sum of squares within the sets of a feature that is constant there, and
its root, 1e-8, enters the score. Features that fire in the same prompts often tie.
"""


def draw(m: int, n: int) -> npt.NDArray[np.bool_] | None:
    """Return labelings of m + n prompts, True for a positive, as (L, P); None where fewer than FEWEST exist.

    The first is the true one: the first m prompts are the positives. The same m and n give the same labelings, so that
    a replay gives the same p.
    """
    count = contrast.labelings(m, n)
    if count < FEWEST:
        return None
    if count * (m + n) <= ALL_UP_TO:
        chosen = np.array(list(combinations(range(m + n), m)))
    else:
        order = np.random.default_rng(SEED).random((RANDOM, m + n)).argsort(1)
        chosen = np.concatenate([np.arange(m)[None], order[1:, :m]])
    labels_LP = np.zeros((len(chosen), m + n), dtype=np.bool_)
    np.put_along_axis(labels_LP, chosen, True, axis=1)
    return labels_LP


def p_values(
    z_PF: Pooled, m: int, score_F: Floats, weight_F: Floats | None, s0: float, active_F: npt.NDArray[np.bool_]
) -> Generator[Progress, None, tuple[Floats | None, int]]:
    """Return (the max-T p of each feature's score, the number of labelings); (None, 0) where there are too few.

    z_PF holds the positives first; score_F, weight_F and s0 are those of `contrast` for the same values. p is the share
    of labelings whose largest score over all active features is at least the feature's.
    """
    labels_LP = draw(m, len(z_PF) - m)
    if labels_LP is None or not active_F.any():
        return None, 0
    maximum_L = yield from maxima(z_PF, labels_LP, weight_F, s0, np.flatnonzero(active_F))
    maximum_L.sort()
    reached = np.searchsorted(maximum_L, score_F - TIE * np.abs(score_F).max())
    return (len(maximum_L) - reached) / len(maximum_L), len(maximum_L)


def maxima(
    z_PF: Pooled, labels_LP: npt.NDArray[np.bool_], weight_F: Floats | None, s0: float, active_A: npt.NDArray[np.intp]
) -> Generator[Progress, None, Floats]:
    """Return each labeling's largest score over the active features.

    Blocks of features are scored in the order of their `bounds`, the highest first. A labeling whose maximum reaches
    the next bound is complete, so most features, which fire in few prompts and cannot score high, are never scored.
    """
    m = int(labels_LP[0].sum())
    bound_A = yield from bounds(z_PF, m, weight_F, s0, active_A)
    order_A = np.argsort(-bound_A, kind="stable")
    maximum_L = np.full(len(labels_LP), -np.inf)
    for start in range(0, len(order_A), FEATURES_PER_BLOCK):
        block_B = order_A[start : start + FEATURES_PER_BLOCK]
        incomplete = np.flatnonzero(maximum_L < bound_A[block_B[0]])
        if not len(incomplete):
            break
        yield Progress("permutations", start, len(order_A))
        features_B = active_A[block_B]
        x_PB = centred(z_PF, features_B)
        for first in range(0, len(incomplete), LABELINGS_PER_BLOCK):
            chosen = incomplete[first : first + LABELINGS_PER_BLOCK]
            score_LB = scores(product(labels_LP[chosen].astype(np.float64), x_PB), x_PB, m, s0)
            if weight_F is not None:
                score_LB *= weight_F[features_B]
            maximum_L[chosen] = np.maximum(maximum_L[chosen], score_LB.max(1))
    return maximum_L


def bounds(
    z_PF: Pooled, m: int, weight_F: Floats | None, s0: float, active_A: npt.NDArray[np.intp]
) -> Generator[Progress, None, Floats]:
    """Return each active feature's largest possible score: that of the labeling with its m largest values positive."""
    bound_A = np.empty(len(active_A))
    for start in range(0, len(active_A), FEATURES_PER_BLOCK):
        yield Progress("permutations", 0, len(active_A))
        features_B = active_A[start : start + FEATURES_PER_BLOCK]
        x_PB = centred(z_PF, features_B)
        largest_B = np.partition(x_PB.T, len(x_PB) - m, axis=1)[:, -m:].sum(1)
        score_B = scores(largest_B[None], x_PB, m, s0)[0]
        bound_A[start : start + FEATURES_PER_BLOCK] = score_B if weight_F is None else score_B * weight_F[features_B]
    return bound_A


def product(labels_LP: Floats, x_PB: Floats) -> Floats:
    """Return labels @ x, on one thread for few prompts, as BLAS' threads can take 20 ms on busy cores."""
    if len(x_PB) > ONE_THREAD_UP_TO:
        return np.asarray(labels_LP @ x_PB)
    return np.asarray(np.einsum("lp,pb->lb", labels_LP, x_PB))


def centred(z_PF: Pooled, features_B: npt.NDArray[np.intp]) -> Floats:
    """Return the features' values minus their mean over all prompts, as (P, B) float64."""
    z_PB = z_PF[:, features_B].astype(np.float64, order="C")
    z_PB -= z_PB.mean(0)
    return z_PB


def scores(sum_LB: Floats, x_PB: Floats, m: int, s0: float) -> Floats:
    """Return t as (L, B), d / (standard error + s0), from the sums of centred values over the positives.

    The standard error is sqrt(c / (P - 2) * sum of squares within the sets). Overwrites sum_LB.
    """
    prompts = len(x_PB)
    c = 1 / m + 1 / (prompts - m)
    share = c / max(1, prompts - 2)
    sum_LB *= c
    error_LB = np.square(sum_LB)
    error_LB *= -share / c
    error_LB += share * np.square(x_PB).sum(0)
    np.sqrt(np.maximum(error_LB, 0, out=error_LB), out=error_LB)
    error_LB += s0
    return np.divide(sum_LB, error_LB, out=np.zeros_like(sum_LB), where=error_LB > 0)


def leave_one_out(
    z_PF: Pooled, m: int, weight_F: Floats | None, active_F: npt.NDArray[np.bool_]
) -> Generator[Progress, None, npt.NDArray[np.intp] | None]:
    """Return each feature's worst rank by score (1 is best) over all choices of one prompt to leave out.

    None where a set has only one prompt. Leaving a prompt out changes s0 too; only the units of z_PF stay the same. A
    rank is 1 + the number of features with a larger score among those active in any prompt. The sums over prompts are
    computed once; leaving a prompt out subtracts one term from each.
    """
    prompts = len(z_PF)
    if min(m, prompts - m) < 2:
        return None
    active_A = np.flatnonzero(active_F)
    worst_F = np.ones(len(active_F), dtype=np.intp)
    sums = Sums(z_PF, m, active_A)
    weight_A = 1.0 if weight_F is None else weight_F[active_A]
    for p in range(prompts):
        yield Progress("leaving one prompt out", p, prompts)
        rank_A, rank_of_silent = ranks(sums.t_without(p) * weight_A)
        worst_F[active_A] = np.maximum(worst_F[active_A], rank_A)
        worst_F[~active_F] = np.maximum(worst_F[~active_F], rank_of_silent)
    return worst_F


class Sums:
    """Sums over prompts of the active features' centred values, from which t without one prompt follows."""

    def __init__(self, z_PF: Pooled, m: int, active_A: npt.NDArray[np.intp]) -> None:
        self.z_PF, self.m, self.active_A = z_PF, m, active_A
        self.mean_A = np.zeros(len(active_A))
        self.fires_A = np.zeros(len(active_A), dtype=np.intp)
        for z_F in z_PF:
            self.mean_A += z_F[active_A]
            self.fires_A += z_F[active_A] > 0
        self.mean_A /= len(z_PF)
        self.squares_A, self.positive_A = np.zeros(len(active_A)), np.zeros(len(active_A))
        for p in range(len(z_PF)):
            x_A = self.row(p)
            self.squares_A += np.square(x_A)
            if p < m:
                self.positive_A += x_A

    def row(self, p: int) -> Floats:
        """Return one prompt's values minus the features' means over all prompts."""
        return np.asarray(self.z_PF[p, self.active_A] - self.mean_A)

    def t_without(self, p: int) -> Floats:
        """Return t of each active feature over the prompts but p; 0 for a feature that fires in p alone."""
        x_A = self.row(p)
        prompts = len(self.z_PF) - 1
        m = self.m - (p < self.m)
        n = prompts - m
        # over all prompts the centred values sum to zero, and without p to -x
        positive_A = self.positive_A - x_A if p < self.m else self.positive_A
        negative_A = -x_A - positive_A
        squares_A = self.squares_A - np.square(x_A)
        within_A = squares_A - np.square(positive_A) / m - np.square(negative_A) / n
        total_A = squares_A - np.square(x_A) / prompts
        root = np.sqrt(1 / m + 1 / n)
        fires_A = self.fires_A > (self.z_PF[p, self.active_A] > 0)
        deviation_A = np.sqrt(np.maximum(total_A[fires_A], 0) / (prompts - 1))
        s0 = contrast.median_error(deviation_A) * root
        error_A = np.sqrt(np.maximum(within_A, 0) / (prompts - 2)) * root + s0
        t_A = np.divide(positive_A / m - negative_A / n, error_A, out=np.zeros(len(x_A)), where=error_A > 0)
        return np.where(fires_A, t_A, 0)


def ranks(score_A: Floats) -> tuple[npt.NDArray[np.intp], int]:
    """Return (rank of each score, rank of a score of zero); a rank is 1 + the number of larger scores, without ties."""
    order_A = np.argsort(score_A)
    ordered_A = score_A[order_A]
    slack = TIE * float(np.abs(score_A).max(initial=0.0))
    rank_A = np.empty(len(score_A), dtype=np.intp)
    # searching for sorted values takes a fifth of the time
    rank_A[order_A] = 1 + len(ordered_A) - np.searchsorted(ordered_A, ordered_A + slack, side="right")
    return rank_A, 1 + len(ordered_A) - int(np.searchsorted(ordered_A, slack, side="right"))
