"""Sessions kept as the app goes along, so that nothing is lost: one SQLite database in the user's state folder.

Several processes may use it at once. A connection lives for one operation: a damaged database can then be moved aside
between two of them, and no thread waits for another's transaction. Knows nothing about torch or screens.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import platformdirs

from engine import session as sessions
from engine.errors import SessionError
from engine.records import Record
from engine.safe_text import to_json
from engine.session import Session

T = TypeVar("T")
KEPT = 100
LAYOUT = 1
BUSY_SECONDS = 5.0
BESIDE = ("-wal", "-shm")
DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
COUNTS = ("prompts", "edits", "rankings", "generations", "probe_tables")
TABLE = f"""
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY, place INTEGER NOT NULL, name TEXT NOT NULL, updated TEXT NOT NULL, file TEXT,
    {", ".join(f"{count} INTEGER NOT NULL" for count in COUNTS)}, body BLOB NOT NULL
)
"""


class StoredInfo(Record, frozen=True):
    """What a list of stored sessions shows of one."""

    id: str
    name: str
    updated: str
    """When it was last saved, ISO 8601 in UTC."""
    file: str | None
    """The session file it was opened from or saved to; None if it has none."""
    prompts: int = 0
    """How many prompts its workspace has, probes apart."""
    edits: int = 0
    rankings: int = 0
    generations: int = 0
    probe_tables: int = 0


class Stored(Record, frozen=True):
    """A stored session."""

    info: StoredInfo
    session: Session


class AutosaveStore:
    """The newest sessions, by id. Reading never fails for a database that cannot be used: `notice` then says why."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or Path(platformdirs.user_state_dir("saescope")) / "sessions.sqlite3"
        self.notice = ""
        """The last thing that went wrong and was worked around, in words for the user; "" if nothing did."""
        self._owns_folder = path is None
        self._one_at_a_time = threading.Lock()

    # ---- what the app does

    def save(self, id: str, name: str, session: Session, file: str | None = None) -> None:
        """Stores the session under its id, in place of what was there. Raises SessionError where that fails."""
        updated = datetime.now(UTC).isoformat(timespec="seconds")
        values = (storable(name), updated, None if file is None else storable(file), *counts(session))
        body = to_json(session).encode()

        def work(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            (place,) = db.execute("SELECT coalesce(max(place), 0) + 1 FROM sessions").fetchone()
            marks = ", ".join("?" * (len(values) + 3))
            columns = f"id, place, name, updated, file, {', '.join(COUNTS)}, body"
            db.execute(f"INSERT OR REPLACE INTO sessions ({columns}) VALUES ({marks})", (id, place, *values, body))
            oldest = "SELECT id FROM sessions ORDER BY place DESC LIMIT -1 OFFSET ?"
            db.execute(f"DELETE FROM sessions WHERE id IN ({oldest})", (KEPT,))
            db.execute("COMMIT")

        self._run(work)

    def all(self) -> list[StoredInfo]:
        """What is stored, newest first."""

        def work(db: sqlite3.Connection) -> list[StoredInfo]:
            return [StoredInfo(*row) for row in db.execute(f"SELECT {INFO} FROM sessions ORDER BY place DESC")]

        return self._try(work) or []

    def latest(self) -> Stored | None:
        """The newest session that can be read; None if there is none."""
        for info in self.all():
            try:
                return Stored(info, self.load(info.id))
            except SessionError as error:
                self.notice = error.message
        return None

    def load(self, id: str) -> Session:
        """One session. Raises SessionError where it is missing or damaged."""
        query = "SELECT name, body FROM sessions WHERE id = ?"
        row = self._run(lambda db: db.execute(query, (id,)).fetchone())
        if row is None:
            raise SessionError(f"There is no stored session {id}.", "It may have been deleted, or be too old.")
        return sessions.decode(row[1], f"The stored session {row[0]!r}")

    def delete(self, id: str) -> None:
        """Forgets a session; harmless if it is not there. Raises SessionError where that fails."""
        self._run(lambda db: db.execute("DELETE FROM sessions WHERE id = ?", (id,)) and None)

    # ---- the database

    def _try(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """The work's result, or None and a notice."""
        try:
            return self._run(work)
        except SessionError as error:
            self.notice = error.message
            return None

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs work on a connection of its own; again on a new database if this one is damaged."""
        until, new_ones = time.monotonic() + BUSY_SECONDS, 0
        with self._one_at_a_time:
            while True:
                inode = None
                try:
                    self._make_file()
                    inode = os.stat(self.path).st_ino
                    with closing(sqlite3.connect(self.path, BUSY_SECONDS, isolation_level=None)) as db:
                        self._prepare(db)
                        return work(db)
                except sqlite3.Error as error:
                    # not every error of sqlite3 has a code
                    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                    if code in DAMAGED and new_ones < 2:  # a disk that damages every new one is not to be filled
                        new_ones += 1
                        self._move_aside(inode, error)
                    elif code not in BUSY or time.monotonic() > until:
                        raise self._unusable(str(error)) from error
                    else:  # where a database is just being made or tidied up, SQLite does not wait by itself
                        time.sleep(0.02)
                except OSError as error:
                    raise self._unusable(str(error.strerror)) from error

    def _make_file(self) -> None:
        """An empty database only its owner can read; SQLite gives -wal and -shm the same permissions."""
        folder = self.path.parent
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if self._owns_folder:
            folder.chmod(0o700)
        # only where there is none: closing a file that SQLite has open elsewhere in this process would drop its locks
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        for name in ("", *BESIDE):
            with suppress(FileNotFoundError):
                os.chmod(f"{self.path}{name}", 0o600)

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        (layout,) = db.execute("PRAGMA user_version").fetchone()
        if layout > LAYOUT:
            raise SessionError(f"{self.path} was written by a newer saescope.", "Update saescope.")
        if layout < LAYOUT:
            db.execute(TABLE)
            db.execute(f"PRAGMA user_version = {LAYOUT}")

    def _move_aside(self, inode: int | None, error: sqlite3.Error) -> None:
        """Renames the damaged database and what belongs to it. Raises SessionError where that fails."""
        try:
            if os.stat(self.path).st_ino != inode:
                return  # another process has just done so: this is a new one
            aside = free_name(f"{self.path}.broken-{datetime.now(UTC):%Y%m%d-%H%M%S}")
            os.rename(self.path, aside)
            for name in BESIDE:
                with suppress(FileNotFoundError):
                    os.rename(f"{self.path}{name}", f"{aside}{name}")
        except FileNotFoundError:
            return
        except OSError as reason:
            raise self._unusable(f"it is damaged ({error}) and cannot be moved: {reason.strerror}") from reason
        self.notice = f"The stored sessions were damaged ({error}); the file is kept as {aside}, a new one is begun."

    def _unusable(self, reason: str) -> SessionError:
        remedy = f"Make room and writable, or move away, {self.path}; until then save to a session file."
        return SessionError(f"Sessions cannot be stored in {self.path}: {reason}.", remedy)


INFO = ", ".join(StoredInfo.__struct_fields__)


def counts(session: Session) -> tuple[int, ...]:
    """The numbers of COUNTS."""
    work = session.workspace
    prompts = len(work.prompts.positive) + len(work.prompts.negative) if work else 0
    results = (session.rankings, session.generations, session.probe_tables)
    return (prompts, len(work.edits) if work else 0, *map(len, results))


def storable(text: str) -> str:
    """The text without what UTF-8 cannot hold, such as the odd bytes of an old file name."""
    return text.encode("utf-8", "replace").decode()


def free_name(name: str) -> str:
    """The name, or the name with a number behind it where there is such a file."""
    number, found = 1, name
    while os.path.exists(found):
        number += 1
        found = f"{name}-{number}"
    return found
