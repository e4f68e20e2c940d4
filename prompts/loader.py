"""Reads and validates prompt set files. Every error names the file and the field."""

from __future__ import annotations

import re
import tomllib
from math import isfinite
from pathlib import Path
from typing import Literal

import msgspec

FOLDER = Path(__file__).parent

NEUTRAL_TEXT = FOLDER / "neutral.txt"

Format = Literal["raw", "chat"]


class PromptSetError(Exception):
    """A prompt set that cannot be used: `message` names file and field, `remedy` says what to do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Entry(_Table, frozen=True):
    """One prompt of a set."""

    text: str
    breaks: str = ""
    """For a negative prompt: the confound it rules out, such as "women without bias"."""


class ProbeEntry(_Table, frozen=True):
    """One probe; `answers` maps a name to the strings that count as it."""

    text: str
    format: Format = "chat"
    prefill: str = ""
    answers: dict[str, tuple[str, ...]] = {}
    covariate: float | None = None
    """What the measure over several probes is regressed on, such as the logit of an occupation's share of women."""
    right: str = ""
    """For a question of fact: the name of the right answer, which an edit should leave alone."""


class Settings(_Table, frozen=True):
    """How a published study edited its feature. Recorded, and used by edits that follow it, such as --published."""

    scale: float = 0.0
    reconstruct: bool = False
    positions: Literal["all", "prompt", "generated", "last", "first-step"] = "all"


class PromptSetFile(_Table, frozen=True):
    """A whole prompt set file."""

    name: str
    description: str = ""
    format: Format = "raw"
    """How positive and negative prompts are fed."""
    settings: Settings = Settings()
    positive: tuple[Entry, ...] = ()
    negative: tuple[Entry, ...] = ()
    probe: tuple[ProbeEntry, ...] = ()


def packaged() -> list[str]:
    """Return the names of the sets that come with saescope."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def find(name_or_path: str) -> Path:
    """Return the file of a packaged set, or the path itself. Raises PromptSetError."""
    try:
        path = Path(name_or_path).expanduser()
        is_file = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long; an unknown user's home
        reason = getattr(error, "strerror", None) or error
        raise PromptSetError(
            f"The prompt set file {name_or_path} cannot be read: {reason}.", "Check the path."
        ) from error
    if path.suffix == ".toml" or path.parent != Path():
        if is_file:
            return path
        raise PromptSetError(f"There is no prompt set file {path}.", "Check the path.")
    if (FOLDER / f"{name_or_path}.toml").is_file():
        return FOLDER / f"{name_or_path}.toml"
    raise PromptSetError(
        f"There is no prompt set {name_or_path!r}.",
        f"Packaged sets: {', '.join(packaged())}. For a file of your own give its path, ending in .toml.",
    )


def load(name_or_path: str) -> PromptSetFile:
    """Read and check one set. Raises PromptSetError naming file and field."""
    path = find(name_or_path)
    try:
        raw = tomllib.loads(path.read_text("utf-8-sig"))  # sig: some editors put a byte order mark first
    except (OSError, UnicodeDecodeError) as error:
        raise PromptSetError(f"{path} cannot be read: {error}.", "Give a UTF-8 text file.") from error
    except (ValueError, RecursionError) as error:  # ValueError: tomllib's own errors, and a number that is too long
        raise PromptSetError(f"{path} is not valid TOML: {error}.", "Mend the line it names.") from error
    try:
        prompt_set = msgspec.convert(raw, PromptSetFile)
    except msgspec.ValidationError as error:
        raise PromptSetError(f"{path}: {in_words(str(error))}", "The README shows a complete prompt set.") from error
    check(prompt_set, path)
    return prompt_set


def in_words(error: str) -> str:
    """Return msgspec's message with the field path first: "probe[2].answers: expected …"."""
    what, _, where = error.partition(" - at `$")
    field = where.rstrip("`").lstrip(".").replace("[...]", " (one of its entries)") or "top level"
    return f"{field}: {what[:1].lower() + what[1:]}."


def check(prompt_set: PromptSetFile, path: Path) -> None:
    """Check what types alone cannot express. Raises PromptSetError."""

    def fail(field: str, problem: str, remedy: str) -> None:
        raise PromptSetError(f"{path}: {field}: {problem}.", remedy)

    if not re.fullmatch(r"[\w-]+", prompt_set.name):
        fail("name", f"{prompt_set.name!r} has characters a file name should not have", "Use letters, digits, - and _.")
    places: dict[str, str] = {}
    texts: dict[str, list[str]] = {
        "positive": [entry.text.strip() for entry in prompt_set.positive],
        "negative": [entry.text.strip() for entry in prompt_set.negative],
        "probe": [probe.text.strip() for probe in prompt_set.probe],
    }
    for kind, strings in texts.items():
        for index, text in enumerate(strings):
            field = f"{kind}[{index}].text"
            if not text:
                fail(field, "the text is empty", "Write a prompt or delete the entry.")
            if kind != "probe":
                if text in places:
                    fail(field, f"the same text as {places[text]}", "Delete one of them.")
                places[text] = field
    if not isfinite(prompt_set.settings.scale):
        fail("settings.scale", f"{prompt_set.settings.scale} is not a number", "Give a finite number.")
    for index, probe in enumerate(prompt_set.probe):
        for answer, forms in probe.answers.items():
            if not forms or not all(forms):
                fail(f"probe[{index}].answers.{answer}", "an answer needs at least one string", "Add one.")
        if probe.right and probe.right not in probe.answers:
            fail(f"probe[{index}].right", f"there is no answer {probe.right!r}", "Name one of the probe's answers.")
        if probe.covariate is not None and not isfinite(probe.covariate):
            fail(f"probe[{index}].covariate", f"{probe.covariate} is not a number", "Give a finite number.")
