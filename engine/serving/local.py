"""The engine in the caller's process: the carrier of the command line and the tests.

The engine process runs the same requests with the `Engine` of this module. A request is cancelled between two of its
events.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterator

import torch

from engine.loading.open_pair import open_pair
from engine.models.pair import Events, Pair
from engine.records import Cancelled, Edit, Event, Failed, Finished, Load, Request
from engine.records.errors import SaescopeError, UsageError
from engine.records.events import naming_log, unexpected
from engine.serving.verbs import run_verb

log = logging.getLogger("saescope")

SMALLER = "Use fewer or shorter prompts, or a smaller model."


class Engine:
    """Holds the loaded pair and runs requests on it; every carrier uses this class."""

    def __init__(self) -> None:
        self.pair: Pair | None = None

    def run(self, request: Request) -> Generator[Event, tuple[Edit, ...] | None, None]:
        """Run a request event by event; the last is Finished, or Failed for any exception that a verb raises.

        A value sent in answer to an event goes to the verb: new edits for a running generation. To stop a request,
        close the generator.
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
            end = unexpected(error)
        yield end  # outside the `except`, where the failed verb's frames and their tensors are freed

    def _start(self, request: Request) -> Events:
        if isinstance(request, Load):
            self.pair = pair = yield from open_pair(request, self.pair)
            return pair.loaded
        if self.pair is None:
            raise UsageError("No model is loaded.", "Send a Load request first.")
        result = yield from run_verb(self.pair, request)
        return result


class LocalClient:
    """An EngineClient that runs each request in the caller's thread, as its events are read."""

    def __init__(self) -> None:
        self._engine = Engine()
        self._cancelled = threading.Event()

    @property
    def _pair(self) -> Pair | None:
        return self._engine.pair

    def stream(self, request: Request) -> Iterator[Event]:
        """Run a request event by event; see EngineClient."""
        self._cancelled.clear()
        work = self._engine.run(request)
        for event in work:
            yield naming_log(event, "Report it with the lines above, which say where it happened.")
            if self._cancelled.is_set() and not isinstance(event, Finished | Failed):
                work.close()
                yield Cancelled()
                return

    def cancel(self) -> None:
        """Stop the running request at its next event; callable from another thread or a signal handler."""
        self._cancelled.set()

    def close(self) -> None:
        """Free the model."""
        self._engine.pair = None
