"""Schedules the requests of one engine: runs them as generators, one event at a time.

Knows nothing about sockets, threads, models or torch. Everything happens in the caller's thread, between two events of
the running request, so a request is stopped by closing its generator.

- Long requests, those with a `waited_for`, run one after another in order of arrival; quick ones run between two events
  of a long one.
- A newer request of a kind cancels the older ones of that kind; replays, each of another recording, are all kept.
- A Load cancels everything else, and later requests wait for it, because they are meant for the new model.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from engine.records import (
    Cancelled,
    Edit,
    Event,
    Failed,
    Finished,
    Generate,
    Load,
    MemoryLeft,
    Progress,
    Replay,
    Reply,
    Request,
    TokenStep,
)
from engine.records.events import fault, unexpected
from engine.serving.wire import Ask, Cancel, SetEdits, Stop, ToEngine

log = logging.getLogger("saescope")

Work = Generator[Event, Reply, None]
"""A running request: its last event is Finished, Failed or Cancelled. Only a generation is sent replies."""

MEMORY_SECONDS = 2.0
"""Time between two reports of free memory while long requests run."""

PATIENCE_SECONDS = 0.5
"""A long request runs for one event at least this often, however many quick requests arrive."""


@dataclass(eq=False)
class Job:
    """A request that has not ended."""

    id: int
    request: Request
    work: Work
    edits: tuple[Edit, ...] | None = None
    """The newest edits, until they are sent to the generation."""
    stop: bool = False
    """The user wants no more tokens."""
    at_token: bool = False
    """Its last event was a TokenStep, so it takes a reply now."""

    @property
    def long(self) -> bool:
        """Whether this is a long request."""
        return bool(self.request.waited_for)


class Scheduler:
    """Takes messages by `receive`, runs one request up to its next event by `step`, hands events to `emit`."""

    def __init__(
        self,
        run: Callable[[Request], Work],
        emit: Callable[[int, Event], None],
        memory: Callable[[], MemoryLeft | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._emit, self._memory, self._clock = run, emit, memory, clock
        self._jobs: list[Job] = []  # in order of arrival
        self._newest_id = 0
        self._long_at = self._memory_at = clock()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do until the next message."""
        return not self._jobs

    def receive(self, message: ToEngine) -> None:
        """Take in a message; requests that it cancels end at once."""
        match message:
            case Ask(id=request_id, request=request):
                self._ask(request_id, request)
            case Cancel(id=request_id):
                for job in self._named(request_id):
                    self._end(job, Cancelled())
            case SetEdits(id=request_id, edits=edits):
                for job in self._named(request_id):
                    job.edits = edits
            case Stop(id=request_id):
                for job in self._named(request_id):
                    job.stop = True

    def refuse(self, request_id: int, failed: Failed) -> None:
        """Answer a malformed message. `request_id` is the id of the request it was meant to be, or 0."""
        if request_id <= self._newest_id:
            request_id = 0  # the request with this id gets a last event of its own
        self._newest_id = max(self._newest_id, request_id)
        self._emit(request_id, failed)

    def step(self) -> None:
        """Run the request that is due up to its next event; do nothing when idle."""
        job = self._due()
        if job is None:
            return
        self._advance(job)
        if job.long:
            self._long_at = self._clock()
            if self._long_at - self._memory_at >= MEMORY_SECONDS:
                self._tell_memory()

    def _named(self, request_id: int) -> list[Job]:
        return [job for job in self._jobs if job.id == request_id]

    def _ask(self, request_id: int, request: Request) -> None:
        if request_id <= self._newest_id:
            self._emit(0, Failed("EngineFault", f"Request id {request_id} has been used before."))
            return
        self._newest_id = request_id
        for job in list(self._jobs):
            same = type(job.request) is type(request) and not isinstance(request, Replay)
            if same or isinstance(request, Load):
                self._end(job, Cancelled())
        job = Job(request_id, request, self._run(request))
        ahead = next((j for j in self._jobs if j.long), None)
        self._jobs.append(job)
        if ahead is not None and (job.long or isinstance(ahead.request, Load)):
            self._emit(job.id, Progress(f"waiting for {ahead.request.waited_for}"))

    def _due(self) -> Job | None:
        long = next((job for job in self._jobs if job.long), None)
        quick = next((job for job in self._jobs if not job.long), None)
        if long is None or quick is None:
            return long or quick
        starved = self._clock() - self._long_at >= PATIENCE_SECONDS
        return long if starved or isinstance(long.request, Load) else quick

    def _advance(self, job: Job) -> None:
        reply: Reply = None
        if job.at_token and isinstance(job.request, Generate):
            reply, job.edits = "stop" if job.stop else job.edits, None
        try:
            event = job.work.send(reply)
        except StopIteration:
            event = fault("The request ended without a result.")
        except Exception as error:
            log.exception("request %d failed", job.id)
            event = unexpected(error)
        job.at_token = isinstance(event, TokenStep)
        if isinstance(event, Finished | Failed | Cancelled):
            self._end(job, event)
        else:
            self._emit(job.id, event)

    def _end(self, job: Job, last: Finished | Failed | Cancelled) -> None:
        self._jobs.remove(job)
        try:
            job.work.close()
        except Exception:
            log.exception("request %d did not stop cleanly", job.id)
        self._emit(job.id, last)
        if job.long:
            self._tell_memory()

    def _tell_memory(self) -> None:
        self._memory_at = self._clock()
        left = self._memory()
        if left is not None:
            self._emit(0, left)
