"""The interfaces between a front end and the engine, whatever carries them.

A carrier turns one request into a stream of events that ends with Finished, Failed or Cancelled. The command line
reads such a stream (`EngineClient`); the app sends many requests and is told of their events (`LiveEngine`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from engine.records import Cancelled, Edit, Event, Failed, Finished, Request, errors

T = TypeVar("T")


class EngineClient(Protocol):
    """What a front end may ask of an engine."""

    def stream(self, request: Request) -> Iterator[Event]:
        """Runs a request. Never raises for a request that fails: the last event says so."""
        ...

    def cancel(self) -> None:
        """Asks the running request to stop at its next event; harmless when nothing runs."""
        ...

    def close(self) -> None:
        """Ends the engine and frees its memory."""
        ...


class Listener(Protocol):
    """Who hears what a LiveEngine has to say. Both are called in the event loop the engine was started in."""

    def on_event(self, request_id: int, event: Event) -> None:
        """One event of a request; id 0 belongs to none."""
        ...

    def on_lost(self, error: errors.EngineFault) -> None:
        """The engine is gone, and its requests with it; called once, and not after `close`."""
        ...


class LiveEngine(Protocol):
    """An engine that works while the app goes on. `start` before anything else; after a loss, `start` again."""

    @property
    def log_path(self) -> Path:
        """Where its log is."""
        ...

    async def start(self, listener: Listener) -> None:
        """Starts the engine. Raises EngineFault where it cannot be started or is another version's."""
        ...

    def ask(self, request: Request) -> int:
        """Sends a request and returns its id. A newer request of a kind cancels the older ones of that kind."""
        ...

    def cancel(self, request_id: int) -> None:
        """Stops a request within one token or one batch; harmless when it has ended."""
        ...

    def set_edits(self, request_id: int, edits: tuple[Edit, ...]) -> None:
        """Puts the running generation under these edits from its next token on."""
        ...

    def stop(self, request_id: int) -> None:
        """Ends the running generation at its next token; what there is of it becomes its result."""
        ...

    async def close(self) -> None:
        """Ends the engine and frees its memory."""
        ...


class RequestCancelled(Exception):
    """The request was stopped by the user."""


def ask(client: EngineClient, request: Request, kind: type[T], on_event: Callable[[Event], None] | None = None) -> T:
    """Runs a request to its end and returns its result of the given kind.

    Raises the SaescopeError that the engine reported, or RequestCancelled.
    """
    for event in client.stream(request):
        if on_event is not None:
            on_event(event)
        if isinstance(event, Finished) and isinstance(event.value, kind):
            return event.value
        if isinstance(event, Failed):
            raise to_error(event)
        if isinstance(event, Cancelled):
            raise RequestCancelled
    raise errors.EngineFault(f"The engine answered {type(request).__name__} with no {kind.__name__}.")


def to_error(failed: Failed) -> errors.SaescopeError:
    """The exception a Failed event stands for."""
    kind = getattr(errors, failed.kind, errors.EngineFault)
    error: errors.SaescopeError = kind(failed.message, failed.remedy)
    return error
