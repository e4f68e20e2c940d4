"""The autosave: stores every change of the study, and adds results to the study."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

from engine.files import session as sessions
from engine.records import Recorded
from engine.records.errors import SessionError
from tui.services.desk import Desk
from tui.state.study import Study
from tui.state.topics import Topic

if TYPE_CHECKING:
    from engine.files.autosave import AutosaveStore


@dataclass(frozen=True)
class Snapshot:
    """A study's session at one moment, to be stored."""

    order: int
    """Grows with every snapshot, where `version` starts again when a session is opened again."""
    study: Study
    id: str
    version: int
    name: str
    session: sessions.Session
    file: str | None


class Autosave:
    """Stores the study in the autosave store whenever it has changed."""

    def __init__(self, desk: Desk, make_store: Callable[[], AutosaveStore]) -> None:
        self.desk, self._make_store = desk, make_store
        self._kept: tuple[Study, str, int] | None = None
        """The study, id and version that were stored last."""
        self._keeping = self._failed = False
        self._one_at_a_time = threading.Lock()
        self._newest: dict[str, int] = {}
        """The order of the newest stored snapshot, by session id: a slow thread must not replace it by an older one."""
        self._snapshots = itertools.count()

    @cached_property
    def store(self) -> AutosaveStore:
        """The store, opened at its first use."""
        return self._make_store()

    def keep_result(self, result: Recorded) -> None:
        """Add a result to the session, or to a new one if its pair is not the session's."""
        study = self.desk.study
        if study.differences:
            self.keep_now()
        if study.add(result):
            self.desk.notify("A new session begins here; the one so far is under ctrl+o.")
            study.tell(Topic.SESSION)

    def forget(self) -> None:
        """Let the next `keep` store the study though it has not changed: its file has."""
        self._kept = None

    def keep(self) -> None:
        """Store the study if it has changed, in a thread: another process may lock the store for seconds."""
        if self._unkept() and not self._keeping:
            self._keeping = True
            self.desk.run_behind(partial(self._keep_in_thread, self._as_it_is()), "autosave")

    def keep_now(self) -> None:
        """Store the study if it has changed, and return only then."""
        if self._unkept():
            snapshot = self._as_it_is()
            self._kept_as(snapshot, self._keep(snapshot))

    def _unkept(self) -> bool:
        study = self.desk.study
        return self._kept != (study, study.id, study.version) and not study.is_empty

    def _as_it_is(self) -> Snapshot:
        study = self.desk.study
        file = str(study.file) if study.file else None
        return Snapshot(next(self._snapshots), study, study.id, study.version, study.name, study.session(), file)

    async def _keep_in_thread(self, snapshot: Snapshot) -> None:
        try:
            self._kept_as(snapshot, await asyncio.to_thread(self._keep, snapshot))
        finally:
            self._keeping = False

    def _keep(self, snapshot: Snapshot) -> SessionError | None:
        """Store a snapshot unless a newer one is stored already; return the error if that failed."""
        with self._one_at_a_time:
            if self._newest.get(snapshot.id, -1) > snapshot.order:
                return None
            try:
                self.store.save(snapshot.id, snapshot.name, snapshot.session, snapshot.file)
            except SessionError as error:
                return error
            self._newest[snapshot.id] = snapshot.order
            return None

    def tell_notice(self) -> None:
        """Report, once, what the store had to work around."""
        notice, self.store.notice = self.store.notice, ""
        if notice:
            self.desk.report(notice, "")

    def _kept_as(self, snapshot: Snapshot, error: SessionError | None) -> None:
        if not self.desk.is_running:  # the app has ended in the meantime
            return
        self.tell_notice()
        if error is not None and not self._failed:  # reported once, not four times a second
            self.desk.report(error.message, f"{error.remedy} Until then, s saves to a file.")
        self._failed = error is not None
        if error is None:
            self._kept = (snapshot.study, snapshot.id, snapshot.version)
            self.desk.study.tell(Topic.SESSION)
