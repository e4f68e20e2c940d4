"""The engine in this very process: the command line's and the tests' carrier.

Same requests and events as the engine process has, which runs them with this module's `Engine` too; a request is
cancelled between two of its events.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterator

import torch

from engine import causes, minimal_set, replay
from engine.describe import describe
from engine.doctor import diagnose
from engine.errors import SaescopeError, UsageError
from engine.explorer import Events, Explorer
from engine.loading import open_explorer
from engine.records import (
    Attribute,
    Cancelled,
    Describe,
    Doctor,
    Edit,
    Event,
    Failed,
    FeaturesAt,
    FindMinimalSet,
    Finished,
    Generate,
    Load,
    Rank,
    Replay,
    ReplayCauses,
    ReplayRank,
    Request,
    RunProbes,
    ScoreAnswers,
    Show,
)

log = logging.getLogger("saescope")
SMALLER = "Use fewer or shorter prompts, or a smaller model."


class Engine:
    """One loaded model and the requests run on it: what every carrier shares."""

    def __init__(self) -> None:
        self.explorer: Explorer | None = None

    def run(self, request: Request) -> Generator[Event, tuple[Edit, ...] | None, None]:
        """Runs a request event by event; the last is Finished or Failed, and nothing a verb raises gets past it.

        What is sent in answer to an event goes to the verb: new edits for a running generation. To stop a request,
        close it.
        """
        end: Finished | Failed
        try:
            end = Finished((yield from self._start(request)))
        except SaescopeError as error:
            end = Failed(type(error).__name__, error.message, error.remedy, error.exit_code)
        except torch.OutOfMemoryError:
            end = Failed("EngineFault", "The GPU's memory is full.", SMALLER)
        except MemoryError:
            end = Failed("EngineFault", "The memory is full.", SMALLER)
        except Exception as error:
            log.exception("request %s failed", type(request).__name__)
            message = f"Unexpected error: {type(error).__name__}: {error}"
            end = Failed("EngineFault", message, "The log has the details.")
        yield end  # out here, so that a failed verb's frames and their tensors are gone by now

    def _start(self, request: Request) -> Events:
        if isinstance(request, Load):
            self.explorer = explorer = yield from open_explorer(request, self.explorer)
            return explorer.loaded
        if self.explorer is None:
            raise UsageError("No model is loaded.", "Send a Load request first.")
        result = yield from run_verb(self.explorer, request)
        return result


class LocalClient:
    """An EngineClient that runs each request in the caller's thread, as its events are read."""

    def __init__(self) -> None:
        self._engine = Engine()
        self._cancelled = threading.Event()

    @property
    def _explorer(self) -> Explorer | None:
        return self._engine.explorer

    def stream(self, request: Request) -> Iterator[Event]:
        """Runs a request event by event; see EngineClient."""
        self._cancelled.clear()
        work = self._engine.run(request)
        for event in work:
            yield event
            if self._cancelled.is_set() and not isinstance(event, Finished | Failed):
                work.close()
                yield Cancelled()
                return

    def cancel(self) -> None:
        """Stops the running request at its next event; callable from another thread or a signal handler."""
        self._cancelled.set()

    def close(self) -> None:
        """Lets go of the model."""
        self._engine.explorer = None


def run_verb(explorer: Explorer, request: Request) -> Events:
    """The verb a request asks for."""
    match request:
        case Rank():
            return explorer.rank(request)
        case Show():
            return explorer.show(request)
        case Describe():
            return describe(explorer, request)
        case FeaturesAt():
            return explorer.features_at(request)
        case Generate():
            return explorer.generate(request)
        case ScoreAnswers():
            return explorer.score_answers(request)
        case RunProbes():
            return explorer.run_probes(request)
        case Attribute():
            return causes.attribute(explorer, request)
        case FindMinimalSet():
            return minimal_set.find_minimal_set(explorer, request)
        case Doctor():
            return diagnose(explorer, request)
        case Replay():
            return replay.generation(explorer, request.recorded)
        case ReplayRank():
            return replay.ranking(explorer, request.recorded)
        case ReplayCauses():
            return replay.causal(explorer, request.recorded)
        case _:
            raise UsageError(f"Unknown request {type(request).__name__}.")
