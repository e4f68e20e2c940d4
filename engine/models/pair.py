"""One model and its SAE at a hook point: reads prompts, and keeps what verbs remember.

A verb is a function of a Pair and a request, in the package of its subject. It is a generator: it yields events
(progress, tokens) and returns its result. Its caller can stop it between two events by closing it, run another verb
between two events, and answer a generation's TokenStep with new edits.

Knows nothing about processes, files or screens. Shape suffixes: T tokens, D width of the hooked vector.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch

from engine.models.hooks import HookPoint
from engine.models.language_model import LanguageModel
from engine.models.reference import Reference
from engine.models.sae import SparseAutoencoder
from engine.models.upper_check import checked_upper
from engine.models.upper_layers import UpperLayers
from engine.records import Event, FedPrompt, Format, Loaded, Progress, Prompt, Reply

T = TypeVar("T")
Events = Generator[Event, Reply, Any]
"""A running verb: yields events, takes replies, returns its result."""
Key = tuple[str, Format]
"""Text and format of a prompt: the token ids it is fed as depend on nothing else."""

CACHED_TOKENS = 32_768
"""Limit on the tokens of all read prompts kept, so that looking at another feature needs no forward pass."""


@dataclass(frozen=True)
class Read:
    """A prompt as it was fed, and its hooked vectors."""

    fed: FedPrompt
    h_TD: torch.Tensor


@dataclass(frozen=True)
class Site:
    """A SAE and where it acts: the hook point that it reads at, and the one that edits write at."""

    sae: SparseAutoencoder
    reads_at: HookPoint
    writes_at: HookPoint
    reference: Reference
    """Statistics of the SAE there on neutral text."""


class Pair:
    """A model and the sites of its SAEs."""

    def __init__(self, model: LanguageModel, sites: Sequence[Site], loaded: Loaded) -> None:
        self.model, self.sites, self.loaded = model, tuple(sites), loaded
        self._reads: OrderedDict[Key, Read] = OrderedDict()
        self._kept: dict[type[Any], Any] = {}

    @property
    def site(self) -> Site:
        """The site in use: for now always the first."""
        return self.sites[0]

    @cached_property
    def upper(self) -> UpperLayers:
        """The layers above the hook; compared with the whole model at first use. Raises HookError, ModelError."""
        return checked_upper(self.model, self.site.writes_at)

    # ---- what verbs remember, by type

    def kept(self, kind: type[T]) -> T | None:
        """Return what a verb kept of this type; None where there is nothing."""
        return self._kept.get(kind)

    def keep(self, value: T) -> T:
        """Keep a value in place of the last one of its type; return it."""
        self._kept[type(value)] = value
        return value

    def kept_or(self, kind: type[T], make: Callable[[], T]) -> T:
        """Return what was kept of this type; where there is nothing, make and keep it first."""
        if kind not in self._kept:
            self._kept[kind] = make()
        value: T = self._kept[kind]
        return value

    def drop(self, kind: type[Any]) -> None:
        """Forget what was kept of this type."""
        self._kept.pop(kind, None)

    def forget(self) -> None:
        """Forget everything that was read and kept, so that a replay computes it anew."""
        self._reads.clear()
        self._kept.clear()

    # ---- reading prompts

    def read(self, prompts: Sequence[Prompt], together: bool = False) -> Generator[Progress, Any, list[Read]]:
        """Feed prompts and capture their vectors at the hook; recently read prompts come from the cache.

        `together` reads all of them anew: in bfloat16 a vector depends slightly on what else was in its batch, and a
        result that must be reproducible may not depend on what was read before.
        """
        keys = [(prompt.text, prompt.format) for prompt in prompts]
        known = {} if together else {key: self._reads[key] for key in keys if key in self._reads}
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in known}
        ids = [self.model.tokens.feed(prompt) for prompt in missing.values()]
        self.model.check_length(max((len(i.ids) for i in ids), default=0))
        if missing:
            vectors = yield from self.model.capture(self.site.reads_at, [i.ids for i in ids], "reading prompts")
            for (key, prompt), i, h_TD in zip(missing.items(), ids, vectors, strict=True):
                # a copy of its own: the captured rows are views of whole padded batches
                known[key] = Read(self.fed(prompt, i.ids, i.template, h_TD), h_TD.clone())
        self._remember(known)
        return [known[key] for key in keys]

    def beyond_context(self, lengths: Sequence[int], what: str = "texts") -> tuple[str, ...]:
        """A warning where texts of so many tokens are longer than those the SAE was trained on; else ()."""
        context = self.site.sae.config.context
        longer = sum(length > context for length in lengths) if context else 0
        if not longer:
            return ()
        which = f"{longer} of {len(lengths)} {what} have more (up to {max(lengths):,})"
        if len(lengths) == 1:
            which = f"this one has {max(lengths):,}"
        said = f"The SAE was trained on texts of up to {context:,} tokens, {which}"
        return (f"{said}: behind token {context:,} its features are less sure.",)

    def _remember(self, reads: dict[Key, Read]) -> None:
        for key, read in reads.items():
            self._reads[key] = read
            self._reads.move_to_end(key)
        while sum(len(read.h_TD) for read in self._reads.values()) > CACHED_TOKENS:
            self._reads.popitem(last=False)

    def fed(
        self, prompt: Prompt, ids: list[int], template: list[bool], h_TD: torch.Tensor, prefill: str = ""
    ) -> FedPrompt:
        """The record of a prompt as it was fed, with its two masks. Raises ModelError for vectors that overflow."""
        self.model.check_vectors(ids, h_TD)
        sink = (h_TD.float().norm(dim=-1) > self.site.reference.sink_norm).tolist()
        return FedPrompt(
            text=prompt.text,
            format=prompt.format,
            token_ids=tuple(ids),
            tokens=self.model.tokens.strings(ids),
            rank_mask=tuple(not (t or s) for t, s in zip(template, sink, strict=True)),
            edit_mask=tuple(not (i == self.model.tokens.bos or s) for i, s in zip(ids, sink, strict=True)),
            prefill=prefill,
        )
