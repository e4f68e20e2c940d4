"""How a measure depends on features: its value, one gradient for all features, and exact effects of ablated ones.

    m = LSE_a log p(a | prompt) - LSE_b log p(b | prompt)     over the strings of two answers, in nats
    M = sum_p weight_p m_p                                    a mean over probes, or a slope on their covariate
    A_i = sum_t f_ti (g_t . D_i) u_t,  g_t = dM/dh_t          error term, u and mu held fixed; ablation does about -A_i

Everything runs in the layers above the hook alone, from vectors read once. What is edited: every position but the
leading token and attention sinks, of the answer's own tokens too.

Shape suffixes: T tokens, D width of the hooked vector, F features, N scored positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.answers import join
from engine.explorer import Explorer
from engine.measures import is_slope
from engine.records import FedPrompt, Probe, Progress, Prompt
from engine.sae import SparseAutoencoder
from engine.upper import UpperLayers

BATCH_TOKENS = {"cpu": 1024, "cuda": 16_384}
"""Padded tokens of one run of the upper layers: bounds memory, and is how often the work can be stopped."""


@dataclass(frozen=True)
class Target:
    """An answer's string: in which row of the item, behind which position, its token ids, and on which side."""

    row: int
    after: int
    ids: tuple[int, ...]
    toward: bool


@dataclass(frozen=True)
class Item:
    """A probe, read: rows that hold all its answers' strings but for their last tokens, and its weight in M."""

    probe: Probe
    fed: FedPrompt
    entry: list[torch.Tensor]
    """Vectors_TD that enter the hook's block, a row each."""
    h: list[torch.Tensor]
    """Hooked vectors_TD, float32."""
    editable: list[torch.Tensor]
    """Masks_T of the positions that an edit touches."""
    targets: tuple[Target, ...]
    weight: float
    unclean: tuple[str, ...]
    """Answer strings whose tokens could not be told apart from the prompt's end."""

    @property
    def num_tokens(self) -> int:
        """Of the longest row, times the rows."""
        return len(self.entry) * max(map(len, self.entry))


@dataclass(frozen=True)
class Scored:
    """One item's m in nats and the probability of both answers together."""

    value: torch.Tensor
    mass: torch.Tensor


def weights(probes: Sequence[Probe]) -> list[float]:
    """What each probe's m counts in M: c_p = (x_p - mean) / sum of squares for a slope, else 1 / n."""
    if not is_slope(probes):
        return [1 / len(probes)] * len(probes)
    x_P = torch.tensor([float(p.covariate or 0) for p in probes], dtype=torch.float64)
    centred_P = x_P - x_P.mean()
    return list((centred_P / centred_P.square().sum()).tolist())


def read_items(
    explorer: Explorer,
    upper: UpperLayers,
    probes: Sequence[Probe],
    sides: Sequence[tuple[Sequence[str], Sequence[str]]],
) -> Generator[Progress, Any, list[Item]]:
    """Feeds probes with the answers' strings, `sides` (toward, against) of each, and captures their vectors."""
    made = [_rows(explorer, probe, *side) for probe, side in zip(probes, sides, strict=True)]
    sequences = [ids for rows, _, _ in made for ids in rows]
    explorer.model.check_length(max(map(len, sequences)))
    captured = yield from explorer.model.capture(upper.entry, sequences, "reading probes")
    vectors = iter(captured)
    items = []
    for probe, (rows, targets, unclean), weight in zip(probes, made, weights(probes), strict=True):
        # captured rows are views of whole padded batches
        entry = [next(vectors).to(upper.dtype).clone() for _ in rows]
        h = upper.hooked(entry)
        fed = _fed(explorer, probe, h[0])
        editable = [_editable(explorer, ids, h_TD) for ids, h_TD in zip(rows, h, strict=True)]
        items.append(Item(probe, fed, entry, h, editable, targets, weight, unclean))
    return items


def _rows(
    explorer: Explorer, probe: Probe, toward: Sequence[str], against: Sequence[str]
) -> tuple[list[list[int]], tuple[Target, ...], tuple[str, ...]]:
    """Rows of ids, targets and unclean strings: an answer needs no row of its own where it goes on from another's."""
    prompt = Prompt(probe.text, probe.format)
    before = explorer.model.tokens.feed(prompt, probe.prefill).ids
    joined = [
        (string, side, join(before, explorer.model.tokens.feed(prompt, probe.prefill, string).ids))
        for side, strings in ((True, toward), (False, against))
        for string in strings
    ]
    rows: list[list[int]] = []
    targets = []
    for _, side, found in sorted(joined, key=lambda j: -len(j[2].ids)):
        read = found.ids[:-1]  # what an answer's last token is followed by does not matter
        row = next((r for r, ids in enumerate(rows) if ids[: len(read)] == read), len(rows))
        if row == len(rows):
            rows.append(read)
        targets.append(Target(row, found.start - 1, tuple(found.ids[found.start :]), side))
    return rows, tuple(targets), tuple(string for string, _, found in joined if not found.clean)


def _fed(explorer: Explorer, probe: Probe, h_TD: torch.Tensor) -> FedPrompt:
    tokens = explorer.model.tokens
    fed = tokens.feed(Prompt(probe.text, probe.format), probe.prefill)
    # an answer may have swallowed the prefill's last token: the row is then shorter than the prompt by itself
    length = min(len(fed.ids), len(h_TD))
    sink = (h_TD[:length].norm(dim=-1) > explorer.reference.sink_norm).tolist()
    ids, template = fed.ids[:length], fed.template[:length]
    return FedPrompt(
        text=probe.text,
        format=probe.format,
        token_ids=tuple(ids),
        tokens=tokens.strings(ids),
        rank_mask=tuple(not (t or s) for t, s in zip(template, sink, strict=True)),
        edit_mask=tuple(not (i == tokens.bos or s) for i, s in zip(ids, sink, strict=True)),
    )


def _editable(explorer: Explorer, ids: list[int], h_TD: torch.Tensor) -> torch.Tensor:
    editable_T: torch.Tensor = h_TD.norm(dim=-1) <= explorer.reference.sink_norm
    return editable_T & torch.tensor([i != explorer.model.tokens.bos for i in ids], device=h_TD.device)


# ---- the measure


def score(
    upper: UpperLayers, items: Sequence[Item], deltas: Sequence[torch.Tensor | None] | torch.Tensor
) -> list[Scored]:
    """Each item's m in one run, with deltas_TD (a row each) or delta_BTD added to the hooked vectors."""
    rows = [(item, row) for item in items for row in range(len(item.entry))]
    keep = [_positions(item, row) for item, row in rows]
    logits_NV = upper.logits([item.entry[row] for item, row in rows], deltas, keep)
    starts, at = [], 0
    for positions in keep:
        starts.append({position: at + n for n, position in enumerate(positions)})
        at += len(positions)
    found, first = [], 0
    for item in items:
        sides: dict[bool, list[torch.Tensor]] = {True: [], False: []}
        for target in item.targets:
            places = [starts[first + target.row][target.after + n] for n in range(len(target.ids))]
            logprobs_nV = torch.log_softmax(logits_NV[places], -1)
            sides[target.toward].append(logprobs_nV[range(len(target.ids)), list(target.ids)].sum())
        toward, against = (torch.stack(sides[side]).logsumexp(0) for side in (True, False))
        found.append(Scored(toward - against, toward.exp() + against.exp()))
        first += len(item.entry)
    return found


def _positions(item: Item, row: int) -> list[int]:
    """Behind which positions of a row some answer's tokens are scored."""
    return sorted({t.after + n for t in item.targets if t.row == row for n in range(len(t.ids))})


Unit = tuple[Item, tuple[int, ...]]
"""An item and the features ablated in it."""


def batches(units: Iterable[Unit], device: torch.device) -> Iterator[list[Unit]]:
    """Units in batches of about BATCH_TOKENS padded tokens, longest first."""
    limit = BATCH_TOKENS.get(device.type, BATCH_TOKENS["cpu"])
    batch: list[Unit] = []
    rows = 0
    for unit in sorted(units, key=lambda u: -max(map(len, u[0].entry))):
        rows += len(unit[0].entry)
        if batch and rows * max(map(len, batch[0][0].entry)) > limit:
            yield batch
            batch, rows = [], len(unit[0].entry)
        batch.append(unit)
    if batch:
        yield batch


def run_units(
    sae: SparseAutoencoder, upper: UpperLayers, units: Sequence[Unit], stage: str
) -> Generator[Progress, Any, list[Scored]]:
    """Each unit's m, in the order given; yields progress once a batch."""
    place = {id(unit): n for n, unit in enumerate(units)}
    found: dict[int, Scored] = {}
    for batch in batches(units, upper.device):
        yield Progress(stage, len(found), len(units))
        with torch.inference_mode():
            deltas = [delta for item, features in batch for delta in ablation(sae, item.h, item.editable, features)]
            scored = score(upper, [item for item, _ in batch], deltas)
        found |= {place[id(unit)]: s for unit, s in zip(batch, scored, strict=True)}
    return [found[n] for n in range(len(units))]


def total(items: Sequence[Item], values: Sequence[float]) -> float:
    """M = sum of weight times m."""
    return sum(item.weight * value for item, value in zip(items, values, strict=True))


# ---- features


@dataclass(frozen=True)
class Gradient:
    """Of M on items: estimate_F is -A; strength_F is sum_t f ||D|| u over editable positions."""

    estimate_F: torch.Tensor
    strength_F: torch.Tensor


def gradient(
    sae: SparseAutoencoder, upper: UpperLayers, items: Sequence[Item], features: tuple[int, ...], stage: str
) -> Generator[Progress, Any, Gradient]:
    """One gradient of M where `features` are ablated already; yields progress once a batch.

    Activations are those of the vectors as they were read.
    """
    sum_F = torch.zeros(sae.d_sae, device=upper.device)
    strength_F = torch.zeros_like(sum_F)
    done = 0
    for batch in batches([(item, features) for item in items], upper.device):
        yield Progress(stage, done, len(items))
        some = [item for item, _ in batch]
        rows = [(item, row) for item in some for row in range(len(item.entry))]
        delta_BTD = torch.zeros(len(rows), max(len(i.h[r]) for i, r in rows), sae.d_in, device=upper.device)
        deltas = [delta for item in some for delta in ablation(sae, item.h, item.editable, features)]
        for b, delta_TD in enumerate(deltas):
            if delta_TD is not None:
                delta_BTD[b, : len(delta_TD)] = delta_TD
        g_BTD = _slope(upper, some, delta_BTD)
        h_ND = torch.cat([item.h[r][item.editable[r]] for item, r in rows])
        g_ND = torch.cat([g_BTD[b, : len(i.h[r])][i.editable[r]] for b, (i, r) in enumerate(rows)])
        u_N1 = sae.normalise(h_ND).u_T1
        for active in sae.encode(h_ND):
            sae.add_projected(sum_F, active, g_ND * u_N1)
            strength_F.index_add_(0, active.feature_N, active.value_N * u_N1[active.token_N, 0])
        done += len(batch)
    return Gradient(-sum_F, strength_F * sae.decoder_norms())


def _slope(upper: UpperLayers, items: Sequence[Item], delta_BTD: torch.Tensor) -> torch.Tensor:
    """g_BTD, the gradient of sum weight m in what is added to the hooked vectors."""
    with torch.inference_mode(False), torch.enable_grad():
        delta_BTD = delta_BTD.requires_grad_()
        scored = score(upper, items, delta_BTD)
        weighted = torch.stack([s.value * item.weight for s, item in zip(scored, items, strict=True)]).sum()
        found: torch.Tensor = torch.autograd.grad(weighted, delta_BTD)[0]
        return found


def activations(
    sae: SparseAutoencoder, h: Sequence[torch.Tensor], editable: Sequence[torch.Tensor], features: Sequence[int]
) -> list[torch.Tensor]:
    """f_TK of chosen features in each row, 0 where nothing is edited."""
    columns = sae.columns(features)
    return [
        sae.encode_features(sae.normalise(h_TD).x_TD, columns) * editable_T[:, None]
        for h_TD, editable_T in zip(h, editable, strict=True)
    ]


def ablation(
    sae: SparseAutoencoder, h: Sequence[torch.Tensor], editable: Sequence[torch.Tensor], features: Sequence[int]
) -> list[torch.Tensor | None]:
    """What ablating features adds to the hooked vectors_TD of each row; None where they are silent."""
    if not features:
        return [None] * len(h)
    w_dec_KD = sae.columns(features).w_dec_KD
    return [
        -sae.normalise(h_TD).u_T1 * (f_TK @ w_dec_KD) if bool((f_TK > 0).any()) else None
        for h_TD, f_TK in zip(h, activations(sae, h, editable, features), strict=True)
    ]


def firing(sae: SparseAutoencoder, item: Item, features: Sequence[int]) -> list[bool]:
    """Which of the features fire anywhere in the item that an edit would touch."""
    anywhere_K = torch.stack([(f_TK > 0).any(0) for f_TK in activations(sae, item.h, item.editable, features)]).any(0)
    return list(anywhere_K.tolist())


def ablated(
    sae: SparseAutoencoder,
    upper: UpperLayers,
    items: Sequence[Item],
    plain: Sequence[float],
    sets: Sequence[Sequence[int]],
    stage: str,
) -> Generator[Progress, Any, list[list[float]]]:
    """m of every item with each set of features ablated; `plain` is what it is without, and where a set is silent."""
    every = sorted({feature for features in sets for feature in features})
    fires = [dict(zip(every, firing(sae, item, every), strict=True)) for item in items] if every else []
    places = [
        (s, n)
        for s, features in enumerate(sets)
        for n in range(len(items))
        if any(fires[n][feature] for feature in features)
    ]
    units = [(items[n], tuple(f for f in sets[s] if fires[n][f])) for s, n in places]
    scored = yield from run_units(sae, upper, units, stage)
    found = [list(plain) for _ in sets]
    for (s, n), one in zip(places, scored, strict=True):
        found[s][n] = float(one.value)
    return found
