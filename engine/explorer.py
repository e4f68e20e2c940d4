"""The verbs over one loaded model and SAE.

Each verb is a generator: it yields events (progress, tokens) and returns its result. Whoever runs it can stop it
between two events by closing it, run another verb between two events, and answer a generation's TokenStep with new
edits. Knows nothing about carriers, files or screens.

Shape suffixes: P prompts, T tokens, D d_model, F features, K chosen features.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Generator, Sequence
from functools import cached_property
from typing import Any

import torch
from msgspec.structs import replace

from engine import contrast as statistics
from engine import feature_card, ranking, slots
from engine.answers import join, log_probabilities
from engine.decode import BASELINE, EDITED, Decoded, DecodedArm, Text, lists_of, rows_of
from engine.edits import ResidualEditor
from engine.errors import EditError, UsageError
from engine.hooks import HookPoint
from engine.model import LanguageModel
from engine.ranking import RankTable, Read
from engine.records import (
    AnswerRow,
    AnswersScored,
    Arm,
    Edit,
    Event,
    FeatureAt,
    FeaturesAt,
    FedPrompt,
    Format,
    Generate,
    Generated,
    Loaded,
    OtherArm,
    Probe,
    ProbeRow,
    ProbeTable,
    Progress,
    Prompt,
    Rank,
    Ranking,
    Reply,
    RunProbes,
    ScoreAnswers,
    Show,
    Shown,
    TokenFeatures,
    TokenStep,
)
from engine.reference import Reference
from engine.requests import check_branch, check_sampling
from engine.sae import SparseAutoencoder
from engine.steps import Steps, room_for
from engine.upper import UpperLayers

Events = Generator[Event, Reply, Any]
Key = tuple[str, Format]
"""What a prompt is fed as depends on nothing else."""

CACHED_TOKENS = 32_768
"""Read prompts are kept up to this many tokens, so that looking at another feature needs no forward pass."""

KEPT_MEASURES = 4
KEPT_STEPS = 2
"""Shapes of batches whose steps are kept, with their keys and values."""


class Explorer:
    """One model, one SAE at one hook point, and its reference statistics."""

    def __init__(
        self, model: LanguageModel, sae: SparseAutoencoder, hook: HookPoint, reference: Reference, loaded: Loaded
    ) -> None:
        self.model, self.sae, self.hook, self.reference, self.loaded = model, sae, hook, reference, loaded
        self._reads: OrderedDict[Key, Read] = OrderedDict()
        self._table: RankTable | None = None
        self.measured: OrderedDict[Any, Any] = OrderedDict()
        """Probes of the last few measures as causes.py has read them."""
        self._steps: OrderedDict[tuple[int, int], Steps] = OrderedDict()
        self._text: Text | None = None
        """The last text, which the next one may branch off from."""

    @cached_property
    def upper(self) -> UpperLayers:
        """The layers above the hook; made when first asked for. Raises HookError."""
        return UpperLayers(self.model, self.hook)

    # ---- reading prompts

    def forget(self) -> None:
        """Forgets what was read and ranked, so that a replay computes everything anew."""
        self._reads.clear()
        self._table = self._text = None
        self.measured.clear()

    def read(self, prompts: Sequence[Prompt], together: bool = False) -> Generator[Progress, Any, list[Read]]:
        """Feeds prompts and captures their vectors at the hook; prompts read lately come from the cache.

        `together` reads all of them anew: in bfloat16 a vector depends a little on what else was in its batch, and a
        result that is to come out the same again must not depend on what was read before.
        """
        keys = [(prompt.text, prompt.format) for prompt in prompts]
        known = {} if together else {key: self._reads[key] for key in keys if key in self._reads}
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in known}
        ids = [self.model.tokens.feed(prompt) for prompt in missing.values()]
        self.model.check_length(max((len(i.ids) for i in ids), default=0))
        if missing:
            vectors = yield from self.model.capture(self.hook, [i.ids for i in ids], "reading prompts")
            for (key, prompt), i, h_TD in zip(missing.items(), ids, vectors, strict=True):
                # a copy of its own: the captured rows are views of whole padded batches
                known[key] = Read(self._fed(prompt, i.ids, i.template, h_TD), h_TD.clone())
        self._remember(known)
        return [known[key] for key in keys]

    def _remember(self, reads: dict[Key, Read]) -> None:
        for key, read in reads.items():
            self._reads[key] = read
            self._reads.move_to_end(key)
        while sum(len(read.h_TD) for read in self._reads.values()) > CACHED_TOKENS:
            self._reads.popitem(last=False)

    def keep_measured(self, key: Any, found: Any) -> None:
        """Remembers what was read for a measure, and forgets the oldest."""
        self.measured[key] = found
        while len(self.measured) > KEPT_MEASURES:
            self.measured.popitem(last=False)

    def _fed(
        self, prompt: Prompt, ids: list[int], template: list[bool], h_TD: torch.Tensor, prefill: str = ""
    ) -> FedPrompt:
        sink = (h_TD.float().norm(dim=-1) > self.reference.sink_norm).tolist()
        return FedPrompt(
            text=prompt.text,
            format=prompt.format,
            token_ids=tuple(ids),
            tokens=self.model.tokens.strings(ids),
            rank_mask=tuple(not (t or s) for t, s in zip(template, sink, strict=True)),
            edit_mask=tuple(not (i == self.model.tokens.bos or s) for i, s in zip(ids, sink, strict=True)),
            prefill=prefill,
        )

    # ---- rank

    def rank(self, request: Rank) -> Events:
        """Ranks every feature by how well it tells positives from negatives. Raises UsageError."""
        positive, negative = request.prompts.positive, request.prompts.negative
        ranking.check(request)
        self.sae.columns(request.also)  # raises for a feature the SAE does not have
        if self._table is None or self._table.key != ranking.key_of(request):
            reads = yield from self.read([*positive, *negative], together=True)
            self._table = yield from ranking.build(self.sae, self.reference, reads, request)
        table = self._table
        reads = table.reads
        rows = ranking.best(self.sae, self.reference, table, request)
        chosen = [row.feature for row in rows]
        tokens = self.names(chosen, reads)
        count = statistics.labelings(len(positive), len(negative))
        lengths = [sum(r.fed.rank_mask) for r in reads]
        return Ranking(
            features=tuple(replace(row, tokens=t) for row, t in zip(rows, tokens, strict=True)),
            by=request.by,
            pool=request.pool,
            include_masked=request.include_masked,
            density_weight=request.density_weight,
            n_positive=len(positive),
            n_negative=len(negative),
            n_active_features=int(table.active_F.sum()),
            labelings=count,
            p_floor=1 / count,
            warnings=tuple(statistics.warnings(*split(lengths, len(positive)), request.pool)),
            prompts=tuple(r.fed for r in reads),
            permutations=table.permutations,
        )

    def names(self, features: list[int], reads: list[Read]) -> list[tuple[str, ...]]:
        """For each feature up to three distinct tokens it fires on most, in prompts and reference text."""
        if not features:
            return []
        columns = self.sae.columns(features)
        candidates = [
            [(s.activation, s.token) for s in feature_card.reference_tokens(self.model.tokens, self.reference, f)]
            for f in features
        ]
        for read in reads:
            f_TK = self.sae.encode_features(self.sae.normalise(read.h_TD).x_TD, columns).cpu()
            f_TK[~torch.tensor(read.fed.rank_mask)] = 0
            for t, k in (f_TK > 0).nonzero().tolist():
                candidates[k].append((float(f_TK[t, k]), read.fed.tokens[t]))
        return [feature_card.distinct(found) for found in candidates]

    # ---- one feature

    def show(self, request: Show) -> Events:
        """One feature's activation on every token, masked ones included."""
        columns = self.sae.columns([request.feature])
        reads = yield from self.read(request.prompts)
        rows = []
        maximum = float(self.reference.maximum_F[request.feature])
        for read in reads:
            f_T = self.sae.encode_features(self.sae.normalise(read.h_TD).x_TD, columns)[:, 0].tolist()
            rows.append(tuple(f_T))
            maximum = max([maximum, *(f for f, keep in zip(f_T, read.fed.rank_mask, strict=True) if keep)])
        return Shown(request.feature, tuple(r.fed for r in reads), tuple(rows), maximum)

    def features_at(self, request: FeaturesAt) -> Events:
        """The features that fire most on one token."""
        (read,) = yield from self.read([request.prompt])
        if not 0 <= request.token_index < len(read.h_TD):
            raise UsageError(f"The prompt has {len(read.h_TD)} tokens, there is no token {request.token_index}.")
        at = request.token_index
        # one token is cheap enough for float32, in which its values are shown everywhere else
        active = list(self.sae.encode(read.h_TD[at : at + 1].float()))
        value_N, feature_N = torch.cat([a.value_N for a in active]), torch.cat([a.feature_N for a in active])
        values, order = value_N.topk(min(request.top, len(value_N)))
        found = list(zip(feature_N[order].tolist(), values.tolist(), strict=True))
        names = self.names([i for i, _ in found], [read])
        return TokenFeatures(
            prompt=request.prompt,
            token_index=at,
            token=read.fed.tokens[at],
            features=tuple(FeatureAt(i, v, tokens) for (i, v), tokens in zip(found, names, strict=True)),
            n_active=len(value_N),
        )

    # ---- generation

    def editor(self, rows: Sequence[Sequence[Edit]]) -> ResidualEditor:
        """An editor for a batch with these edits of each row. Raises EditError."""
        return ResidualEditor(self.model, self.sae, self.hook, self.reference, rows)

    def generate(self, request: Generate) -> Events:
        """Continues a prompt in all its arms. What is sent in answer to a TokenStep counts from the next token on."""
        check_sampling(request.sampling, request.samples)
        check_branch(request)
        lists = [request.edits, *request.variants, *(change.edits for change in request.schedule)]
        slots.check(lists, self.reference, self.sae)
        fed = yield from self._feed(request.prompt, request.prefill)
        self.model.check_length(len(fed.token_ids) + request.sampling.max_tokens)
        text = self._text
        if text is None or not text.take_up(request):
            self._text, rows = None, rows_of(request)
            steps = self._steps_for(lists_of(request, rows, request.edits), request, len(fed.token_ids))
            text = self._text = Text(self.model, steps, rows, list(fed.token_ids), request)
        decoded: Decoded = yield from text.run()
        return self._generated(request, fed, decoded)

    def _feed(self, prompt: Prompt, prefill: str) -> Generator[Event, Any, FedPrompt]:
        """A prompt as it is fed, with what is put into the model's mouth."""
        if not prefill:
            (read,) = yield from self.read([prompt])
            return read.fed
        found = self.model.tokens.feed(prompt, prefill)
        self.model.check_length(len(found.ids))
        (h_TD,) = yield from self.model.capture(self.hook, [found.ids], "reading the prompt")
        return self._fed(prompt, found.ids, found.template, h_TD, prefill)

    def _steps_for(self, rows: Sequence[Sequence[Edit]], request: Generate, num_prompt: int) -> Steps:
        """Steps for so many rows and tokens, those kept from another text where they fit."""
        key = (len(rows), room_for(num_prompt + request.sampling.max_tokens))
        if key not in self._steps:
            while len(self._steps) >= KEPT_STEPS:
                self._steps.popitem(last=False)
            self._steps[key] = Steps(self.model, self.editor(rows), key[1])
        self._steps.move_to_end(key)
        return self._steps[key]

    def _generated(self, request: Generate, fed: FedPrompt, decoded: Decoded) -> Generated:
        baseline, edited = decoded.arms[BASELINE], decoded.arms[EDITED]
        others = [
            OtherArm(row.sample, row.edited, row.variant, self._arm(arm), arm.positions, arm.inactive_positions)
            for row, arm in list(zip(decoded.rows, decoded.arms, strict=True))[2:]
            if not row.forced
        ]
        return Generated(
            prompt=fed,
            sampling=request.sampling,
            edits=decoded.schedule[0].edits,
            schedule=tuple(decoded.schedule),
            rows=len(decoded.rows),
            baseline=self._arm(baseline),
            edited=self._arm(edited),
            first_divergence=first_difference(baseline.ids, edited.ids),
            kl=tuple(decoded.kl),
            positions=edited.positions,
            inactive_positions=edited.inactive_positions,
            tokens_per_second=decoded.tokens_per_second,
            variants=tuple(decoded.variants),
            more=tuple(others),
            branched_at=request.branched_at,
            stopped=decoded.stopped,
            fault=decoded.fault,
        )

    def _arm(self, arm: DecodedArm) -> Arm:
        tokens = self.model.tokens
        return Arm(
            tokens.decode(arm.ids), tuple(arm.ids), tokens.strings(arm.ids), tuple(arm.logprobs), tuple(arm.margins)
        )

    def run_probes(self, request: RunProbes) -> Events:
        """Every probe's free answer and its tracked answers' probabilities, both arms."""
        if not request.probes:
            raise UsageError("The prompt set has no probes.", "Add a [[probe]] to it.")
        rows = []
        for index, probe in enumerate(request.probes):
            yield Progress("probes", index, len(request.probes))
            prompt = Prompt(probe.text, probe.format)
            asked = Generate(prompt, request.edits, request.sampling)
            generated = yield from of_probe(self.generate(asked), index)
            answers, flags = self._answers(probe, request.edits)
            rows.append(ProbeRow(probe, generated, answers, flags))
        return ProbeTable(rows[0].generated.edits, tuple(rows))

    def score_answers(self, request: ScoreAnswers) -> Events:
        """The tracked answers' probabilities in both arms, without generating."""
        yield Progress("scoring answers")
        answers, flags = self._answers(request.probe, request.edits)
        return AnswersScored(request.probe, request.edits, answers, flags)

    def _answers(self, probe: Probe, edits: Sequence[Edit]) -> tuple[tuple[AnswerRow, ...], tuple[str, ...]]:
        """Summed probability of each tracked answer's strings after the prefill, and the unclean strings."""
        prompt = Prompt(probe.text, probe.format)
        before = self.model.tokens.feed(prompt, probe.prefill).ids
        strings = [(answer.name, s) for answer in probe.answers for s in answer.strings]
        if not strings:
            return (), ()
        joined = [join(before, self.model.tokens.feed(prompt, probe.prefill, s).ids) for _, s in strings]
        self.model.check_length(max(len(c.ids) for c in joined))
        found = log_probabilities(self.model, self.editor, edits, joined)
        if any(math.isnan(logprob) for pair in found for logprob in pair):
            raise EditError("The edits make the model's numbers overflow.", "Use smaller strengths.")
        sums = {answer.name: torch.zeros(2, dtype=torch.float64) for answer in probe.answers}
        for (name, _), pair in zip(strings, found, strict=True):
            sums[name] += torch.tensor(pair, dtype=torch.float64).exp()
        rows = tuple(AnswerRow(name, float(p[0]), float(p[1])) for name, p in sums.items())
        return rows, tuple(s for (_, s), c in zip(strings, joined, strict=True) if not c.clean)


def split(values: list[int], n_positive: int) -> tuple[list[int], list[int]]:
    """The positives' values and the negatives'."""
    return values[:n_positive], values[n_positive:]


def of_probe(work: Events, probe: int) -> Events:
    """A generation whose tokens say which probe they answer; the probes have a progress of their own."""
    while True:
        try:
            event = next(work)
        except StopIteration as done:
            return done.value
        if isinstance(event, TokenStep):
            yield replace(event, probe=probe)


def first_difference(a: Sequence[int], b: Sequence[int]) -> int | None:
    """Index of the first place where two runs differ, the shorter one's end included; None if they are equal."""
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return None if len(a) == len(b) else min(len(a), len(b))
