"""The interfaces between a front end and the engine, independent of what carries requests between them.

A carrier turns one request into a stream of events that ends with Finished, Failed or Cancelled. The command line
reads such a stream (`EngineClient`); the app sends many requests and a listener gets their events (`LiveEngine`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from engine.records import Cancelled, Edit, Event, Failed, Finished, Request, errors

T = TypeVar("T")


class EngineClient(Protocol):
    """An engine that runs one request at a time."""

    def stream(self, request: Request) -> Iterator[Event]:
        """Run a request and yield its events. Never raises for a request that fails: the last event says so."""
        ...

    def cancel(self) -> None:
        """Ask the running request to stop at its next event; harmless when nothing runs."""
        ...

    def close(self) -> None:
        """End the engine and free its memory."""
        ...


class Listener(Protocol):
    """Gets the events of a LiveEngine. Both methods are called in the event loop in which the engine was started."""

    def on_event(self, request_id: int, event: Event) -> None:
        """Take one event of a request; id 0 marks an event of no request."""
        ...

    def on_lost(self, error: errors.EngineFault) -> None:
        """Take the news that the engine and its requests are lost; called once, and never after `close`."""
        ...


class LiveEngine(Protocol):
    """An engine that works while the app goes on. Call `start` before anything else, and again after a loss."""

    @property
    def log_path(self) -> Path:
        """Path of the engine's log."""
        ...

    async def start(self, listener: Listener) -> None:
        """Start the engine. Raises EngineFault if it cannot be started or is of another version."""
        ...

    def ask(self, request: Request) -> int:
        """Send a request and return its id. A newer request of a kind cancels the older ones of that kind."""
        ...

    def cancel(self, request_id: int) -> None:
        """Stop a request within one token or one batch; harmless when it has ended."""
        ...

    def set_edits(self, request_id: int, edits: tuple[Edit, ...]) -> None:
        """Apply these edits to the running generation from its next token on, in place of the earlier ones."""
        ...

    def stop(self, request_id: int) -> None:
        """End the running generation at its next token; the text so far becomes its result."""
        ...

    async def close(self) -> None:
        """End the engine and free its memory."""
        ...


class RequestCancelled(Exception):
    """Raised by `ask` when the user stopped the request."""


def ask(client: EngineClient, request: Request, kind: type[T], on_event: Callable[[Event], None] | None = None) -> T:
    """Run a request to its end and return its result, which is of type `kind`.

    Raises the SaescopeError that the engine reported, RequestCancelled, or EngineFault for any other result.
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
    """Return the exception that a Failed event stands for."""
    kind = getattr(errors, failed.kind, errors.EngineFault)
    error: errors.SaescopeError = kind(failed.message, failed.remedy)
    return error
