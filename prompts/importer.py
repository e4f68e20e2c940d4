"""Reads prompts from a .toml, .jsonl or plain text file, for the app's import command."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from prompts.loader import Entry, ProbeEntry, PromptSetError, PromptSetFile, in_words, load

MAX_BYTES = 50_000_000
"""A larger file is hardly a list of prompts, and reading it would freeze the app."""

LINE_END = re.compile(r"\r\n|\n|\r")  # str.splitlines would also break at characters a JSON string may hold

JSONL_REMEDY = 'Write one JSON object a line, like {"text": "…", "set": "positive"}.'

Side = Literal["positive", "negative"]


class Imported(msgspec.Struct, frozen=True):
    """The prompts in a file, in its order. A text that repeats an earlier one is left out and counted."""

    entries: tuple[Entry, ...] = ()
    """Prompts that the file assigns to neither set."""
    positive: tuple[Entry, ...] = ()
    negative: tuple[Entry, ...] = ()
    probes: tuple[ProbeEntry, ...] = ()
    repeated: int = 0
    whole: PromptSetFile | None = None
    """The file as a prompt set, with name, format and settings, if it is one (.toml)."""


class _Line(msgspec.Struct, frozen=True):
    """A line of a .jsonl file. Other fields are ignored: data sets carry ids and sources."""

    text: str
    set: Side | None = None
    breaks: str = ""


_lines = msgspec.json.Decoder(str | _Line)


def read_prompts(path: str | Path) -> Imported:
    """Read a file according to its suffix. Raises PromptSetError naming file, line and remedy."""
    place = _checked(path)
    kind = place.suffix.lower()
    if kind == ".toml":
        prompt_set = load(str(place.absolute()))  # absolute: a bare name would be looked up among the packaged sets
        return Imported((), prompt_set.positive, prompt_set.negative, prompt_set.probe, whole=prompt_set)
    lines = list(_numbered(place))
    if not lines:
        raise PromptSetError(f"{place} is empty.", "Write one prompt a line.")
    if kind == ".jsonl":
        return _sorted(place, [(number, _parse(place, number, line)) for number, line in lines])
    return _sorted(place, [(number, _Line(line)) for number, line in lines])


def _checked(path: str | Path) -> Path:
    """Return the path of a readable file that is not too large. Raises PromptSetError."""
    try:
        place = Path(path).expanduser()
        status = os.stat(place)
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PromptSetError(f"{path} cannot be read: {reason}.", "Check the path.") from error
    if stat.S_ISDIR(status.st_mode):
        raise PromptSetError(f"{place} is a folder.", "Name a file in it.")
    if not stat.S_ISREG(status.st_mode):  # a pipe or a device may never end
        raise PromptSetError(f"{place} is not a file.", "Name a .toml, .jsonl or text file.")
    if status.st_size > MAX_BYTES:
        raise PromptSetError(
            f"{place} has {status.st_size / 1e6:,.0f} MB, more than {MAX_BYTES // 10**6}.",
            "Split it, or take a sample.",
        )
    return place


def _numbered(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the file's non-empty lines, stripped, with their numbers from 1. Raises PromptSetError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PromptSetError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    remedy = "Save it as UTF-8 text."
    try:
        text = data.decode("utf-8-sig")  # sig: a byte order mark is skipped
    except UnicodeDecodeError as error:
        at = data.count(b"\n", 0, error.start) + 1
        raise PromptSetError(f"{path}, line {at}: not UTF-8 text.", remedy) from error
    for number, line in enumerate(LINE_END.split(text), 1):
        if "\0" in line:  # UTF-16 without a byte order mark, or not text at all
            raise PromptSetError(f"{path}, line {number}: a zero byte, so this is not UTF-8 text.", remedy)
        if line.strip():
            yield number, line.strip()


def _parse(path: Path, number: int, line: str) -> _Line:
    """Parse one line of a .jsonl file. Raises PromptSetError."""
    try:
        decoded: str | _Line = _lines.decode(line)
    except msgspec.ValidationError as error:
        raise PromptSetError(f"{path}, line {number}: {in_words(str(error))}", JSONL_REMEDY) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise PromptSetError(f"{path}, line {number}: not valid JSON: {error}.", JSONL_REMEDY) from error
    parsed = _Line(decoded) if isinstance(decoded, str) else decoded
    if not parsed.text.strip():
        raise PromptSetError(f"{path}, line {number}: the text is empty.", "Write a prompt or delete the line.")
    return parsed


def _sorted(path: Path, lines: list[tuple[int, _Line]]) -> Imported:
    """Return the lines sorted into their sets. Raises PromptSetError if one text stands in two sets."""
    sets: dict[Side | None, list[Entry]] = {None: [], "positive": [], "negative": []}
    seen: dict[str, tuple[int, Side | None]] = {}
    repeated = 0
    for number, line in lines:
        before, side = seen.setdefault(line.text.strip(), (number, line.set))
        if side != line.set:
            raise PromptSetError(
                f"{path}, line {number}: the text of line {before}, there {side or 'in no set'}, "
                f"here {line.set or 'in no set'}.",
                "Delete one of them.",
            )
        if before == number:
            sets[line.set].append(Entry(line.text, line.breaks))
        else:
            repeated += 1
    return Imported(tuple(sets[None]), tuple(sets["positive"]), tuple(sets["negative"]), repeated=repeated)
