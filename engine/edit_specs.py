"""Edits as somebody asks for them. Knows nothing about torch; what edits are called is words.py's."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from engine.records import Edit


def asked(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """The edits without what their strengths came to, so that what was asked and what was recorded compare."""
    return tuple(replace(edit, absolute=None) for edit in edits)
