"""Sessions: autosave, save, open, replay, a new engine."""

from __future__ import annotations

import asyncio
import itertools
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.files import paths
from engine.files import session as sessions
from engine.files.autosave import AutosaveStore, StoredInfo
from engine.records.errors import SessionError, UsageError
from engine.records.words.numbers import count_in_words
from engine.records.words.rich_text import Text
from tui.state.study import Study, start_workspace
from tui.widgets.dialogs import AskText, Choice, Choose
from tui.widgets.page import Report

if TYPE_CHECKING:
    from tui.main import MainScreen

FILE = "file"


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


class SessionFlows:
    """Keeps the study safe, and exchanges it."""

    def __init__(self, screen: MainScreen, store: AutosaveStore) -> None:
        self.screen, self.store = screen, store
        self._kept: tuple[Study, str, int] | None = None
        """What the store holds, under which id, as it was at this version."""
        self._keeping = self._failed = False
        self._one_at_a_time = threading.Lock()
        self._newest: dict[str, int] = {}
        """The newest snapshot stored of each session: a slow thread must not bring an older one back."""
        self._snapshots = itertools.count()

    # ---- keeping

    def autosave(self) -> None:
        """Stores the study if it has changed, off the event loop: another process may hold the store for seconds."""
        if self._unkept() and not self._keeping:
            self._keeping = True
            self.screen.run_worker(self._keep_in_thread(self._as_it_is()), group="autosave")

    def keep_now(self) -> None:
        """Stores the study if it has changed, before going on."""
        if self._unkept():
            now = self._as_it_is()
            self._kept_as(now, self._keep(now))

    def _unkept(self) -> bool:
        study = self.screen.study
        return self._kept != (study, study.id, study.version) and not study.is_empty

    def _as_it_is(self) -> Snapshot:
        study = self.screen.study
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

    def _tell_notice(self) -> None:
        """What the store had to work around, once."""
        notice, self.store.notice = self.store.notice, ""
        if notice:
            self.screen.report(notice, "")

    def _kept_as(self, now: Snapshot, error: SessionError | None) -> None:
        if not self.screen.is_running:  # the app has ended meanwhile
            return
        self._tell_notice()
        if error is not None and not self._failed:  # reported once, not four times a second
            self.screen.report(error.message, f"{error.remedy} Until then, s saves to a file.")
        self._failed = error is not None
        if error is None:
            self._kept = (now.study, now.id, now.version)
            self.screen.show_session()

    def save(self) -> None:
        """Saves to the session's file, or asks for one."""
        file = self.screen.study.file
        if file is None:
            self.save_as()
        else:
            problem = not_replaced(file) or self._write(file)
            if problem:
                self.screen.report(problem, "S saves it elsewhere; the autosave has it too.")

    def save_as(self) -> None:
        """Asks for a file, and saves."""
        study = self.screen.study
        name = str(study.file or study.name + sessions.SUFFIX)

        asked: list[Path] = []

        def write(text: str) -> str:
            path, problem = session_path(text, study.name)
            if problem:
                return problem
            if path.exists() and path != study.file and path not in asked:
                asked.append(path)
                return f"{path.name} is there already: enter again replaces that session."
            return self._write(path)

        hint = "`saescope replay FILE` runs every result in it again.\nenter: save · escape: leave"
        self.screen.app.push_screen(AskText("Save the session", name, "path of a file", hint, write))

    def _write(self, path: Path) -> str:
        """Writes the session; returns what went wrong, "" if nothing did."""
        study = self.screen.study
        try:
            sessions.write(study.session(), path)
        except SessionError as error:
            return error.message
        study.file, study.saved_version = path, study.version
        self._kept = None  # the store should know the file too
        self.screen.notify(f"Saved to {path}")
        self.screen.show_session()
        return ""

    # ---- opening

    def offer_last(self) -> None:
        """Offers the last session at the start, and works with its model, which M exchanges."""
        stored = self.store.latest()
        self._tell_notice()
        if stored is None:
            return
        last = stored_study(stored.info, stored.session)
        self.screen.study.load = last.load
        results = last.results
        counts = counts_in_words(len(results.rankings), len(results.generations), len(last.work.edits))
        choices = (
            Choice("go on", f"Go on with {last.name}", counts),
            Choice("new", "Start a new session", "ctrl+o opens any"),
        )

        def chosen(choice: str | None) -> None:
            if choice == "go on":
                self.exchange(last)

        self.screen.app.push_screen(Choose("Welcome back", choices, "enter: choose · escape: new session"), chosen)

    def open(self) -> None:
        """A stored session, or a file."""
        self.keep_now()
        stored = self.store.all()
        self._tell_notice()
        listed = [Choice(str(place), info.name, in_words(info)) for place, info in enumerate(stored)]
        choices = [Choice(FILE, "A session file…"), *listed]

        def chosen(choice: str | None) -> None:
            if choice == FILE:
                self.open_file()
            elif choice is not None:
                info = stored[int(choice)]
                try:
                    found = self.store.load(info.id)
                except SessionError as error:
                    self._tell_notice()
                    self.screen.report(error.message, error.remedy)
                    return
                self.exchange(stored_study(info, found))

        self.screen.app.push_screen(Choose("Open a session", choices), chosen)

    def open_file(self) -> None:
        """A session file."""
        found: list[Study] = []

        def check(text: str) -> str:
            try:
                path = paths.typed(text)
                found.append(Study.from_session(sessions.read(path), file=path))
            except (SessionError, UsageError) as error:
                return f"{error.message} {error.remedy}"
            return ""

        def take(text: str | None) -> None:
            if text is not None:
                self.exchange(found[-1])

        self.screen.app.push_screen(AskText("Open a session file", "", f"…{sessions.SUFFIX}", check=check), take)

    def new(self) -> None:
        """An empty session on the same model."""
        study = self.screen.study
        fresh = Study(study.load, start_workspace(study.work.prompts))
        fresh.loaded = study.loaded
        self.exchange(fresh)

    def exchange(self, study: Study) -> None:
        """Works on another study from now on; the one so far is in the store."""
        self.keep_now()
        before, self.screen.study = self.screen.study, study
        self.screen.work.bridge.cancel_all()
        if before.loaded is not None and study.load == before.load:
            self.screen.show_study()
            self.screen.take_loaded(study.load, before.loaded, chosen=False)
        else:
            self.screen.show_study()
            self.screen.work.load(study.load)

    # ---- running again

    def replay(self) -> None:
        """Runs every result again, on a page that fills as they come."""
        if not self.screen.study.has_results:
            self.screen.notify("The session holds no results yet: r ranks, g generates.")
            return
        text = Text("Every recorded result is run again with its own settings and compared token by token.\n\n")
        page = Report("Replay", text)

        def tell(line: str, same: bool | None) -> None:
            if same is None:
                text.append(f"\n{line}")
            else:
                text.append("same     " if same else "DIFFERS  ", "bold").append(line + "\n")
            page.show(text)

        self.screen.app.push_screen(page)
        self.screen.work.replay(tell)

    # ---- what is loaded

    def restart_engine(self) -> None:
        """A new engine, with what was loaded."""
        if self.screen.work.bridge.alive:
            self.screen.notify("The engine is running; x stops what it does.")
            return
        self.screen.work.load(self.screen.study.load)


def stored_study(info: StoredInfo, session: sessions.Session) -> Study:
    """A stored session to work on; its file may hold an older state of it, or be gone."""
    path = Path(info.file) if info.file else None
    try:
        saved = path is not None and sessions.read(path) == session
    except SessionError:
        saved = False
    return Study.from_session(session, info.id, path, saved)


def session_path(text: str, name: str) -> tuple[Path, str]:
    """Where a session is to be saved, and what is wrong with that; "" if nothing is.

    A folder takes a file of the session's name. A file that holds anything but a session is never replaced.
    """
    if not text.strip():
        return Path(), "A file needs a name."
    try:
        path = paths.typed(text.strip())
        if path.is_dir():
            path = path / f"{name}{sessions.SUFFIX}"
        elif path.suffix != ".json":
            path = paths.typed(str(path.with_name(path.name + sessions.SUFFIX)))
    except UsageError as error:
        return Path(), f"{error.message} {error.remedy}"
    if not path.parent.is_dir():
        return path, f"There is no folder {path.parent}."
    return path, not_replaced(path)


def not_replaced(path: Path) -> str:
    """Why a file is not written over: it holds something else than a session, or a damaged one; "" if it may be."""
    try:
        sessions.read_if_there(path)
    except SessionError as error:
        return f"{error.message} It is not replaced."
    return ""


def in_words(info: StoredInfo) -> str:
    """What a list says of a stored session."""
    when = info.updated[:16].replace("T", " ")
    return f"{when} UTC · {counts_in_words(info.rankings, info.generations, info.edits)}"


def counts_in_words(rankings: int, texts: int, edits: int) -> str:
    """What a session holds."""
    counts = ((rankings, "ranking"), (texts, "text"), (edits, "edit"))
    return ", ".join(count_in_words(count, noun) for count, noun in counts)
