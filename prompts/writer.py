"""Writes a prompt set file that reads well and loads as an equal set. Comments in a file it replaces are lost."""

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

C1 = {code: f"\\u{code:04x}" for code in range(0x80, 0xA0)}
"""Control characters that TOML takes as they are, and a terminal that shows the file would obey."""


def write(prompt_set: PromptSetFile, path: str | Path) -> None:
    """Save the set atomically. On PromptSetError the old file stays as it was."""
    place = Path(path).expanduser()
    if place.suffix != ".toml":
        raise PromptSetError(f"{place} cannot be loaded again: a prompt set file ends in .toml.", "Add the ending.")
    data = _encoded(prompt_set, place)
    place = Path(os.path.realpath(place))  # keeps a link a link
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


def _encoded(prompt_set: PromptSetFile, path: Path) -> bytes:
    """Return the file's bytes after checking that they load as the same set. Raises PromptSetError."""
    check(prompt_set, path)
    try:
        text = to_toml(prompt_set)
        data = text.encode("utf-8")
        again = msgspec.convert(tomllib.loads(text), PromptSetFile)
    except (UnicodeEncodeError, TypeError, msgspec.ValidationError, tomllib.TOMLDecodeError) as error:
        raise PromptSetError(f"{path} would not load again: {error}.", "Mend what it names.") from error
    if again != prompt_set:
        raise PromptSetError(f"{path} would load as another set.", "Nothing was written.")
    return data


def to_toml(prompt_set: PromptSetFile) -> str:
    """Return the set as TOML without defaults: head, settings, positive, negative, probes."""
    head = {"name": prompt_set.name, "description": prompt_set.description, "format": prompt_set.format}
    parts = [tomli_w.dumps({key: value for key, value in head.items() if value})]
    if prompt_set.settings != Settings():
        parts.append(_table("[settings]", _given(prompt_set.settings)))
    for kind, entries in (("positive", prompt_set.positive), ("negative", prompt_set.negative)):
        parts += [_table(f"[[{kind}]]", _given(entry)) for entry in entries]
    parts += [_probe(probe) for probe in prompt_set.probe]
    return "\n".join(parts).translate(C1)


def _given(value: Entry | ProbeEntry | Settings) -> dict[str, Any]:
    """Return the fields of a record that differ from their defaults."""
    defaults = dict(zip(reversed(value.__struct_fields__), reversed(value.__struct_defaults__), strict=False))
    fields = {name: getattr(value, name) for name in value.__struct_fields__}
    return {name: x for name, x in fields.items() if name not in defaults or x != defaults[name]}


def _table(heading: str, values: Mapping[str, Any]) -> str:
    # one table at a time: from the whole set, tomli_w would make inline tables of short entries
    return f"{heading}\n{tomli_w.dumps(values)}"


def _probe(probe: ProbeEntry) -> str:
    """Return a probe as TOML, with its answers on a line each."""
    fields = _given(probe)
    answers = fields.pop("answers", {})
    lines = [f"{_key(name)} = [{', '.join(map(_string, strings))}]\n" for name, strings in answers.items()]
    return _table("[[probe]]", fields) + "".join(["[probe.answers]\n", *lines] if lines else [])


def _string(text: str) -> str:
    """Return a TOML string."""
    return tomli_w.dumps({"x": text}).removeprefix("x = ").removesuffix("\n")


def _key(name: str) -> str:
    """Return a TOML key, quoted if it must be."""
    return tomli_w.dumps({name: 0}).removesuffix(" = 0\n")
