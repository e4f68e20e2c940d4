"""The engine in this very process: the command line's and the tests' carrier.

Same requests and events as the engine process will have; a request is cancelled between two of its events.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import torch

from engine import replay
from engine.doctor import diagnose
from engine.errors import SaescopeError, UsageError
from engine.explorer import Events, Explorer
from engine.loading import open_explorer
from engine.records import (
    Cancelled,
    Describe,
    Doctor,
    Event,
    Failed,
    Finished,
    Generate,
    Load,
    Rank,
    Replay,
    ReplayRank,
    Request,
    RunProbes,
    Show,
)

log = logging.getLogger("saescope")


class LocalClient:
    """An EngineClient that runs each request in the caller's thread, as its events are read."""

    def __init__(self) -> None:
        self._explorer: Explorer | None = None
        self._cancelled = threading.Event()

    def stream(self, request: Request) -> Iterator[Event]:
        """Runs a request event by event; see EngineClient."""
        self._cancelled.clear()
        work = self._start(request)
        try:
            while True:
                try:
                    event = next(work)
                except StopIteration as done:
                    yield Finished(done.value)
                    return
                yield event
                if self._cancelled.is_set():
                    work.close()
                    yield Cancelled()
                    return
        except SaescopeError as error:
            yield Failed(type(error).__name__, error.message, error.remedy, error.exit_code)
        except torch.OutOfMemoryError:
            yield Failed(
                "EngineFault", "The GPU's memory is full.", "Use fewer or shorter prompts, or a smaller model."
            )
        except MemoryError:
            yield Failed("EngineFault", "The memory is full.", "Use fewer or shorter prompts, or a smaller model.")
        except Exception as error:
            log.exception("request %s failed", type(request).__name__)
            yield Failed(
                "EngineFault", f"Unexpected error: {type(error).__name__}: {error}", "The log has the details."
            )

    def _start(self, request: Request) -> Events:
        if isinstance(request, Load):
            self._explorer = explorer = yield from open_explorer(request)
            return explorer.loaded
        if self._explorer is None:
            raise UsageError("No model is loaded.", "Send a Load request first.")
        result = yield from run_verb(self._explorer, request)
        return result

    def cancel(self) -> None:
        """Stops the running request at its next event; callable from another thread or a signal handler."""
        self._cancelled.set()

    def close(self) -> None:
        """Lets go of the model."""
        self._explorer = None


def run_verb(explorer: Explorer, request: Request) -> Events:
    """The verb a request asks for."""
    match request:
        case Rank():
            return explorer.rank(request)
        case Show():
            return explorer.show(request)
        case Describe():
            return explorer.describe(request)
        case Generate():
            return explorer.generate(request)
        case RunProbes():
            return explorer.run_probes(request)
        case Doctor():
            return diagnose(explorer, request)
        case Replay():
            return replay.generation(explorer, request.recorded)
        case ReplayRank():
            return replay.ranking(explorer, request.recorded)
        case _:
            raise UsageError(f"Unknown request {type(request).__name__}.")
