"""Sessions kept as the app goes along, so that nothing is lost: one SQLite database in the user's state folder.

Several processes may use it at once. A connection lives for one operation: a damaged database can then be moved aside
between two of them, and no thread waits for another's transaction. Knows nothing about torch or screens.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import platformdirs

from engine.files import paths
from engine.files import session as sessions
from engine.files import session_table as table
from engine.files.session import Session
from engine.records import (
    Generated,
    ProbeTable,
    Ranking,
    Record,
)
from engine.records.errors import NewerSessionError, SessionError
from engine.records.words.tokens import to_json

T = TypeVar("T")

KEPT = 100

BUSY_SECONDS = 5.0

DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
"""The last: a table of another form."""

BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


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
        """What went wrong and was worked around, in words for the user, a line each; "" if nothing did."""
        self._owns_folder = path is None
        self._checked = False
        self._one_at_a_time = threading.Lock()

    # ---- what the app does

    def save(self, id: str, name: str, session: Session, file: str | None = None) -> None:
        """Stores the session under its id, in place of what was there. Raises SessionError where that fails."""
        updated = datetime.now(UTC).isoformat(timespec="seconds")
        about = (storable(name), updated, None if file is None else storable(file), *counts(session))
        body = to_json(session).encode()

        def work(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            (place,) = db.execute(f"SELECT coalesce(max({table.PLACE}), 0) + 1 FROM sessions").fetchone()
            db.execute(f"INSERT OR REPLACE {table.PUT}", (key(id), place, *about, body))
            oldest = f"SELECT rowid FROM sessions {table.NEWEST_FIRST} LIMIT -1 OFFSET ?"
            db.execute(f"DELETE FROM sessions WHERE rowid IN ({oldest})", (KEPT,))
            db.execute("COMMIT")

        self._run(work)

    def all(self) -> list[StoredInfo]:
        """What is stored, newest first."""

        def work(db: sqlite3.Connection) -> list[StoredInfo]:
            query = f"SELECT {table.ID}, {table.ABOUT} FROM sessions {table.NEWEST_FIRST}"
            return [StoredInfo(id.decode("utf-8", "surrogateescape"), *about) for id, *about in db.execute(query)]

        return self._try(work) or []

    def latest(self) -> Stored | None:
        """The newest session that can be read; None if there is none."""
        for info in self.all():
            try:
                return Stored(info, self.load(info.id))
            except SessionError as error:
                self._note(error.message)
        return None

    def load(self, id: str) -> Session:
        """One session. Raises SessionError where it is missing or damaged; of a damaged one a copy is made."""
        query = f"SELECT {table.NAME}, {table.BODY} FROM sessions WHERE {table.ID} = ? {table.NEWEST_FIRST}"
        row = self._run(lambda db: db.execute(query, (key(id),)).fetchone())
        if row is None:
            raise SessionError(f"There is no stored session {id}.", "It may have been deleted, or be too old.")
        name, body = row
        try:
            return sessions.decode(body, f"The stored session {name!r}")
        except NewerSessionError:
            raise
        except SessionError as error:
            raise SessionError(f"{error.message} {self._copied(body)}", "Mend the copy, then open it.") from error

    def delete(self, id: str) -> None:
        """Forgets a session; harmless if it is not there. Raises SessionError where that fails."""
        self._run(lambda db: db.execute(f"DELETE FROM sessions WHERE {table.ID} = ?", (key(id),)) and None)

    # ---- what is damaged

    def _note(self, problem: str) -> None:
        """One more thing that was worked around."""
        if problem not in self.notice:
            self.notice = f"{self.notice}\n{problem}".strip()

    def _copied(self, body: bytes) -> str:
        """Writes a damaged session beside the database, once; says in words where it is."""
        copy = self.path.with_name(f"damaged-{sha256(body).hexdigest()[:12]}{sessions.SUFFIX}")
        try:
            with open(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(body)
        except FileExistsError:
            pass
        except OSError as error:
            with suppress(OSError):
                copy.unlink()  # half of it, perhaps
            return f"It stays in {self.path}; no copy could be made: {error.strerror}."
        return f"A copy is kept as {copy}."

    def _move_aside(self, inode: int | None, error: Exception) -> None:
        """Renames the damaged database and what belongs to it, and takes over what can be read of it.

        Raises SessionError where that fails.
        """
        try:
            if os.stat(self.path).st_ino != inode:
                return  # another process has just done so: this is a new one
            aside = paths.broken_name(self.path)
            os.rename(self.path, aside)
            for name in table.BESIDE:
                with suppress(FileNotFoundError):
                    os.rename(f"{self.path}{name}", f"{aside}{name}")
        except FileNotFoundError:
            return
        except OSError as reason:
            raise self._unusable(f"it is damaged ({error}) and cannot be moved: {reason.strerror}") from reason
        saved = self._take_over(aside)
        taken = f"The {saved} that could be read are in a new one." if saved else "A new one is begun."
        self._note(f"The stored sessions were damaged ({error}): the file is kept as {aside}. {taken}")

    def _take_over(self, aside: Path) -> int:
        """Puts what can be read of a damaged database into the new one; returns how many sessions that is."""
        with suppress(OSError, sqlite3.Error, MemoryError):
            rows = table.readable_rows(aside)
            self._make_file()
            with closing(table.connect(self.path, BUSY_SECONDS)) as db:
                self._prepare(db)
                db.execute("BEGIN IMMEDIATE")
                before = db.total_changes
                # the newest first, lest an older one of the same id stands in its way; all before what is saved now
                for place, (id, _, *others) in sorted(enumerate(rows, 1 - len(rows)), reverse=True):
                    db.execute(f"INSERT OR IGNORE {table.PUT}", (id, place, *others))
                saved = db.total_changes - before
                db.execute("COMMIT")
                return saved
        return 0

    # ---- the database

    def _try(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """The work's result, or None and a notice."""
        try:
            return self._run(work)
        except SessionError as error:
            self._note(error.message)
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
                    with closing(table.connect(self.path, BUSY_SECONDS)) as db:
                        self._prepare(db)
                        return work(db)
                except (sqlite3.Error, UnicodeDecodeError) as error:
                    code = code_of(error)
                    if code in DAMAGED and new_ones < 2:  # a disk that damages every new one is not to be filled
                        new_ones += 1
                        self._move_aside(inode, error)
                    elif code not in BUSY or time.monotonic() > until:
                        raise self._unusable(str(error)) from error
                    else:  # where a database is just being made or tidied up, SQLite does not wait by itself
                        time.sleep(0.02)
                except (OSError, MemoryError) as error:
                    raise self._unusable(getattr(error, "strerror", None) or "the memory is full") from error

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
        for name in ("", *table.BESIDE):
            with suppress(FileNotFoundError):
                if stat.S_ISREG(os.lstat(f"{self.path}{name}").st_mode):  # what a link leads to is not ours
                    os.chmod(f"{self.path}{name}", 0o600)

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        (layout,) = db.execute("PRAGMA user_version").fetchone()
        if layout > table.LAYOUT:
            raise SessionError(
                f"{self.path} was written by a newer saescope, or is damaged.",
                "Update saescope, or move the file away.",
            )
        if layout < table.LAYOUT:
            table.make(db)
        if not self._checked:  # once: what others do to the file happens while no app runs
            table.check(db)
            self._checked = True

    def _unusable(self, reason: str) -> SessionError:
        remedy = f"Make room and writable, or move away, {self.path}; until then save to a session file."
        return SessionError(f"Sessions cannot be stored in {self.path}: {reason}.", remedy)


def code_of(error: Exception) -> int:
    """SQLite's code of an error; not every one has one. Words that are no UTF-8 are those of a damaged table."""
    if isinstance(error, UnicodeDecodeError):
        return sqlite3.SQLITE_CORRUPT
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def key(id: str) -> bytes:
    """An id as it is stored, whatever bytes it came from."""
    return id.encode("utf-8", "surrogateescape")


def counts(session: Session) -> tuple[int, ...]:
    """The numbers of session_table.COUNTS."""
    work = session.workspace
    prompts = len(work.prompts.positive) + len(work.prompts.negative) if work else 0
    kinds = (Ranking, Generated, ProbeTable)
    return (prompts, len(work.edits) if work else 0, *(len(session.of(kind)) for kind in kinds))


def storable(text: str) -> str:
    """The text without what UTF-8 cannot hold, such as the odd bytes of an old file name."""
    return text.encode("utf-8", "replace").decode()
