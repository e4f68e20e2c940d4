"""The list of edits: each line can be switched, changed in strength and positions, and removed."""

from __future__ import annotations

import msgspec

from engine.files.session import EditSlot
from engine.records import NO_FEATURE, Edit
from tui.state.edits import moved, reconstruction, slot_of, stepped
from tui.state.history import History
from tui.state.topics import Topic

replace = msgspec.structs.replace


class EditList:
    """The edits of a workspace, and their changes."""

    def __init__(self, history: History) -> None:
        self._history = history

    @property
    def slots(self) -> tuple[EditSlot, ...]:
        """The lines of the list, in order."""
        return self._history.now.edits

    def on(self) -> tuple[Edit, ...]:
        """Return the edits that are switched on."""
        return tuple(slot.edit() for slot in self.slots if slot.on)

    def slot(self, feature: int) -> EditSlot | None:
        """Return a feature's line, or None; NO_FEATURE stands for the reconstruction."""
        return next((slot for slot in self.slots if slot.feature == feature), None)

    def toggle(self, feature: int) -> None:
        """Switch a feature's edit on or off; ablate a feature that has none."""
        slot = self.slot(feature)
        self._change(EditSlot(feature) if slot is None else replace(slot, on=not slot.on))

    def toggle_reconstruction(self) -> None:
        """Switch the reconstruction, which drops the SAE's error, on or off."""
        slot = self.slot(NO_FEATURE)
        self._change(reconstruction() if slot is None else replace(slot, on=not slot.on))

    def step(self, feature: int, steps: int) -> None:
        """Change an edit's strength by `steps` steps; a feature without an edit starts at scale 1, the identity."""
        self._change(stepped(self.slot(feature) or EditSlot(feature, 1.0), steps))

    def move(self, feature: int) -> None:
        """Let a feature's edit act at the next choice of positions."""
        slot = self.slot(feature)
        if slot is not None:
            self._change(moved(slot))

    def remove(self, feature: int) -> None:
        """Remove a feature's line."""
        self._history.remember("edits")
        self._history.set(edits=tuple(slot for slot in self.slots if slot.feature != feature))
        self._history.tell(Topic.EDITS)

    def put(self, edits: tuple[Edit, ...]) -> None:
        """Put edits, switched on, in place of the lines of the same features, or at the end."""
        self._history.remember("edits")
        for edit in edits:
            self._put(slot_of(edit))
        self._history.tell(Topic.EDITS)

    def ablate(self, features: list[int]) -> None:
        """Ablate these features; those in the list already are switched on and keep their edits."""
        self._history.remember("edits")
        known = {slot.feature for slot in self.slots}
        kept = tuple(replace(s, on=True) if s.feature in features else s for s in self.slots)
        self._history.set(edits=kept + tuple(EditSlot(f) for f in features if f not in known))
        self._history.tell(Topic.EDITS)

    def clear(self) -> None:
        """Empty the list."""
        if self.slots:
            self._history.remember("edits")
            self._history.set(edits=())
        self._history.tell(Topic.EDITS)

    def switch_all(self) -> None:
        """Switch all edits off if any is on, else all on."""
        on = not any(slot.on for slot in self.slots)
        self._history.set(edits=tuple(replace(slot, on=on) for slot in self.slots))
        self._history.tell(Topic.EDITS)

    def _change(self, slot: EditSlot) -> None:
        """Put one line; adding a line can be undone."""
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
