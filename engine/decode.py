"""The generation loop: baseline and edited as two rows of one batch, token by token.

Greedy, or sampled with the same random number for both rows. Yields a TokenStep per token, so a caller can stop it
at any token by closing the generator. Shape suffixes: B batch rows, T tokens, V vocabulary.
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
from engine.records import Sampling, TokenStep

BASELINE, EDITED = 0, 1
ROWS = 2


@dataclass
class DecodedArm:
    """One row's generated tokens; ended once it has produced an end token (which is kept)."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False


@dataclass(frozen=True)
class Decoded:
    """Both arms and how fast they came (tokens of one arm per second)."""

    baseline: DecodedArm
    edited: DecodedArm
    tokens_per_second: float


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
) -> Generator[TokenStep, None, Decoded]:
    """Continues the prompt in both arms until both have ended or max_tokens is reached."""
    check_sampling(sampling)
    generator = torch.Generator().manual_seed(sampling.seed)
    arms = (DecodedArm(), DecodedArm())
    end_ids = model.end_ids()
    cache = DynamicCache(config=model.module.config)
    rows_B = torch.tensor([False, True], device=model.device)
    ids_BT = torch.tensor([prompt_ids, prompt_ids], device=model.device)
    started = time.perf_counter()
    with editor.applied():
        for index in range(sampling.max_tokens):
            editor.expect(ids_BT, rows_B, count_row=None if arms[EDITED].ended else EDITED)
            out = model.module(input_ids=ids_BT, past_key_values=cache, use_cache=True, logits_to_keep=1)
            logprobs_BV = torch.log_softmax(out.logits[:, -1].float(), -1)
            ids_BT = choose(logprobs_BV, sampling.temperature, generator)
            chosen_B = logprobs_BV.gather(1, ids_BT)[:, 0].tolist()
            texts: list[str | None] = [None, None]
            for row, arm in enumerate(arms):
                if not arm.ended:
                    token = int(ids_BT[row])
                    arm.ids.append(token)
                    arm.logprobs.append(chosen_B[row])
                    arm.ended = token in end_ids
                    texts[row] = model.tokens.string(token)
            yield TokenStep(index, texts[BASELINE], texts[EDITED])
            if all(arm.ended for arm in arms):
                break
    seconds = time.perf_counter() - started
    return Decoded(arms[BASELINE], arms[EDITED], (index + 1) / seconds)


def choose(logprobs_BV: torch.Tensor, temperature: float, generator: torch.Generator) -> torch.Tensor:
    """Next tokens_B1: the likeliest, or the row's cumulative distribution inverted at one shared random number."""
    if temperature == 0:
        return logprobs_BV.argmax(-1, keepdim=True)
    cumulative_BV = torch.softmax(logprobs_BV.double() / temperature, -1).cumsum(-1)
    u = torch.rand(1, generator=generator, dtype=torch.float64).to(logprobs_BV.device)
    wanted_B1 = u * cumulative_BV[:, -1:]
    return torch.searchsorted(cumulative_BV, wanted_B1, right=True).clamp_(max=logprobs_BV.shape[-1] - 1)


@torch.inference_mode()
def paired_logprobs(
    model: LanguageModel, editor: ResidualEditor, ids: list[int], keep: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Teacher-forced log-probabilities_TV of the last `keep` tokens of ids: (baseline, edited), two rows, one pass."""
    rows_B = torch.tensor([False, True], device=model.device)
    ids_BT = torch.tensor([ids, ids], device=model.device)
    with editor.applied():
        editor.expect(ids_BT, rows_B)
        out = model.module(input_ids=ids_BT, use_cache=False, logits_to_keep=keep + 1)
    logprobs_BTV = torch.log_softmax(out.logits[:, :-1].float(), -1)
    return logprobs_BTV[BASELINE], logprobs_BTV[EDITED]


def kl_per_token(
    model: LanguageModel, editor: ResidualEditor, prompt_ids: list[int], new_ids: list[int]
) -> list[float]:
    """KL(baseline || edited) in nats before each of new_ids, both arms teacher-forced on the same tokens."""
    if not new_ids:
        return []
    base_TV, edited_TV = paired_logprobs(model, editor, [*prompt_ids, *new_ids], len(new_ids))
    kl_T = (base_TV.exp() * (base_TV - edited_TV)).sum(-1).clamp(min=0)
    return [float(x) for x in kl_T]
