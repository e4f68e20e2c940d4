"""Read probes for a measure: feed them with their answers' strings, and keep what enters the hook's block.

Edits touch every position but the leading special token and attention sinks; the answer's own tokens are edited too.
Shape suffixes: T tokens, D width of the hooked vector, P probes.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.generation.answers import join
from engine.models.pair import Pair
from engine.models.upper_layers import Past, Row, UpperLayers
from engine.records import FedPrompt, Probe, Progress, Prompt
from engine.records.attribution import is_slope


@dataclass(frozen=True)
class Target:
    """One string of an answer: the item's row it is in, the position it comes after, its token ids and its side."""

    row: int
    after: int
    ids: tuple[int, ...]
    toward: bool


@dataclass(frozen=True)
class Item:
    """A probe as it was read, with its weight in M; rows hold all its answers' strings but the last token of each."""

    probe: Probe
    fed: FedPrompt
    entry: list[Row]
    """Token ids and the vectors that enter the hook's block."""
    h: list[torch.Tensor]
    """Hooked vectors_TD of each row, float32."""
    editable: list[torch.Tensor]
    """Masks_T of the positions in each row that an edit touches."""
    targets: tuple[Target, ...]
    weight: float
    unclean: tuple[str, ...]
    """Answer strings whose tokens could not be told apart from the prompt's end."""
    past: list[Past]
    """Each row's unedited keys and values in the layers from the hook's block on."""

    @property
    def scored_from(self) -> int:
        """Return the first position whose next token is scored as an answer's."""
        return min(target.after for target in self.targets)

    def positions(self, row: int) -> list[int]:
        """Return the positions of a row whose next tokens are scored as an answer's."""
        return sorted({t.after + n for t in self.targets if t.row == row for n in range(len(t.ids))})


def weights(probes: Sequence[Probe]) -> list[float]:
    """Return each probe's weight in M: (x_p - mean) / sum of squared deviations for a slope, else 1 / n."""
    if not is_slope(probes):
        return [1 / len(probes)] * len(probes)
    x_P = torch.tensor([float(p.covariate or 0) for p in probes], dtype=torch.float64)
    centred_P = x_P - x_P.mean()
    return list((centred_P / centred_P.square().sum()).tolist())


def read_items(
    pair: Pair,
    upper: UpperLayers,
    probes: Sequence[Probe],
    sides: Sequence[tuple[Sequence[str], Sequence[str]]],
) -> Generator[Progress, Any, list[Item]]:
    """Feed probes with their answers' strings, `sides` (toward, against) of each, and capture their vectors."""
    fed_rows = [_rows(pair, probe, *side) for probe, side in zip(probes, sides, strict=True)]
    sequences = [ids for rows, _, _ in fed_rows for ids in rows]
    pair.model.check_length(max(map(len, sequences)))
    captured = yield from pair.model.capture(upper.entry, sequences, "reading probes")
    vectors = iter(captured)
    items = []
    for n, (probe, (rows, targets, unclean), weight) in enumerate(zip(probes, fed_rows, weights(probes), strict=True)):
        yield Progress("reading probes", n, len(probes))
        # captured rows are views of whole padded batches
        entry = [Row(ids, next(vectors).to(upper.dtype).clone()) for ids in rows]
        h = upper.hooked(entry)
        for ids, row, h_TD in zip(rows, entry, h, strict=True):
            pair.model.check_vectors(ids, row.entry_TD)
            pair.model.check_vectors(ids, h_TD)
            if pair.model.dtype == torch.float16:  # the layers above the hook may be float32, which hides an overflow
                pair.model.check_logits(ids, len(ids) - min(target.after for target in targets))
        fed = _fed(pair, probe, h[0])
        editable = [_editable(pair, ids, h_TD) for ids, h_TD in zip(rows, h, strict=True)]
        past = [upper.remember(row) for row in entry]
        items.append(Item(probe, fed, entry, h, editable, targets, weight, unclean, past))
    return items


def _rows(
    pair: Pair, probe: Probe, toward: Sequence[str], against: Sequence[str]
) -> tuple[list[list[int]], tuple[Target, ...], tuple[str, ...]]:
    """Return rows of ids, targets and unclean strings; an answer whose ids begin an earlier row has none of its own."""
    prompt = Prompt(probe.text, probe.format)
    before = pair.model.tokens.feed(prompt, probe.prefill).ids
    answers = [
        (string, side, join(before, pair.model.tokens.feed(prompt, probe.prefill, string).ids))
        for side, strings in ((True, toward), (False, against))
        for string in strings
    ]
    rows: list[list[int]] = []
    targets = []
    for _, side, answer in sorted(answers, key=lambda j: -len(j[2].ids)):
        read = answer.ids[:-1]  # an answer's last token is predicted, but predicts nothing itself
        row = next((r for r, ids in enumerate(rows) if ids[: len(read)] == read), len(rows))
        if row == len(rows):
            rows.append(read)
        target = Target(row, answer.start - 1, tuple(answer.ids[answer.start :]), side)
        if target not in targets:  # the same tokens listed twice must not count twice
            targets.append(target)
    return rows, tuple(targets), tuple(string for string, _, answer in answers if not answer.clean)


def _fed(pair: Pair, probe: Probe, h_TD: torch.Tensor) -> FedPrompt:
    tokens = pair.model.tokens
    fed = tokens.feed(Prompt(probe.text, probe.format), probe.prefill)
    # an answer's first token may include the prefill's last one; the row is then shorter than the prompt alone
    length = min(len(fed.ids), len(h_TD))
    sink = (h_TD[:length].norm(dim=-1) > pair.site.reference.sink_norm).tolist()
    ids, template = fed.ids[:length], fed.template[:length]
    return FedPrompt(
        text=probe.text,
        format=probe.format,
        token_ids=tuple(ids),
        tokens=tokens.strings(ids),
        rank_mask=tuple(not (t or s) for t, s in zip(template, sink, strict=True)),
        edit_mask=tuple(not (i == tokens.bos or s) for i, s in zip(ids, sink, strict=True)),
    )


def _editable(pair: Pair, ids: list[int], h_TD: torch.Tensor) -> torch.Tensor:
    editable_T: torch.Tensor = h_TD.norm(dim=-1) <= pair.site.reference.sink_norm
    return editable_T & torch.tensor([i != pair.model.tokens.bos for i in ids], device=h_TD.device)


Sides = tuple[Sequence[str], Sequence[str]]


def _sides(probe: Probe, toward: str, against: str) -> Sides:
    strings = {answer.name: answer.strings for answer in probe.answers}
    return strings[toward], strings[against]
