"""A stand-in engine without a model, to measure the screen alone: answers at once, streams tokens at a given rate."""

from __future__ import annotations

import asyncio
import random
from itertools import accumulate
from pathlib import Path

import msgspec

from engine.records import (
    Arm,
    Edit,
    EditsFrom,
    Event,
    Failed,
    FedPrompt,
    Finished,
    Generate,
    Generated,
    Load,
    Loaded,
    Prompt,
    Request,
    Show,
    Shown,
    TokenStep,
)
from engine.serving.client import Listener, LiveEngine
from engine.serving.wire import Answer

LOADED = Loaded(
    model="stand-in", model_fingerprint="", sae="stand-in", sae_fingerprint="", hook="blocks.1.hook_resid_pre",
    hook_module="input of model.layers.1", d_model=64, d_sae=4096, encoder="standard", normalisation="none",
    device="cpu", dtype="float32", threads=1, versions={}, reference="none", reference_tokens=1,
)  # fmt: skip

WORDS = tuple(f"w{n}" for n in range(3000))

COMMONNESS = tuple(accumulate(1 / (n + 3) for n in range(len(WORDS))))
"""Cumulative weights of WORDS: as in a language, a word's frequency falls with its rank.

The time to align two texts depends on it.
"""

MAXIMUM = 8.0
"""The largest activation."""

DIFFERS_EVERY = 7
"""Every DIFFERS_EVERY-th token differs between the arms."""


class StandIn(LiveEngine):
    """Answers Load, Show and Generate. The first `at_once` tokens of a text come together, the rest at `rate` a second.

    Events are encoded and decoded as on the wire, as those of an engine process are.
    """

    def __init__(self, at_once: int, rate: float) -> None:
        self.at_once, self.rate = at_once, rate
        self._last_id = 0
        self._listener: Listener | None = None
        self._decoder = msgspec.msgpack.Decoder(Answer)
        self._streams: dict[int, asyncio.Task[None]] = {}

    @property
    def log_path(self) -> Path:
        """A path of no file: the stand-in writes no log."""
        return Path("none")

    async def start(self, listener: Listener) -> None:
        """Send events to this listener from now on."""
        self._listener = listener

    def ask(self, request: Request) -> int:
        """Start the text, or answer in the next turn of the loop; return the request's id."""
        self._last_id += 1
        if isinstance(request, Generate):
            self._streams[self._last_id] = asyncio.create_task(self._stream(self._last_id, request))
        else:
            asyncio.get_running_loop().call_soon(self._tell, self._last_id, answer_to(request))
        return self._last_id

    def cancel(self, request_id: int) -> None:
        """Do nothing: requests are never cancelled here."""

    def set_edits(self, request_id: int, edits: tuple[Edit, ...]) -> None:
        """Do nothing: edits do not change the tokens."""

    def stop(self, request_id: int) -> None:
        """Do nothing: texts run to their end."""

    async def close(self) -> None:
        """End the texts that still run."""
        for task in self._streams.values():
            task.cancel()

    def _tell(self, request_id: int, event: Event) -> None:
        if self._listener is not None:
            answer = self._decoder.decode(msgspec.msgpack.encode(Answer(request_id, event)))
            self._listener.on_event(answer.id, answer.event)

    async def _stream(self, request_id: int, request: Generate) -> None:
        """Send all tokens that are due, then sleep, and so on: the rate holds however late the loop is."""
        loop = asyncio.get_running_loop()
        started, sent, total = loop.time(), 0, request.sampling.max_tokens
        while sent < total:
            due = min(total, self.at_once + int((loop.time() - started) * self.rate))
            for index in range(sent, due):
                baseline, edited = tokens_at(index)
                self._tell(request_id, TokenStep(index, baseline, edited, kl=0.25))
            sent = due
            await asyncio.sleep(1 / self.rate)
        self._tell(request_id, Finished(generated(request)))


def tokens_at(index: int) -> tuple[str, str]:
    """Return the baseline's and the edited arm's token at this index."""
    baseline = " " + random.Random(index).choices(WORDS, cum_weights=COMMONNESS)[0]
    return baseline, " other" if index % DIFFERS_EVERY == 0 else baseline


def answer_to(request: Request) -> Finished | Failed:
    """Return the answer to any request but Generate."""
    if isinstance(request, Load):
        return Finished(LOADED)
    if isinstance(request, Show):
        rng = random.Random(request.feature)
        fed = tuple(fed_as(prompt) for prompt in request.prompts)
        rows = tuple(tuple(max(0.0, rng.uniform(-MAXIMUM, MAXIMUM)) for _ in p.tokens) for p in fed)
        return Finished(Shown(request.feature, fed, rows, MAXIMUM))
    return Failed("EngineFault", f"The stand-in does not answer {type(request).__name__}.")


def fed_as(prompt: Prompt) -> FedPrompt:
    """Return the prompt as fed, each word a token."""
    words = tuple(f" {word}" for word in prompt.text.split())
    counts = (True,) * len(words)
    return FedPrompt(prompt.text, prompt.format, tuple(range(len(words))), words, counts, counts)


def generated(request: Generate) -> Generated:
    """Return the whole text, as the result of a generation."""
    pairs = [tokens_at(index) for index in range(request.sampling.max_tokens)]
    baseline, edited = (arm_of([pair[row] for pair in pairs]) for row in (0, 1))
    schedule = (EditsFrom(0, request.edits),)
    return Generated(
        fed_as(request.prompt), request.sampling, request.edits, schedule, 2, baseline, edited,
        first_divergence=0, kl=(0.25,) * len(pairs), positions=len(pairs), inactive_positions=0,
        tokens_per_second=200.0,
    )  # fmt: skip


def arm_of(tokens: list[str]) -> Arm:
    """Return an arm of these tokens."""
    return Arm("".join(tokens), tuple(range(len(tokens))), tuple(tokens), (-0.5,) * len(tokens))
