"""The list of edits: each line can be switched, moved through strengths and places, and taken out."""

from __future__ import annotations

import msgspec

from engine.files.session import EditSlot
from engine.records import NO_FEATURE, Edit
from tui.state.edits import moved, reconstruction, slot_of, stepped
from tui.state.history import History
from tui.state.topics import Topic

replace = msgspec.structs.replace


class EditList:
    """The edits of a workspace."""

    def __init__(self, history: History) -> None:
        self._history = history

    @property
    def slots(self) -> tuple[EditSlot, ...]:
        """The lines, in order."""
        return self._history.now.edits

    def on(self) -> tuple[Edit, ...]:
        """The edits that are switched on."""
        return tuple(slot.edit() for slot in self.slots if slot.on)

    def slot(self, feature: int) -> EditSlot | None:
        """A feature's line in the list of edits; NO_FEATURE's is the reconstruction's."""
        return next((slot for slot in self.slots if slot.feature == feature), None)

    def toggle(self, feature: int) -> None:
        """Switches a feature's edit; a feature without one is ablated."""
        slot = self.slot(feature)
        self._change(EditSlot(feature) if slot is None else replace(slot, on=not slot.on))

    def toggle_reconstruction(self) -> None:
        """Switches whether the SAE's error is dropped."""
        slot = self.slot(NO_FEATURE)
        self._change(reconstruction() if slot is None else replace(slot, on=not slot.on))

    def step(self, feature: int, steps: int) -> None:
        """Moves a feature's strength; one without an edit starts at a scale of 1, where nothing changes."""
        self._change(stepped(self.slot(feature) or EditSlot(feature, 1.0), steps))

    def move(self, feature: int) -> None:
        """Lets a feature's edit act at the next choice of positions."""
        slot = self.slot(feature)
        if slot is not None:
            self._change(moved(slot))

    def remove(self, feature: int) -> None:
        """Takes a feature out of the list of edits."""
        self._history.remember("edits")
        self._history.set(edits=tuple(slot for slot in self.slots if slot.feature != feature))
        self._history.tell(Topic.EDITS)

    def put(self, edits: tuple[Edit, ...]) -> None:
        """Puts edits, switched on, in the place of those there are of the same features, or at the end."""
        self._history.remember("edits")
        for edit in edits:
            self._put(slot_of(edit))
        self._history.tell(Topic.EDITS)

    def ablate(self, features: list[int]) -> None:
        """Ablates all of them; those in the list already are switched on and keep their strength."""
        self._history.remember("edits")
        known = {slot.feature for slot in self.slots}
        kept = tuple(replace(s, on=True) if s.feature in features else s for s in self.slots)
        self._history.set(edits=kept + tuple(EditSlot(f) for f in features if f not in known))
        self._history.tell(Topic.EDITS)

    def clear(self) -> None:
        """Empties the list of edits."""
        if self.slots:
            self._history.remember("edits")
            self._history.set(edits=())
        self._history.tell(Topic.EDITS)

    def switch_all(self) -> None:
        """All off if any is on, else all on."""
        on = not any(slot.on for slot in self.slots)
        self._history.set(edits=tuple(replace(slot, on=on) for slot in self.slots))
        self._history.tell(Topic.EDITS)

    def _change(self, slot: EditSlot) -> None:
        """Puts one edit; a new line in the list is a step of undo."""
        if self.slot(slot.feature) is None:
            self._history.remember("edits")
        self._put(slot)
        self._history.tell(Topic.EDITS)

    def _put(self, slot: EditSlot) -> None:
        slots = self.slots
        if self.slot(slot.feature) is None:
            self._history.set(edits=(*slots, slot))
        else:
            self._history.set(edits=tuple(slot if s.feature == slot.feature else s for s in slots))
