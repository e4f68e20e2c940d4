"""The forms of edits and of generation settings: reading and checking what was typed."""

from __future__ import annotations

from math import isfinite
from typing import Any

from engine.records import NO_FEATURE, Edit, EditKind, Positions, Sampling
from engine.records.edits import EDIT_KINDS
from engine.records.texts import SAMPLING, Setting
from engine.records.words.edits import PLACES
from tui.widgets.fields import is_whole
from tui.widgets.forms import Field, Values

MOST_TRIED = 15
"""The most strengths side by side: each is a row of the batch."""


def kinds() -> dict[str, EditKind]:
    """Return the kinds of a feature's edit, by their names in the form."""
    return {row.choice: kind for kind, row in EDIT_KINDS.items() if row.choice}


def edit_of(feature: int, values: Values) -> Edit:
    """Return the edit that a form describes."""
    at: Positions = next(at for at, words in PLACES.items() if words == values["at"])
    if feature == NO_FEATURE:
        return Edit(kind="reconstruct", at=at)
    return Edit(feature, float(values["strength"]), kinds()[values["kind"]], at)


def check_edit(values: Values) -> str:
    """Say what is wrong with an edit's form; "" if nothing is."""
    if "strength" not in values:
        return ""
    try:
        return "" if isfinite(float(values["strength"])) else "strength: a finite number."
    except ValueError:
        return "strength: a number, such as 0.125 or -1."


def numbers(text: str) -> tuple[float, ...]:
    """Return the numbers that were typed, each once. Raises ValueError."""
    return tuple(dict.fromkeys(float(part) for part in text.replace(",", " ").split()))


def check_tried(values: Values) -> str:
    """Say what is wrong with a list of strengths; "" if nothing is."""
    try:
        strengths = numbers(values["strengths"])
    except ValueError:
        return "strengths: numbers with commas between them, such as 0, 0.5, 2."
    if not strengths:
        return "strengths: at least one."
    if not all(map(isfinite, strengths)):
        return "strengths: finite numbers."
    return "" if len(strengths) <= MOST_TRIED else f"strengths: at most {MOST_TRIED}, for each is a row of the batch."


ACTS, RESTARTS = "acts on the next token", "restarts the text"

MOST_SAMPLES = 16

# ---- settings as typed


def in_a_line(text: str) -> str:
    """Return a text as it can be typed in one line: line breaks and tabs as \\n and \\t, backslashes doubled."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


def from_a_line(text: str) -> str:
    """Return the text that was typed in one line; the inverse of `in_a_line`."""
    return "\\".join(part.replace("\\n", "\n").replace("\\t", "\t") for part in text.split("\\\\"))


def stops_of(text: str) -> tuple[str, ...]:
    """Return the stop strings that were typed, separated by | with a space on either side."""
    return tuple(from_a_line(part) for part in text.split(" | ") if part)


def sampling_fields(sampling: Sampling) -> list[Field]:
    """Return the form's fields of sampling."""
    return [Field(row.field, row.label, as_typed(row, getattr(sampling, row.field)), row.hint) for row in SAMPLING]


def as_typed(setting: Setting, value: Any) -> str:
    """Return a setting's value as the form shows it."""
    if setting.repeats:
        return " | ".join(map(in_a_line, value))
    return str(value) if setting.read_as is int else f"{value:g}"


def sampling_of(values: dict[str, str]) -> Sampling:
    """Return the sampling that a form describes."""
    settings: dict[str, Any] = {}
    for row in SAMPLING:
        text = values[row.field]
        settings[row.field] = stops_of(text) if row.repeats else row.read(text)
    return Sampling(**settings)


def problem_with(setting: Setting, text: str) -> str:
    """Say what is wrong with the text typed for a setting; "" if nothing is."""
    most = setting.most_in_form
    try:
        value = setting.read(text)
    except ValueError:
        value = None
    if value is not None and (most is None or value <= most):
        return ""
    return f"{setting.label}: {setting.must_be}{'' if most is None else f' and at most {most:,}'}."


def check_settings(values: dict[str, str]) -> str:
    """Say what is wrong with the form of generation settings; "" if nothing is."""
    for setting in SAMPLING:
        problem = "" if setting.repeats else problem_with(setting, values[setting.field])
        if problem:
            return problem
    if not is_whole(values["samples"], 1, MOST_SAMPLES):
        return f"samples: a whole number from 1 to {MOST_SAMPLES}."
    if int(values["samples"]) > 1 and float(values["temperature"]) == 0:
        return "samples: greedy ones are all the same; give a temperature above 0."
    return ""
