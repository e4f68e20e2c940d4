"""Paths as the user types them: whatever is wrong with one is said in words. And where a damaged file is kept."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from engine.records.errors import UsageError


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


def contents(path: Path, most: int = -1) -> bytes:
    """A file's bytes, `most` of them. Raises OSError, for a pipe or a device too: those may never end."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a file", str(path))
        return file.read(most)


def broken_name(path: Path) -> Path:
    """A name that is free, beside a damaged file's own, for it to be kept under."""
    name, number = f"{path}.broken-{datetime.now(UTC):%Y%m%d-%H%M%S}", 1
    found = name
    while os.path.lexists(found):
        number += 1
        found = f"{name}-{number}"
    return Path(found)


def set_aside(path: Path) -> str:
    """Renames a damaged file, so that nothing is written over it; says in words where it is."""
    aside = broken_name(path)
    try:
        path.rename(aside)
    except OSError as error:
        return f"It cannot be renamed: {error.strerror}."
    return f"It is kept as {aside}."
