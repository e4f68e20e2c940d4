"""Session results as csv, jsonl or markdown text. Knows nothing about torch or screens."""

from __future__ import annotations

from engine.files.export.markdown import to_markdown
from engine.files.export.tables import TABLES, Table, to_csv
from engine.files.session import Session
from engine.records.words.edits import edits_in_words
from engine.records.words.tokens import to_json

__all__ = ["TABLES", "Table", "edits_in_words", "to_csv", "to_jsonl", "to_markdown"]


def to_jsonl(session: Session) -> str:
    """Return every result on a line of its own, each with its type; the first line says what was loaded.

    If nothing was loaded, the first line holds the Load request instead.
    """
    records = [session.loaded or session.load, *session.results]
    return "".join(to_json(record) + "\n" for record in records)
