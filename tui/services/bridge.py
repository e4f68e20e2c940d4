"""The bridge from the app to the engine: one awaitable per request, its events bundled into some 30 updates a second.

Only the newest progress of a bundle is kept; tokens are never dropped. No other module of the app uses the LiveEngine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from textual.message import Message
from textual.message_pump import MessagePump

from engine.records import Cancelled, Edit, Event, Failed, Finished, MemoryLeft, Progress, Request, TokenStep
from engine.records.errors import EngineFault
from engine.serving.client import LiveEngine, RequestCancelled, to_error

T = TypeVar("T")

OnEvents = Callable[[Sequence[Event]], None]

UPDATES_PER_SECOND = 33
"""A tenth more than the goal of 30: a garbage collection may cost an update."""


def progress_of(events: Sequence[Event]) -> Progress:
    """Return the progress that the last Progress or TokenStep of these events stands for."""
    last = next((event for event in reversed(events) if isinstance(event, Progress | TokenStep)), None)
    if isinstance(last, Progress):
        return last
    return Progress("generating" if last is None or last.probe is None else f"probe {last.probe + 1}")


@dataclass
class _Running:
    """A request that has not ended, and its events that are not handed out yet."""

    result: asyncio.Future[object]
    on_events: OnEvents | None
    waiting: list[Event] = field(default_factory=list)


class Bridge:
    """Sends requests to the engine and returns their results; posts messages to `target`."""

    @dataclass
    class Working(Message):
        """What the engine is doing, in its own words; None when it is idle."""

        progress: Progress | None

    @dataclass
    class Memory(Message):
        """How much memory the model's device has left."""

        left: MemoryLeft

    @dataclass
    class Lost(Message):
        """The engine is gone. All running requests have raised the same error."""

        error: EngineFault

    def __init__(self, make_engine: Callable[[], LiveEngine], target: MessagePump) -> None:
        self._make_engine, self._target = make_engine, target
        self._made: LiveEngine | None = None
        self._running: dict[int, _Running] = {}
        self._flush_at: asyncio.TimerHandle | None = None
        self._due = 0.0
        """When the last update was due, in seconds on the loop's clock."""
        self._told_of: int | None = None
        """The id of the request whose progress was posted last."""
        self.alive = False
        self.lost: EngineFault | None = None
        """How the engine was lost: reported once, by Lost, for all requests."""

    @property
    def _engine(self) -> LiveEngine:
        if self._made is None:
            self._made = self._make_engine()
        return self._made

    async def start(self) -> None:
        """Start the engine, also again after a loss. Raises EngineFault."""
        await self._engine.start(self)
        self.alive = True

    async def close(self) -> None:
        """End the engine."""
        self.alive = False
        if self._made is not None:
            await self._made.close()

    async def run(
        self,
        request: Request,
        kind: type[T],
        on_events: OnEvents | None = None,
        on_sent: Callable[[int], None] | None = None,
    ) -> T:
        """Run a request to its end. `on_events` gets its progress and tokens, `on_sent` its id.

        Raises the SaescopeError the engine reported, RequestCancelled, or EngineFault when the engine is lost.
        A cancelled task cancels its request.
        """
        if not self.alive:
            raise EngineFault("The engine is not running.", "Restart it with E.")
        request_id = self._engine.ask(request)
        running = _Running(asyncio.get_running_loop().create_future(), on_events)
        self._running[request_id] = running
        if on_sent is not None:
            on_sent(request_id)
        try:
            value = await running.result
        except asyncio.CancelledError:
            self._engine.cancel(request_id)
            raise
        finally:
            self._running.pop(request_id, None)
            if self._told_of == request_id:
                self._target.post_message(self.Working(None))
        if not isinstance(value, kind):
            raise EngineFault(f"The engine answered {type(request).__name__} with no {kind.__name__}.")
        return value

    @property
    def log_path(self) -> Path:
        """The engine's log file."""
        return self._engine.log_path

    def cancel_all(self) -> bool:
        """Cancel all running requests; return False if none runs."""
        for request_id in self._running:
            self._engine.cancel(request_id)
        return bool(self._running)

    def set_edits(self, request_id: int, edits: tuple[Edit, ...]) -> None:
        """Apply these edits to a running generation from its next token on."""
        self._engine.set_edits(request_id, edits)

    def stop(self, request_id: int) -> None:
        """End a running generation at its next token; the text so far becomes its result."""
        self._engine.stop(request_id)

    # ---- called by the engine (Listener)

    def on_event(self, request_id: int, event: Event) -> None:
        """Take an event: hand out the end of a request at once, everything else with the next update."""
        if isinstance(event, MemoryLeft):
            self._target.post_message(self.Memory(event))
            return
        running = self._running.get(request_id)
        if running is None or running.result.done():
            return
        if not isinstance(event, Finished | Failed | Cancelled):
            if running.waiting and isinstance(event, Progress) and isinstance(running.waiting[-1], Progress):
                running.waiting.pop()
            running.waiting.append(event)
            if self._flush_at is None:
                self._plan_flush()
            return
        self._hand_out(request_id, running)
        if isinstance(event, Finished):
            running.result.set_result(event.value)
        elif isinstance(event, Failed):
            running.result.set_exception(to_error(event))
        else:
            running.result.set_exception(RequestCancelled())

    def on_lost(self, error: EngineFault) -> None:
        """End every request with `error`, and post Lost."""
        self.alive, self.lost = False, error
        for request_id, running in self._running.items():
            self._hand_out(request_id, running)
            if not running.result.done():
                running.result.set_exception(error)
        self._target.post_message(self.Lost(error))

    def _plan_flush(self) -> None:
        """Plan the next update from when the last one was due, so that late updates do not lower their rate."""
        now, period = asyncio.get_running_loop().time(), 1 / UPDATES_PER_SECOND
        self._due = self._due + period if self._due + period > now else now + period
        self._flush_at = asyncio.get_running_loop().call_at(self._due, self._flush)

    def _flush(self) -> None:
        self._flush_at = None
        for request_id, running in list(self._running.items()):
            self._hand_out(request_id, running)

    def _hand_out(self, request_id: int, running: _Running) -> None:
        events, running.waiting = running.waiting, []
        if not events or running.result.done():
            return
        self._told_of = request_id
        self._target.post_message(self.Working(progress_of(events)))
        if running.on_events is not None:
            running.on_events(events)
