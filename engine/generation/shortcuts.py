"""Whether texts and answers, taken the short way, are the model's own: compared once per load, at first use.

The short ways: a text goes on token by token from kept keys and values, its rows in one batch, through packed or fused
layers; answers share the reading of what they begin with, and are padded into one batch. The long way is the whole
model on the whole text, each text by itself. Families whose memory is not keys and values may not go on from a past at
all, or only by one token; where experts have room for so many tokens, a row's numbers depend on the other rows.
"""

from __future__ import annotations

from functools import cached_property, partial

import torch

from engine.generation.answers import Continuation, log_probabilities
from engine.generation.edits import make_editor
from engine.generation.steps import Steps, room_for
from engine.models.agreement import REFUSED, TEXTS, UNFIT, all_agree, keeps_states, mostly_agree
from engine.models.pair import Pair
from engine.records import Prompt
from engine.records.errors import ModelError

NUM_STEPS = 3
"""Tokens that each row is taken further."""


class Shortcuts:
    """What was found about a pair's model."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._ids = pair.model.tokens.feed(Prompt(TEXTS[0], "raw")).ids

    @cached_property
    def answers_together(self) -> bool:
        """Whether answers may share the reading of their beginning and a padded batch."""
        pair, start = self._pair, len(self._ids)
        if keeps_states(pair.model.module.config):
            return False
        answers = (self._ids[1:2], self._ids[1:5], self._ids[2:5])
        continuations = [Continuation([*self._ids, *answer], start, True) for answer in answers]
        ways = []
        try:
            for together in (False, True):
                found = log_probabilities(pair.model, partial(make_editor, pair), (), continuations, together)
                ways.append([torch.tensor(row) for row in found])
        except torch.OutOfMemoryError:
            raise
        except UNFIT:
            return False
        long, short = ways
        return _unfinite(long) or all_agree(short, long, pair.model.dtype)

    @cached_property
    def _steps_agree(self) -> bool:
        """Whether rows that go on token by token give what each of them gives when it is read whole."""
        model, count = self._pair.model, len(self._ids)
        rows = [self._ids[b : b + NUM_STEPS] for b in range(1, 4)]
        long = [self._whole([*self._ids, *row])[count - 1 :] for row in rows]
        steps = Steps(model, make_editor(self._pair, [()] * len(rows)), room_for(count + NUM_STEPS), plain=True)
        short = [steps.prompt(self._ids, [0] * len(rows)).logits_BV.clone()]
        for ids in zip(*rows, strict=True):
            short.append(steps.step(torch.tensor(ids, device=model.device)).logits_BV.clone())
        logits_BTV, wanted_BTV = torch.stack(short, 1), torch.stack(long)
        return _unfinite([*long, *short]) or mostly_agree(logits_BTV, wanted_BTV, model.dtype, REFUSED)

    @torch.inference_mode()
    def _whole(self, ids: list[int]) -> torch.Tensor:
        """Logits_TV of one text in the model itself."""
        model = self._pair.model
        logits_TV: torch.Tensor = model.module(
            input_ids=torch.tensor([ids], device=model.device), use_cache=False
        ).logits[0]
        return logits_TV

    def check_steps(self) -> None:
        """Raises ModelError where this model's texts cannot be generated token by token."""
        try:
            agree = self._steps_agree
        except torch.OutOfMemoryError:
            raise
        except UNFIT:
            agree = False
        if not agree:
            raise ModelError(
                f"Texts cannot be generated with a {type(self._pair.model.module).__name__}: token by token it gives "
                "other numbers than when it reads a text whole.",
                "Ranking and `show` do not need this.",
            )


def _unfinite(logits: list[torch.Tensor]) -> bool:
    """Whether there is nothing to compare: the verbs name the overflow."""
    return not all(bool(torch.isfinite(part).all()) for part in logits)


def shortcuts(pair: Pair) -> Shortcuts:
    """What was found about the pair's model, once per load."""
    return pair.kept_or(Shortcuts, partial(Shortcuts, pair))
