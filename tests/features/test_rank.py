"""The whole `rank` verb on the tiny model against transformers' hidden states and float64 numpy."""

import math
from itertools import combinations
from statistics import median

import numpy as np
import plain
import pytest
import torch
from msgspec.structs import replace
from tiny import SENTENCES

from engine.features import rank as ranking
from engine.features.activations import features_at
from engine.features.rank import RankTable, rank
from engine.loading.demo.model import finish
from engine.models.pair import Read
from engine.records import FeaturesAt, Loaded, Prompt, PromptSet, Rank, Ranking, Replay, Replayed
from engine.records.errors import UsageError
from engine.serving.client import ask
from engine.serving.local import LocalClient

POSITIVE = (*SENTENCES[:3], "a ~ sink in the middle")

NEGATIVE = (*SENTENCES[3:], "ab ~")

SET = PromptSet("tiny", tuple(map(Prompt, POSITIVE)), tuple(map(Prompt, NEGATIVE)))

POOLS = {
    "max": lambda f: f.max(0),
    "mean": lambda f: f.mean(0),
    "sum": lambda f: f.sum(0),
    "fraction": lambda f: (f > 0).mean(0),
}


@pytest.fixture(scope="module")
def acts(model, weights):
    """Per prompt (activations_TF, vectors_TD, ids)."""
    found = []
    for text in (*POSITIVE, *NEGATIVE):
        ids = [0, *model.tokens.tokenizer(text).input_ids]
        h_TD = plain.hidden(model.module, ids, layer=1)
        found.append((plain.encode(h_TD, weights), h_TD, ids))
    return found


def pooled(acts, reference, pool, include_masked):
    """Each prompt's pooled activations in the features' units, float64."""
    counted = []
    for f_TF, h_TD, ids in acts:
        keep = [include_masked or k for k in plain.rank_mask(ids, h_TD, reference.sink_norm)]
        counted.append(f_TF[keep])
    observed = np.max([f.max(0) for f in counted], axis=0)
    unit = np.maximum(reference.maximum_F.double().numpy(), observed)
    return np.array([POOLS[pool](f) / unit for f in counted])


def weight_of(i, reference):
    density = (max(10, int(reference.count_F[i])) + 0.5) / (reference.n_tokens + 1)
    return math.log(1 / density) / math.log(2 * (reference.n_tokens + 1))


def brute_force(acts, reference, pool, include_masked, density_weight):
    """Every column as a list over features, written out from the README's formulas."""
    z = pooled(acts, reference, pool, include_masked)
    p, n = z[: len(POSITIVE)], z[len(POSITIVE) :]
    root = math.sqrt(1 / len(p) + 1 / len(n))
    s0 = median(z[:, i].std(ddof=1) * root for i in range(z.shape[1]) if (z[:, i] > 0).any())
    rows = {}
    for i in range(z.shape[1]):
        if not (z[:, i] > 0).any():
            continue
        squares = sum((p[:, i] - p[:, i].mean()) ** 2) + sum((n[:, i] - n[:, i].mean()) ** 2)
        sd = math.sqrt(squares / (len(z) - 2))
        diff = p[:, i].mean() - n[:, i].mean()
        t = diff / (sd * root + s0)
        density = (max(10, int(reference.count_F[i])) + 0.5) / (reference.n_tokens + 1)
        rows[i] = {
            "score": t * (weight_of(i, reference) if density_weight else 1.0),
            "diff": diff,
            "auroc": sum((x > y) + (x == y) / 2 for x in p[:, i] for y in n[:, i]) / (len(p) * len(n)),
            "t": t,
            "g": diff / sd * (1 - 3 / (4 * len(z) - 9)),
            "coverage_positive": (p[:, i] > 0).mean(),
            "coverage_negative": (n[:, i] > 0).mean(),
            "density": density,
            "seed": np.mean([f_TF[:, i].sum() for f_TF, _, _ in acts[: len(POSITIVE)]]),
        }
    return rows


@pytest.mark.parametrize("density_weight", [True, False])
@pytest.mark.parametrize("include_masked", [False, True])
@pytest.mark.parametrize("pool", POOLS)
def test_rank_equals_brute_force(client, explorer, acts, pool, include_masked, density_weight):
    request = Rank(SET, top=40, pool=pool, include_masked=include_masked, density_weight=density_weight)
    ranking = ask(client, request, Ranking)
    expected = brute_force(acts, explorer.site.reference, pool, include_masked, density_weight)
    order = sorted(expected, key=lambda i: -expected[i]["score"])
    assert [row.feature for row in ranking.features] == order
    assert ranking.n_active_features == len(expected)
    for row in ranking.features:
        for column, value in expected[row.feature].items():
            assert getattr(row, column) == pytest.approx(value, rel=1e-4, abs=1e-5), (row.feature, column)


def scores_of(z, positive, weights):
    """The score of every feature, with the prompts numbered in `positive` as the positives."""
    p, n = z[positive], np.delete(z, positive, axis=0)
    root = math.sqrt(1 / len(p) + 1 / len(n))
    s0 = median(z[:, i].std(ddof=1) * root for i in range(z.shape[1]) if (z[:, i] > 0).any())
    squares = ((p - p.mean(0)) ** 2).sum(0) + ((n - n.mean(0)) ** 2).sum(0)
    return (p.mean(0) - n.mean(0)) / (np.sqrt(squares / (len(z) - 2)) * root + s0) * weights


def between(value, others, low, high):
    """Whether a count over `others` of those >= `value` lies where rounding to float32 may have put it."""
    slack = 1e-4 * np.abs(others).max()
    return sum(others >= value + slack) + low <= high <= sum(others >= value - slack) + low


@pytest.mark.parametrize("density_weight", [True, False])
@pytest.mark.parametrize("pool", ["max", "fraction"])
def test_p_and_loo_equal_brute_force(client, explorer, acts, pool, density_weight):
    reference, m = explorer.site.reference, len(POSITIVE)
    z = pooled(acts, reference, pool, False)
    active = (z > 0).any(0)
    weights = np.array([weight_of(i, reference) if density_weight else 1.0 for i in range(z.shape[1])])
    maxima = [scores_of(z, list(c), weights)[active].max() for c in combinations(range(len(z)), m)]
    reduced = []
    for p in range(len(z)):
        positive = list(range(m - (p < m)))
        reduced.append(scores_of(np.delete(z, p, axis=0), positive, weights))
    ranking = ask(client, Rank(SET, top=40, pool=pool, density_weight=density_weight), Ranking)
    assert ranking.permutations == ranking.labelings == len(maxima)
    observed = scores_of(z, list(range(m)), weights)
    for row in ranking.features:
        i = row.feature
        assert between(observed[i], np.array(maxima), 0, round(row.p * len(maxima)))
        lowest = max(sum(s[active] > s[i] + 1e-4) for s in reduced)
        highest = max(sum(s[active] > s[i] - 1e-4) for s in reduced)
        assert lowest < row.loo <= highest + 1
    by_score = [row.p for row in ranking.features]
    assert by_score == sorted(by_score)
    assert by_score[0] < by_score[-1] == 1


def test_p_and_loo_do_not_depend_on_the_sorting_and_are_the_same_again(client, explorer):
    first = {row.feature: row for row in ask(client, Rank(SET, top=40), Ranking).features}
    explorer.forget()
    for row in ask(client, Rank(SET, by="seed", top=40), Ranking).features:
        assert (row.p, row.loo) == (first[row.feature].p, first[row.feature].loo)


def test_few_prompts_have_no_p_and_one_prompt_a_set_no_loo(client):
    few = ask(client, Rank(PromptSet("few", SET.positive[:3], SET.negative[:2])), Ranking)
    assert few.permutations == 0
    assert all(row.p is None and row.loo >= 1 for row in few.features)
    single = ask(client, Rank(PromptSet("single", SET.positive, SET.negative[:1])), Ranking)
    assert all(row.p is None and row.loo is None for row in single.features)


def test_a_ranking_can_be_stopped_while_labelings_are_counted(explorer):
    explorer.forget()
    work = rank(explorer, Rank(SET))
    stages = set()
    for event in work:
        stages.add(event.stage)
        if event.stage == "permutations":
            work.close()
    assert {"leaving one prompt out", "permutations"} <= stages
    assert explorer.kept(RankTable) is None  # nothing half done is kept


def test_sinks_and_bos_are_masked_and_the_masks_change_the_ranking(client, acts, explorer):
    ranking = ask(client, Rank(SET, top=40), Ranking)
    for fed, (_, h_TD, ids) in zip(ranking.prompts, acts, strict=True):
        assert list(fed.token_ids) == ids
        assert list(fed.rank_mask) == plain.rank_mask(ids, h_TD, explorer.site.reference.sink_norm)
    sinks = [t for fed in ranking.prompts for t, keep in zip(fed.tokens, fed.rank_mask, strict=True) if not keep]
    assert sinks.count("<s>") == len(acts)
    assert sinks.count("~") == 2
    everything = ask(client, Rank(SET, top=40, include_masked=True), Ranking)
    assert [r.diff for r in everything.features] != [r.diff for r in ranking.features]


@pytest.mark.parametrize("by", ["diff", "auroc", "g", "density", "seed", "coverage_negative"])
def test_rows_are_sorted_by_the_column_asked_for(client, by):
    ranking = ask(client, Rank(SET, by=by, top=5), Ranking)
    values = [getattr(row, by) for row in ranking.features]
    everything = ask(client, Rank(SET, top=40), Ranking)
    assert values == sorted((getattr(row, by) for row in everything.features), reverse=True)[:5]
    assert ranking.by == by


def test_the_seed_column_counts_the_first_token(client, acts):
    ranking = ask(client, Rank(SET, top=40), Ranking)
    with_bos = {i: np.mean([f[:, i].sum() for f, _, _ in acts[: len(POSITIVE)]]) for i in range(40)}
    without = {i: np.mean([f[1:, i].sum() for f, _, _ in acts[: len(POSITIVE)]]) for i in range(40)}
    assert any(abs(with_bos[i] - without[i]) > 0.1 for i in range(40))
    for row in ranking.features:
        assert row.seed == pytest.approx(with_bos[row.feature], rel=1e-4, abs=1e-5)


def test_the_strongest_tokens_are_those_of_the_largest_activations(client, explorer, acts, model):
    reference = explorer.site.reference
    for row in ask(client, Rank(SET, top=10), Ranking).features:
        i = row.feature
        places = zip(reference.strongest_FS[i].tolist(), reference.position_FS[i].tolist(), strict=True)
        found = [(v, model.tokens.string(int(reference.token_ids_T[at]))) for v, at in places if v > 0]
        for f_TF, h_TD, ids in acts:
            mask = plain.rank_mask(ids, h_TD, reference.sink_norm)
            found += [(f_TF[t, i], model.tokens.string(ids[t])) for t in range(len(ids)) if mask[t] and f_TF[t, i] > 0]
        assert row.tokens[0] == max(found)[1]
        assert len({token.strip().lower() for token in row.tokens}) == len(row.tokens) <= 3


def test_rank_says_how_little_few_prompts_can_prove(client):
    few = PromptSet("few", SET.positive[:3], SET.negative[:2])
    ranking = ask(client, Rank(few), Ranking)
    assert ranking.labelings == 10
    assert ranking.p_floor == pytest.approx(0.1)
    assert any("10 labelings" in warning for warning in ranking.warnings)
    assert all(row.g is None for row in ranking.features)


@pytest.mark.parametrize(
    ("request_", "part"),
    [
        (Rank(SET, by="beauty"), "no column 'beauty'"),
        (Rank(PromptSet("x", (), SET.negative)), "no positive prompts"),
        (Rank(PromptSet("x", SET.positive, ())), "no negative prompts"),
        (Rank(PromptSet("x", SET.positive[:3], SET.negative), by="g"), "four prompts"),
        (Rank(SET, top=0), "--top"),
    ],
)
def test_requests_that_make_no_sense_are_usage_errors(client, request_, part):
    with pytest.raises(UsageError, match=part):
        ask(client, request_, Ranking)


def test_features_asked_for_by_number_get_their_row_whatever_their_place(client):
    small = PromptSet("small", (Prompt("ab"),), (Prompt("he"),))
    top = ask(client, Rank(small, top=3), Ranking).features
    every = {row.feature: row for row in ask(client, Rank(small, top=40), Ranking).features}
    silent = next(i for i in range(40) if i not in every)
    last = list(every)[-1]
    rows = ask(client, Rank(small, top=3, also=(last, top[0].feature, silent)), Ranking).features
    assert rows[:3] == top
    assert [row.feature for row in rows[3:]] == [last, silent]
    assert rows[3] == every[last]
    assert (rows[4].score, rows[4].coverage_positive, rows[4].coverage_negative) == (0.0, 0.0, 0.0)
    with pytest.raises(UsageError, match="no feature 40"):
        ask(client, Rank(small, also=(40,)), Ranking)


def test_sorting_again_neither_reads_nor_encodes_and_gives_the_same_as_a_fresh_ranking(client, explorer, monkeypatch):
    ask(client, Rank(SET), Ranking)
    with monkeypatch.context() as patch:
        patch.setattr(type(explorer.model), "capture_batch", None)
        patch.setattr("engine.features.rank.pool_prompts", None)
        again = ask(client, Rank(SET, by="auroc", top=7), Ranking)
    explorer._reads.clear()
    explorer.drop(RankTable)
    assert again == ask(client, Rank(SET, by="auroc", top=7), Ranking)
    flipped = PromptSet("flipped", SET.positive + SET.negative[:1], SET.negative[1:])
    assert ask(client, Rank(flipped), Ranking) != ask(client, Rank(SET), Ranking)


def test_read_prompts_are_kept_up_to_a_limit(explorer, monkeypatch):
    explorer._reads.clear()
    monkeypatch.setattr("engine.models.pair.CACHED_TOKENS", 60)
    for text in (*POSITIVE, *NEGATIVE):
        finish(explorer.read([Prompt(text)]))
    assert 0 < sum(len(read.h_TD) for read in explorer._reads.values()) <= 60
    assert list(explorer._reads)[-1] == (NEGATIVE[-1], "raw")
    reads = finish(explorer.read([Prompt(POSITIVE[0]), Prompt(POSITIVE[0]), Prompt(POSITIVE[0], "chat")]))
    assert reads[0] is reads[1]
    assert len(reads[2].h_TD) > len(reads[0].h_TD)


def test_the_features_of_a_token_are_its_strongest_activations(explorer, acts):
    f_TF, _, ids = acts[1]
    for at in (1, len(ids) - 1):
        found = finish(features_at(explorer, FeaturesAt(Prompt(POSITIVE[1]), at, top=4)))
        order = np.argsort(-f_TF[at], kind="stable")[:4]
        expected = [(int(i), f_TF[at][i]) for i in order if f_TF[at][i] > 0]
        assert [f.feature for f in found.features] == [i for i, _ in expected]
        assert [f.activation for f in found.features] == pytest.approx([v for _, v in expected], abs=1e-4)
        assert found.n_active == int((f_TF[at] > 0).sum())
        assert found.token == explorer.model.tokens.string(ids[at])
    with pytest.raises(UsageError, match="no token 999"):
        finish(features_at(explorer, FeaturesAt(Prompt(POSITIVE[1]), 999)))


def test_a_ranking_reads_its_prompts_together_whatever_was_read_before(client, explorer, monkeypatch):
    """In bfloat16 a vector depends a little on its batch: a result must not depend on what was looked at before."""
    batches = []
    capture = type(explorer.model).capture_batch

    def noted(model, hook, rows):
        batches.append(len(rows))
        return capture(model, hook, rows)

    monkeypatch.setattr(type(explorer.model), "capture_batch", noted)
    explorer.forget()
    finish(explorer.read([Prompt(POSITIVE[1])]))
    ranking = ask(client, Rank(SET), Ranking)
    assert batches == [1, len(POSITIVE) + len(NEGATIVE)]
    ask(client, Replay(ranking), Replayed)
    assert batches[2:] == [len(POSITIVE) + len(NEGATIVE)]  # a replay computes it anew


@pytest.mark.parametrize("pool", POOLS)
def test_rows_read_in_half_precision_are_shown_in_float32(load, pool):
    half = LocalClient()
    ask(half, replace(load, dtype="bfloat16"), Loaded)
    request = Rank(SET, top=8, pool=pool, also=(3,))
    shown = ask(half, request, Ranking).features
    explorer = half._pair
    reads = [Read(r.fed, r.h_TD.float()) for r in explorer.kept(RankTable).reads]
    table = finish(ranking.build(explorer.site.sae, explorer.site.reference, reads, request))
    assert explorer.kept(RankTable).reads[0].h_TD.dtype == torch.bfloat16
    for row in shown:
        for column in ("diff", "auroc", "g", "coverage_positive", "coverage_negative", "seed"):
            assert getattr(row, column) == pytest.approx(float(table.columns[column][row.feature]), rel=1e-5, abs=1e-6)
        # its stabiliser is the median over all features, of which most were encoded in half precision
        assert row.t == pytest.approx(float(table.columns["t"][row.feature]), rel=0.02, abs=1e-3)
        # what compares it with all features is of the pass over all
        assert (row.p, row.loo) == tuple(
            explorer.kept(RankTable).columns[column][row.feature] for column in ("p", "loo")
        )
    assert any(float(explorer.kept(RankTable).columns["diff"][r.feature]) != r.diff for r in shown)
