"""Which strengths and places an edit can be moved through, by its kind. No widgets."""

from __future__ import annotations

import msgspec

from engine.files.session import EditSlot
from engine.records import NO_FEATURE, Edit, EditKind, Positions

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

PLACES: tuple[Positions, ...] = ("all", "prompt", "generated", "last", "first-step")

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
    return replace(slot, at=PLACES[(PLACES.index(slot.at) + 1) % len(PLACES)])


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
