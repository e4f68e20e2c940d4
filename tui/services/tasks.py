"""Tasks: each awaits a result of the engine. A new task replaces the one of its kind, so the newest result stays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from engine.records import Request
from engine.records.errors import SaescopeError
from engine.serving.client import RequestCancelled
from tui.services.bridge import Bridge, OnEvents
from tui.services.desk import Desk
from tui.services.state_folder import keep_details

T = TypeVar("T")


class Tasks:
    """Runs tasks in the app's loop, and reports their errors."""

    def __init__(self, desk: Desk, bridge: Bridge) -> None:
        self.desk, self.bridge = desk, bridge
        self.loads = 0
        """How many loads have been started."""
        self._no_load_runs = asyncio.Event()
        self._no_load_runs.set()

    @property
    def ready(self) -> bool:
        """Whether a model is loaded."""
        return self.bridge.alive and self.desk.study.loaded is not None

    def run(self, kind: str, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task in place of the running one of its kind; report its errors."""

        async def guarded() -> None:
            try:
                await task()
            except RequestCancelled:
                pass
            except SaescopeError as error:
                if error is not self.bridge.lost:  # a lost engine is reported once, for all tasks together
                    self.desk.report(error.message, error.remedy)
            except Exception as error:  # a defect of ours in one task is no reason to end the app
                self.desk.report(f"A defect of saescope: {error!r}", f"Your work is kept. {keep_details()}")

        # the function, not its coroutine, which would stay unawaited if another task replaced this one early
        self.desk.run_behind(guarded, kind, exclusive=True)

    def run_load(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a load in place of a running one; requests wait until no load runs."""
        self.loads += 1
        number = self.loads
        self._no_load_runs.clear()

        async def load() -> None:
            try:
                await task()
            finally:
                if number == self.loads:
                    self._no_load_runs.set()

        self.run("load", load)

    def may_ask(self) -> bool:
        """Return whether a model is loaded or being loaded; notify of what to do if not."""
        if not self._no_load_runs.is_set():
            self.desk.notify("As soon as the model is loaded.")
            return True
        if not self.bridge.alive:
            self.desk.report("The engine is not running.", "E restarts it; prompts, edits and results are kept.")
        elif not self.ready:
            self.desk.report("No model is loaded.", "M chooses model and SAE.")
        return self.ready

    async def no_load_runs(self) -> None:
        """Wait until no load runs."""
        await self._no_load_runs.wait()

    async def ask(
        self,
        request: Request,
        kind: type[T],
        on_events: OnEvents | None = None,
        on_sent: Callable[[int], None] | None = None,
    ) -> T:
        """Run a request once no load runs, and return its result.

        Raises RequestCancelled without a word if no model is loaded then, for the failed load has been reported, or if
        another session is opened in the meantime; else what Bridge.run raises.
        """
        study = self.desk.study
        await self._no_load_runs.wait()
        if not self.ready or self.desk.study is not study:
            raise RequestCancelled
        result = await self.bridge.run(request, kind, on_events, on_sent)
        if self.desk.study is not study:  # another session was opened in the meantime
            raise RequestCancelled
        return result
