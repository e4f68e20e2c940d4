"""Sessions saved automatically while the app runs: one SQLite database in the user's state folder.

Several processes may use it at once. Each operation opens its own connection: between two operations a damaged database
can be moved aside, and no thread waits for another's transaction. Knows nothing about torch or screens.
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

from engine.files import autosave_table as table
from engine.files import paths
from engine.files import session as sessions
from engine.files.session import Session
from engine.records import (
    Generated,
    ProbeTable,
    Ranking,
    Record,
)
from engine.records.errors import NewerSessionError, SessionError
from engine.records.words.safe_text import in_utf8, to_json

T = TypeVar("T")

KEPT = 100

BUSY_SECONDS = 5.0

DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
"""SQLITE_ERROR stands for a table of another form."""

BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class StoredInfo(Record, frozen=True):
    """What the list of stored sessions shows about one of them."""

    id: str
    name: str
    updated: str
    """When it was last saved, ISO 8601 in UTC."""
    file: str | None
    """The session file it was opened from or saved to; None if there is none."""
    prompts: int = 0
    """How many prompts its workspace has, not counting probes."""
    edits: int = 0
    rankings: int = 0
    generations: int = 0
    probe_tables: int = 0


class Stored(Record, frozen=True):
    """A stored session with its entry in the list."""

    info: StoredInfo
    session: Session


class AutosaveStore:
    """The newest sessions, by id.

    `all` and `latest` never fail for an unusable database: they return nothing, and `notice` says why.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or Path(platformdirs.user_state_dir("saescope")) / "sessions.sqlite3"
        self.notice = ""
        """Problems that were worked around, in words for the user, a line each; "" if there were none."""
        self._owns_folder = path is None
        self._checked = False
        self._one_at_a_time = threading.Lock()

    # ---- what the app does

    def save(self, id: str, name: str, session: Session, file: str | None = None) -> None:
        """Store the session under its id, replacing the one stored before. Raises SessionError if that fails."""
        updated = datetime.now(UTC).isoformat(timespec="seconds")
        about = (in_utf8(name), updated, None if file is None else in_utf8(file), *counts(session))
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
        """Return the list of stored sessions, the newest first."""

        def work(db: sqlite3.Connection) -> list[StoredInfo]:
            query = f"SELECT {table.ID}, {table.ABOUT} FROM sessions {table.NEWEST_FIRST}"
            return [StoredInfo(id.decode("utf-8", "surrogateescape"), *about) for id, *about in db.execute(query)]

        return self._try(work) or []

    def latest(self) -> Stored | None:
        """Return the newest session that can be read; None if there is none."""
        for info in self.all():
            try:
                return Stored(info, self.load(info.id))
            except SessionError as error:
                self._note(error.message)
        return None

    def load(self, id: str) -> Session:
        """Return one session. Raises SessionError if it is missing or damaged; a damaged one is copied to a file."""
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
        """Delete a session; do nothing if it is not there. Raises SessionError if that fails."""
        self._run(lambda db: db.execute(f"DELETE FROM sessions WHERE {table.ID} = ?", (key(id),)) and None)

    # ---- damaged sessions and databases

    def _note(self, problem: str) -> None:
        """Add a problem that was worked around to the notice."""
        if problem not in self.notice:
            self.notice = f"{self.notice}\n{problem}".strip()

    def _copied(self, body: bytes) -> str:
        """Write a damaged session beside the database, if not done before; return a sentence on where it is."""
        copy = self.path.with_name(f"damaged-{sha256(body).hexdigest()[:12]}{sessions.SUFFIX}")
        try:
            with open(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(body)
        except FileExistsError:
            pass
        except OSError as error:
            with suppress(OSError):
                copy.unlink()  # it may be half written
            return f"It stays in {self.path}; no copy could be made: {error.strerror}."
        return f"A copy is kept as {copy}."

    def _move_aside(self, inode: int | None, error: Exception) -> None:
        """Rename the damaged database and its side files, and copy the sessions that can still be read to a new one.

        Raises SessionError if that fails.
        """
        try:
            if os.stat(self.path).st_ino != inode:
                return  # another process has just moved it: this is a new database
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
        """Copy the readable sessions of a damaged database to the new one; return how many there are."""
        with suppress(OSError, sqlite3.Error, MemoryError):
            rows = table.readable_rows(aside)
            self._make_file()
            with closing(table.connect(self.path, BUSY_SECONDS)) as db:
                self._prepare(db)
                db.execute("BEGIN IMMEDIATE")
                before = db.total_changes
                # newest first, so that it wins over older rows of its id; places up to 0 keep all before new sessions
                for place, (id, _, *others) in sorted(enumerate(rows, 1 - len(rows)), reverse=True):
                    db.execute(f"INSERT OR IGNORE {table.PUT}", (id, place, *others))
                saved = db.total_changes - before
                db.execute("COMMIT")
                return saved
        return 0

    # ---- the database

    def _try(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Return the work's result; if it fails, add to the notice and return None."""
        try:
            return self._run(work)
        except SessionError as error:
            self._note(error.message)
            return None

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run work on a connection of its own; if the database is damaged, run it again on a new one."""
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
                    if code in DAMAGED and new_ones < 2:  # not more: a disk may damage every new one
                        new_ones += 1
                        self._move_aside(inode, error)
                    elif code not in BUSY or time.monotonic() > until:
                        raise self._unusable(str(error)) from error
                    else:  # SQLite itself does not wait while a database is being made or tidied up
                        time.sleep(0.02)
                except (OSError, MemoryError) as error:
                    raise self._unusable(getattr(error, "strerror", None) or "the memory is full") from error

    def _make_file(self) -> None:
        """Make an empty database that only its owner can read; SQLite gives -wal and -shm the same permissions."""
        folder = self.path.parent
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if self._owns_folder:
            folder.chmod(0o700)
        # only if it is missing: closing a file that SQLite has open elsewhere in this process would drop SQLite's locks
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        for name in ("", *table.BESIDE):
            with suppress(FileNotFoundError):
                if stat.S_ISREG(os.lstat(f"{self.path}{name}").st_mode):  # the target of a link is not ours
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
        if not self._checked:  # once is enough: other programs change the file only while no app runs
            table.check(db)
            self._checked = True

    def _unusable(self, reason: str) -> SessionError:
        remedy = f"Make room and writable, or move away, {self.path}; until then save to a session file."
        return SessionError(f"Sessions cannot be stored in {self.path}: {reason}.", remedy)


def code_of(error: Exception) -> int:
    """Return SQLite's code of an error, 0 if it has none.

    Text that is not UTF-8 comes from a damaged table.
    """
    if isinstance(error, UnicodeDecodeError):
        return sqlite3.SQLITE_CORRUPT
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def key(id: str) -> bytes:
    """Return an id as bytes, as it is stored, whatever bytes it came from."""
    return id.encode("utf-8", "surrogateescape")


def counts(session: Session) -> tuple[int, ...]:
    """Return the values of autosave_table.COUNTS."""
    work = session.workspace
    prompts = len(work.prompts.positive) + len(work.prompts.negative) if work else 0
    kinds = (Ranking, Generated, ProbeTable)
    return (prompts, len(work.edits) if work else 0, *(len(session.of(kind)) for kind in kinds))
