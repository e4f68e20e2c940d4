"""Reference statistics of a SAE on neutral text: density, maxima, the median norm, strongest tokens.

They tell rare features from common ones, give activations a unit, and say what counts as an attention sink. The
packaged demo's are shipped with it; for any other pair of model and SAE they are computed once and cached. Shape
suffixes: T tokens, D d_model, F features of the SAE, S strongest tokens kept, B bins of activations, N activations
above zero.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from engine.models.hooks import HookPoint
from engine.models.language_model import LanguageModel, finite, not_finite
from engine.models.sae import Active, SparseAutoencoder
from engine.models.tokens import Tokens
from engine.records import Progress, Prompt, StrongToken
from engine.records.errors import SaeError, UsageError

STAGE = "measuring the SAE on reference text"

STRONGEST = 8

PASSAGE_TOKENS = 256

SINK_FACTOR, SINK_OVER_MOST = 10, 3
"""An attention sink's norm is over so many medians, or over so many times the 99th percentile where that is less: sinks
of Gemma 3 lie at 7 to 11 medians, above and below the first limit, and nothing else lies above 2."""

MIN_COUNT = 10
"""Fewer firings than this say nothing about a feature's density: lower counts are raised to this."""

LEAST_TOKENS = 200
"""Of a text with fewer tokens that count nothing is used. MIN_COUNT firings are 5 % of so many: on less text a feature
that never fires would pass for a common one, and maxima and medians would be those of a sentence or two."""

EDGES = tuple(2.0 ** (k / 2) for k in range(-24, 41))
"""Upper ends of the histogram's bins; the first begins at 0, the last has no end. Geometric, because activations of one
feature span orders of magnitude, and wide, because SAEs differ in their unit: from 0.0002 to a million."""


@dataclass(frozen=True)
class Reference:
    """Statistics of a SAE on neutral text. Counts are over n_tokens unmasked tokens."""

    text: str
    """Name of the text."""
    token_ids_T: torch.Tensor
    """All fed tokens, passage after passage, special ones included."""
    n_tokens: int
    count_F: torch.Tensor
    maximum_F: torch.Tensor
    strongest_FS: torch.Tensor
    """Activations of the strongest tokens, largest first, 0 where there are fewer."""
    position_FS: torch.Tensor
    """Their positions in token_ids_T."""
    histogram_FB: torch.Tensor
    """Number of activations in each bin, int32. The bins are those of EDGES that any feature needs, from `first_bin`
    on."""
    first_bin: int
    median_norm: float
    """Median of ||h|| over the first passages; masked tokens are too few to move it."""
    sink_norm: float
    """A token with a larger ||h|| than this is an attention sink: see `sink_limit`."""
    median_u: float
    """Median of the scale u that the SAE's input normalisation divides by."""
    l0: float
    variance_explained: float
    unfinite: int = 0
    """How many of the text's vectors are NaN or infinite; they are left out of everything else."""

    def density_F(self) -> torch.Tensor:
        """Share of tokens on which each feature fires, smoothed: (max(k, 10) + 1/2) / (n + 1), at most 1."""
        return ((self.count_F.clamp(min=MIN_COUNT) + 0.5) / (self.n_tokens + 1)).clamp(max=1)

    def fingerprint(self) -> str:
        """Return a sha256 over the text's tokens and the counts."""
        return sha256(self.token_ids_T.numpy().tobytes() + self.count_F.numpy().tobytes()).hexdigest()


def read_text(path: Path) -> list[str]:
    """Return the passages of a text file: its non-empty lines. Raises UsageError."""
    try:
        passages = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The reference text {path} cannot be read: {error}.", "Give a UTF-8 text file.") from error
    if not passages:
        raise UsageError(f"The reference text {path} is empty.", "Give a text file with one passage per line.")
    return passages


def passages_of(model: LanguageModel, texts: list[str], limit: int | None = None) -> list[list[int]]:
    """Return each passage's token ids, cut to PASSAGE_TOKENS; with a `limit` some of them, spread over the text."""
    sequences = []
    for text in texts:
        ids = model.tokens.feed(Prompt(text)).ids
        leading = ids[:1] if ids[0] == model.tokens.bos else []
        ids = ids[len(leading) :]
        # every piece of a long passage starts with a leading token of its own; a short last piece has no context
        length = PASSAGE_TOKENS - len(leading)
        pieces = [ids[at : at + length] for at in range(0, len(ids), length)]
        sequences += [leading + p for p in pieces if len(p) >= length // 4 or len(pieces) == 1]
    total = sum(map(len, sequences))
    if limit is None or total <= limit:
        return sequences
    stride = -(-total // limit)
    return sequences[::stride]


def compute(
    model: LanguageModel, sae: SparseAutoencoder, hook: HookPoint, texts: list[str], name: str
) -> Generator[Progress, None, Reference]:
    """Runs the text through model and SAE. Yields progress once a batch; memory stays flat.

    Raises UsageError for a text too short to say anything, ModelError where nearly all of its vectors overflow.
    """
    sequences = passages_of(model, texts)
    yield Progress(STAGE, 0, len(sequences))
    # the first passages are enough for a median, and sinks cannot move it
    norm_T = torch.cat(model.capture_batch(hook, sequences[:16])).float().norm(dim=-1)
    special_T = torch.tensor([i in model.tokens.special for ids in sequences[:16] for i in ids], device=norm_T.device)
    norms = float(norm_T[torch.isfinite(norm_T)].median())  # NaN where no vector is finite: then no token counts
    gathered = _Gatherer(sae, sink_limit(norm_T, special_T), model.tokens.special)
    for at in range(0, len(sequences), 16):
        yield Progress(STAGE, at, len(sequences))
        batch = sequences[at : at + 16]
        gathered.add([i for ids in batch for i in ids], torch.cat(model.capture_batch(hook, batch)))
    check_counted(gathered.n_tokens, len(gathered.ids), gathered.unfinite, name, model)
    return gathered.finish(name, norms)


def sink_limit(norm_T: torch.Tensor, special_T: torch.Tensor) -> float:
    """Return the norm above which a token is an attention sink, by those of a text; NaN where no norm is finite."""
    finite_T = torch.isfinite(norm_T)
    limit = SINK_FACTOR * float(norm_T[finite_T].median())
    counted_T = norm_T[finite_T & ~special_T]
    return min(limit, SINK_OVER_MOST * float(counted_T.quantile(0.99))) if len(counted_T) else limit


def check_counted(counted: int, fed: int, unfinite: int, name: str, model: LanguageModel) -> None:
    """Raises ModelError or UsageError where fewer tokens of a text count than its statistics need."""
    if counted >= LEAST_TOKENS:
        return
    if unfinite:
        raise not_finite(model.dtype, f"The model's vectors overflow at {unfinite:,} of {fed:,} tokens of {name}")
    raise UsageError(
        f"The reference text {name} is too short: {counted:,} of its tokens count (special ones and attention sinks do "
        f"not), at least {LEAST_TOKENS} are needed to say how often a feature fires.",
        "Give --reference a longer text, or leave it out for the packaged one.",
    )


def bins_of(value_N: torch.Tensor) -> torch.Tensor:
    """Return the bin of EDGES that each activation lies in: above the edge before, up to its own."""
    edges_B = torch.tensor(EDGES, dtype=value_N.dtype, device=value_N.device)
    return torch.bucketize(value_N, edges_B).clamp(max=len(EDGES) - 1)


class _Gatherer:
    """Running statistics over passages."""

    def __init__(self, sae: SparseAutoencoder, sink_norm: float, special: set[int]) -> None:
        self.sae, self.sink_norm, self.special = sae, sink_norm, special
        self.ids: list[int] = []
        self.n_tokens = self.unfinite = 0
        shape = (sae.d_sae, STRONGEST)
        self.count_F = torch.zeros(sae.d_sae, dtype=torch.int32)
        self.strongest_FS = torch.zeros(shape)
        self.position_FS = torch.zeros(shape, dtype=torch.int32)
        self.histogram_FB = torch.zeros(sae.d_sae, len(EDGES), dtype=torch.int32)
        self.scales: list[torch.Tensor] = []
        self.residue = torch.zeros((), dtype=torch.float64)
        self.sum_D = torch.zeros(sae.d_in, dtype=torch.float64)
        self.square = torch.zeros((), dtype=torch.float64)

    def add(self, ids: list[int], h_TD: torch.Tensor) -> None:
        """Add the tokens of a few passages to the statistics."""
        allowed = torch.tensor([i not in self.special for i in ids], device=h_TD.device)
        keep_T = allowed & (h_TD.float().norm(dim=-1) <= self.sink_norm)
        positions_T = keep_T.nonzero()[:, 0] + len(self.ids)
        self.ids += ids
        self.unfinite += int((~finite(h_TD)).sum())
        h_TD = h_TD[keep_T]
        if len(h_TD) == 0:
            return
        self.n_tokens += len(h_TD)
        scale = self.sae.normalise(h_TD)
        self.scales.append(scale.u_T1[:, 0].cpu())
        # reconstruct() would encode a second time: these parts serve both purposes
        h_hat_TD = self.sae.b_dec_D.repeat(len(h_TD), 1)
        for active in self.sae.encode(h_TD):
            self.sae.add_decoded(h_hat_TD, active)
            self._merge(active, positions_T)
        h_hat_TD = h_hat_TD * scale.u_T1 + scale.mu_T1
        h_TD = h_TD.float()
        self.residue += (h_TD - h_hat_TD).double().square().sum().cpu()
        self.sum_D += h_TD.double().sum(0).cpu()
        self.square += h_TD.double().square().sum().cpu()

    def _merge(self, active: Active, positions_T: torch.Tensor) -> None:
        """Count activations, and keep the strongest of every feature."""
        cell_N = (active.feature_N * len(EDGES) + bins_of(active.value_N)).cpu()
        self.histogram_FB.view(-1).index_add_(0, cell_N, torch.ones(len(cell_N), dtype=torch.int32))
        size = active.features.stop - active.features.start
        # by feature, then largest first: two stable sorts
        order_N = active.value_N.argsort(descending=True, stable=True)
        feature_N = active.feature_N[order_N] - active.features.start
        order_N = order_N[feature_N.argsort(stable=True)]
        count_F = torch.bincount(feature_N, minlength=size)
        self.count_F[active.features] += count_F.int().cpu()
        feature_N = active.feature_N[order_N] - active.features.start
        place_N = torch.arange(len(order_N), device=order_N.device) - (count_F.cumsum(0) - count_F)[feature_N]
        best = place_N < STRONGEST
        best_FS = torch.zeros(size, STRONGEST, device=order_N.device)
        at_FS = torch.zeros(size, STRONGEST, dtype=torch.int32, device=order_N.device)
        best_FS[feature_N[best], place_N[best]] = active.value_N[order_N[best]]
        at_FS[feature_N[best], place_N[best]] = positions_T[active.token_N[order_N[best]]].int()
        values = torch.cat([self.strongest_FS[active.features], best_FS.cpu()], 1)
        places = torch.cat([self.position_FS[active.features], at_FS.cpu()], 1)
        # of equal activations the earlier is kept on every machine: topk makes no such promise
        values, order = values.sort(dim=1, descending=True, stable=True)
        self.strongest_FS[active.features] = values[:, :STRONGEST]
        self.position_FS[active.features] = places.gather(1, order[:, :STRONGEST])

    def finish(self, name: str, median_norm: float) -> Reference:
        """Return the statistics gathered so far."""
        total = self.square - self.sum_D.square().sum() / max(1, self.n_tokens)
        used_bins = self.histogram_FB.any(0).nonzero()[:, 0].tolist() or [0]
        return Reference(
            text=name,
            token_ids_T=torch.tensor(self.ids, dtype=torch.int32),
            n_tokens=self.n_tokens,
            count_F=self.count_F,
            maximum_F=self.strongest_FS[:, 0].clone(),
            strongest_FS=self.strongest_FS,
            position_FS=self.position_FS,
            histogram_FB=self.histogram_FB[:, used_bins[0] : used_bins[-1] + 1].clone(),
            first_bin=used_bins[0],
            median_norm=median_norm,
            sink_norm=self.sink_norm,
            median_u=float(torch.cat(self.scales).median()) if self.scales else 1.0,
            l0=float(self.count_F.sum()) / max(1, self.n_tokens),
            variance_explained=float(1 - self.residue / total),
            unfinite=self.unfinite,
        )


def cache_key(parts: list[str]) -> str:
    """Return a name for something computed from these texts."""
    digest = sha256()
    for part in parts:
        digest.update(sha256(part.encode()).digest())
    return digest.hexdigest()


VERSION = "4"
"""Of what is gathered and how it is stored: part of the cache's key. 2 brought the histogram, 3 `unfinite`, 4 the sinks
that the 99th percentile tells."""

TENSORS = ("token_ids_T", "count_F", "maximum_F", "strongest_FS", "position_FS", "histogram_FB")

WHOLE = ("n_tokens", "first_bin", "unfinite")

NUMBERS = (*WHOLE, "median_norm", "sink_norm", "median_u", "l0", "variance_explained")


class OutdatedError(SaeError):
    """Statistics that an older version wrote: they lack something and must be measured anew."""


def save(reference: Reference, path: Path) -> None:
    """Write the statistics, atomically. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = {name: repr(getattr(reference, name)) for name in NUMBERS}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    os.close(handle)
    tensors = {name: getattr(reference, name).contiguous() for name in TENSORS}
    try:
        save_file(tensors, temporary, metadata={"text": reference.text, **numbers})
    except SafetensorError as error:  # how safetensors reports a full disk
        Path(temporary).unlink(missing_ok=True)
        raise OSError(str(error)) from error
    os.replace(temporary, path)


def load(path: Path) -> Reference:
    """Read statistics written by `save`. Raises SaeError, OutdatedError where an older version wrote them."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in TENSORS if name in file.keys()}  # noqa: SIM118
        text = metadata["text"]
        if "histogram_FB" not in tensors:
            raise OutdatedError(f"The reference statistics {path} are of an older version.", "Delete the file.")
        sink_norm = repr(SINK_FACTOR * float(metadata["median_norm"]))
        metadata = {"unfinite": "0", "sink_norm": sink_norm, **metadata}  # the packaged demo's are older
        numbers = {name: int(metadata[name]) if name in WHOLE else float(metadata[name]) for name in NUMBERS}
        fields: dict[str, Any] = {**{name: tensors[name] for name in TENSORS}, **numbers}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise SaeError(f"The reference statistics {path} are broken: {error}.", "Delete the file.") from error
    return Reference(text=text, **fields)


CONTEXT_TOKENS = 8


def reference_tokens(tokens: Tokens, reference: Reference, feature: int) -> list[StrongToken]:
    """Return the reference tokens on which a feature fires most, strongest first."""
    ids = reference.token_ids_T
    values, places = reference.strongest_FS[feature].tolist(), reference.position_FS[feature].tolist()
    return [
        StrongToken(
            activation=value,
            token=tokens.string(int(ids[at])),
            before=tokens.decode(ids[max(0, at - CONTEXT_TOKENS) : at].tolist()),
            after=tokens.decode(ids[at + 1 : at + 1 + CONTEXT_TOKENS].tolist()),
            source="reference",
        )
        for value, at in zip(values, places, strict=True)
        if value > 0
    ]


def distinct(candidates: list[tuple[float, str]], limit: int = 3) -> tuple[str, ...]:
    """Return the first few distinct tokens, strongest first; case and surrounding space make no difference."""
    by_spelling: dict[str, str] = {}
    for _, token in sorted(candidates, key=lambda pair: -pair[0]):
        by_spelling.setdefault(token.strip().lower(), token)
    return tuple(list(by_spelling.values())[:limit])


def reference_name(tokens: Tokens, reference: Reference, feature: int) -> tuple[str, ...]:
    """Return up to three distinct tokens of the reference text on which a feature fires most."""
    values, places = reference.strongest_FS[feature].tolist(), reference.position_FS[feature].tolist()
    pairs = [(v, tokens.string(int(reference.token_ids_T[at]))) for v, at in zip(values, places, strict=True) if v > 0]
    return distinct(pairs)
