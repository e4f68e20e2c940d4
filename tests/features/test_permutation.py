"""Max-T p and leave-one-out ranks against every labeling, and every smaller set, scored one by one."""

from itertools import combinations

import numpy as np
import pytest

from engine.features import contrast, permutation
from engine.loading.demo.model import finish
from engine.records import Progress

TIE = 1e-6


def pooled(shape, seed=0, features=60):
    """(values in units, weights): many zeros, ties between features, features that never fire, one that always does."""
    generator = np.random.default_rng(seed)
    prompts = sum(shape)
    fires = generator.random((prompts, features)) < generator.choice([0.1, 0.4, 0.9], features)
    z_PF = (fires * np.round(generator.random((prompts, features)) * 8) / 8).astype(np.float32)
    z_PF[:, :4] = 0
    z_PF[:, 4] = 0.7
    z_PF[:, 5:8] = (np.arange(prompts) < shape[0])[:, None]  # three that separate the sets without spread
    z_PF[:, 5] *= 0.1
    return z_PF, generator.choice([0.3, 0.5, 0.9], features)


def score(z_PF, m, weight_F, s0=None):
    return contrast.contrast(z_PF[:m], z_PF[m:], weight_F, s0).score


def setting(shape, seed, weighted):
    z_PF, weight_F = pooled(shape, seed)
    return z_PF, shape[0], weight_F if weighted else None, (z_PF > 0).any(0)


def p_values(z_PF, m, weight_F, active_F):
    s0 = contrast.stabiliser(z_PF, m)
    return finish(permutation.p_values(z_PF, m, score(z_PF, m, weight_F, s0), weight_F, s0, active_F))


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shape", [(5, 2), (2, 5), (3, 3), (4, 5), (20, 1)])
def test_p_is_the_share_of_labelings_whose_best_feature_scores_as_high(shape, weighted):
    z_PF, m, weight_F, active_F = setting(shape, 1, weighted)
    s0 = contrast.stabiliser(z_PF, m)
    observed = score(z_PF, m, weight_F, s0)
    maxima = []
    for chosen in combinations(range(len(z_PF)), m):
        others = [p for p in range(len(z_PF)) if p not in chosen]
        maxima.append(score(z_PF[[*chosen, *others]], m, weight_F, s0)[active_F].max())
    expected = [np.mean([x >= s - TIE * np.abs(observed).max() for x in maxima]) for s in observed]
    p, count = p_values(z_PF, m, weight_F, active_F)
    assert count == len(maxima) == contrast.labelings(m, len(z_PF) - m)
    np.testing.assert_allclose(p, expected, rtol=0, atol=1e-12)
    assert len({*p}) > 3 or count < 25  # not all the same


@pytest.mark.parametrize("block", [(1, 1), (7, 5), (1000, 1000)])
def test_blocks_and_what_is_skipped_change_nothing(block, monkeypatch):
    z_PF, m, weight_F, active_F = setting((4, 5), 2, True)
    before, _ = p_values(z_PF, m, weight_F, active_F)
    monkeypatch.setattr(permutation, "FEATURES_PER_BLOCK", block[0])
    monkeypatch.setattr(permutation, "LABELINGS_PER_BLOCK", block[1])
    monkeypatch.setattr(permutation, "ONE_THREAD_UP_TO", 0)
    after, _ = p_values(z_PF, m, weight_F, active_F)
    np.testing.assert_array_equal(after, before)


def test_most_features_are_not_looked_at():
    """A feature that fires in one prompt cannot score high: the order of best possible scores ends the search."""
    generator = np.random.default_rng(3)
    z_PF = np.zeros((16, 4000), dtype=np.float32)
    z_PF[generator.integers(0, 16, 4000), np.arange(4000)] = generator.random(4000) / 4
    z_PF[:, :600] = generator.random((16, 600))
    looked_at = []
    centred = permutation.centred

    def noted(z, features_B):
        looked_at.append(len(features_B))
        return centred(z, features_B)

    permutation_s0 = contrast.stabiliser(z_PF, 8)
    labels_LP = permutation.draw(8, 8)[:50]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(permutation, "centred", noted)
        maxima = finish(permutation.maxima(z_PF, labels_LP, None, permutation_s0, np.arange(4000)))
    assert sum(looked_at) < 4000 + 1500  # all of them for the bounds
    expected = [score(z_PF[np.argsort(~labels, kind="stable")], 8, None, permutation_s0).max() for labels in labels_LP]
    np.testing.assert_allclose(maxima, expected, rtol=1e-7)


def test_a_bound_is_the_best_score_of_any_labeling():
    z_PF, m, weight_F, active_F = setting((4, 4), 4, True)
    s0 = contrast.stabiliser(z_PF, m)
    best = np.full(z_PF.shape[1], -np.inf)
    for chosen in combinations(range(8), 4):
        others = [p for p in range(8) if p not in chosen]
        best = np.maximum(best, score(z_PF[[*chosen, *others]], m, weight_F, s0))
    found = finish(permutation.bounds(z_PF, m, weight_F, s0, np.flatnonzero(active_F)))
    np.testing.assert_allclose(found, best[active_F], rtol=1e-7, atol=1e-12)


def test_all_labelings_are_drawn_where_they_are_few_and_a_thousand_of_many():
    every = permutation.draw(8, 8)
    assert every.shape == (12_870, 16)
    assert len({row.tobytes() for row in every}) == 12_870
    assert permutation.draw(1, 99).shape == (100, 100)
    assert permutation.draw(2, 100).shape == (1_000, 102)  # 5,151 labelings, but long ones
    some = permutation.draw(9, 9)
    assert some.shape == (1_000, 18)
    for labels, m in ((every, 8), (some, 9), (permutation.draw(400, 400), 400)):
        assert (labels.sum(1) == m).all()
        assert labels[0, :m].all()  # the true one
    np.testing.assert_array_equal(some, permutation.draw(9, 9))
    # drawn evenly: each prompt is a positive in half of them, give or take
    assert np.abs(some[1:].mean(0) - 0.5).max() < 0.06
    assert len({row.tobytes() for row in some}) > 980


@pytest.mark.parametrize(("shape", "labelings"), [((1, 1), 0), ((4, 2), 0), ((18, 1), 0), ((19, 1), 20), ((3, 3), 20)])
def test_too_few_labelings_give_no_p(shape, labelings):
    z_PF, m, weight_F, active_F = setting(shape, 5, True)
    p, count = p_values(z_PF, m, weight_F, active_F)
    assert count == labelings
    assert (p is None) == (labelings == 0)


def test_random_labelings_come_near_all_of_them(monkeypatch):
    z_PF, m, weight_F, active_F = setting((6, 6), 6, True)
    exact, count = p_values(z_PF, m, weight_F, active_F)
    assert count == 924
    monkeypatch.setattr(permutation, "ALL_UP_TO", 100)
    drawn, count = p_values(z_PF, m, weight_F, active_F)
    assert count == 1_000
    assert drawn.min() >= 1 / 1_000
    assert 0 < np.abs(drawn - exact).max() < 4 * np.sqrt(0.25 / 1_000)


def test_without_a_difference_p_is_seldom_small():
    """That a single feature of hundreds has p <= 0.05 must happen in one of twenty data sets, not in most."""
    generator = np.random.default_rng(7)
    found = []
    for _ in range(200):
        z_PF = (generator.random((9, 300)) * (generator.random((9, 300)) < 0.4)).astype(np.float32)
        found.append(p_values(z_PF, 4, None, (z_PF > 0).any(0))[0].min())
    assert 0.01 <= np.mean(np.array(found) <= 0.05) <= 0.1  # 0.05 give or take three standard errors


def test_no_spread_and_large_offsets_lose_no_digits():
    """Values far from zero that hardly differ: the squares within the sets are a small rest of large sums."""
    generator = np.random.default_rng(8)
    z_PF = (1000 + generator.random((10, 40))).astype(np.float32)
    z_PF[:5, 0] += 1
    s0 = contrast.stabiliser(z_PF, 5)
    labels_LP = permutation.draw(5, 5)
    found = finish(permutation.maxima(z_PF, labels_LP, None, s0, np.arange(40)))
    expected = [score(z_PF[np.argsort(~labels, kind="stable")], 5, None, s0).max() for labels in labels_LP]
    np.testing.assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shape", [(2, 2), (5, 2), (2, 7), (8, 8)])
def test_loo_is_the_worst_rank_when_each_prompt_is_left_out(shape, weighted):
    z_PF, m, weight_F, active_F = setting(shape, 9, weighted)
    worst = np.zeros(z_PF.shape[1], dtype=int)
    for p in range(len(z_PF)):
        scores = score(np.delete(z_PF, p, axis=0), m - (p < m), weight_F)
        slack = TIE * np.abs(scores).max()
        worst = np.maximum(worst, [1 + sum(scores[active_F] > s + slack) for s in scores])
    found = finish(permutation.leave_one_out(z_PF, m, weight_F, active_F))
    np.testing.assert_array_equal(found, worst)
    assert len({*found}) > 10


def test_loo_keeps_its_stabiliser_where_most_features_are_the_same_in_all_prompts():
    z_PF = np.full((9, 9), np.float32(0.3))
    z_PF[:5, 0], z_PF[:4, 1], z_PF[:, 2] = 0.31, 0.9, np.linspace(1, 0, 9)
    found = finish(permutation.leave_one_out(z_PF, 5, None, np.ones(9, dtype=bool)))
    expected = []
    for f in range(3):
        scores = [score(np.delete(z_PF, p, axis=0), 5 - (p < 5), None) for p in range(9)]
        expected.append(max(1 + int((s > s[f] + 1e-6).sum()) for s in scores))
    assert found[:3].tolist() == expected


def test_loo_tells_a_feature_that_hangs_on_one_prompt():
    generator = np.random.default_rng(10)
    z_PF = (generator.random((12, 50)) * 0.2).astype(np.float32)
    z_PF[:, :2] = 0
    z_PF[:6, 0] = 1  # in every positive prompt
    z_PF[3, 1] = 1  # in a single one
    found = finish(permutation.leave_one_out(z_PF, 6, None, (z_PF > 0).any(0)))
    assert found[0] == 1
    assert found[1] > 20


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1)])
def test_loo_is_left_out_where_a_set_would_be_empty(shape):
    z_PF, m, weight_F, active_F = setting(shape, 11, True)
    assert finish(permutation.leave_one_out(z_PF, m, weight_F, active_F)) is None


def test_both_say_how_far_they_are():
    z_PF, m, weight_F, active_F = setting((4, 5), 12, True)
    s0 = contrast.stabiliser(z_PF, m)
    observed = score(z_PF, m, weight_F, s0)
    for work in (
        permutation.p_values(z_PF, m, observed, weight_F, s0, active_F),
        permutation.leave_one_out(z_PF, m, weight_F, active_F),
    ):
        events = list(work)
        assert events
        assert all(isinstance(e, Progress) and 0 <= e.done < e.total for e in events)


def test_nothing_active_has_no_p_and_no_warning(recwarn):
    z_PF = np.zeros((8, 5), dtype=np.float32)
    nothing_F = np.zeros(5, dtype=bool)
    assert finish(permutation.p_values(z_PF, 4, np.zeros(5), None, 0.0, nothing_F)) == (None, 0)
    np.testing.assert_array_equal(finish(permutation.leave_one_out(z_PF, 4, None, nothing_F)), np.ones(5))
    assert not recwarn.list
