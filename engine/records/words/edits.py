"""Edits in words: as one types them, and in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import get_args

from msgspec.structs import replace

from engine.records.edits import Edit, EditKind, Positions
from engine.records.errors import EditError
from engine.records.words.numbers import count

POSITIONS: tuple[Positions, ...] = get_args(Positions)

FORMS = {
    "ablate": ("FEATURE", "4133"),
    "scale": ("FEATURE=FACTOR", "4133=0.125"),
    "set": ("FEATURE=MAXIMA", "4133=2"),
    "steer": ("FEATURE=MAXIMA", "4133=3"),
    "project": ("FEATURE or FEATURE=FACTOR", "4133=0.5"),
}
"""What each word but `reconstruct` takes, and an example of it."""

KINDS: dict[str, EditKind] = {
    "ablate": "scale",
    "scale": "scale",
    "set": "set",
    "steer": "steer",
    "project": "project",
}

EQUALS = {"ablate": ("",), "project": ("", "=")}
"""Whether a word's value has a strength; a word that is not here needs one."""

MOST_DIGITS = 18
"""Of a feature's number: more of them are none that a record could hold."""
NOTHING = "none"
"""A variant without edits."""

ReadList = Callable[[str], Sequence[int]]
"""The features of a list by its name."""


def asked(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """The edits without what their strengths came to, so that what was asked and what was recorded compare."""
    return tuple(replace(edit, absolute=None) for edit in edits)


def settled(edits: Iterable[Edit], recorded: Iterable[Edit]) -> tuple[Edit, ...]:
    """The edits asked for, with what their strengths came to where the same ones were recorded with it."""
    recorded = tuple(recorded)
    known = dict(zip(asked(recorded), recorded, strict=True))
    return tuple(known.get(edit, edit) for edit in edits)


def parse(word: str, value: str, at: Positions, read_list: ReadList, dashes: str = "--") -> list[Edit]:
    """The edits of one option, of which `ablate` may name a list of features. Raises EditError."""
    if word == "reconstruct":
        return [Edit(kind="reconstruct", at=at)]
    said = f"{dashes}{word} {value}"
    value, at = _placed(value, at, said)
    number, equals, strength = value.partition("=")
    if word == "ablate" and number.startswith("@") and not equals:
        return [Edit(feature, at=at) for feature in read_list(number[1:])]
    feature = feature_number(number, f"{dashes}{word}")
    form, example = FORMS[word]
    try:
        if equals not in EQUALS.get(word, ("=",)):
            raise ValueError
        return [Edit(feature, float(strength) if equals else 0.0, KINDS[word], at)]
    except ValueError:
        raise EditError(f"{said}: expected {form}.", f"For example {dashes}{word} {example}.") from None


def _placed(value: str, at: Positions, said: str) -> tuple[str, Positions]:
    """A value without its position, and the position it names, else the one for all."""
    rest, _, named = value.rpartition("@")
    if not rest:
        return value, at
    for known in POSITIONS:
        if named == known:
            return rest, known
    raise EditError(f"{said}: there is no position {named!r}.", f"Positions: {', '.join(POSITIONS)}.")


def feature_number(text: str, option: str) -> int:
    """A feature's number. Raises EditError."""
    if not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS):
        raise EditError(f"{option} {text}: a feature is a number.", f"For example {option} 4133.")
    return int(text)


def parse_list(spec: str, at: Positions, read_list: ReadList) -> tuple[Edit, ...]:
    """The edits of a variant: such as "scale 4133=0.5, ablate 12, reconstruct, at prompt". Raises EditError.

    `at` is where they act unless the variant says otherwise; "none" has no edits.
    """
    if spec.strip() == NOTHING:
        return ()
    parts = [part.split() for part in spec.split(",")]
    for part in parts:
        if _is_place(part):
            _, at = _placed(f"at@{part[1]}", at, f"--variant {spec!r}")
    found: list[Edit] = []
    for part in parts:
        if not _is_place(part):
            found += _parse_part(part, at, read_list, spec)
    return tuple(found)


def _is_place(part: list[str]) -> bool:
    return len(part) == 2 and part[0] == "at"


def _parse_part(part: list[str], at: Positions, read_list: ReadList, spec: str) -> list[Edit]:
    word, *values = part or [""]
    if not (part == ["reconstruct"] or (word in FORMS and len(values) == 1)):
        raise EditError(
            f"--variant {spec!r}: {' '.join(part)!r} is no edit.",
            'Separate edits by commas, such as --variant "scale 4133=0.5, ablate 12, reconstruct, at prompt".',
        )
    return parse(word, "".join(values), at, read_list, dashes="")


def spelled(edits: Sequence[Edit]) -> tuple[Positions, list[tuple[str, str]]]:
    """Where edits act unless they say otherwise, and each edit as a word and its value, which `parse` reads back."""
    places = [edit.at for edit in edits]
    whole = [edit.at for edit in edits if edit.kind == "reconstruct"]  # it has no value that could say where
    at = whole[0] if whole else max(POSITIONS, key=places.count)
    return at, [_spelled(edit, at) for edit in edits]


def _spelled(edit: Edit, at: Positions) -> tuple[str, str]:
    if edit.kind == "reconstruct":
        return "reconstruct", ""
    word = "ablate" if edit.kind == "scale" and edit.strength == 0 else edit.kind
    # repr: the shortest digits that read back as the same number
    strength = "" if word in EQUALS and edit.strength == 0 else f"={edit.strength!r}"
    return word, f"{edit.feature}{strength}{'' if edit.at == at else f'@{edit.at}'}"


def spelled_list(edits: Sequence[Edit], at: Positions) -> str:
    """A variant's edits as `parse_list` reads them, where they act unless they say otherwise being `at`."""
    if not edits:
        return NOTHING
    own, words = spelled(edits)
    parts = [f"{word} {value}".strip() for word, value in words]
    return ", ".join(parts if own == at else [*parts, f"at {own}"])


EDITS_SPELLED_OUT = 8

WHERE: dict[Positions, str] = {
    "all": "",
    "prompt": " (prompt)",
    "generated": " (generated)",
    "last": " (last prompt token)",
    "first-step": " (first step)",
}

DONE: dict[EditKind, str] = {
    "scale": "scaled",
    "set": "set",
    "steer": "steered",
    "project": "projected",
    "reconstruct": "reconstructed",
}

LOSSY = "lossy: the SAE's reconstruction stands in for the model's own vectors, whatever it misses is dropped"

FIRST_STEP = (
    "first step: only the prompt's pass is edited, its BOS included; what that did stays in the prompt's keys and "
    "values, so every later token sees it"
)


def edit_in_words(edit: Edit) -> str:
    """Such as "4133 ablated", and where it acts unless that is everywhere: "574 x 0.125 (prompt)"."""
    return f"{_change_in_words(edit)}{WHERE[edit.at]}"


def _change_in_words(edit: Edit) -> str:
    match edit.kind:
        case "scale":
            return f"{edit.feature} x {edit.strength:g}" if edit.strength else f"{edit.feature} ablated"
        case "set":
            return f"{edit.feature} set to {edit.strength:g} x its maximum"
        case "steer":
            return f"{edit.feature} steered by {edit.strength:g}"
        case "project":
            return f"{edit.feature} projected {f'to x {edit.strength:g}' if edit.strength else 'out'}"
        case "reconstruct":
            return "reconstructed, the SAE's error dropped"


def edits_in_words(edits: Sequence[Edit]) -> str:
    """Such as "4133 ablated, 574 x 0.125"; many edits are counted, their list is in the record."""
    if len(edits) <= EDITS_SPELLED_OUT:
        return ", ".join(edit_in_words(edit) for edit in edits) or "none"
    counts = Counter("ablated" if _ablates(edit) else DONE[edit.kind] for edit in edits)
    reconstructed = counts.pop(DONE["reconstruct"], 0)
    found = [word for word in ("ablated", *DONE.values()) if counts[word]]
    parts = [f"{count(counts[word], 'feature') if word == found[0] else counts[word]} {word}" for word in found]
    parts += [DONE["reconstruct"]] if reconstructed else []
    places = {edit.at for edit in edits}
    return ", ".join(parts) + (WHERE[places.pop()] if len(places) == 1 else " (at different positions)")


def _ablates(edit: Edit) -> bool:
    return edit.kind == "scale" and edit.strength == 0


def edit_notes(edits: Sequence[Edit]) -> list[str]:
    """What a reader of a text has to know about the edits that were in force, a sentence each."""
    notes = []
    if any(edit.kind == "reconstruct" for edit in edits):
        notes.append(LOSSY)
    if any(edit.at == "first-step" for edit in edits):
        notes.append(FIRST_STEP)
    return notes
