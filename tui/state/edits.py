"""Edits as the list holds them: strengths and places they move through, and how they are worded. No widgets."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.files.session import EditSlot
from engine.records import NO_FEATURE, Edit, EditKind, EditsFrom, Positions
from engine.records.words.edits import EDITS_SPELLED_OUT
from engine.records.words.edits import edits_in_words as counted

replace = msgspec.structs.replace

STEPS: dict[EditKind, tuple[float, ...]] = {
    "scale": (-1.0, -0.5, 0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0),
    "set": (0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0),
    "steer": (-5.0, -3.0, -2.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0),
    "project": (0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
    "reconstruct": (0.0,),
}
"""Strengths that + and − step through. Steering by 0 changes nothing, nor do a scale or a projection of 1."""

USUAL: dict[EditKind, float] = {"scale": 0.0, "set": 1.0, "steer": 1.0, "project": 0.0, "reconstruct": 0.0}
"""What an edit of a kind is put to where nobody says."""

POSITIONS: tuple[Positions, ...] = ("all", "prompt", "generated", "last", "first-step")

TRIED: dict[EditKind, tuple[float, ...]] = {
    "scale": (0.0, 0.25, 0.5, 1.5, 2.0),
    "set": (0.0, 0.5, 1.0, 2.0),
    "steer": (-2.0, -1.0, 1.0, 2.0),
    "project": (0.0, 0.5, 2.0),
    "reconstruct": (),
}
"""Strengths that are proposed to be tried side by side."""


def stepped(slot: EditSlot, steps: int) -> EditSlot:
    """So many steps stronger, from the nearest of the known strengths; switched on."""
    known = STEPS[slot.kind]
    at = min(range(len(known)), key=lambda i: abs(known[i] - slot.strength))
    strength = known[max(0, min(len(known) - 1, at + steps))]
    return with_strength(slot, strength)


def with_strength(slot: EditSlot, strength: float) -> EditSlot:
    """Of another strength, which forgets what the old one came to; switched on."""
    absolute = slot.absolute if strength == slot.strength else None
    return replace(slot, strength=strength, absolute=absolute, on=True)


def moved(slot: EditSlot) -> EditSlot:
    """Acting at the next choice of positions."""
    return replace(slot, at=POSITIONS[(POSITIONS.index(slot.at) + 1) % len(POSITIONS)])


def slot_of(edit: Edit, on: bool = True) -> EditSlot:
    """An edit as a line of the list."""
    return EditSlot(**msgspec.structs.asdict(edit), on=on)


def reconstruction(at: Positions = "all") -> EditSlot:
    """The line that drops the SAE's error."""
    return EditSlot(NO_FEATURE, kind="reconstruct", at=at)


def variants(edits: tuple[Edit, ...], edit: Edit, strengths: tuple[float, ...]) -> tuple[tuple[Edit, ...], ...]:
    """These edits with one of them at each of several strengths; it is added where it is not among them."""
    others = tuple(e for e in edits if e.feature != edit.feature)
    at = next((i for i, e in enumerate(edits) if e.feature == edit.feature), len(others))
    tried = (replace(edit, strength=s, absolute=edit.absolute if s == edit.strength else None) for s in strengths)
    return tuple((*others[:at], e, *others[at:]) for e in tried)


PLACES: dict[Positions, str] = {
    "all": "all tokens",
    "prompt": "prompt",
    "generated": "generated",
    "last": "last of prompt",
    "first-step": "first step",
}

RECONSTRUCTS = "reconstruct"


def strength_in_words(edit: Edit) -> str:
    """What an edit does, in few letters: "ablate", "×0.125", "= 2 max", "steer +2", "project out"."""
    match edit.kind:
        case "scale":
            return "ablate" if edit.strength == 0 else f"×{edit.strength:g}"
        case "set":
            return f"= {edit.strength:g} max"
        case "steer":
            return f"steer {edit.strength:+g}"
        case "project":
            return "project out" if edit.strength == 0 else f"project ×{edit.strength:g}"
        case "reconstruct":
            return RECONSTRUCTS


def edit_in_words(edit: Edit) -> str:
    """Such as "4133 ×0.125 at prompt"; a reconstruction, which is about all features, is called lossy."""
    what = f"{RECONSTRUCTS} (lossy)" if edit.kind == "reconstruct" else f"{edit.feature} {strength_in_words(edit)}"
    return what if edit.at == "all" else f"{what} at {PLACES[edit.at]}"


def edits_in_words(edits: Sequence[Edit]) -> str:
    """All of them, a place they share said once; many are counted."""
    if len(edits) > EDITS_SPELLED_OUT:
        return counted(edits)
    places = {edit.at for edit in edits}
    if len(edits) > 1 and len(places) == 1 and "all" not in places:
        everywhere = (msgspec.structs.replace(edit, at="all") for edit in edits)
        return f"{', '.join(map(edit_in_words, everywhere))}, all at {PLACES[edits[0].at]}"
    return ", ".join(map(edit_in_words, edits)) or "no edits"


def schedule_in_words(schedule: Sequence[EditsFrom]) -> str:
    """Such as "no edits → from token 12: 4133 ablate"."""
    return " → ".join(map(change_in_words, schedule))


def change_in_words(change: EditsFrom) -> str:
    """Such as "from token 12: 4133 ablate"; the edits alone where they are those from the start."""
    start = f"from token {change.token_index + 1}: " if change.token_index else ""
    return start + edits_in_words(change.edits)


def effect_in_words(slot: EditSlot) -> str:
    """What an edit does and, unless that is everywhere, where."""
    place = "" if slot.at == "all" else f" {PLACES[slot.at]}"
    return strength_in_words(slot) + place
