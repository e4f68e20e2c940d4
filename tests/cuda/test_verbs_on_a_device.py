"""Every verb on a device, against the same verb on the CPU in float32."""

import pytest
import torch

from engine.records import (
    Answer,
    Attribute,
    Attribution,
    Describe,
    Described,
    Diagnosis,
    Doctor,
    Edit,
    FeaturesAt,
    FindMinimalSet,
    Measure,
    MinimalSet,
    Probe,
    ProbeTable,
    Prompt,
    PromptSet,
    Rank,
    Ranking,
    RunProbes,
    Sampling,
    Show,
    Shown,
    TokenFeatures,
)
from engine.serving.client import ask

SET = PromptSet(
    "x",
    (Prompt("The nurse fed the lab rats."), Prompt("A doctor said that she ate."), Prompt("Who fed her?", "chat")),
    (Prompt("Seven ferries left at dawn..."), Prompt("cab grab dab, about a fable")),
)

ANSWERS = (Answer("female", (" she", " her")), Answer("male", (" he", " his own")))

PROBES = (
    Probe("The nurse said that", "raw", answers=ANSWERS),
    Probe("Who fed the lab rats?", "chat", "It was", ANSWERS),
)

MEASURE = Measure(PROBES, "female", "male")

CLOSE = {"rel": 1e-3, "abs": 1e-4}
"""Products in float32 are summed in another order on another device."""


@pytest.fixture(scope="module")
def ranked(client):
    return ask(client, Rank(SET, top=8), Ranking)


def test_what_is_read_at_the_hook(pair, explorer):
    rows = [pair.model.tokens.feed(prompt).ids for prompt in (*SET.positive, *SET.negative)]
    found = pair.model.capture_batch(pair.site.reads_at, rows)
    wanted = explorer.model.capture_batch(explorer.site.reads_at, rows)
    for h_TD, wanted_TD in zip(found, wanted, strict=True):
        assert h_TD.device == pair.model.device
        assert torch.allclose(h_TD.cpu(), wanted_TD, rtol=1e-4, atol=1e-4)


def test_reference_statistics(pair, explorer):
    assert pair.site.reference.n_tokens == explorer.site.reference.n_tokens
    assert pair.site.reference.l0 == pytest.approx(explorer.site.reference.l0, rel=0.01)
    assert torch.allclose(pair.site.reference.maximum_F.cpu(), explorer.site.reference.maximum_F, rtol=1e-3, atol=1e-4)


def test_rank(loaded, ranked):
    found = ask(loaded, Rank(SET, top=8), Ranking)
    for row, wanted in zip(found.features, ranked.features, strict=True):
        assert (row.feature, row.tokens) == (wanted.feature, wanted.tokens)
        for column in ("score", "diff", "auroc", "t", "g", "density", "p"):
            assert getattr(row, column) == pytest.approx(getattr(wanted, column), **CLOSE), column


def test_show_and_features_at(loaded, client, ranked):
    feature = ranked.features[0].feature
    found, wanted = (ask(c, Show(feature, SET.positive), Shown) for c in (loaded, client))
    for row, wanted_row in zip(found.activations, wanted.activations, strict=True):
        assert row == pytest.approx(wanted_row, **CLOSE)
    found, wanted = (ask(c, FeaturesAt(SET.positive[0], 4), TokenFeatures) for c in (loaded, client))
    assert [f.feature for f in found.features] == [f.feature for f in wanted.features]


def test_the_features_page(loaded, client, ranked):
    feature = ranked.features[0].feature
    found, wanted = (ask(c, Describe(feature), Described) for c in (loaded, client))
    assert [t.logit for t in found.promoted] == pytest.approx([t.logit for t in wanted.promoted], **CLOSE)
    assert [n.feature for n in found.neighbours] == [n.feature for n in wanted.neighbours]


def test_the_doctor(loaded, client):
    found, wanted = (ask(c, Doctor(), Diagnosis) for c in (loaded, client))
    assert [(c.name, c.ok) for c in found.checks] == [(c.name, c.ok) for c in wanted.checks]
    assert found.variance_explained == pytest.approx(wanted.variance_explained, **CLOSE)


def test_probes(loaded, client, ranked):
    edits = tuple(Edit(row.feature) for row in ranked.features[:3])
    tables = [ask(c, RunProbes(PROBES, edits, Sampling(max_tokens=6)), ProbeTable) for c in (loaded, client)]
    for row, wanted in zip(*(table.rows for table in tables), strict=True):
        for answer, wanted_answer in zip(row.answers, wanted.answers, strict=True):
            assert answer.edited == pytest.approx(wanted_answer.edited, **CLOSE)
        assert row.generated.edited.token_ids == wanted.generated.edited.token_ids


def test_attribution_and_the_smallest_set(loaded, client):
    request = Attribute(MEASURE, exact=6, controls=4)
    found, wanted = (ask(c, request, Attribution) for c in (loaded, client))
    assert found.baseline == pytest.approx(wanted.baseline, **CLOSE)
    exact = {row.feature: row.exact for row in wanted.features if row.exact is not None}
    assert any(exact.values())
    for row in found.features:
        if row.exact is not None and row.feature in exact:
            assert row.exact == pytest.approx(exact[row.feature], rel=1e-2, abs=1e-3)
    request = FindMinimalSet(MEASURE, tuple(exact)[:6], share=0.3, controls=2)
    found, wanted = (ask(c, request, MinimalSet) for c in (loaded, client))
    assert [m.feature for m in found.members] == [m.feature for m in wanted.members]
    assert found.share == pytest.approx(wanted.share, rel=1e-2, abs=1e-3)
