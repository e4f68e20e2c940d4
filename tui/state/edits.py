"""Edits as lines of the list: changed in strength and positions, and in words. No widgets."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.files.session import EditSlot
from engine.records import NO_FEATURE, Edit, EditsFrom, Positions
from engine.records.edits import EDIT_KINDS
from engine.records.words.edits import PLACES, POSITIONS, change_in_short, edits_in_short

replace = msgspec.structs.replace


def stepped(slot: EditSlot, steps: int) -> EditSlot:
    """Return the edit `steps` steps stronger, counted from the nearest strength of its kind's scale; switched on."""
    known = EDIT_KINDS[slot.kind].steps
    at = min(range(len(known)), key=lambda i: abs(known[i] - slot.strength))
    strength = known[max(0, min(len(known) - 1, at + steps))]
    return with_strength(slot, strength)


def with_strength(slot: EditSlot, strength: float) -> EditSlot:
    """Return the edit at another strength, switched on; a new strength drops the absolute value of the old one."""
    absolute = slot.absolute if strength == slot.strength else None
    return replace(slot, strength=strength, absolute=absolute, on=True)


def moved(slot: EditSlot) -> EditSlot:
    """Return the edit acting at the next choice of positions."""
    return replace(slot, at=POSITIONS[(POSITIONS.index(slot.at) + 1) % len(POSITIONS)])


def slot_of(edit: Edit, on: bool = True) -> EditSlot:
    """Return an edit as a line of the list."""
    return EditSlot(**msgspec.structs.asdict(edit), on=on)


def reconstruction(at: Positions = "all") -> EditSlot:
    """Return the line of the reconstruction, which drops the SAE's error."""
    return EditSlot(NO_FEATURE, kind="reconstruct", at=at)


def variants(edits: tuple[Edit, ...], edit: Edit, strengths: tuple[float, ...]) -> tuple[tuple[Edit, ...], ...]:
    """Return these edits once per strength, with `edit` at that strength; it is appended where it is not among them."""
    others = tuple(e for e in edits if e.feature != edit.feature)
    at = next((i for i, e in enumerate(edits) if e.feature == edit.feature), len(others))
    tried = (replace(edit, strength=s, absolute=edit.absolute if s == edit.strength else None) for s in strengths)
    return tuple((*others[:at], e, *others[at:]) for e in tried)


def schedule_in_words(schedule: Sequence[EditsFrom]) -> str:
    """Return a schedule in words, such as "no edits → from token 12: 4133 ablate"."""
    return " → ".join(map(change_in_words, schedule))


def change_in_words(change: EditsFrom) -> str:
    """Return a change in words, such as "from token 12: 4133 ablate"; only the edits if they act from the start."""
    start = f"from token {change.token_index + 1}: " if change.token_index else ""
    return start + edits_in_short(change.edits)


def effect_in_words(slot: EditSlot) -> str:
    """Return in words what an edit does and, unless that is everywhere, where."""
    place = "" if slot.at == "all" else f" {PLACES[slot.at]}"
    return change_in_short(slot) + place
