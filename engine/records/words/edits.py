"""Edits in words: as the user types them, in sentences, and in few letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import get_args

from msgspec.structs import replace

from engine.records.edits import EDIT_KINDS, Edit, EditForm, Positions, edit_forms
from engine.records.errors import EditError
from engine.records.words.numbers import count

POSITIONS: tuple[Positions, ...] = get_args(Positions)

MOST_DIGITS = 18
"""Most digits of a feature's number; no record could hold a longer one."""
NOTHING = "none"
"""How a variant without edits is written."""

ReadList = Callable[[str], Sequence[int]]
"""A function that returns the features of a list, given the list's name."""


def without_amounts(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """Return the edits without their absolute strengths, so that requested and recorded edits compare equal."""
    return tuple(replace(edit, absolute=None) for edit in edits)


def with_recorded_amounts(edits: Iterable[Edit], recorded: Iterable[Edit]) -> tuple[Edit, ...]:
    """Return the requested edits, with absolute strengths from the recorded edits that are the same."""
    recorded = tuple(recorded)
    known = dict(zip(without_amounts(recorded), recorded, strict=True))
    return tuple(known.get(edit, edit) for edit in edits)


def parse(word: str, value: str, at: Positions, read_list: ReadList, dashes: str = "--") -> list[Edit]:
    """Return the edits of one option; an option may name a list of features. Raises EditError."""
    kind, form = edit_forms()[word]
    if not form.takes:
        return [Edit(kind=kind, at=at)]
    typed = f"{dashes}{word} {value}"
    value, at = _placed(value, at, typed)
    number, equals, strength = value.partition("=")
    if "@LIST" in form.takes and number.startswith("@") and not equals:
        return [Edit(feature, kind=kind, at=at) for feature in read_list(number[1:])]
    feature = feature_number(number, f"{dashes}{word}")
    try:
        if equals not in form.equals:
            raise ValueError
        return [Edit(feature, float(strength) if equals else 0.0, kind, at)]
    except ValueError:
        raise EditError(f"{typed}: expected {form.takes}.", f"For example {dashes}{word} {form.example}.") from None


def _placed(value: str, at: Positions, typed: str) -> tuple[str, Positions]:
    """Split a value from the position after its @; without one the position is `at`."""
    rest, _, named = value.rpartition("@")
    if not rest:
        return value, at
    for known in POSITIONS:
        if named == known:
            return rest, known
    raise EditError(f"{typed}: there is no position {named!r}.", f"Positions: {', '.join(POSITIONS)}.")


def feature_number(text: str, option: str) -> int:
    """Return a feature's number. Raises EditError."""
    if not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS):
        raise EditError(f"{option} {text}: a feature is a number.", f"For example {option} 4133.")
    return int(text)


def parse_list(spec: str, at: Positions, read_list: ReadList) -> tuple[Edit, ...]:
    """Return the edits of a variant, such as "scale 4133=0.5, ablate 12, reconstruct, at prompt". Raises EditError.

    The edits act at `at` unless the variant says otherwise; "none" stands for no edits.
    """
    if spec.strip() == NOTHING:
        return ()
    parts = [part.split() for part in spec.split(",")]
    for part in parts:
        if _is_place(part):
            _, at = _placed(f"at@{part[1]}", at, f"--variant {spec!r}")
    edits: list[Edit] = []
    for part in parts:
        if not _is_place(part):
            edits += _parse_part(part, at, read_list, spec)
    return tuple(edits)


def _is_place(part: list[str]) -> bool:
    return len(part) == 2 and part[0] == "at"


def _parse_part(part: list[str], at: Positions, read_list: ReadList, spec: str) -> list[Edit]:
    word, *values = part or [""]
    forms = edit_forms()
    if word not in forms or len(values) != bool(forms[word][1].takes):
        raise EditError(
            f"--variant {spec!r}: {' '.join(part)!r} is no edit.",
            'Separate edits by commas, such as --variant "scale 4133=0.5, ablate 12, reconstruct, at prompt".',
        )
    return parse(word, "".join(values), at, read_list, dashes="")


def spelled(edits: Sequence[Edit]) -> tuple[Positions, list[tuple[str, str]]]:
    """Return the position where edits act by default, and each edit as a word and value that `parse` reads back."""
    places = [edit.at for edit in edits]
    whole = [edit.at for edit in edits if not _form_of(edit).takes]  # these have no value that could name a position
    at = whole[0] if whole else max(POSITIONS, key=places.count)
    return at, [_spelled(edit, at) for edit in edits]


def _spelled(edit: Edit, at: Positions) -> tuple[str, str]:
    form = _form_of(edit)
    if not form.takes:
        return form.word, ""
    # repr: the shortest digits that read back as the same number
    strength = "" if "" in form.equals and edit.strength == 0 else f"={edit.strength!r}"
    return form.word, f"{edit.feature}{strength}{'' if edit.at == at else f'@{edit.at}'}"


def _form_of(edit: Edit) -> EditForm:
    """Return the first form of the edit's kind that can express the edit's strength."""
    return next(form for form in EDIT_KINDS[edit.kind].forms if "=" in form.equals or edit.strength == 0)


def spelled_list(edits: Sequence[Edit], at: Positions) -> str:
    """Return a variant's edits as `parse_list` reads them, with `at` as the default position."""
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

PLACES: dict[Positions, str] = {
    "all": "all tokens",
    "prompt": "prompt",
    "generated": "generated",
    "last": "last of prompt",
    "first-step": "first step",
}
"""The positions in the app, where there is little room."""

LOSSY = "lossy: the SAE's reconstruction stands in for the model's own vectors, whatever it misses is dropped"

FIRST_STEP = (
    "first step: only the prompt's pass is edited, its BOS included; what that did stays in the prompt's keys and "
    "values, so every later token sees it"
)


def edit_in_words(edit: Edit) -> str:
    """Return an edit as "4133 ablated", with its position unless it is everywhere: "574 x 0.125 (prompt)"."""
    return f"{_change_in_words(edit)}{WHERE[edit.at]}"


def _change_in_words(edit: Edit) -> str:
    row = EDIT_KINDS[edit.kind]
    return _filled(row.says, row.says_at_0, edit)


def _filled(text: str, at_0: str, edit: Edit) -> str:
    """Fill in a text of EDIT_KINDS; for a strength of 0 use the text `at_0`, if there is one."""
    return (text if edit.strength else at_0 or text).format(feature=edit.feature, strength=edit.strength)


def edits_in_words(edits: Sequence[Edit]) -> str:
    """Return edits as "4133 ablated, 574 x 0.125"; many edits are only counted, since the record lists them."""
    if len(edits) <= EDITS_SPELLED_OUT:
        return ", ".join(edit_in_words(edit) for edit in edits) or "none"
    counts = Counter(_done(edit) for edit in edits)
    reconstructed = counts.pop(EDIT_KINDS["reconstruct"].done, 0)
    words = [word for row in EDIT_KINDS.values() for word in (row.done_at_0, row.done)]
    used = [word for word in words if counts[word]]
    parts = [f"{count(counts[word], 'feature') if word == used[0] else counts[word]} {word}" for word in used]
    parts += [EDIT_KINDS["reconstruct"].done] if reconstructed else []
    places = {edit.at for edit in edits}
    return ", ".join(parts) + (WHERE[places.pop()] if len(places) == 1 else " (at different positions)")


def _done(edit: Edit) -> str:
    row = EDIT_KINDS[edit.kind]
    return _filled(row.done, row.done_at_0, edit)


def meaning_of(edit: Edit) -> str:
    """Return what an edit does, as a formula in words."""
    return _filled(EDIT_KINDS[edit.kind].meaning, "", edit)


def kinds_explained() -> str:
    """Return what every kind of edit does, a sentence each, for the app's help."""
    return " ".join(row.help for row in EDIT_KINDS.values())


def choices_in_words() -> str:
    """Return the kinds of a feature's edit, such as "scale, set, steer or project"."""
    *kinds, last = (kind for kind, row in EDIT_KINDS.items() if row.choice)
    return f"{', '.join(kinds)} or {last}"


def edit_notes(edits: Sequence[Edit]) -> list[str]:
    """Return what a reader of a text has to know about the edits that were in force, a sentence each."""
    notes = []
    if any(edit.kind == "reconstruct" for edit in edits):
        notes.append(LOSSY)
    if any(edit.at == "first-step" for edit in edits):
        notes.append(FIRST_STEP)
    return notes


# ---- in few letters


def change_in_short(edit: Edit) -> str:
    """Return what an edit does, as "ablate", "×0.125", "= 2 max", "steer +2" or "project out"."""
    row = EDIT_KINDS[edit.kind]
    return _filled(row.short, row.short_at_0, edit)


def edit_in_short(edit: Edit) -> str:
    """Return an edit as "4133 ×0.125 at prompt"; a reconstruction, which is about all features, is called lossy."""
    change = change_in_short(edit)
    what = f"{change} (lossy)" if edit.kind == "reconstruct" else f"{edit.feature} {change}"
    return what if edit.at == "all" else f"{what} at {PLACES[edit.at]}"


def edits_in_short(edits: Sequence[Edit]) -> str:
    """Return all edits in short, naming a position they share once; many edits are counted."""
    if len(edits) > EDITS_SPELLED_OUT:
        return edits_in_words(edits)
    places = {edit.at for edit in edits}
    if len(edits) > 1 and len(places) == 1 and "all" not in places:
        everywhere = (replace(edit, at="all") for edit in edits)
        return f"{', '.join(map(edit_in_short, everywhere))}, all at {PLACES[edits[0].at]}"
    return ", ".join(map(edit_in_short, edits)) or "no edits"
