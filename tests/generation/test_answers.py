"""Answers of any length, scored in padded pairs, against one plain forward pass each."""

import math
from functools import partial

import plain
import pytest
import torch
from editing import active_features, expect, kinds
from test_edit_kinds import nnsight_logits

from engine.generation.answers import join, log_probabilities
from engine.generation.edits import make_editor
from engine.generation.probes import score_answers
from engine.loading.demo.model import finish
from engine.records import Answer, AnswersScored, Edit, Probe, ProbeTable, Prompt, RunProbes, Sampling, ScoreAnswers
from engine.records.errors import EditError, UsageError
from engine.serving.client import ask

STRINGS = (" she", " the women on the beach", " he", " water")


def plain_log_probability(explorer, prompt_ids, ids):
    logits = explorer.model.module(input_ids=torch.tensor([ids])).logits[0].double()
    logprobs = torch.log_softmax(logits, -1)
    return sum(float(logprobs[t - 1, ids[t]]) for t in range(len(prompt_ids), len(ids)))


def test_padded_pairs_equal_single_forward_passes(explorer):
    prompt = Prompt("She said that")
    before = explorer.model.tokens.feed(prompt).ids
    joint = [explorer.model.tokens.feed(prompt, answer=s).ids for s in STRINGS]
    edits = [Edit(f, -2.0) for f in active_features(explorer, before, 5)]
    found = log_probabilities(
        explorer.model, partial(make_editor, explorer), edits, [join(before, ids) for ids in joint]
    )
    for (base, edited), ids in zip(found, joint, strict=True):
        assert base == pytest.approx(plain_log_probability(explorer, before, ids), abs=1e-4)
        editor = make_editor(explorer, [edits])
        with editor.applied():
            expect(editor, ids)
            assert edited == pytest.approx(plain_log_probability(explorer, before, ids), abs=1e-4)
        assert edited != base


@pytest.mark.parametrize("at", ["all", "prompt", "generated", "last", "first-step"])
def test_an_answers_tokens_are_generated_ones_to_an_edit(explorer, model, weights, at):
    prompt = Prompt("She said that")
    before = explorer.model.tokens.feed(prompt).ids
    joint = [explorer.model.tokens.feed(prompt, answer=s).ids for s in STRINGS]
    a, b = active_features(explorer, before, 2)
    edits = [Edit(a, -3.0, at=at), Edit(b, 0.5, "steer", at)]
    found = log_probabilities(
        explorer.model, partial(make_editor, explorer), edits, [join(before, ids) for ids in joint]
    )
    for (base, edited), ids in zip(found, joint, strict=True):
        h_TD = plain.hidden(model.module, ids, layer=1)  # not the explorer's: hooks would stay
        new_TD, _, _ = plain.edited(h_TD, ids, kinds(len(ids), len(before)), weights, edits, explorer.site.reference)
        logits_TV = nnsight_logits(model, explorer.site.reads_at, ids, new_TD)
        logprobs = torch.log_softmax(logits_TV.double(), -1)
        wanted = sum(float(logprobs[t - 1, ids[t]]) for t in range(len(before), len(ids)))
        assert edited == pytest.approx(wanted, abs=1e-4)
        alone = at == "generated" and len(ids) == len(before) + 1
        assert (edited != base) is not alone  # nothing is read behind an answer's last token


def test_an_answer_that_merges_with_the_prompts_end_is_flagged():
    clean = join([1, 5, 6], [1, 5, 6, 7, 8])
    assert (clean.start, clean.clean) == (3, True)
    merged = join([1, 5, 6], [1, 5, 9, 8])
    assert (merged.start, merged.clean) == (2, False)


def test_probes_sum_an_answers_strings_and_report_both_arms(client, explorer):
    probe = Probe(
        "Who said that?", prefill="It was", answers=(Answer("female", (" she", " women")), Answer("x", (" he",)))
    )
    prompt = Prompt(probe.text, "chat")
    before = explorer.model.tokens.feed(prompt, "It was").ids
    edits = tuple(Edit(f, -2.0) for f in active_features(explorer, before, 5))
    table = ask(client, RunProbes((probe,), edits), ProbeTable)
    female, x = table.rows[0].answers
    expected = sum(
        torch.tensor(plain_log_probability(explorer, before, explorer.model.tokens.feed(prompt, "It was", s).ids)).exp()
        for s in (" she", " women")
    )
    assert female.baseline == pytest.approx(float(expected), rel=1e-3)
    assert (female.name, x.name) == ("female", "x")
    assert female.edited != female.baseline
    assert table.rows[0].generated.prompt.token_ids == tuple(explorer.model.tokens.feed(prompt).ids)


def test_a_probe_whose_answer_merges_with_its_prefill_is_flagged_and_scored_whole(client, explorer):
    probe = Probe("Who?", prefill="ca", answers=(Answer("x", ("b now", " now")), Answer("y", (" now",))))
    row = ask(client, RunProbes((probe,)), ProbeTable).rows[0]
    assert row.flags == ("b now",)  # "a" and "b" are one token
    prompt = Prompt("Who?", "chat")
    before = explorer.model.tokens.feed(prompt, "ca").ids
    merged = explorer.model.tokens.feed(prompt, "ca", "b now").ids
    assert merged[: len(before) - 1] == before[:-1]
    assert merged[len(before) - 1] != before[-1]
    whole = plain_log_probability(explorer, before[:-1], merged)  # from the merged token on
    rest = plain_log_probability(explorer, before, explorer.model.tokens.feed(prompt, "ca", " now").ids)
    x, y = row.answers
    assert y.baseline == pytest.approx(math.exp(rest), rel=1e-3)
    assert x.baseline == pytest.approx(math.exp(whole) + math.exp(rest), rel=1e-3)
    assert (x.baseline, y.baseline) == (x.edited, y.edited)  # no edits


def test_scores_do_not_depend_on_the_other_answers_in_the_batch(explorer):
    prompt = Prompt("She said that")
    before = explorer.model.tokens.feed(prompt).ids
    joined = [join(before, explorer.model.tokens.feed(prompt, answer=s).ids) for s in STRINGS]
    edits = [Edit(f, -2.0) for f in active_features(explorer, before, 5)]
    together = log_probabilities(explorer.model, partial(make_editor, explorer), edits, joined)
    for one, pair in zip(joined, together, strict=True):
        (alone,) = log_probabilities(explorer.model, partial(make_editor, explorer), edits, [one])
        assert pair == pytest.approx(alone, abs=1e-4)


def test_scoring_answers_alone_gives_what_the_probes_table_says(client, explorer):
    probe = Probe("Who", "raw", "It is", (Answer("she", (" she", " her")), Answer("he", (" he",))))
    edits = (Edit(3, -4.0),)
    scored = finish(score_answers(explorer, ScoreAnswers(probe, edits)))
    (row,) = ask(client, RunProbes((probe,), edits, Sampling(max_tokens=2)), ProbeTable).rows
    assert (scored.answers, scored.flags) == (row.answers, row.flags)
    assert scored.answers[0].baseline != scored.answers[0].edited


def test_numbers_that_overflow_are_refused(client, explorer):
    probe = Probe("Who said that the tide comes in twice?", "raw", answers=(Answer("she", (" she",)),))
    ids = explorer.model.tokens.feed(Prompt(probe.text)).ids
    wild = tuple(Edit(feature, 3e38) for feature in active_features(explorer, ids, 6))
    with pytest.raises(EditError, match="overflow"):
        ask(client, ScoreAnswers(probe, wild), AnswersScored)


def test_answers_beyond_the_models_context_are_refused(client, explorer, monkeypatch):
    monkeypatch.setattr(explorer.model.module.config, "max_position_embeddings", 12)
    probe = Probe("Who said that the tide comes in twice?", "raw", answers=(Answer("she", (" she",)),))
    with pytest.raises(UsageError, match="context"):
        ask(client, ScoreAnswers(probe), AnswersScored)
