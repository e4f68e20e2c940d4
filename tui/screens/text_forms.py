"""What is typed about texts and edits: how they are generated, under which edits."""

from __future__ import annotations

from math import isfinite

from engine.records import NO_FEATURE, Edit, EditKind, Positions, Sampling
from tui.state.edits import PLACES
from tui.widgets.fields import is_whole
from tui.widgets.forms import Values

MOST_TRIED = 15
"""Strengths side by side: each is a row of the batch."""

KINDS: dict[str, EditKind] = {
    "scale (0 ablates)": "scale",
    "set": "set",
    "steer": "steer",
    "project (0: out)": "project",
}

MEANINGS: dict[EditKind, str] = {
    "scale": "f becomes {0:g} × f: nothing where the feature is silent",
    "set": "f becomes {0:g} × its maximum on the reference text, wherever the edit acts",
    "steer": "{0:+g} × its maximum is added along its direction, whether it fires or not",
    "project": "the part of the stream along its direction becomes {0:g} × itself, whether it fires or not",
    "reconstruct": "the SAE's reconstruction stands in place of the stream",
}


def edit_of(feature: int, values: Values) -> Edit:
    """The edit that a form says."""
    at: Positions = next(at for at, words in PLACES.items() if words == values["at"])
    if feature == NO_FEATURE:
        return Edit(kind="reconstruct", at=at)
    return Edit(feature, float(values["strength"]), KINDS[values["kind"]], at)


def check_edit(values: Values) -> str:
    """What is wrong with an edit's form; "" if nothing is."""
    if "strength" not in values:
        return ""
    try:
        return "" if isfinite(float(values["strength"])) else "strength: a finite number."
    except ValueError:
        return "strength: a number, such as 0.125 or -1."


def numbers(text: str) -> tuple[float, ...]:
    """Numbers as typed, each once. Raises ValueError."""
    return tuple(dict.fromkeys(float(part) for part in text.replace(",", " ").split()))


def check_tried(values: Values) -> str:
    """What is wrong with a list of strengths; "" if nothing is."""
    try:
        found = numbers(values["strengths"])
    except ValueError:
        return "strengths: numbers with commas between them, such as 0, 0.5, 2."
    if not found:
        return "strengths: at least one."
    if not all(map(isfinite, found)):
        return "strengths: finite numbers."
    return "" if len(found) <= MOST_TRIED else f"strengths: at most {MOST_TRIED}, for each is a row of the batch."


ACTS, RESTARTS = "acts on the next token", "restarts the text"

MOST_SAMPLES = 16

MOST_TOKENS = 4096

# ---- settings as typed


def in_a_line(text: str) -> str:
    """A text as it can be typed: line breaks and tabs as \\n and \\t, a backslash doubled."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


def from_a_line(text: str) -> str:
    """The reverse of `in_a_line`."""
    return "\\".join(part.replace("\\n", "\n").replace("\\t", "\t") for part in text.split("\\\\"))


def stops_of(text: str) -> tuple[str, ...]:
    """Stop strings as typed, | with its spaces between them."""
    return tuple(from_a_line(part) for part in text.split(" | ") if part)


def sampling_of(values: dict[str, str]) -> Sampling:
    """The sampling that a form says."""
    return Sampling(
        int(values["tokens"]),
        float(values["temperature"]),
        int(values["seed"]),
        int(values["top_k"]),
        float(values["top_p"]),
        float(values["min_p"]),
        stops_of(values["stop"]),
    )


def check_settings(values: dict[str, str]) -> str:
    """What is wrong with the generation settings; "" if nothing is."""
    if not is_whole(values["tokens"], 1, MOST_TOKENS):
        return f"tokens at most: a whole number from 1 to {MOST_TOKENS}."
    if not is_number(values["temperature"], 0, 100):
        return "temperature: 0 (greedy) or more."
    if not is_whole(values["seed"], 0, 2**63 - 1):
        return "seed: a whole number, 0 or more."
    if not is_whole(values["top_k"], 0, 10**9):
        return "top-k: a whole number, or 0 for all tokens."
    if not is_number(values["top_p"], 0, 1) or float(values["top_p"]) == 0:
        return "top-p: a number above 0, and 1 for all tokens."
    if not is_number(values["min_p"], 0, 1):
        return "min-p: a number from 0, for all tokens, to 1."
    if not is_whole(values["samples"], 1, MOST_SAMPLES):
        return f"samples: a whole number from 1 to {MOST_SAMPLES}."
    if int(values["samples"]) > 1 and float(values["temperature"]) == 0:
        return "samples: greedy ones are all the same; give a temperature above 0."
    return ""


def is_number(text: str, least: float, most: float) -> bool:
    """Whether it is a number in this range."""
    try:
        return least <= float(text) <= most
    except ValueError:
        return False
