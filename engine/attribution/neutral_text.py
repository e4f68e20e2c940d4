"""Measure what ablating features does to predictions on neutral text: KL(baseline || edited), above the hook alone.

Shape suffixes: T tokens, D width of the hooked vector, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from engine.attribution.measure import ablation
from engine.models.pair import Pair
from engine.models.upper_layers import Row
from engine.records import Event, Progress

PASSAGE_TOKENS = 128
"""Passages are cut to this length: the logits of longer ones would fill the memory."""

STAGE = "measuring on neutral text"


@dataclass(frozen=True)
class NeutralText:
    """Passages of the reference text, read up to the hook's block.

    entry: the vectors_TD that enter the block, a tensor for each passage; h: the hooked vectors_TD; editable: masks_T.
    """

    pair: Pair
    entry: list[Row]
    h: list[torch.Tensor]
    editable: list[torch.Tensor]
    base: dict[int, torch.Tensor] = field(default_factory=dict)
    """Unedited log-probabilities_TV of passages already run, by passage: 4 bytes x vocabulary a token."""

    @classmethod
    def read(cls, pair: Pair, num_tokens: int) -> Generator[Event, Any, NeutralText]:
        """Read passages of about `num_tokens` tokens in all, spread over the reference text."""
        sequences = passages(pair, num_tokens)
        captured = yield from pair.model.capture(pair.upper.entry, sequences, "reading neutral text")
        dtype = pair.upper.dtype
        entry = [Row(ids, entry_TD.to(dtype).clone()) for ids, entry_TD in zip(sequences, captured, strict=True)]
        for row in entry:
            pair.model.check_vectors(row.ids, row.entry_TD)
        h = [pair.upper.hooked([row])[0] for row in entry]
        bos, sink = pair.model.tokens.bos, pair.site.reference.sink_norm
        editable = [
            (h_TD.norm(dim=-1) <= sink) & torch.tensor([i != bos for i in ids], device=h_TD.device)
            for ids, h_TD in zip(sequences, h, strict=True)
        ]
        return cls(pair, entry, h, editable)

    def kl(self, sets: Sequence[Sequence[int]]) -> Generator[Event, Any, list[float]]:
        """Return the mean KL of each set of ablated features, in nats per token, without the passages' first."""
        sums, count = [0.0] * len(sets), 0
        for n, (row, h_TD, editable_T) in enumerate(zip(self.entry, self.h, self.editable, strict=True)):
            yield Progress(STAGE, n, len(self.entry))
            keep = [range(1, len(row))]
            with torch.inference_mode():
                if n not in self.base:
                    self.base[n] = torch.log_softmax(self.pair.upper.logits([row], [None], keep), -1)
                base_TV = self.base[n]
                for s, features in enumerate(sets):
                    delta = ablation(self.pair.site.sae, [h_TD], [editable_T], features)
                    edited_TV = torch.log_softmax(self.pair.upper.logits([row], delta, keep), -1)
                    sums[s] += float((base_TV.exp() * (base_TV - edited_TV)).sum())
            count += len(row) - 1
        return [value / max(1, count) for value in sums]


def passages(pair: Pair, num_tokens: int) -> list[list[int]]:
    """Return the ids of passages of the reference text as it was fed, each cut to PASSAGE_TOKENS, spread over the text.

    They have about `num_tokens` tokens in all.
    """
    ids = pair.site.reference.token_ids_T.tolist()
    bos = pair.model.tokens.bos if pair.model.tokens.raw_bos else None
    starts = [at for at, i in enumerate(ids) if i == bos] if bos is not None else list(range(0, len(ids), 256))
    starts = starts or [0]
    ends = [*starts[1:], len(ids)]
    cut = [ids[a : min(b, a + PASSAGE_TOKENS)] for a, b in zip(starts, ends, strict=True) if b - a > 1]
    # passages differ in length, so take every n-th of them until there are enough tokens
    stride = max(1, sum(map(len, cut)) // max(1, num_tokens))
    taken, count = [], 0
    for passage in cut[::stride] or cut[:1]:
        if count >= num_tokens:
            break
        taken.append(passage)
        count += len(passage)
    return taken
