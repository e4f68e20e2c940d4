"""The session file: one versioned, diffable JSON file that holds every value a result depends on.

Written atomically and readable by its owner only. Knows nothing about torch; recorded.py says what belongs to each
kind of result.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from engine.files import session_check
from engine.files.paths import contents
from engine.records import (
    Edit,
    Load,
    Loaded,
    PromptSet,
    Record,
    Recorded,
    Sampling,
)
from engine.records.errors import NewerSessionError, SessionError
from engine.records.texts import MOST_SAMPLES
from engine.records.words.safe_text import escaped

VERSION = 3

LISTS_OF_VERSION_2 = {
    "rankings": "Ranking",
    "generations": "Generated",
    "probe_tables": "ProbeTable",
    "attributions": "Attribution",
    "minimal_sets": "MinimalSet",
}
"""The lists of results in versions 1 and 2, and the type of result in each."""

SUFFIX = ".saescope.json"

NEW_LINE = b"\n"


class EditSlot(Edit, frozen=True):
    """One line of the app's list of edits; switched off, it keeps its place and strength."""

    on: bool = True

    def edit(self) -> Edit:
        """Return the edit that the line stands for while it is on."""
        return Edit(**{name: getattr(self, name) for name in Edit.__struct_fields__})


class Workspace(Record, frozen=True):
    """What the user of the app is working on, apart from results."""

    prompts: PromptSet
    question: str = ""
    raw: bool = False
    """Whether the question goes to the model as it is, without the chat template."""
    edits: tuple[EditSlot, ...] = ()
    pinned: tuple[int, ...] = ()
    labels: dict[int, str] = msgspec.field(default_factory=dict)
    """The user's own names of features."""
    feature: int | None = None
    """The feature whose activations are shown."""
    sampling: Sampling = Sampling()
    prefill: str = ""
    """Text put at the start of the model's reply to the question."""
    samples: int = 1
    restart: bool = False
    """Whether a toggled edit restarts the text instead of acting on its next token."""


R = TypeVar("R", bound=Record)


class Session(Record, frozen=True):
    """The contents of a session file."""

    saescope_session: int
    """Version of the file's layout."""
    created: str
    load: Load
    """The request that loads the same model and SAE again."""
    loaded: Loaded | None
    """What that request loaded: hashes, device, dtype, threads, versions. None if the app never loaded anything."""
    prompt_sets: tuple[PromptSet, ...] = ()
    results: tuple[Recorded, ...] = ()
    """In the order in which they were computed."""
    workspace: Workspace | None = None
    """The app's workspace; None in a session written by the command line."""

    def of(self, kind: type[R]) -> tuple[R, ...]:
        """Return the results of one kind."""
        return tuple(result for result in self.results if isinstance(result, kind))

    def last(self, kind: type[R]) -> R | None:
        """Return the latest result of one kind."""
        return next((result for result in reversed(self.results) if isinstance(result, kind)), None)


def of_workspace(work: Workspace) -> Iterator[str]:
    """Yield what is wrong with a workspace, as the rules of session_check do for other records."""
    yield from session_check.once("edits", [edit.feature for edit in work.edits])
    if not 1 <= work.samples <= MOST_SAMPLES:
        yield f"has {work.samples} samples: 1 to {MOST_SAMPLES:,} can be asked for"


RULES = session_check.RULES | {Workspace: of_workspace}

SAME = {
    "model_fingerprint": "model",
    "sae_fingerprint": "SAE",
    # a registry may wire the same files differently
    "encoder": "encoder",
    "normalisation": "normalisation",
    "centered": "mean removal",
    "rescaled": "scale of activations",
    "hook": "hook",
    "raw_bos": "BOS before raw prompts",
    "chat_bos": "BOS before chat prompts",
    "dtype": "dtype",
    "reference_fingerprint": "reference",
}
"""What all results of one session must share, because `replay` loads only once; each with its name for messages."""


def new(load: Load, loaded: Loaded | None = None) -> Session:
    """Return an empty session for what is loaded."""
    return Session(VERSION, datetime.now(UTC).isoformat(timespec="seconds"), load, loaded)


def add(session: Session, result: Recorded, prompts: PromptSet | None = None) -> Session:
    """Return the session with one more result, and with the prompt set that the result came from."""
    sets = session.prompt_sets
    if prompts is not None and prompts not in sets:
        sets = (*sets, prompts)
    return msgspec.structs.replace(session, prompt_sets=sets, results=(*session.results, result))


def differences(one: Loaded, other: Loaded) -> list[str]:
    """Return in what two loaded pairs differ so that their results cannot share a session."""
    return [name for field, name in SAME.items() if getattr(one, field) != getattr(other, field)]


def read(path: Path) -> Session:
    """Read a session. Raises SessionError saying what is wrong with the file."""
    session = read_if_there(path)
    if session is None:
        raise SessionError(f"The session {path} cannot be read: there is no such file.", "Check the path.")
    return session


def read_if_there(path: Path) -> Session | None:
    """Read a session; return None if there is no such file. Raises SessionError saying what is wrong with it."""
    try:
        data = contents(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # the latter: a null character in the path
        reason = getattr(error, "strerror", error)
        raise SessionError(f"The session {path} cannot be read: {reason}.", "Check the path.") from error
    return decode(data, str(path))


def decode(data: bytes, what: str) -> Session:
    """Return the session in this JSON, after checking that its parts agree.

    Raises SessionError, whose message calls the session `what`.
    """
    raw = raw_session(data, what)
    remedy = "Mend the field it names, or use a copy."
    try:
        session = msgspec.convert(raw, Session, str_keys=True)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the latter: half a surrogate pair in a key
        raise SessionError(f"{what} is damaged: {error}.", remedy) from error
    for problem in session_check.problems(session, RULES):
        raise SessionError(f"{what} is damaged: {problem}.", remedy)
    return session


def raw_session(data: bytes, what: str) -> Any:
    """Decode the JSON of a session of any version, converted to this version's layout. Raises SessionError."""
    try:
        raw = parsed(data.decode())
        version = raw.get("saescope_session") if isinstance(raw, dict) else None
        if version == 1:
            raw = with_strengths(raw)
        if version in (1, 2):
            raw = with_one_list(raw) | {"saescope_session": VERSION}
        if isinstance(raw, dict) and isinstance(raw.get("load"), dict):
            raw["load"].setdefault("bos", "always")  # sessions from before there was a choice: one before every prompt
    except UnicodeDecodeError as error:
        where = f"byte {error.start + 1:,}, in line {data.count(NEW_LINE, 0, error.start) + 1:,}"
        remedy = "Mend that byte, or use a copy."
        raise SessionError(f"{what} is not a session file: {where}, is no UTF-8 text.", remedy) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise SessionError(f"{what} is not a session file: {error}.", "It may be cut off: use a copy.") from error
    if type(version) is not int or version < 1:
        raise SessionError(f"{what} is not a session file.", f"Sessions end in {SUFFIX}.")
    if version > VERSION:
        raise NewerSessionError(
            f"{what} was written by a newer saescope (session version {version}, this one reads {VERSION}).",
            "Update saescope.",
        )
    return raw


def parsed(data: str) -> Any:
    """Decode JSON that may hold a lone surrogate, such as an odd byte of a file name, whose escape msgspec refuses.

    Raises DecodeError.
    """
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        if "surrogate" not in str(error):
            raise
    try:
        return json.loads(data, parse_constant=finite, parse_float=finite)
    except ValueError as error:
        raise msgspec.DecodeError(str(error)) from error


def finite(number: str) -> float:
    """Convert a number. Raises ValueError for NaN and infinity, which Python accepts but JSON does not have."""
    value = float(number)
    if not isfinite(value):
        raise ValueError(f"{number} is not a number")
    return value


def with_strengths(value: Any) -> Any:
    """Convert version 1 to version 2, in which an edit's `scale` became a kind and a strength."""
    if isinstance(value, list):
        return [with_strengths(item) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {name: with_strengths(item) for name, item in value.items()}
    if "feature" in changed and "scale" in changed:
        changed["strength"] = changed.pop("scale")
    return changed


def with_one_list(raw: dict[str, Any]) -> dict[str, Any]:
    """Convert version 2, with a list per kind of result, to version 3, with one list of results.

    Raises DecodeError if one of those lists is not a list of its kind.
    """
    results = []
    for name, kind in LISTS_OF_VERSION_2.items():
        listed = raw.get(name, [])
        if not isinstance(listed, list) or not all(
            isinstance(result, dict) and result.get("type", kind) == kind for result in listed
        ):
            raise msgspec.DecodeError(f"{name} is not a list of objects of type {kind}")
        results += [result | {"type": kind} for result in listed]
    others = {name: value for name, value in raw.items() if name not in LISTS_OF_VERSION_2}
    return others | {"results": results}


def write(session: Session, path: Path) -> None:
    """Write the session to a temporary file and rename it. On SessionError the old file stays."""
    path = Path(os.path.realpath(path))  # a link stays one
    text = escaped(layout(msgspec.to_builtins(session, str_keys=True))) + "\n"
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # mkstemp makes a file that only its owner can read
        import tempfile  # late: only writing needs it, and every start would wait for it

        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        message = f"The session cannot be written to {path}: {error.strerror}."
        raise SessionError(message, "Save it elsewhere.") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def layout(value: Any, indent: str = "") -> str:
    """Return JSON made for line diffs: an item per line, but lists of plain numbers and strings on one line."""
    if isinstance(value, dict) and value:
        inner = indent + "  "
        lines = [f"{inner}{json.dumps(k, ensure_ascii=False)}: {layout(v, inner)}" for k, v in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list | tuple) and any(isinstance(v, dict | list | tuple) for v in value):
        inner = indent + "  "
        return "[\n" + ",\n".join(inner + layout(v, inner) for v in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)
