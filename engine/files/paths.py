"""Paths as the user types them, with their faults in words; and names for damaged files that are set aside."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from engine.records.errors import UsageError


def typed(text: str) -> Path:
    """Return the typed path with ~ filled in. Raises UsageError if no file can have such a path."""
    try:
        path = Path(text).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long; an unknown user's home; a null character
        raise UsageError(
            f"{shortened(text)}: {getattr(error, 'strerror', None) or error}.", "Check the path."
        ) from error
    return path


def problem(text: str) -> str:
    """Return what is wrong with the path itself, whether or not a file is there; "" if nothing is."""
    try:
        typed(text)
    except UsageError as error:
        return f"{error.message} {error.remedy}"
    return ""


def shortened(text: str) -> str:
    """Return the text cut to the length that a dialog has room for."""
    return text if len(text) <= 60 else f"{text[:59]}…"


def contents(path: Path, most: int = -1) -> bytes:
    """Return a file's bytes, or its first `most`. Raises OSError, also for pipes and devices, which may never end."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a file", str(path))
        return file.read(most)


def broken_name(path: Path) -> Path:
    """Return a free name beside a damaged file, under which to keep it."""
    name, number = f"{path}.broken-{datetime.now(UTC):%Y%m%d-%H%M%S}", 1
    candidate = name
    while os.path.lexists(candidate):
        number += 1
        candidate = f"{name}-{number}"
    return Path(candidate)


def set_aside(path: Path) -> str:
    """Rename a damaged file, so that nothing is written over it; return a sentence on where it is."""
    aside = broken_name(path)
    try:
        path.rename(aside)
    except OSError as error:
        return f"It cannot be renamed: {error.strerror}."
    return f"It is kept as {aside}."
