"""Paths as the user types them: whatever is wrong with one is said in words."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from engine.errors import UsageError


def typed(text: str) -> Path:
    """The path that was typed, ~ filled in. Raises UsageError where nothing can have such a path."""
    try:
        path = Path(text).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long; nobody's home; a null character
        raise UsageError(
            f"{shortened(text)}: {getattr(error, 'strerror', None) or error}.", "Check the path."
        ) from error
    return path


def problem(text: str) -> str:
    """What is wrong with a path itself, whether or not anything is there; "" if nothing is."""
    try:
        typed(text)
    except UsageError as error:
        return f"{error.message} {error.remedy}"
    return ""


def shortened(text: str) -> str:
    """Not more of it than a dialog has room for."""
    return text if len(text) <= 60 else f"{text[:59]}…"
