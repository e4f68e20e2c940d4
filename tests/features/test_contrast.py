"""The leaderboard's columns against loops in plain Python."""

import math
import statistics

import numpy as np
import pytest

from engine.features import contrast

SHAPES = [(5, 2), (4, 4), (1, 3), (8, 6), (1, 1)]


def pooled(shape, seed=0, features=30):
    """Random pooled activations with many zeros, ties, and features that never fire."""
    generator = np.random.default_rng(seed)
    values = (
        np.round(generator.random((sum(shape), features)) * 4) / 4 * (generator.random((sum(shape), features)) < 0.6)
    )
    values[:, :3] = 0
    values[:, 3] = 0.5
    return values[: shape[0]].astype(np.float32), values[shape[0] :].astype(np.float32)


def columns_of(positive, negative):
    """Per feature the two lists of values."""
    rows = zip(positive.T.tolist(), negative.T.tolist(), strict=True)
    return list(rows)


def mean(values):
    return sum(values) / len(values)


def pooled_sd(p, n):
    squares = sum((x - mean(p)) ** 2 for x in p) + sum((x - mean(n)) ** 2 for x in n)
    return math.sqrt(squares / max(1, len(p) + len(n) - 2))


def stabiliser(columns):
    """Median over features active anywhere of the label-blind standard error."""
    errors = []
    for p, n in columns:
        if any(x > 0 for x in p + n):
            errors.append(statistics.stdev(p + n) * math.sqrt(1 / len(p) + 1 / len(n)))
    return statistics.median(errors)


@pytest.mark.parametrize("shape", SHAPES)
def test_t_is_the_sam_statistic(shape):
    positive, negative = pooled(shape)
    columns = columns_of(positive, negative)
    s0 = stabiliser(columns)
    root = math.sqrt(1 / shape[0] + 1 / shape[1])
    expected = [(mean(p) - mean(n)) / (pooled_sd(p, n) * root + s0) for p, n in columns]
    np.testing.assert_allclose(contrast.contrast(positive, negative, None).t, expected, rtol=1e-12)


def test_the_stabiliser_does_not_look_at_the_labels():
    positive, negative = pooled((4, 4))
    mixed = np.concatenate([negative[2:], positive, negative[:2]])
    found = contrast.stabiliser(np.concatenate([positive, negative]).astype(float), 4)
    assert found == pytest.approx(contrast.stabiliser(mixed.astype(float), 4), rel=1e-12)
    assert found == pytest.approx(stabiliser(columns_of(positive, negative)), rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_auroc_counts_pairs_and_half_of_the_ties(shape):
    positive, negative = pooled(shape, seed=1)
    expected = [
        sum(1.0 if x > y else 0.5 if x == y else 0.0 for x in p for y in n) / (len(p) * len(n))
        for p, n in columns_of(positive, negative)
    ]
    np.testing.assert_allclose(contrast.contrast(positive, negative, None).auroc, expected, rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_diff_and_coverage_are_plain_means(shape):
    positive, negative = pooled(shape, seed=2)
    found = contrast.contrast(positive, negative, None)
    columns = columns_of(positive, negative)
    np.testing.assert_allclose(found.diff, [mean(p) - mean(n) for p, n in columns], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found.coverage_positive, [mean([x > 0 for x in p]) for p, _ in columns])
    np.testing.assert_allclose(found.coverage_negative, [mean([x > 0 for x in n]) for _, n in columns])


@pytest.mark.parametrize("shape", [(4, 4), (8, 6)])
def test_g_is_hedges_with_the_small_sample_correction(shape):
    positive, negative = pooled(shape, seed=3)
    correction = 1 - 3 / (4 * sum(shape) - 9)
    expected = []
    for p, n in columns_of(positive, negative):
        sd = pooled_sd(p, n)
        diff = mean(p) - mean(n)
        expected.append(diff / sd * correction if sd > 0 else math.copysign(math.inf, diff) if diff else 0.0)
    np.testing.assert_allclose(contrast.contrast(positive, negative, None).g, expected, rtol=1e-12)


APART = ([0.1, 0.1, 0.1, 0.1, 0.1], [0.7, 0.7, 0.7, 0.7])
"""Two sets without any spread: a mean of five 0.1 is not quite 0.1."""


def test_g_of_sets_that_differ_without_any_spread_is_infinite_and_has_a_sign():
    """By hand: (0.7 - 0.1) / 0. Rounding is no spread: a third of an eps here, a float32's last digit there."""
    low, high = APART
    noisy = [0.7, 0.7 * (1 + 2e-7), 0.7, 0.7 * (1 - 1e-7)]
    same = [0.1] * 4
    positive = np.array([[*low], [*low], [*low], [*low]]).T.astype(np.float32)
    negative = np.array([high, noisy, same, [0.5, 0.7, 0.7, 0.7]]).T.astype(np.float32)
    found, other = contrast.contrast(positive, negative, None).g, contrast.contrast(negative, positive, None).g
    assert found[:3].tolist() == [-math.inf, -math.inf, 0.0]
    assert other[:3].tolist() == [math.inf, math.inf, 0.0]
    sd = pooled_sd(*map(list, (positive[:, 3].astype(float), negative[:, 3].astype(float))))
    by_hand = (float(positive[:, 3].astype(float).mean()) - float(negative[:, 3].astype(float).mean())) / sd
    assert found[3] == pytest.approx(by_hand * (1 - 3 / 27), rel=1e-12)


def test_t_of_sets_that_differ_is_not_zero_where_most_features_are_the_same_in_all_prompts():
    """Its stabiliser is then the median of the errors that are not 0."""
    positive = np.array([[0.5, 0.5, 0.1, 1.0, 0.6]] * 4, dtype=np.float32)
    negative = np.array([[0.5, 0.5, 0.1, 0.2, 0.6]] * 4, dtype=np.float32)
    error = statistics.stdev([float(np.float32(x)) for x in [1.0] * 4 + [0.2] * 4]) * math.sqrt(1 / 2)
    found = contrast.contrast(positive, negative, None).t
    np.testing.assert_allclose(found, [0, 0, 0, (1 - float(np.float32(0.2))) / error, 0], rtol=1e-12)


@pytest.mark.parametrize("shape", [(5, 2), (3, 9), (1, 1)])
def test_g_is_left_out_below_four_prompts_a_set(shape):
    assert contrast.contrast(*pooled(shape), None).g is None


def test_the_score_is_t_times_the_weight_and_t_without_one():
    positive, negative = pooled((5, 4))
    weight = np.linspace(0, 1, positive.shape[1])
    weighted = contrast.contrast(positive, negative, weight)
    np.testing.assert_array_equal(weighted.score, weighted.t * weight)
    plain = contrast.contrast(positive, negative, None)
    np.testing.assert_array_equal(plain.score, plain.t)


def test_silent_features_score_zero_and_raise_no_warning(recwarn):
    zeros = np.zeros((4, 3), dtype=np.float32)
    found = contrast.contrast(zeros, zeros, np.ones(3))
    for column in (found.score, found.t, found.diff, found.g):
        np.testing.assert_array_equal(column, np.zeros(3))
    np.testing.assert_array_equal(found.auroc, np.full(3, 0.5))
    assert not recwarn.list


def test_the_density_weight_runs_from_one_for_the_rarest_to_zero_for_the_densest():
    n = 1000
    rarest, half = 0.5 / (n + 1), 0.5
    weights = contrast.density_weight(np.array([rarest, half, 1.0]), n)
    expected = [math.log(1 / d) / math.log(2 * (n + 1)) for d in (rarest, half, 1.0)]
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    assert weights[0] == pytest.approx(1.0)
    assert weights[2] == 0


def test_labelings_are_counted():
    assert contrast.labelings(5, 2) == 21
    assert contrast.labelings(8, 8) == 12870
    assert contrast.labelings(400, 400) == contrast.labelings(5000, 5000) == 10**18  # a record must hold it


def test_few_prompts_warn_of_the_smallest_possible_p():
    (warning,) = contrast.warnings([10] * 5, [10] * 2, "max")
    assert "21 labelings" in warning
    assert "0.0476" in warning
    assert contrast.warnings([10] * 8, [12] * 8, "max") == []


@pytest.mark.parametrize("lengths", [([30] * 8, [10] * 8), ([10] * 8, [30] * 8)])
def test_sets_of_different_length_warn(lengths):
    (warning,) = contrast.warnings(*lengths, "max")
    (summed,) = contrast.warnings(*lengths, "sum")
    assert "a maximum grows" in warning and "a sum grows" in summed
    assert contrast.warnings(*lengths, "mean") == contrast.warnings(*lengths, "fraction") == []
    assert f"({lengths[0][0]} against {lengths[1][0]} tokens on average)" in warning
