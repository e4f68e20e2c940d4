"""A session as csv, jsonl or markdown text."""

from __future__ import annotations

import csv
import io

from engine.files.export.markdown import loaded_lines
from engine.files.recorded import RECORDED
from engine.files.session import Session
from engine.records.errors import UsageError
from engine.records.words.safe_text import safe, to_json

TABLES = tuple(kind.table for kind in RECORDED.values())
"""Names of the csv tables."""


def to_csv(session: Session, table: str) -> str:
    """Return one table, such as the rows of the leaderboards. Raises UsageError if the session has no such rows."""
    result_type, kind = next((result, kind) for result, kind in RECORDED.items() if kind.table == table)
    results = enumerate(session.of(result_type))
    rows = [{kind.number: number, **row} for number, result in results for row in kind.rows(result)]
    if not rows:
        raise UsageError(f"The session has no {table}.", f"Choose another --table: {', '.join(TABLES)}.")
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return safe(out.getvalue())


def to_jsonl(session: Session) -> str:
    """Return every result on a line of its own, each with its type; the first line says what was loaded.

    If nothing was loaded, the first line holds the Load request instead.
    """
    records = [session.loaded or session.load, *session.results]
    return "".join(to_json(record) + "\n" for record in records)


def to_markdown(session: Session) -> str:
    """Return a report: what was loaded, then the results, kind by kind."""
    lines = ["# saescope session", "", f"- written {session.created}", *loaded_lines(session.loaded), ""]
    for result_type, kind in RECORDED.items():
        for result in session.of(result_type):
            lines += kind.section(result)
    return safe("\n".join(lines))
