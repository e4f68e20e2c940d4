"""How probable is an answer? Log-probability of any string after a prompt, tokenised jointly with it.

Rows are scored teacher-forced in pairs (baseline, edited) of one batch. Shape suffixes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from engine.edits import ResidualEditor
from engine.model import LanguageModel


@dataclass(frozen=True)
class Continuation:
    """Token ids of prompt and answer together; the answer starts at `start`."""

    ids: list[int]
    start: int
    clean: bool
    """False where the answer's first token also holds the end of the prompt."""


def join(prompt_ids: Sequence[int], joint_ids: Sequence[int]) -> Continuation:
    """Splits jointly tokenised ids where they leave the prompt's own ids."""
    start = 1  # the first token has nothing before it that could predict it
    while start < min(len(prompt_ids), len(joint_ids)) and prompt_ids[start] == joint_ids[start]:
        start += 1
    return Continuation(list(joint_ids), start, clean=start == len(prompt_ids))


@torch.inference_mode()
def log_probabilities(
    model: LanguageModel, editor: ResidualEditor, continuations: Sequence[Continuation]
) -> list[tuple[float, float]]:
    """(baseline, edited) log-probability in nats of each continuation's answer.

    What all of them begin with is read once, in two rows; the rest follows on a copy of its keys and values each.
    """
    # the last token before the first answer is read again: its logits predict the answer's first token
    shared = min(c.start for c in continuations) - 1
    width = max(len(c.ids) for c in continuations) - shared
    rows, mask = [], []
    for continuation in continuations:
        own = continuation.ids[shared:]
        padding = width - len(own)
        # right padding; the pair stays together, so both arms see the same batch shape
        rows += [[*own, *[own[-1]] * padding]] * 2
        mask += [[1] * len(continuation.ids) + [0] * padding] * 2
    ids_BT = torch.tensor(rows, device=model.device)
    cache = DynamicCache(config=model.module.config)
    if shared:
        read(model, editor, [continuations[0].ids[:shared]] * 2, cache, keep=1)
        cache.batch_select_indices(torch.tensor([0, 1] * len(continuations), device=model.device))
    logits_BTV = read(model, editor, rows, cache, torch.tensor(mask, device=model.device))
    found = []
    for index, continuation in enumerate(continuations):
        start, end = continuation.start - shared, len(continuation.ids) - shared
        pair = slice(2 * index, 2 * index + 2)
        logprobs_BTV = torch.log_softmax(logits_BTV[pair, start - 1 : end - 1].float(), -1)
        logprobs = logprobs_BTV.gather(2, ids_BT[pair, start:end, None]).sum((1, 2)).tolist()
        found.append((logprobs[0], logprobs[1]))
    return found


def read(
    model: LanguageModel,
    editor: ResidualEditor,
    rows: list[list[int]],
    cache: DynamicCache,
    mask_BT: torch.Tensor | None = None,
    keep: int = 0,
) -> torch.Tensor:
    """One pass over rows that are baseline and edited in turn, behind what the cache holds.

    Returns logits_BTV, of the last `keep` positions where keep is not 0.
    """
    ids_BT = torch.tensor(rows, device=model.device)
    editor.expect(ids_BT, torch.arange(len(rows), device=model.device) % 2 == 1)
    with editor.applied():
        out = model.module(
            input_ids=ids_BT, attention_mask=mask_BT, past_key_values=cache, use_cache=True, logits_to_keep=keep
        )
    logits_BTV: torch.Tensor = out.logits
    return logits_BTV
