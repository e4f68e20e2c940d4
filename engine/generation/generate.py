"""The verb `generate`: a prompt continued in all its arms, and the record of the result."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Sequence
from typing import Any

from engine.generation import edit_tensors
from engine.generation.decoding import BASELINE, EDITED, Decoded, DecodedArm, Text, lists_of, rows_of
from engine.generation.edits import make_editor
from engine.generation.shortcuts import shortcuts
from engine.generation.steps import Steps, room_for
from engine.models.pair import Events, Pair
from engine.records import Arm, Edit, Event, FedPrompt, Generate, Generated, OtherArm, Prompt
from engine.records.texts import check_branch, check_sampling, first_difference

KEPT_STEPS = 2
"""Number of batch shapes whose steps are kept, with their keys and values."""


WITHOUT_CACHE = (
    "transformers' cache does not give this model's own numbers here, so every token took a pass over the whole text: "
    "slower, but right."
)


class KeptSteps(OrderedDict[tuple[int, int], Steps]):
    """Steps by number of rows and room for tokens, the most recently used last."""


def generate(pair: Pair, request: Generate) -> Events:
    """Continue a prompt in all its arms. An answer to a TokenStep takes effect from the next token on."""
    check_sampling(request.sampling, request.samples)
    check_branch(request)
    lists = [request.edits, *request.variants, *(change.edits for change in request.schedule)]
    edit_tensors.check(lists, pair.site.reference, pair.site.sae)
    fed = yield from feed(pair, request.prompt, request.prefill)
    pair.model.check_length(len(fed.token_ids) + request.sampling.max_tokens)
    text = pair.kept(Text)
    if text is None or not text.take_up(request):
        pair.drop(Text)
        rows = rows_of(request)
        steps = steps_for(pair, lists_of(request, rows, request.edits), request, len(fed.token_ids))
        text = pair.keep(Text(pair.model, steps, rows, list(fed.token_ids), request))
    decoded: Decoded = yield from text.run()
    return to_record(pair, request, fed, decoded)


def feed(pair: Pair, prompt: Prompt, prefill: str) -> Generator[Event, Any, FedPrompt]:
    """Return the record of a prompt as it is fed, with the prefill as the beginning of the model's answer."""
    if not prefill:
        (read,) = yield from pair.read([prompt])
        return read.fed
    ids = pair.model.tokens.feed(prompt, prefill)
    pair.model.check_length(len(ids.ids))
    (h_TD,) = yield from pair.model.capture(pair.site.reads_at, [ids.ids], "reading the prompt")
    return pair.fed(prompt, ids.ids, ids.template, h_TD, prefill)


def steps_for(pair: Pair, rows: Sequence[Sequence[Edit]], request: Generate, num_prompt: int) -> Steps:
    """Return steps for these rows and this many tokens; those kept from another text are reused where they fit."""
    kept = pair.kept_or(KeptSteps, KeptSteps)
    key = (len(rows), room_for(num_prompt + request.sampling.max_tokens))
    if key not in kept:
        shortcuts(pair).check_steps()
        while len(kept) >= KEPT_STEPS:
            kept.popitem(last=False)
        kept[key] = Steps(pair.model, make_editor(pair, rows), key[1])
    kept.move_to_end(key)
    return kept[key]


def to_record(pair: Pair, request: Generate, fed: FedPrompt, decoded: Decoded) -> Generated:
    """Return the record of a decoded text."""
    baseline, edited = decoded.arms[BASELINE], decoded.arms[EDITED]
    others = [
        OtherArm(row.sample, row.edited, row.variant, arm_of(pair, arm), arm.positions, arm.inactive_positions)
        for row, arm in list(zip(decoded.rows, decoded.arms, strict=True))[2:]
        if not row.forced
    ]
    return Generated(
        prompt=fed,
        sampling=request.sampling,
        edits=decoded.schedule[0].edits,
        schedule=tuple(decoded.schedule),
        rows=len(decoded.rows),
        baseline=arm_of(pair, baseline),
        edited=arm_of(pair, edited),
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
        warnings=(
            *pair.beyond_context([len(fed.token_ids) + max(len(arm.ids) for arm in decoded.arms)]),
            *([WITHOUT_CACHE] if decoded.without_cache else []),
        ),
    )


def arm_of(pair: Pair, arm: DecodedArm) -> Arm:
    """Return the record of one arm."""
    tokens = pair.model.tokens
    return Arm(tokens.decode(arm.ids), tuple(arm.ids), tokens.strings(arm.ids), tuple(arm.logprobs), tuple(arm.margins))
