"""The user's own labels and notes about features, kept across sessions in one file that can be shared.

The file has one line of JSON per SAE and feature, sorted, with the time of the last change: of several lines about one
feature the newest counts. So two people's files may be concatenated, or merged by git, conflict marks included. A line
that cannot be read is reported and kept, after all others. Deleting label and notes leaves a line without them, so that
the deletion survives a merge. Knows nothing about torch or screens.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import msgspec
import platformdirs

from engine.files.paths import contents as file_contents
from engine.records import Record
from engine.records.errors import NotesError
from engine.records.words.safe_text import in_utf8, to_json, visible

try:
    import fcntl
except ImportError:  # not on this system: two apps that write in the same moment may overwrite each other
    fcntl = None  # type: ignore[assignment]

FILE = "notes.jsonl"

MAX_LINE = 2**18

MAX_FILE = 2**26

MAX_PROBLEMS = 20
"""How many broken lines are reported; further ones are kept all the same."""

LOCK_SECONDS = 5.0

Key = tuple[str, int]
"""A SAE's fingerprint and one of its features."""


class Note(Record, frozen=True):
    """What the user wrote about one feature."""

    label: str
    """A short name, on one line."""
    notes: str
    changed: datetime
    sae_name: str
    """The SAE's name, for people who read the file."""


class Line(msgspec.Struct, frozen=True):
    """A line of the file; fields added by a newer version stay until the line is changed."""

    sae: str
    feature: Annotated[int, msgspec.Meta(ge=0)]
    changed: Annotated[datetime, msgspec.Meta(tz=True)]
    label: str = ""
    notes: str = ""
    sae_name: str = ""

    @property
    def key(self) -> Key:
        """The SAE and feature that the line is about."""
        return self.sae, self.feature


@dataclass
class Contents:
    """A file's lines as they stand in it: the newest of each key, and those that cannot be read."""

    lines: dict[Key, tuple[Line, bytes]] = field(default_factory=dict)
    broken: dict[bytes, None] = field(default_factory=dict)
    """The lines that cannot be read, in the order of the file, without repeats."""
    problems: list[str] = field(default_factory=list)

    def take(self, line: Line, raw: bytes) -> bool:
        """Keep a line if it is newer than the known one of its key; return whether it was kept.

        Of two lines changed in the same moment the same one wins, whichever file is read first.
        """
        known = self.lines.get(line.key)
        if known is not None and (known[0].changed, known[1]) >= (line.changed, raw):
            return False
        self.lines[line.key] = line, raw
        return True

    def encode(self) -> bytes:
        """Return the file's bytes."""
        readable = [self.lines[key][1] for key in sorted(self.lines)]
        return b"".join(raw + b"\n" for raw in (*readable, *self.broken))


LAST = datetime(9999, 1, 1, tzinfo=UTC)
"""Lines must be dated before this: a later change needs a later date, and the latest change must count."""


class Notes:
    """The notes of one file. Every change reads it again first, under a lock: several apps may have it open."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = data_folder() / FILE if path is None else path
        self.problems: tuple[str, ...] = ()
        """What could not be read when the file was last read, in words, with line numbers."""
        self._seen: tuple[tuple[int, ...] | None, Contents] = (None, Contents())

    def of(self, sae_fingerprint: str) -> dict[int, Note]:
        """Return the notes of one SAE, by feature. Raises NotesError if the file exists but cannot be read."""
        return {
            feature: Note(visible(line.label).strip(), line.notes.strip(), line.changed, line.sae_name)
            for (sae, feature), (line, _) in sorted(self._contents().lines.items())
            if sae == sae_fingerprint and (line.label or line.notes)
        }

    def put(
        self, sae_fingerprint: str, sae_name: str, feature: int, label: str | None = None, notes: str | None = None
    ) -> None:
        """Save a label, notes, or both; None leaves the old value. On NotesError the old file stays."""
        with self._writing() as contents:
            old = contents.lines.get((sae_fingerprint, feature))
            before = (old[0].label, old[0].notes) if old else ("", "")
            after = (before[0] if label is None else label, before[1] if notes is None else notes)
            after = (in_utf8(after[0]), in_utf8(after[1]))
            if after == before:
                return
            now = datetime.now(UTC)
            if old is not None:  # what is written last counts, even if another clock was ahead
                now = max(now, old[0].changed + timedelta(microseconds=1))
            line = Line(sae_fingerprint, feature, now, *after, in_utf8(sae_name))
            raw = to_json(line).encode()
            if len(raw) > MAX_LINE:
                raise NotesError(f"The notes on feature {feature} are too long.", "Shorten them.")
            contents.lines[line.key] = line, raw

    def merge(self, other: Path) -> int:
        """Take over what is newer in another file of notes; return how many features changed. Raises NotesError.

        Lines of the other file that cannot be read are left out, and reported in `problems`.
        """
        theirs = parse(_read(other), str(other))
        if theirs.broken and not theirs.lines:
            raise NotesError(f"{other} holds no notes: {theirs.problems[0]}", "Notes are lines of JSON.")
        with self._writing() as contents:
            count = sum(contents.take(line, raw) for line, raw in theirs.lines.values())
        self.problems += tuple(theirs.problems)
        return count

    def _contents(self) -> Contents:
        """Return the file's lines, reading the file only if it has changed."""
        try:
            status = self.path.stat()
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        except OSError:
            stamp = None
        if stamp is None or stamp != self._seen[0]:
            self._seen = stamp, parse(_read(self.path, missing=b""), str(self.path))
            self.problems = tuple(self._seen[1].problems)
        return self._seen[1]

    @contextmanager
    def _writing(self) -> Iterator[Contents]:
        """Yield the file's current lines under the lock, and write them if the caller changed them."""
        path = Path(os.path.realpath(self.path))  # keeps a link, perhaps into a git repository, a link
        with locked(path):
            data = _read(path, missing=b"")
            contents = parse(data, str(self.path))
            self.problems = tuple(contents.problems)
            before = dict(contents.lines)
            yield contents
            if contents.lines != before:
                write_private(path, contents.encode())


def parse(data: bytes, name: str) -> Contents:
    """Return the lines in a file's bytes; never fails."""
    contents = Contents()
    for number, part in enumerate(data.split(b"\n"), 1):
        raw = part.removeprefix(b"\xef\xbb\xbf").strip()
        if not raw:
            continue
        try:
            if len(raw) > MAX_LINE:
                raise ValueError("it is too long")
            line = msgspec.json.decode(raw, type=Line)
            if line.changed >= LAST:
                raise ValueError("its date is too far ahead")
            contents.take(line, raw)
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            contents.broken[raw] = None
            if len(contents.problems) < MAX_PROBLEMS:
                contents.problems.append(f"Line {number} of {name} is no note: {error}. It is kept as it is.")
    return contents


def _read(path: Path, missing: bytes | None = None) -> bytes:
    """Return a file's bytes; for a missing file, `missing` if that is given. Raises NotesError."""
    try:
        data = file_contents(path, MAX_FILE + 1)
    except FileNotFoundError as error:
        if missing is not None:
            return missing
        raise NotesError(f"There is no file {path}.", "Check the path.") from error
    except OSError as error:
        raise NotesError(f"{path} cannot be read: {error.strerror}.", "Check the path and its permissions.") from error
    if len(data) > MAX_FILE:
        raise NotesError(f"{path} is too large for a file of notes.", "Check the path, or move the file away.")
    return data


# ---- files that only their owner can read


def data_folder() -> Path:
    """Return the folder for things that the user made or imported."""
    return Path(platformdirs.user_data_dir("saescope"))


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read: to a temporary file, then renamed. Raises NotesError."""
    import tempfile  # late: only writing needs it, and every start would wait for it

    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # readable by its owner only
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise NotesError(f"{path} cannot be written: {error.strerror}.", "Make room there, and writable.") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on this file against all who use `locked`; make its folder first.

    Raises NotesError if getting the lock takes too long.
    """
    try:
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        # a lock file of its own: each change replaces the notes file
        handle = os.open(path.with_name(f".{path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise NotesError(f"{path} cannot be written: {error.strerror}.", "Make room there, and writable.") from error
    try:
        until = time.monotonic() + LOCK_SECONDS
        while fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > until:
                    raise NotesError(f"Another program is writing {path}.", "Try again.") from error
                time.sleep(0.02)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(handle)
