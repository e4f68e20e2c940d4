"""The generation loop: three rows of one batch, token by token.

Baseline and edited continue the prompt, each with its own tokens; the third row is the edited model fed with the
baseline's tokens, which is what KL(baseline || edited) is measured on. Greedy, or sampled with the same random number
for all rows. Yields a TokenStep per token and takes new edits as the answer to one, so a caller can stop it at any
token by closing the generator, and change the edits between two tokens.

Shape suffixes: B batch rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, field

import torch
from transformers import DynamicCache

from engine.edits import ResidualEditor
from engine.errors import UsageError
from engine.model import LanguageModel
from engine.records import Edit, EditsFrom, Sampling, TokenStep

BASELINE, EDITED, FORCED = 0, 1, 2
ROWS = 3

NewEdits = tuple[Edit, ...] | None


@dataclass
class DecodedArm:
    """One row's generated tokens; ended once it has produced an end token (which is kept)."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    """Gap in nats between the two likeliest tokens."""
    ended: bool = False


@dataclass(frozen=True)
class Decoded:
    """Both arms, the KL between them per baseline token, which edits ruled from which token on, and the speed."""

    baseline: DecodedArm
    edited: DecodedArm
    kl: list[float]
    schedule: list[EditsFrom]
    tokens_per_second: float
    """Tokens of one arm."""


def check_sampling(sampling: Sampling) -> None:
    """Raises UsageError for settings that make no sense."""
    if sampling.max_tokens < 1:
        raise UsageError("--max-tokens must be at least 1.")
    if not 0 <= sampling.seed < 2**63:
        raise UsageError("--seed must be between 0 and 2**63 - 1.")
    if not 0 <= sampling.temperature < float("inf"):
        raise UsageError("--temperature must be 0 (greedy) or more.")


@torch.inference_mode()
def decode(
    model: LanguageModel, editor: ResidualEditor, prompt_ids: list[int], sampling: Sampling
) -> Generator[TokenStep, NewEdits, Decoded]:
    """Continues the prompt in both arms until both have ended or max_tokens is reached.

    A tuple of edits sent in answer to a TokenStep is in force from the next token on: keys and values of earlier
    positions stay as they were computed. Raises EditError for edits that cannot be applied.
    """
    check_sampling(sampling)
    generator = torch.Generator().manual_seed(sampling.seed)
    arms = (DecodedArm(), DecodedArm())
    kl: list[float] = []
    schedule = [EditsFrom(0, editor.edits)]
    end_ids = model.end_ids()
    cache = DynamicCache(config=model.module.config)
    rows_B = torch.tensor([False, True, True], device=model.device)
    ids_BT = torch.tensor([prompt_ids] * ROWS, device=model.device)
    seconds = 0.0
    for index in range(sampling.max_tokens):
        started = time.perf_counter()
        editor.expect(ids_BT, rows_B, count_row=None if arms[EDITED].ended else EDITED)
        # hooked for the pass alone: between two tokens other requests may use the model
        with editor.applied():
            out = model.module(input_ids=ids_BT, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logprobs_BV = torch.log_softmax(out.logits[:, -1].float(), -1)
        kl_here = None if arms[BASELINE].ended else divergence(logprobs_BV[BASELINE], logprobs_BV[FORCED])
        ids_BT = choose(logprobs_BV, sampling.temperature, generator)
        ids_BT[FORCED] = ids_BT[BASELINE]
        texts = [note_token(model, arm, int(ids_BT[row]), logprobs_BV[row], end_ids) for row, arm in enumerate(arms)]
        if kl_here is not None:
            kl.append(kl_here)
        seconds += time.perf_counter() - started
        changed = yield TokenStep(index, texts[BASELINE], texts[EDITED], kl=kl_here)
        if all(arm.ended for arm in arms):
            break
        if changed is not None and changed != editor.edits and index + 1 < sampling.max_tokens:
            editor.set_edits(changed)
            schedule.append(EditsFrom(index + 1, changed))
    return Decoded(arms[BASELINE], arms[EDITED], kl, schedule, (index + 1) / seconds)


def note_token(
    model: LanguageModel, arm: DecodedArm, token: int, logprobs_V: torch.Tensor, end_ids: set[int]
) -> str | None:
    """Adds a token to its arm; returns its text, None where the arm has ended before."""
    if arm.ended:
        return None
    first, second = logprobs_V.topk(2).values.tolist()
    arm.ids.append(token)
    arm.logprobs.append(float(logprobs_V[token]))
    arm.margins.append(first - second)
    arm.ended = token in end_ids
    return model.tokens.string(token)


def choose(logprobs_BV: torch.Tensor, temperature: float, generator: torch.Generator) -> torch.Tensor:
    """Next tokens_B1: the likeliest, or the row's cumulative distribution inverted at one shared random number."""
    if temperature == 0:
        return logprobs_BV.argmax(-1, keepdim=True)
    cumulative_BV = torch.softmax(logprobs_BV.double() / temperature, -1).cumsum(-1)
    u = torch.rand(1, generator=generator, dtype=torch.float64).to(logprobs_BV.device)
    wanted_B1 = u * cumulative_BV[:, -1:]
    return torch.searchsorted(cumulative_BV, wanted_B1, right=True).clamp_(max=logprobs_BV.shape[-1] - 1)


def divergence(base_V: torch.Tensor, edited_V: torch.Tensor) -> float:
    """KL(base || edited) in nats of two log-probability vectors."""
    return float((base_V.exp() * (base_V - edited_V)).sum().clamp(min=0))


@torch.inference_mode()
def paired_logprobs(
    model: LanguageModel, editor: ResidualEditor, ids: list[int], keep: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Teacher-forced log-probabilities_TV of the last `keep` tokens of ids: (baseline, edited), two rows, one pass."""
    rows_B = torch.tensor([False, True], device=model.device)
    ids_BT = torch.tensor([ids, ids], device=model.device)
    editor.expect(ids_BT, rows_B)
    with editor.applied():
        out = model.module(input_ids=ids_BT, use_cache=False, logits_to_keep=keep + 1)
    logprobs_BTV = torch.log_softmax(out.logits[:, :-1].float(), -1)
    return logprobs_BTV[BASELINE], logprobs_BTV[EDITED]
