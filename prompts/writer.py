"""Writes a prompt set file that reads well and loads equal. Comments of an older file at the same place are lost."""

from __future__ import annotations

import os
import secrets
import shutil
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from prompts.loader import Entry, ProbeEntry, PromptSetError, PromptSetFile, Settings, check


def write(found: PromptSetFile, path: str | Path) -> None:
    """Saves the set atomically. Raises PromptSetError; the old file then stays as it was."""
    place = Path(path).expanduser()
    if place.suffix != ".toml":
        raise PromptSetError(f"{place} cannot be loaded again: a prompt set file ends in .toml.", "Add the ending.")
    data = _encoded(found, place)
    place = Path(os.path.realpath(place))  # so that a link stays a link
    # not mkstemp: a prompt set is made to be passed on, so it gets the permissions of any new file
    temporary = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if place.exists():
            shutil.copymode(place, temporary)
        os.replace(temporary, place)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        message = f"The prompt set cannot be written to {place}: {error.strerror}."
        raise PromptSetError(message, "Save it elsewhere.") from error


def _encoded(found: PromptSetFile, path: Path) -> bytes:
    """The file's bytes, once they are seen to load as the same set. Raises PromptSetError."""
    check(found, path)
    try:
        text = to_toml(found)
        data = text.encode("utf-8")
        again = msgspec.convert(tomllib.loads(text), PromptSetFile)
    except (UnicodeEncodeError, TypeError, msgspec.ValidationError, tomllib.TOMLDecodeError) as error:
        raise PromptSetError(f"{path} would not load again: {error}.", "Mend what it names.") from error
    if again != found:
        raise PromptSetError(f"{path} would load as another set.", "Nothing was written.")
    return data


def to_toml(found: PromptSetFile) -> str:
    """The set as TOML: head, settings, positive, negative, probes; what is as by default is left out."""
    head = {"name": found.name, "description": found.description, "format": found.format}
    parts = [tomli_w.dumps({key: value for key, value in head.items() if value})]
    if found.settings != Settings():
        parts.append(_table("[settings]", _given(found.settings)))
    for kind, entries in (("positive", found.positive), ("negative", found.negative)):
        parts += [_table(f"[[{kind}]]", _given(entry)) for entry in entries]
    parts += [_probe(probe) for probe in found.probe]
    return "\n".join(parts)


def _given(value: Entry | ProbeEntry | Settings) -> dict[str, Any]:
    """A record's fields that are not as by default."""
    defaults = dict(zip(reversed(value.__struct_fields__), reversed(value.__struct_defaults__), strict=False))
    fields = {name: getattr(value, name) for name in value.__struct_fields__}
    return {name: x for name, x in fields.items() if name not in defaults or x != defaults[name]}


def _table(heading: str, values: Mapping[str, Any]) -> str:
    # a table at a time: given the whole set, tomli_w would squeeze short entries into lists of inline tables
    return f"{heading}\n{tomli_w.dumps(values)}"


def _probe(probe: ProbeEntry) -> str:
    """A probe with its answers, one a line."""
    fields = _given(probe)
    answers = fields.pop("answers", {})
    lines = [f"{_key(name)} = [{', '.join(map(_string, strings))}]\n" for name, strings in answers.items()]
    return _table("[[probe]]", fields) + "".join(["[probe.answers]\n", *lines] if lines else [])


def _string(text: str) -> str:
    """A TOML string."""
    return tomli_w.dumps({"x": text}).removeprefix("x = ").removesuffix("\n")


def _key(name: str) -> str:
    """A TOML key, quoted where it must be."""
    return tomli_w.dumps({name: 0}).removesuffix(" = 0\n")
