"""The interface between a front end and the engine, whatever carries it.

A carrier turns one request into a stream of events that ends with Finished, Failed or Cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from engine import errors
from engine.records import Cancelled, Event, Failed, Finished, Request

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
