"""Explanations of features by others, imported from an export of Neuronpedia and kept for each SAE.

An export is a folder of gzipped lines of JSON, one explanation each, with at least the feature's `index` and a
`description`; modelId and layer name the SAE. Everything else is ignored. Files come from anywhere: lines, files and
texts are bounded, and whatever is not an explanation is counted and left out. Knows nothing about torch or screens.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import quote

import msgspec

from engine.files.notes import data_folder, locked, write_private
from engine.files.paths import set_aside
from engine.records import Loaded, Record
from engine.records.errors import NotesError
from engine.records.words.safe_text import safe

FOLDER = "explanations"

SUFFIXES = (".jsonl", ".jsonl.gz", ".json")

MAX_LINE = 2**20
"""Bytes of one line; exports hold an embedding of some thousand numbers beside each description."""

MAX_FILE = 2**31
"""Bytes of one file, unpacked."""

MAX_RECORDS = 2**21
"""Lines of one file, empty lines included; exports have some thousand."""

MAX_LIST = 2**28
"""Bytes of a .json file, which is read as a whole."""

MAX_TEXT = 1000
"""Characters of one explanation; longer ones are cut."""

SITE = "https://www.neuronpedia.org"


class Explained(Record, frozen=True):
    """What is kept for one SAE."""

    neuronpedia: str
    """modelId/layer as the files name it; "" if they do not."""
    explanations: dict[int, str]


@dataclass(frozen=True)
class Added:
    """What importing an export added."""

    count: int
    """How many features the export explains."""
    skipped: int
    """How many of its records and lines are not explanations."""


class Explanations:
    """The explanations in one folder, with one file per SAE."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = data_folder() / FOLDER if path is None else path
        self._seen: dict[str, tuple[tuple[int, ...], dict[int, str]]] = {}

    def of(self, sae_fingerprint: str) -> dict[int, str]:
        """Return the explanations of one SAE's features. A damaged file is set aside and raises NotesError."""
        path = self._file(sae_fingerprint)
        try:
            status = path.stat()
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
            if sae_fingerprint not in self._seen or self._seen[sae_fingerprint][0] != stamp:
                stored = msgspec.json.decode(path.read_bytes(), type=Explained)
                self._seen[sae_fingerprint] = stamp, stored.explanations
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise NotesError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error
        except (ValueError, RecursionError) as error:
            message = f"The explanations {path} are damaged: {error}. {set_aside(path)}"
            raise NotesError(message, "Import the explanations again.") from error
        return dict(self._seen[sae_fingerprint][1])

    def add(self, loaded: Loaded, source: Path) -> Added:
        """Read an export's file, or all files of a folder, and keep its explanations for the loaded SAE.

        Newer explanations replace older ones. Raises NotesError if the export cannot be read, holds no explanation, or
        belongs to another SAE.
        """
        export = read(source, loaded)
        path = self._file(loaded.sae_fingerprint)
        with locked(path):
            kept = self.of(loaded.sae_fingerprint) | export.explanations
            write_private(path, msgspec.json.encode(Explained(export.neuronpedia, dict(sorted(kept.items())))))
        return Added(len(export.explanations), export.skipped)

    def _file(self, sae_fingerprint: str) -> Path:
        name = sae_fingerprint if re.fullmatch(r"[0-9a-f]{64}", sae_fingerprint) else quote(sae_fingerprint, safe="")
        return self.path / f"{name}.json"


def address(loaded: Loaded, feature: int) -> str | None:
    """Return the address of the feature's page on Neuronpedia; None if no page is known."""
    return f"{SITE}/{quote(loaded.neuronpedia.strip('/'), errors='replace')}/{feature}" if loaded.neuronpedia else None


@dataclass
class Export:
    """The explanations read so far from an export, for one SAE."""

    loaded: Loaded
    explanations: dict[int, str] = field(default_factory=dict)
    """The first explanation of each feature: exports may hold several, by different models."""
    neuronpedia: str = ""
    skipped: int = 0

    def take(self, record: Any, path: Path) -> None:
        """Keep one record if it is an explanation. Raises NotesError if it explains another SAE's feature."""
        feature, text = index_of(record), record.get("description") if isinstance(record, dict) else None
        if feature is None or not isinstance(text, str) or not text.strip():
            self.skipped += 1
            return
        self._check(record, feature, path)
        text = " ".join(safe(text).split())
        self.explanations.setdefault(feature, text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…")

    def _check(self, record: dict[str, Any], feature: int, path: Path) -> None:
        parts = [record.get(name) for name in ("modelId", "layer")]
        named = "/".join(parts) if all(isinstance(part, str) and part for part in parts) else ""  # type: ignore[arg-type]
        expected = self.loaded.neuronpedia or self.neuronpedia
        if named and expected and named.casefold() != expected.strip("/").casefold():
            raise NotesError(
                f"{path} explains features of {named}, not of {expected}.",
                "Take the export that belongs to this SAE.",
            )
        if feature >= self.loaded.d_sae:
            raise NotesError(
                f"{path} explains feature {feature}, this SAE has features 0 to {self.loaded.d_sae - 1}.",
                "Take the export that belongs to this SAE.",
            )
        self.neuronpedia = self.neuronpedia or named


def index_of(record: Any) -> int | None:
    """Return the feature that a record is about; None if it names none."""
    index = record.get("index") if isinstance(record, dict) else None
    if isinstance(index, str) and re.fullmatch(r"[0-9]{1,9}", index):
        return int(index)
    return index if isinstance(index, int) and not isinstance(index, bool) and index >= 0 else None


def read(source: Path, loaded: Loaded) -> Export:
    """Return an export's explanations for the loaded SAE. Raises NotesError; see Explanations.add."""
    export = Export(loaded)
    for path in files_of(source):
        try:
            for record in records_of(path):
                export.take(record, path)
        except (OSError, EOFError, zlib.error) as error:  # gzip raises all three for files that are broken or cut off
            reason = getattr(error, "strerror", None) or str(error)
            raise NotesError(f"{path} cannot be read: {reason}.", "Check the path, or download it again.") from error
    if not export.explanations:
        raise NotesError(
            f"{source} holds no explanations.",
            "Give a file, or a folder of files, from the folder `explanations` of a Neuronpedia export.",
        )
    return export


def files_of(source: Path) -> list[Path]:
    """Return the export's files that are to be read. Raises NotesError."""
    try:
        inside = list(source.iterdir()) if source.is_dir() else None
    except OSError as error:
        raise NotesError(f"{source} cannot be read: {error.strerror}.", "Check its permissions.") from error
    if inside is not None:
        paths = sorted(path for path in inside if path.name.endswith(SUFFIXES))
        if not paths:
            raise NotesError(f"{source} holds no {', '.join(SUFFIXES)} file.", "Give the folder `explanations`.")
        return paths
    if not source.name.endswith(SUFFIXES):
        raise NotesError(f"{source} is of an unknown kind.", f"Explanations are read from {', '.join(SUFFIXES)} files.")
    return [source]


def records_of(path: Path) -> Iterator[Any]:
    """Yield a file's records; None stands for one that is not JSON. Raises OSError and gzip's errors."""
    if path.name.endswith(".json"):
        with open(path, "rb") as file:
            listed = decode(file.read(MAX_LIST + 1), MAX_LIST)
        yield from listed if isinstance(listed, list) else [None]
        return
    with cast(BinaryIO, gzip.open(path) if path.name.endswith(".gz") else open(path, "rb")) as file:
        num_bytes, num_lines, within = 0, 0, False
        while line := file.readline(MAX_LINE + 1):
            num_bytes, num_lines = num_bytes + len(line), num_lines + 1
            if num_bytes > MAX_FILE or num_lines > MAX_RECORDS:
                raise OSError(f"it is longer than {MAX_FILE:,} bytes or {MAX_RECORDS:,} lines")
            begins, within = not within, not line.endswith(b"\n")
            if begins and line.strip():  # the rest of a line that is too long is skipped
                yield decode(line, MAX_LINE)


def decode(data: bytes, limit: int) -> Any:
    """Return decoded JSON; None if it is not JSON or too long."""
    try:
        return msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf")) if len(data) <= limit else None
    except (ValueError, RecursionError):
        return None
