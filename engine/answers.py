"""How probable is an answer? Log-probability of any string after a prompt, tokenised jointly with it.

Rows are scored teacher-forced in pairs (baseline, edited) of one batch. Shape suffixes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

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
    """(baseline, edited) log-probability in nats of each continuation's answer."""
    width = max(len(c.ids) for c in continuations)
    rows, mask = [], []
    for continuation in continuations:
        padding = width - len(continuation.ids)
        # right padding; the pair stays together, so both arms see the same batch shape
        rows += [[*continuation.ids, *[continuation.ids[-1]] * padding]] * 2
        mask += [[1] * len(continuation.ids) + [0] * padding] * 2
    ids_BT = torch.tensor(rows, device=model.device)
    edited_B = torch.arange(len(rows), device=model.device) % 2 == 1
    with editor.applied():
        editor.expect(ids_BT, edited_B)
        out = model.module(input_ids=ids_BT, attention_mask=torch.tensor(mask, device=model.device), use_cache=False)
    found = []
    for index, continuation in enumerate(continuations):
        start, end = continuation.start, len(continuation.ids)
        logits_BTV = out.logits[2 * index : 2 * index + 2, start - 1 : end - 1].float()
        targets = ids_BT[2 * index : 2 * index + 2, start:end, None]
        logprobs = torch.log_softmax(logits_BTV, -1).gather(2, targets).sum((1, 2)).tolist()
        found.append((logprobs[0], logprobs[1]))
    return found
