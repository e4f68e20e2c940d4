"""How the next token is chosen: the likeliest one, or by one random number for all arms of a sample.

Every arm's cumulative distribution is inverted at the same number, so that arms diverge only where their distributions
do. The numbers depend only on the seed and the token's index: a text resumed at a token continues as before.

Shape suffixes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from engine.models.tokens import Tokens
from engine.records import Sampling

STOP_MARGIN = 8
"""Tokens decoded beyond as many as the longest stop string has bytes: a character may be split over several."""


class Chooser:
    """Chooses every row's next token. Row b draws its random numbers from the seed `seed + sample_B[b]`."""

    def __init__(self, sampling: Sampling, sample_B: Sequence[int], device: torch.device) -> None:
        self.sampling, self.device = sampling, device
        self.sample_B = tuple(sample_B)
        self._generators = [torch.Generator().manual_seed(sampling.seed + s) for s in range(max(sample_B) + 1)]
        self._numbers: list[list[float]] = [[] for _ in self._generators]
        self._warpers = LogitsProcessorList()
        if sampling.top_k:
            self._warpers.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            self._warpers.append(TopPLogitsWarper(sampling.top_p))
        if sampling.min_p > 0:
            self._warpers.append(MinPLogitsWarper(sampling.min_p))

    def choose(self, logits_BV: torch.Tensor, index: int) -> torch.Tensor:
        """Return tokens_B at this index of the text, from logits or log-probabilities."""
        if self.sampling.temperature == 0:
            return logits_BV.argmax(-1)
        scores_BV = self._warpers(None, logits_BV.double() / self.sampling.temperature)
        cumulative_BV = torch.softmax(scores_BV, -1).cumsum(-1)
        numbers = [self._number(sample, index) for sample in self.sample_B]
        u_B1 = torch.tensor(numbers, dtype=torch.float64, device=self.device)[:, None]
        # a token of probability 0 is never chosen: the sum grows at the first place where it exceeds u
        chosen_B1 = torch.searchsorted(cumulative_BV, u_B1 * cumulative_BV[:, -1:], right=True)
        return chosen_B1.clamp_(max=logits_BV.shape[-1] - 1)[:, 0]

    def _number(self, sample: int, index: int) -> float:
        """Return a sample's uniform random number at this index."""
        numbers = self._numbers[sample]
        while len(numbers) <= index:
            numbers.append(float(torch.rand(1, generator=self._generators[sample], dtype=torch.float64)))
        return numbers[index]


def stops(tokens: Tokens, ids: Sequence[int], stop: Sequence[str]) -> bool:
    """Return whether the text of these tokens ends in a stop string, or has one that its last token went past."""
    if not stop:
        return False
    longest = max(len(text.encode()) for text in stop)
    tail = tokens.decode(ids[-longest - STOP_MARGIN :])
    return any(text in tail for text in stop)
