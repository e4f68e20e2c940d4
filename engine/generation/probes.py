"""The verbs `run_probes` and `score_answers`: free answers to probes, and how probable their tracked answers are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from msgspec.structs import replace

from engine.generation.answers import join, log_probabilities
from engine.generation.edits import make_editor
from engine.generation.generate import generate
from engine.generation.shortcuts import shortcuts
from engine.models.language_model import not_finite
from engine.models.pair import Events, Pair
from engine.records import (
    AnswerRow,
    AnswersScored,
    Edit,
    Generate,
    Probe,
    ProbeRow,
    ProbeTable,
    Progress,
    Prompt,
    RunProbes,
    ScoreAnswers,
    TokenStep,
)
from engine.records.errors import EditError, UsageError


def run_probes(pair: Pair, request: RunProbes) -> Events:
    """Return every probe's free answer and its tracked answers' probabilities, in both arms. Raises UsageError."""
    if not request.probes:
        raise UsageError("The prompt set has no probes.", "Add a [[probe]] to it.")
    rows = []
    for index, probe in enumerate(request.probes):
        yield Progress("probes", index, len(request.probes))
        prompt = Prompt(probe.text, probe.format)
        generation = Generate(prompt, request.edits, request.sampling)
        generated = yield from of_probe(generate(pair, generation), index)
        answers, flags = score(pair, probe, request.edits)
        rows.append(ProbeRow(probe, generated, answers, flags))
    return ProbeTable(rows[0].generated.edits, tuple(rows))


def score_answers(pair: Pair, request: ScoreAnswers) -> Events:
    """Return the tracked answers' probabilities in both arms, without generating."""
    yield Progress("scoring answers")
    answers, flags = score(pair, request.probe, request.edits)
    return AnswersScored(request.probe, request.edits, answers, flags)


def score(pair: Pair, probe: Probe, edits: Sequence[Edit]) -> tuple[tuple[AnswerRow, ...], tuple[str, ...]]:
    """Return each tracked answer's summed probability after the prefill, and the strings that tokenise uncleanly."""
    model, prompt = pair.model, Prompt(probe.text, probe.format)
    before = model.tokens.feed(prompt, probe.prefill).ids
    strings = [(answer.name, s) for answer in probe.answers for s in answer.strings]
    if not strings:
        return (), ()
    joined = [join(before, model.tokens.feed(prompt, probe.prefill, s).ids) for _, s in strings]
    model.check_length(max(len(c.ids) for c in joined))
    logprobs = log_probabilities(model, partial(make_editor, pair), edits, joined, shortcuts(pair).answers_together)
    if any(math.isnan(baseline) for baseline, _ in logprobs):
        raise not_finite(model.dtype, "The model's logits overflow on a tracked answer")
    if any(math.isnan(logprob) for both in logprobs for logprob in both):
        raise EditError("The edits make the model's numbers overflow.", "Use smaller strengths.")
    sums = {answer.name: torch.zeros(2, dtype=torch.float64) for answer in probe.answers}
    for (name, _), both in zip(strings, logprobs, strict=True):
        sums[name] += torch.tensor(both, dtype=torch.float64).exp()
    rows = tuple(AnswerRow(name, float(p[0]), float(p[1])) for name, p in sums.items())
    return rows, tuple(s for (_, s), c in zip(strings, joined, strict=True) if not c.clean)


def of_probe(work: Events, probe: int) -> Events:
    """Run a generation and mark its tokens with the probe's index; drop its other events, as probes report progress."""
    while True:
        try:
            event = next(work)
        except StopIteration as done:
            return done.value
        if isinstance(event, TokenStep):
            yield replace(event, probe=probe)
