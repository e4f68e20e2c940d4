"""The autosave: every change of the study goes into the store, and results into the study."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

from engine.files import session as sessions
from engine.records.errors import SessionError
from tui.services.desk import Desk
from tui.state.study import Study
from tui.state.topics import Topic

if TYPE_CHECKING:
    from engine.files.autosave import AutosaveStore


@dataclass(frozen=True)
class Snapshot:
    """A study as it was when it was to be stored."""

    order: int
    """Grows with every snapshot; the version of a session begins anew when it is opened again."""
    study: Study
    id: str
    version: int
    name: str
    session: sessions.Session
    file: str | None


class Autosave:
    """Keeps the study safe."""

    def __init__(self, desk: Desk, make_store: Callable[[], AutosaveStore]) -> None:
        self.desk, self._make_store = desk, make_store
        self._kept: tuple[Study, str, int] | None = None
        """What the store holds, under which id, as it was at this version."""
        self._keeping = self._failed = False
        self._one_at_a_time = threading.Lock()
        self._newest: dict[str, int] = {}
        """The newest snapshot stored of each session: a slow thread must not bring an older one back."""
        self._snapshots = itertools.count()

    @cached_property
    def store(self) -> AutosaveStore:
        """The store, opened when it is first needed."""
        return self._make_store()

    def keep_result(self, result: sessions.Result) -> None:
        """Puts a result into the session."""
        study = self.desk.study
        if study.foreign:
            self.keep_now()
        if study.add(result):
            self.desk.notify("A new session begins here; the one so far is under ctrl+o.")
            study.tell(Topic.SESSION)

    def forget(self) -> None:
        """Stores the study again, though it has not changed: its file has."""
        self._kept = None

    def keep(self) -> None:
        """Stores the study if it has changed, off the event loop: another process may hold the store for seconds."""
        if self._unkept() and not self._keeping:
            self._keeping = True
            self.desk.run_behind(partial(self._keep_in_thread, self._as_it_is()), "autosave")

    def keep_now(self) -> None:
        """Stores the study if it has changed, before going on."""
        if self._unkept():
            now = self._as_it_is()
            self._kept_as(now, self._keep(now))

    def _unkept(self) -> bool:
        study = self.desk.study
        return self._kept != (study, study.id, study.version) and not study.is_empty

    def _as_it_is(self) -> Snapshot:
        study = self.desk.study
        file = str(study.file) if study.file else None
        return Snapshot(next(self._snapshots), study, study.id, study.version, study.name, study.session(), file)

    async def _keep_in_thread(self, now: Snapshot) -> None:
        try:
            self._kept_as(now, await asyncio.to_thread(self._keep, now))
        finally:
            self._keeping = False

    def _keep(self, now: Snapshot) -> SessionError | None:
        """Stores a snapshot, unless a newer one is stored already; returns what went wrong."""
        with self._one_at_a_time:
            if self._newest.get(now.id, -1) > now.order:
                return None
            try:
                self.store.save(now.id, now.name, now.session, now.file)
            except SessionError as error:
                return error
            self._newest[now.id] = now.order
            return None

    def tell_notice(self) -> None:
        """What the store had to work around, once."""
        notice, self.store.notice = self.store.notice, ""
        if notice:
            self.desk.report(notice, "")

    def _kept_as(self, now: Snapshot, error: SessionError | None) -> None:
        if not self.desk.is_running:  # the app has ended meanwhile
            return
        self.tell_notice()
        if error is not None and not self._failed:  # reported once, not four times a second
            self.desk.report(error.message, f"{error.remedy} Until then, s saves to a file.")
        self._failed = error is not None
        if error is None:
            self._kept = (now.study, now.id, now.version)
            self.desk.study.tell(Topic.SESSION)
