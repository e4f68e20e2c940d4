"""How probable is an answer? Log-probability of any string after a prompt, tokenised jointly with it.

Answers are scored teacher-forced, each by a pair of rows (baseline, edited) of one batch. Edits treat an answer's
tokens as generated, and everything before them as the prompt. Shape suffixes: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from engine.generation.edits import GENERATED, LAST, PROMPT, ResidualEditor
from engine.models.language_model import LanguageModel
from engine.records import Edit

MakeEditor = Callable[[Sequence[Sequence[Edit]]], ResidualEditor]
"""Makes an editor from one edit list per row of a batch."""


@dataclass(frozen=True)
class Continuation:
    """Token ids of prompt and answer together; the answer starts at `start`."""

    ids: list[int]
    start: int
    clean: bool
    """False where the answer's first token also holds the end of the prompt."""

    @property
    def kinds(self) -> list[int]:
        """The kind of each position, as edits see it."""
        return kinds(len(self.ids), self.start)


def kinds(length: int, start: int) -> list[int]:
    """Return the kind of each of `length` positions, as edits see it: generated from `start` on."""
    return [PROMPT] * (start - 1) + [LAST] + [GENERATED] * (length - start)


def join(prompt_ids: Sequence[int], joint_ids: Sequence[int]) -> Continuation:
    """Split jointly tokenised ids where they leave the prompt's own ids."""
    start = 1  # the first token has nothing before it that could predict it
    while start < min(len(prompt_ids), len(joint_ids)) and prompt_ids[start] == joint_ids[start]:
        start += 1
    return Continuation(list(joint_ids), start, clean=start == len(prompt_ids))


@torch.inference_mode()
def log_probabilities(
    model: LanguageModel,
    make_editor: MakeEditor,
    edits: Sequence[Edit],
    continuations: Sequence[Continuation],
    together: bool = True,
) -> list[tuple[float, float]]:
    """Return (baseline, edited) log-probability in nats of each continuation's answer. Raises EditError.

    The ids that all of them begin with are read once, in two rows; the rest follows on a copy of those keys and values.
    With `together` off each answer is read by itself, in one pass that needs no keys and values.
    """
    if not together:
        return [_log_probabilities(model, make_editor, edits, [c], shared=0)[0] for c in continuations]
    # the last token before the first answer is read again: its logits predict the answer's first token
    shared = min(c.start for c in continuations) - 1
    return _log_probabilities(model, make_editor, edits, continuations, shared)


def _log_probabilities(
    model: LanguageModel,
    make_editor: MakeEditor,
    edits: Sequence[Edit],
    continuations: Sequence[Continuation],
    shared: int,
) -> list[tuple[float, float]]:
    """Return log-probabilities of continuations in one batch; their first `shared` ids are the same, and read once."""
    width = max(len(c.ids) for c in continuations) - shared
    ids, kind, mask = [], [], []
    for continuation in continuations:
        padding = width + shared - len(continuation.ids)
        # right padding; the pair stays together, so both arms see the same batch shape
        ids += [[*continuation.ids[shared:], *[continuation.ids[-1]] * padding]] * 2
        kind += [[*continuation.kinds[shared:], *[GENERATED] * padding]] * 2
        mask += [[1] * len(continuation.ids) + [0] * padding] * 2
    cache = DynamicCache(config=model.module.config) if shared else None
    if cache is not None:
        begin = [continuations[0].ids[:shared]] * 2
        read(model, make_editor([(), edits]), begin, [[PROMPT] * shared] * 2, cache=cache, keep=1)
        cache.reorder_cache(torch.tensor([0, 1] * len(continuations), device=model.device))
    editor = make_editor([(), edits] * len(continuations))
    logits_BTV = read(model, editor, ids, kind, torch.tensor(mask, device=model.device), cache, start=shared)
    ids_BT = torch.tensor(ids, device=model.device)
    results = []
    for index, continuation in enumerate(continuations):
        start, end = continuation.start - shared, len(continuation.ids) - shared
        pair = slice(2 * index, 2 * index + 2)
        logprobs_BTV = torch.log_softmax(logits_BTV[pair, start - 1 : end - 1].float(), -1)
        logprobs = logprobs_BTV.gather(2, ids_BT[pair, start:end, None]).sum((1, 2)).tolist()
        results.append((logprobs[0], logprobs[1]))
    return results


@torch.inference_mode()
def paired_logprobs(
    model: LanguageModel, editor: ResidualEditor, ids: list[int], keep: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both rows' log-probabilities_TV of the last `keep` tokens of `ids`, in one pass.

    The tokens before them are the prompt. The editor's two rows are a baseline, (), and the edited one.
    """
    kind = kinds(len(ids), len(ids) - keep)
    logits_BTV = read(model, editor, [ids] * 2, [kind] * 2, keep=keep + 1)[:, :-1]
    logprobs_BTV = torch.log_softmax(logits_BTV.float(), -1)
    return logprobs_BTV[0], logprobs_BTV[1]


def read(
    model: LanguageModel,
    editor: ResidualEditor,
    ids: list[list[int]],
    kind: list[list[int]],
    mask_BT: torch.Tensor | None = None,
    cache: DynamicCache | None = None,
    keep: int = 0,
    start: int = 0,
) -> torch.Tensor:
    """Run one edited pass over rows of ids, positions of the given kinds, after the `start` tokens the cache holds.

    Returns logits_BTV, of the last `keep` positions where keep is not 0.
    """
    ids_BT = torch.tensor(ids, device=model.device)
    editor.expect(ids_BT, torch.tensor(kind, device=model.device), in_prompt=True)
    with editor.applied():
        out = model.module(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            # some families (Bamba) count positions from 0 again where they are not told
            position_ids=torch.arange(start, start + ids_BT.shape[1], device=model.device).expand_as(ids_BT),
            past_key_values=cache,
            use_cache=cache is not None,
            # indices, not a slice, whose rows are not contiguous: torch would copy the unembedding for each
            logits_to_keep=torch.arange(ids_BT.shape[1] - keep, ids_BT.shape[1], device=model.device) if keep else 0,
        )
    logits_BTV: torch.Tensor = out.logits
    return logits_BTV
