"""The table in which autosave.py keeps sessions, and reading what is left of it in a damaged database.

SQLite accepts any value in any column and notices few flipped bytes, so every column is cast to the type it should
have.
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

LAYOUT = 1

BESIDE = ("-wal", "-shm")
"""Suffixes of the files that SQLite keeps beside a database."""

EMPTY_PAGES = 3
"""Most pages of a database whose table is empty; another process may be making it just now."""

COUNTS = ("prompts", "edits", "rankings", "generations", "probe_tables")

MAKE = f"""
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY, place INTEGER NOT NULL, name TEXT NOT NULL, updated TEXT NOT NULL, file TEXT,
    {", ".join(f"{count} INTEGER NOT NULL" for count in COUNTS)}, body BLOB NOT NULL
)
"""

ID = "coalesce(CAST(id AS BLOB), x'')"
"""The id as bytes: it may not be text. The cast also keeps SQLite from using the index on ids, which may be damaged."""

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
"""What follows INSERT; the parameters are the values of ID, PLACE, ABOUT and BODY."""


def connect(path: Path, wait: float) -> sqlite3.Connection:
    """Return a connection that reads text whatever bytes are in it, and commits each statement at once."""
    db = sqlite3.connect(path, wait, isolation_level=None)
    db.text_factory = lambda data: data.decode("utf-8", "replace")
    return db


class Damaged(sqlite3.DatabaseError):
    """Damage that SQLite does not notice."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def make(db: sqlite3.Connection) -> None:
    """Make the table in a new database. Raises Damaged if the database already has contents."""
    if db.execute("PRAGMA page_count").fetchone()[0] > EMPTY_PAGES:
        raise Damaged("its header is not saescope's")
    db.execute(MAKE)
    db.execute(f"PRAGMA user_version = {LAYOUT}")


def check(db: sqlite3.Connection) -> None:
    """Raise Damaged if rows are missing: one wrong byte can hide all rows of a page."""
    (listed,) = db.execute("SELECT count(*) FROM sessions INDEXED BY sqlite_autoindex_sessions_1").fetchone()
    (there,) = db.execute("SELECT count(*) FROM sessions NOT INDEXED").fetchone()
    if listed != there:
        raise Damaged(f"{there} sessions where {listed} are listed")


def readable_rows(damaged: Path) -> list[tuple[Any, ...]]:
    """Return the rows that can still be read whole, as PUT takes them, the oldest first.

    They are read from a copy, so that the file stays as it is. The first page says where everything else is and is the
    same in all of these databases, so that of a new database replaces it in the copy.
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
            db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, len(data) + size)  # a damaged length may say gigabytes
            return _rows(db)


def _rows(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
    numbers: set[int] = set()
    for order in ("ASC", "DESC"):  # from both ends up to the damage
        with suppress(sqlite3.Error):
            numbers.update(n for (n,) in db.execute(f"SELECT rowid FROM sessions NOT INDEXED ORDER BY rowid {order}"))
    rows: list[tuple[Any, ...]] = []
    for number in numbers:
        with suppress(sqlite3.Error):
            rows += db.execute(f"SELECT {ID}, {PLACE}, {ABOUT}, {BODY} FROM sessions WHERE rowid = ?", (number,))
    return sorted((row for row in rows if row[-1]), key=lambda row: int(row[1]))
