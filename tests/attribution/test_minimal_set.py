"""The smallest set: against the app's own edits, and brute force over all sets."""

from itertools import combinations, pairwise

import pytest
import torch
from editing import expect
from msgspec.structs import replace
from test_attribution import FEMALE, MALE, MEASURE, PROBES, by_hand, run

from engine.attribution import attribute as causes
from engine.attribution.gradient import ablated, gradient
from engine.attribution.measure import total
from engine.attribution.measured import measured, measured_facts
from engine.attribution.minimal_set import Value, drawn_sets, find_minimal_set, grow
from engine.attribution.neutral_text import NeutralText, passages
from engine.generation.edits import make_editor
from engine.records import Attribute, Edit, FindMinimalSet, Measure, Probe
from engine.records.errors import UsageError

TEXTS = ("My sister ate because", "The boy ate because", "A king said", "His wife left", "Anna ate, and")


def facts_of(pair, edits=()):
    """Questions whose right answer is the one that the model finds likelier; with edits only those that suffer."""
    found = []
    for text in TEXTS:
        probe = Probe(text, "raw", answers=(FEMALE, MALE))
        value = by_hand(pair, probe)[0]
        sign = 1 if value > 0 else -1
        if not edits or sign * by_hand(pair, probe, edits)[0] < sign * value - 0.05:
            found.append(replace(probe, right="female" if value > 0 else "male"))
    return tuple(found)


@pytest.fixture(scope="module")
def candidates(pair):
    """Features whose ablation takes some of the measure away, the ones that take most first."""
    got = run(causes.attribute(pair, Attribute(MEASURE, top=40, exact=40, controls=0)))
    helping = [r for r in got.features if r.exact is not None and -0.4 < r.exact / got.baseline < -0.01]
    assert len(helping) >= 6
    return tuple(r.feature for r in helping[:6])


def share_of(pair, features):
    """Of the measure, by the app's own edits in whole forward passes."""
    edits = [Edit(f) for f in features]
    items = run(measured(pair, MEASURE)).items
    base = total(items, [by_hand(pair, p)[0] for p in PROBES])
    return 1 - total(items, [by_hand(pair, p, edits)[0] for p in PROBES]) / base


def wanted_share(pair, candidates):
    """A share that a few of the candidates reach together, and none of them alone."""
    everything = min(1.0, share_of(pair, candidates))
    alone = max(share_of(pair, [f]) for f in candidates)
    assert everything > alone > 0
    return float(everything + alone) / 2


def test_a_set_reaches_its_share_and_needs_every_member(pair, candidates):
    share = wanted_share(pair, candidates)
    got = run(find_minimal_set(pair, FindMinimalSet(MEASURE, candidates, share, controls=5)))
    features = [m.feature for m in got.members]
    assert got.reached and got.share >= share and 2 <= len(features) <= len(candidates)
    assert got.share == pytest.approx(share_of(pair, features), abs=1e-3)
    assert got.share == pytest.approx(1 - got.ablated / got.baseline)
    for n, member in enumerate(got.members):
        assert member.share_with == pytest.approx(share_of(pair, features[: n + 1]), abs=1e-3)
        rest = [f for f in features if f != member.feature]
        assert member.share_without == pytest.approx(share_of(pair, rest), abs=1e-3)
        assert member.share_without < share  # nobody can be spared
    assert len(got.control_shares) <= 5


def test_it_is_no_larger_than_the_smallest_there_is_by_more_than_one(pair, candidates):
    share = wanted_share(pair, candidates)
    got = run(find_minimal_set(pair, FindMinimalSet(MEASURE, candidates, share, controls=0)))
    found = run(measured(pair, MEASURE))
    sets = [list(c) for size in range(1, len(got.members)) for c in combinations(candidates, size)]
    scored = run(ablated(pair.site.sae, pair.upper, found.items, found.values, sets, ""))
    reaching = [
        len(features)
        for features, values in zip(sets, scored, strict=True)
        if 1 - total(found.items, values) / found.baseline >= share
    ]
    assert min(reaching, default=len(got.members)) >= len(got.members) - 1


def test_what_cannot_be_reached_is_said(pair, candidates):
    got = run(find_minimal_set(pair, FindMinimalSet(MEASURE, candidates[:1], 1.0, controls=0)))
    assert not got.reached and got.share < 1 and len(got.members) == 1
    capped = run(find_minimal_set(pair, FindMinimalSet(MEASURE, candidates, 1.0, most=2, controls=0)))
    assert len(capped.members) <= 2


def test_a_set_out_of_reach_is_not_padded(pair, candidates, monkeypatch):
    """No member adds less than the least gain, which is raised here so that it matters."""
    request = FindMinimalSet(MEASURE, candidates, 1.0, controls=0)
    whole = run(find_minimal_set(pair, request))
    added = [b - a for a, b in pairwise([0.0, *(m.share_with for m in whole.members)])]
    least = sorted(added)[len(added) // 2]
    monkeypatch.setattr("engine.attribution.minimal_set.LEAST_GAIN", least)
    found = run(find_minimal_set(pair, request))
    shares = [0.0, *(m.share_with for m in found.members)]
    assert 0 < len(found.members) < len(whole.members)
    assert all(b - a > least for a, b in pairwise(shares))


def test_features_that_only_add_to_the_measure_are_never_chosen(pair):
    got = run(causes.attribute(pair, Attribute(MEASURE, top=40, exact=40, controls=0)))
    against = tuple(r.feature for r in got.features if r.exact is not None and r.exact / got.baseline > 1e-3)
    found = run(find_minimal_set(pair, FindMinimalSet(MEASURE, against[:4], 0.5, controls=3)))
    assert found.members == () and not found.reached and found.share == 0 and found.control_shares == ()


def test_facts_kept_are_the_mean_log_odds_of_the_right_answers(pair, candidates):
    facts = facts_of(pair)
    got = run(find_minimal_set(pair, FindMinimalSet(MEASURE, candidates, 0.3, facts=facts, controls=0)))
    edits = [Edit(m.feature) for m in got.members]

    def odds(given):
        return sum((1 if p.right == "female" else -1) * by_hand(pair, p, given)[0] for p in facts)

    assert edits and got.facts_kept == pytest.approx(odds(edits) / odds(()), abs=1e-3) and got.facts_kept != 1
    assert got.kl is None


def test_facts_that_the_model_does_not_know_are_not_counted(pair, candidates):
    wrong = tuple(replace(p, right="male" if p.right == "female" else "female") for p in facts_of(pair))
    got = run(find_minimal_set(pair, FindMinimalSet(MEASURE, candidates, 0.3, facts=wrong, controls=0)))
    assert got.facts_kept is None and any("does not know the facts" in w for w in got.warnings)


def test_a_penalty_keeps_away_from_what_costs_facts(pair, candidates):
    free = FindMinimalSet(MEASURE, candidates, 0.9, controls=0)
    edits = [Edit(m.feature) for m in run(find_minimal_set(pair, free)).members]
    facts = facts_of(pair, edits)
    assert facts
    plain = run(find_minimal_set(pair, replace(free, facts=facts)))
    dear = run(find_minimal_set(pair, replace(free, facts=facts, penalty=100.0)))
    assert [Edit(m.feature) for m in plain.members] == edits  # without a penalty facts are only reported
    assert plain.facts_kept < dear.facts_kept - 1e-3


def test_kl_is_that_of_whole_passes_with_the_apps_edits(pair, candidates):
    text = run(NeutralText.read(pair, 300))
    features = candidates[:3]
    (got,) = run(text.kl([features]))
    sums, count = 0.0, 0
    for ids in passages(pair, 300):
        both = []
        for edits in ((), [Edit(f) for f in features]):
            editor, row = make_editor(pair, [edits]), torch.tensor([ids])
            expect(editor, ids)
            with torch.inference_mode(), editor.applied():
                both.append(torch.log_softmax(pair.model.module(input_ids=row).logits[0].double(), -1)[1:])
        sums += float((both[0].exp() * (both[0] - both[1])).sum())
        count += len(ids) - 1
    assert got == pytest.approx(sums / count, rel=1e-3) and got > 0
    assert run(text.kl([[]])) == [0.0]
    found = run(find_minimal_set(pair, FindMinimalSet(MEASURE, candidates, 0.3, neutral_tokens=300, controls=0)))
    assert found.kl == pytest.approx(run(text.kl([[m.feature for m in found.members]]))[0], rel=1e-5)


def test_neutral_passages_are_spread_over_the_text_and_start_as_they_were_fed(pair):
    few, many = passages(pair, 200), passages(pair, 10**6)
    assert 0 < len(few) < len(many)
    assert all(ids[0] == pair.model.tokens.bos for ids in many)
    assert pair.model.tokens.bos not in {i for ids in many for i in ids[1:]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"candidates": ()}, "no features to choose from"),
        ({"controls": 2**62}, "--controls must be between 0 and 10,000"),
        ({"share": 0.0}, "not between 0 and 1"),
        ({"share": 1.5}, "not between 0 and 1"),
        ({"most": 0}, "at least one feature"),
        ({"measure": Measure(PROBES, "female", "nobody")}, "No probe tracks both"),
    ],
)
def test_requests_that_make_no_sense(pair, change, words):
    with pytest.raises(UsageError, match=words):
        run(find_minimal_set(pair, replace(FindMinimalSet(MEASURE, (1, 2)), **change)))


def test_the_same_search_comes_out_the_same(pair, candidates):
    request = FindMinimalSet(MEASURE, candidates, 0.3, controls=4)
    first = run(find_minimal_set(pair, request))
    pair.forget()
    assert run(find_minimal_set(pair, request)) == first


def test_control_sets_are_different_and_of_the_sets_size(pair):
    found = run(measured(pair, MEASURE))
    slopes = run(gradient(pair.site.sae, pair.upper, found.items, (), ""))
    active = slopes.strength_F.nonzero()[:, 0].tolist()
    one = drawn_sets(pair, slopes, active[:1], 10)
    assert len({tuple(s) for s in one}) == len(one) == 10 and not {active[0]} & {f for s in one for f in s}
    three = drawn_sets(pair, slopes, active[:3], 20)
    assert len({tuple(s) for s in three}) == len(three) == 20 and all(len(set(s)) == 3 for s in three)
    assert drawn_sets(pair, slopes, active[:-2], 20) == []  # there are no sets of this size


def test_facts_have_no_slope_and_need_a_wrong_answer(pair, candidates):
    facts = tuple(replace(p, covariate=float(n)) for n, p in enumerate(facts_of(pair)))
    plain = run(measured_facts(pair, facts_of(pair)))
    assert run(measured_facts(pair, facts)).baseline == pytest.approx(plain.baseline)
    alone = tuple(replace(p, answers=tuple(a for a in p.answers if a.name == p.right)) for p in facts)
    got = run(find_minimal_set(pair, FindMinimalSet(MEASURE, candidates, 0.2, facts=alone, controls=0)))
    assert got.members and got.facts_kept is None


def test_a_promise_made_before_the_set_grew_is_no_reason_to_give_up():
    """Self-repair: the second feature only matters once the first is ablated."""

    class Planted:
        request = FindMinimalSet(MEASURE, (1, 2), 0.8)

        def value(self, features):
            yield from ()
            share = {(): 0.0, (1,): 0.3, (1, 2): 0.9}.get(tuple(features), 0.0)
            return Value(1 - share, share, None, None, share)

        def promise(self, features):
            yield from ()
            return [0.3, 0.0] if not features else [0.0, 0.6]

    chosen, value = run(grow(Planted()))
    assert chosen == [1, 2] and value.share == 0.9
