"""Measures, gradients and exact effects: against the whole model, finite differences in float64, and brute force."""

import math
from dataclasses import replace as replace_config

import numpy as np
import pytest
import torch
from editing import expect
from msgspec.structs import replace
from tiny import sae_weights, write_sae
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from engine.attribution import attribute as causes
from engine.attribution.effect import exact_effect
from engine.attribution.gradient import ablated, gradient
from engine.attribution.measure import Unit, ablation, activations, batches, run_units, score, total
from engine.attribution.measured import KeptMeasures, measured
from engine.attribution.read_probes import read_items, weights
from engine.generation.edits import make_editor
from engine.loading.formats import load_sae
from engine.models import upper_layers
from engine.models.sae import SparseAutoencoder
from engine.models.upper_layers import UpperLayers
from engine.records import Answer, Attribute, Edit, Measure, Probe, Progress, Prompt
from engine.records import attribution as measures
from engine.records.errors import EditError, UsageError

FEMALE = Answer("female", (" she", " her", "a long answer"))

MALE = Answer("male", (" he", " his own"))

PROBES = (
    Probe("The nurse said that", "raw", answers=(FEMALE, MALE), covariate=2.0),
    Probe("Who fed the lab rats?", "chat", "It was", (FEMALE, MALE), covariate=-1.0),
    Probe("A doctor said ~ that", "raw", answers=(MALE, FEMALE), covariate=0.5),
)

MEASURE = Measure(PROBES, "female", "male")

MEAN = Measure(tuple(Probe(p.text, p.format, p.prefill, p.answers) for p in PROBES), "female", "male")


def run(work):
    """A verb's result."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value


@pytest.fixture(scope="module")
def found(pair):
    pair.drop(KeptMeasures)
    return run(measured(pair, MEASURE))


def by_hand(pair, probe, edits=()):
    """m of a probe by whole forward passes of the model, one string at a time, with the app's own edits."""
    sides = {"female": [], "male": []}
    for answer in probe.answers:
        for string in answer.strings:
            prompt = Prompt(probe.text, probe.format)
            ids = pair.model.tokens.feed(prompt, probe.prefill, string).ids
            start = len(pair.model.tokens.feed(prompt, probe.prefill).ids)
            editor = make_editor(pair, [edits])
            row = torch.tensor([ids])
            expect(editor, ids)
            with torch.inference_mode(), editor.applied():
                logits = pair.model.module(input_ids=row, use_cache=False).logits[0].double()
            logprobs = torch.log_softmax(logits, -1)
            sides[answer.name].append(sum(float(logprobs[t - 1, ids[t]]) for t in range(start, len(ids))))
    toward, against = (np.logaddexp.reduce(sides[name]) for name in ("female", "male"))
    return toward - against, math.exp(toward) + math.exp(against)


# ---- the measure


def test_m_and_mass_are_those_of_whole_passes_string_by_string(pair, found):
    for item, value, mass in zip(found.items, found.values, found.masses, strict=True):
        wanted = by_hand(pair, item.probe)
        assert value == pytest.approx(wanted[0], abs=1e-4)
        assert mass == pytest.approx(wanted[1], rel=1e-4)


def test_strings_that_go_on_from_one_another_share_a_row(found):
    item = found.items[0]
    tokens = [len(t.ids) for t in item.targets]
    assert len(item.targets) == 5 and len(item.entry) < 5
    assert {t.row for t in item.targets} == set(range(len(item.entry)))
    assert max(tokens) > 3  # an answer of many tokens is an answer like any other


def test_the_same_string_twice_is_no_likelier(pair, found):
    twice = Probe(PROBES[0].text, "raw", answers=(FEMALE, Answer("male", (*MALE.strings, MALE.strings[0]))))
    got = run(measured(pair, Measure((twice,), "female", "male")))
    assert got.values[0] == pytest.approx(found.values[0], abs=1e-5)


def test_rows_of_one_run_are_bounded(found, monkeypatch):
    monkeypatch.setattr("engine.attribution.measure.BATCH_ROWS", {"cpu": 8})
    last = found.items[0].scored_from
    made = list(batches([Unit(found.items[0], (), last)] * 20, torch.device("cpu")))
    assert max(sum(len(unit.item.entry) for unit in batch) for batch in made) <= 8


def test_a_value_does_not_depend_on_what_else_is_in_its_run(pair, found):
    for item, value in zip(found.items, found.values, strict=True):
        (alone,) = run(run_units(pair.site.sae, pair.upper, [Unit(item, (), 0)], ""))
        assert float(alone.value) == pytest.approx(value, abs=1e-5)


def test_batches_hold_every_unit_once_and_no_more_than_the_limit(found, monkeypatch):
    monkeypatch.setattr("engine.attribution.measure.BATCH_TOKENS", {"cpu": 60})
    units = [Unit(item, (n,), n % 3) for n, item in enumerate(found.items * 3)]
    made = list(batches(units, torch.device("cpu")))
    assert len(made) > 2
    assert sorted(id(u) for batch in made for u in batch) == sorted(map(id, units))
    for batch in made:
        rows = sum(len(unit.item.entry) for unit in batch)
        start = min(unit.start for unit in batch)
        assert batch[0].start == start  # where a run starts, nothing has been added yet in any of its rows
        assert len(batch) == 1 or rows * max(unit.length for unit in batch) <= 4 * 60  # the past takes memory too
        assert len(batch) == 1 or rows * (max(unit.length for unit in batch) - start) <= 60


def test_weights_make_a_slope_or_a_mean(pair, found):
    x = [p.covariate for p in PROBES]
    assert found.baseline == pytest.approx(np.polyfit(x, found.values, 1)[0], rel=1e-6)
    assert measures.is_slope(PROBES)
    assert weights(MEAN.probes) == [1 / 3] * 3
    same = [Probe("a", covariate=1.0), Probe("b", covariate=1.0)]
    assert weights(same) == [0.5, 0.5]  # no slope on what does not differ
    assert run(measured(pair, MEAN)).baseline == pytest.approx(np.mean(found.values), rel=1e-6)


def test_the_leading_token_and_sinks_are_not_edited(pair, found):
    bos = pair.model.tokens.bos
    for item in found.items:
        assert not item.editable[0][0] and item.fed.token_ids[0] == bos
    sink = found.items[2].fed.tokens.index("~") if "~" in found.items[2].fed.tokens else None
    assert sink is not None and not found.items[2].editable[0][sink]
    assert int((~found.items[2].editable[0]).sum()) == 2
    everything = list(range(pair.site.sae.d_sae))
    deltas = ablation(pair.site.sae, found.items[2].h, found.items[2].editable, everything)
    assert deltas[0][sink].abs().max() == 0 and deltas[0][0].abs().max() == 0 and deltas[0].abs().max() > 0


# ---- exact effects


def test_exact_effects_are_those_of_the_apps_own_edits(pair, found):
    sets = [[3], [5, 17], list(range(40)), []]
    scored = run(ablated(pair.site.sae, pair.upper, found.items, found.values, sets, ""))
    changed = 0
    for features, values in zip(sets, scored, strict=True):
        for item, value, before in zip(found.items, values, found.values, strict=True):
            wanted, _ = by_hand(pair, item.probe, [Edit(f) for f in features])
            assert value == pytest.approx(wanted, abs=2e-4), features
            changed += abs(value - before) > 1e-3
    assert changed >= 5


def test_where_a_feature_is_silent_nothing_is_run(pair, found, monkeypatch):
    item = found.items[0]
    everything = range(pair.site.sae.d_sae)
    fires_K = torch.cat(activations(pair.site.sae, item.h, item.editable, everything)).amax(0) > 0
    silent = int((~fires_K).nonzero()[0])

    def never(*_):
        raise AssertionError("was run")

    monkeypatch.setattr("engine.attribution.measure.score", never)
    (values,) = run(ablated(pair.site.sae, pair.upper, [item], found.values[:1], [[silent]], ""))
    assert values == found.values[:1]
    with pytest.raises(AssertionError, match="was run"):
        loud = int(fires_K.nonzero()[0])
        run(ablated(pair.site.sae, pair.upper, [item], found.values[:1], [[loud]], ""))


# ---- the gradient


def in_float64(norm, h):
    return norm.weight * h * torch.rsqrt(h.square().mean(-1, keepdim=True) + norm.variance_epsilon)


@pytest.mark.parametrize("encoder", ["jumprelu", "standard", "topk"])
@pytest.mark.parametrize("normalisation", ["constant_norm_rescale", "layer_norm", "none"])
def test_estimates_are_finite_differences_in_float64(pair, tmp_path, monkeypatch, encoder, normalisation):
    """d M / d s at s = 1, where feature i is scaled by s with u, mu and the error term held fixed, is A_i."""
    sae = load_sae(write_sae(tmp_path / "sae", encoder, normalisation), "tiny")
    monkeypatch.setattr(upper_layers, "dtype_for", lambda *_: torch.float64)
    monkeypatch.setattr(LlamaRMSNorm, "forward", in_float64)  # transformers' own computes in float32 whatever comes
    upper = UpperLayers(pair.model, pair.site.reads_at)
    measure = MEASURE if encoder == "jumprelu" else MEAN
    probes = measures.check_measure(measure)
    sides = [(FEMALE.strings, MALE.strings)] * len(probes)
    items = run(read_items(pair, upper, probes, sides))
    slopes = run(gradient(sae, upper, items, (), ""))
    active = (slopes.strength_F > 0).nonzero()[:, 0].tolist()
    assert len(active) >= 4

    def at(feature, step):
        moved = []
        for item in items:
            for delta_TD in ablation(sae, item.h, item.editable, [feature]):
                moved.append(None if delta_TD is None else -step * delta_TD.double())
        values = [float(s.value) for s in score(upper, items, moved)]
        return total(items, values)

    step = 1e-4
    with torch.inference_mode():
        for feature in active:
            slope = (at(feature, step) - at(feature, -step)) / (2 * step)
            assert -float(slopes.estimate_F[feature]) == pytest.approx(slope, rel=1e-4, abs=1e-6), feature
    silent = (slopes.strength_F == 0).nonzero()[:, 0].tolist()
    assert all(float(slopes.estimate_F[f]) == 0 for f in silent)


def test_estimates_where_features_are_ablated_are_taken_there(pair, found):
    sae, upper = pair.site.sae, pair.upper
    before = run(gradient(sae, upper, found.items, (), ""))
    first = int(before.estimate_F.abs().argmax())
    after = run(gradient(sae, upper, found.items, (first,), ""))
    assert not torch.allclose(before.estimate_F, after.estimate_F, rtol=1e-2)
    assert torch.equal(before.strength_F, after.strength_F)


@pytest.mark.parametrize("rescaled", [False, True])
def test_estimates_and_strengths_are_of_the_decoder_as_it_is_applied(pair, found, rescaled):
    """Rows of different length, and activations multiplied by them or not."""
    weights = sae_weights()
    weights["W_dec"] = weights["W_dec"] * torch.linspace(0.3, 3, 40)[:, None]
    config = replace_config(pair.site.sae.config, rescale_acts_by_decoder_norm=rescaled)
    sae = SparseAutoencoder(config, weights)
    slopes = run(gradient(sae, pair.upper, found.items, (), ""))
    active = (slopes.strength_F > 0).nonzero()[:, 0].tolist()
    assert len(active) > 5
    for feature in active:
        parts = [d for i in found.items for d in ablation(sae, i.h, i.editable, [feature]) if d is not None]
        assert float(slopes.strength_F[feature]) == pytest.approx(
            sum(float(d.norm(dim=-1).sum()) for d in parts), rel=1e-4
        )
        with torch.inference_mode():
            up, down = (
                total(found.items, [float(s.value) for s in score(pair.upper, found.items, moved)])
                for moved in ([step * d for d in every(sae, found, feature)] for step in (0.01, -0.01))
            )
        assert float(slopes.estimate_F[feature]) == pytest.approx((up - down) / 0.02, rel=0.02, abs=2e-3)


def every(sae, found, feature):
    """What ablating the feature adds to each row of each item."""
    deltas = [ablation(sae, item.h, item.editable, [feature]) for item in found.items]
    return [
        torch.zeros_like(h) if d is None else d
        for item, own in zip(found.items, deltas, strict=True)
        for h, d in zip(item.h, own, strict=True)
    ]


# ---- the verb


def test_attribution_from_end_to_end(pair):
    request = Attribute(MEASURE, top=12, exact=6, controls=5, also=(0, 39))
    got = run(causes.attribute(pair, request))
    tested = [r for r in got.features if r.exact is not None and not r.control]
    assert len(tested) == 6 and got.features[:6] == tuple(tested)
    assert [abs(r.exact) for r in tested] == sorted((abs(r.exact) for r in tested), reverse=True)
    rest = [r for r in got.features if r.exact is None and r.feature not in (0, 39)]
    assert [abs(r.estimate) for r in rest] == sorted((abs(r.estimate) for r in rest), reverse=True)
    assert min(abs(r.estimate) for r in tested) >= max((abs(r.estimate) for r in rest), default=0)
    assert {0, 39} <= {r.feature for r in got.features}
    controls = [r for r in got.features if r.control]
    assert len(controls) == got.n_controls == 5 and not {r.feature for r in controls} & {r.feature for r in tested}
    assert len({r.feature for r in got.features}) == len(got.features)
    for row in tested:
        assert row.percentile == sum(abs(c.exact) < abs(row.exact) for c in controls) / 5
    assert got.slope and got.baseline == pytest.approx(
        sum(w * p.value for w, p in zip(weights(PROBES), got.probes, strict=True))
    )
    assert got.spearman > 0.5
    assert any("no effect can be called influence" in w for w in got.warnings)
    effect = run(exact_effect(pair, MEASURE, tested[0].feature))
    assert effect.ablated - effect.baseline == pytest.approx(tested[0].exact, abs=1e-5)


def test_effects_of_whole_passes_are_the_same_and_said_to_be_slower(pair, monkeypatch):
    request = Attribute(MEASURE, top=4, exact=2, controls=0)
    fast = run(causes.attribute(pair, request))
    pair.drop(KeptMeasures)
    with monkeypatch.context() as patch:
        patch.setitem(vars(pair), "upper", UpperLayers(pair.model, pair.site.writes_at, whole=True))
        slow = run(causes.attribute(pair, request))
    pair.drop(KeptMeasures)
    assert [row.feature for row in slow.features] == [row.feature for row in fast.features]
    for ours, wanted in zip(slow.features, fast.features, strict=True):
        assert ours.exact == pytest.approx(wanted.exact, abs=1e-4)
    (said,) = set(slow.warnings) - set(fast.warnings)
    assert "whole passes replaced them" in said


def test_candidates_are_the_only_ones_listed(pair):
    got = run(causes.attribute(pair, Attribute(MEASURE, exact=2, controls=0, candidates=(3, 5, 7, 9))))
    assert {r.feature for r in got.features} <= {3, 5, 7, 9}
    assert got.n_controls == 0 and all(r.percentile is None for r in got.features)


def test_controls_are_alike_and_drawn_without_a_look_at_effects(pair, found):
    slopes = run(gradient(pair.site.sae, pair.upper, found.items, (), ""))
    active = slopes.strength_F.nonzero()[:, 0].tolist()
    drawn = causes.controls(pair, slopes, active[:3], 4)
    assert len(set(drawn)) == 4 and not set(drawn) & set(active[:3]) and set(drawn) <= set(active)
    other = type(slopes)(slopes.estimate_F.flip(0), slopes.strength_F)
    assert causes.controls(pair, other, active[:3], 4) == drawn
    assert sorted(causes.controls(pair, slopes, active[:3], 1000)) == sorted(set(active) - set(active[:3]))


def test_questions_of_fact_and_probes_without_both_answers_are_left_out(pair):
    fact = Probe("My sister said that", "raw", answers=(FEMALE, MALE), right="female")
    odd = Probe("Anyone?", "raw", answers=(FEMALE,))
    got = run(causes.attribute(pair, Attribute(Measure((*PROBES, fact, odd), "female", "male"), 4, 2, 2)))
    assert [p.fed.text for p in got.probes] == [p.text for p in PROBES]
    assert any("1 of the probes do not track both" in w for w in got.warnings)


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        (Measure(PROBES, "female", "female"), "against itself"),
        (Measure(PROBES, "female", "other"), "No probe tracks both"),
        (Measure((), "female", "male"), "No probe tracks both"),
        (Measure((Probe("Who?", answers=(FEMALE, Answer("male", ()))),), "female", "male"), "'male' of the probe 'Who"),
    ],
)
def test_a_measure_that_cannot_be_taken(pair, measure, words):
    with pytest.raises(UsageError, match=words):
        run(causes.attribute(pair, Attribute(measure)))


@pytest.mark.parametrize("numbers", [{"top": 0}, {"exact": -1}, {"controls": -1}])
def test_numbers_of_features_that_make_no_sense(pair, numbers):
    with pytest.raises(UsageError, match="must be"):
        run(causes.attribute(pair, Attribute(MEASURE, **numbers)))


def test_a_feature_the_sae_does_not_have(pair):
    with pytest.raises(EditError, match="no feature 40"):
        run(causes.attribute(pair, Attribute(MEASURE, candidates=(40,))))


def test_it_can_be_stopped_anywhere_and_leaves_no_hook(pair):
    stages = set()
    for stop in range(40):
        pair.drop(KeptMeasures)
        work = causes.attribute(pair, Attribute(MEASURE, 8, 4, 4))
        for _ in range(stop):
            event = next(work, None)
            if event is None:
                break
            assert isinstance(event, Progress)
            stages.add(event.stage)
        work.close()
        modules = (*pair.model.module.modules(), *pair.upper._module.modules())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)
    assert {"reading probes", "measuring", "attributing", "ablating one by one"} <= stages


def test_editor_and_attribution_agree_on_what_is_edited(pair, found):
    item = found.items[2]
    everything = range(pair.site.sae.d_sae)
    editor = make_editor(pair, [[Edit(f) for f in everything]])
    expect(editor, item.fed.token_ids)
    h_TD = item.h[0][: len(item.fed.token_ids)]
    changed = (editor.edit(h_TD[None])[0] != h_TD).any(-1)
    deltas = ablation(pair.site.sae, item.h, item.editable, everything)
    assert changed.tolist() == (deltas[0][: len(h_TD)].abs().sum(-1) > 0).tolist()


# ---- rank correlation


def test_spearman_against_numbers_worked_out_by_hand():
    assert causes.spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert causes.spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    # ranks 0 1.5 1.5 3 against 0 1 2 3: covariance 4.5, squares 4.5 and 5
    assert causes.spearman([5, 6, 6, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert causes.spearman([1, 1, 1], [1, 2, 3]) is None
    assert causes.spearman([1, 2], [1, 2]) is None


# ---- words


def test_evidence_takes_an_effect_beyond_most_of_enough_controls(pair):
    got = run(causes.attribute(pair, Attribute(MEASURE, top=12, exact=4, controls=5)))
    row = got.features[0]
    assert measures.evidence(replace(row, percentile=0.95), 20) == "influences"
    assert measures.evidence(replace(row, percentile=0.95), 19) == "associated"
    assert measures.evidence(replace(row, percentile=0.94), 99) == "associated"
    assert measures.evidence(replace(row, percentile=None), 99) == "associated"
    assert measures.evidence(None, 99) == "associated"
    assert measures.share_of_baseline(got, row) == pytest.approx(-row.exact / got.baseline)
    assert measures.signed_effect(replace(row, exact=None)) == row.estimate
