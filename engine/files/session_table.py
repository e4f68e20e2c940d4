"""The table that autosave.py keeps sessions in, and what can still be read of it where the database is damaged.

SQLite takes anything in any column and notices few flipped bytes, so every column is read as what it should be.
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

LAYOUT = 1

BESIDE = ("-wal", "-shm")
"""Ends of the names of what SQLite keeps beside a database."""

EMPTY_PAGES = 3
"""Of a database with nothing in its table: another process may be making it just now."""

COUNTS = ("prompts", "edits", "rankings", "generations", "probe_tables")

MAKE = f"""
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY, place INTEGER NOT NULL, name TEXT NOT NULL, updated TEXT NOT NULL, file TEXT,
    {", ".join(f"{count} INTEGER NOT NULL" for count in COUNTS)}, body BLOB NOT NULL
)
"""

ID = "coalesce(CAST(id AS BLOB), x'')"
"""Bytes: an id may be no text, and its index may be damaged, so that it is not to be found by it."""

PLACE = "coalesce(CAST(place AS INTEGER), 0)"

NEWEST_FIRST = f"ORDER BY {PLACE} DESC, rowid DESC"

NAME = "coalesce(CAST(name AS TEXT), '')"

ABOUT = ", ".join(
    (
        NAME,
        "coalesce(CAST(updated AS TEXT), '')",
        "CAST(file AS TEXT)",
        *(f"coalesce(CAST({count} AS INTEGER), 0)" for count in COUNTS),
    )
)

BODY = "coalesce(CAST(body AS BLOB), x'')"

PUT = f"""
INTO sessions (id, place, name, updated, file, {", ".join(COUNTS)}, body)
VALUES (CAST(? AS TEXT), {", ".join("?" * (5 + len(COUNTS)))})
"""
"""What follows INSERT: the values of ID, PLACE, ABOUT and BODY."""


def connect(path: Path, wait: float) -> sqlite3.Connection:
    """A connection that reads texts whatever bytes are in them, and commits what it does at once."""
    db = sqlite3.connect(path, wait, isolation_level=None)
    db.text_factory = lambda data: data.decode("utf-8", "replace")
    return db


class Damaged(sqlite3.DatabaseError):
    """Damage that SQLite does not notice."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def make(db: sqlite3.Connection) -> None:
    """Makes the table in a new database. Raises Damaged where there is something in it already."""
    if db.execute("PRAGMA page_count").fetchone()[0] > EMPTY_PAGES:
        raise Damaged("its header is none of ours")
    db.execute(MAKE)
    db.execute(f"PRAGMA user_version = {LAYOUT}")


def check(db: sqlite3.Connection) -> None:
    """Raises Damaged where rows are missing: a wrong byte can hide all of a page's."""
    (listed,) = db.execute("SELECT count(*) FROM sessions INDEXED BY sqlite_autoindex_sessions_1").fetchone()
    (there,) = db.execute("SELECT count(*) FROM sessions NOT INDEXED").fetchone()
    if listed != there:
        raise Damaged(f"{there} sessions where {listed} are listed")


def readable_rows(damaged: Path) -> list[tuple[Any, ...]]:
    """The rows, as PUT takes them, that can still be read whole; the oldest first.

    A copy is read, so that the file stays as it is. The first page says where everything is: that is the same in all
    of these databases, so a new one's stands in for it.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        with closing(connect(copy, 0)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            make(db)
            (size,) = db.execute("PRAGMA page_size").fetchone()
        first, data = bytearray(copy.read_bytes()[:size]), damaged.read_bytes()
        first[28:32] = (len(data) // size).to_bytes(4)  # the number of pages
        copy.write_bytes(first + data[size:])
        for name in BESIDE[:1]:
            with suppress(FileNotFoundError):
                Path(f"{copy}{name}").write_bytes(Path(f"{damaged}{name}").read_bytes())
        with closing(connect(copy, 0)) as db:
            db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, len(data) + size)  # a damaged length may be of gigabytes
            return _rows(db)


def _rows(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
    numbers: set[int] = set()
    for order in ("ASC", "DESC"):  # from both ends to where it is damaged
        with suppress(sqlite3.Error):
            numbers.update(n for (n,) in db.execute(f"SELECT rowid FROM sessions NOT INDEXED ORDER BY rowid {order}"))
    found: list[tuple[Any, ...]] = []
    for number in numbers:
        with suppress(sqlite3.Error):
            found += db.execute(f"SELECT {ID}, {PLACE}, {ABOUT}, {BODY} FROM sessions WHERE rowid = ?", (number,))
    return sorted((row for row in found if row[-1]), key=lambda row: int(row[1]))
