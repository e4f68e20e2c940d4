"""What the user of the app changes in the workspace: prompts, question, features, edits. No widgets, no engine.

Every change goes through a method here and raises `version`, which is how the autosave knows that there is something
to save, and tells what has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import msgspec

from engine.files.session import EditSlot, Workspace
from engine.records import NO_FEATURE, Edit, Format, Probe, Prompt, PromptSet, Sampling
from tui.state.edits import moved, reconstruction, slot_of, stepped
from tui.state.topics import Topic

replace = msgspec.structs.replace

UNDO_STEPS = 100

Group = Literal["positive", "negative", "probes"]
"""Where an entry of the prompts stands."""


class Changes:
    """A workspace and what may be done to it."""

    def __init__(self, workspace: Workspace) -> None:
        self.work = workspace
        self.version = 0
        self.tell: Callable[[Topic], None] = lambda topic: None
        """Hears of every change: the screen."""
        self._undo: list[dict[str, object]] = []
        """What each change replaced: the prompts, or the list of edits."""

    def _set(self, **changes: object) -> None:
        self.work = replace(self.work, **changes)
        self.version += 1

    # ---- prompts

    def set_prompts(self, prompts: PromptSet) -> None:
        """Other prompts; `undo` brings the old ones back."""
        if prompts != self.work.prompts:
            self._remember("prompts")
            self._set(prompts=prompts)
        self.tell(Topic.PROMPTS)

    def _remember(self, field: str) -> None:
        self._undo = [*self._undo[-UNDO_STEPS:], {field: getattr(self.work, field)}]

    def put_prompt(self, group: str, index: int | None, text: str) -> int:
        """Types over a prompt, or adds one at the end (index None), fed as the set's others are; returns its index."""
        entries = list(getattr(self.work.prompts, group))
        if index is None:
            entries.append(Prompt(text, self.format()))
        else:
            entries[index] = replace(entries[index], text=text)
        self.set_prompts(replace(self.work.prompts, **{group: tuple(entries)}))
        return len(entries) - 1 if index is None else index

    def put_probe(self, index: int | None, probe: Probe) -> None:
        """Changes a probe, or adds one (index None)."""
        probes = list(self.work.prompts.probes)
        if index is None:
            probes.append(probe)
        else:
            probes[index] = probe
        self.set_prompts(replace(self.work.prompts, probes=tuple(probes)))

    def delete_entry(self, group: str, index: int) -> None:
        """Takes a prompt or probe out."""
        entries = getattr(self.work.prompts, group)
        self.set_prompts(replace(self.work.prompts, **{group: entries[:index] + entries[index + 1 :]}))

    def move_prompt(self, group: str, index: int) -> None:
        """Moves a prompt to the other set."""
        other = "negative" if group == "positive" else "positive"
        mine, theirs = getattr(self.work.prompts, group), getattr(self.work.prompts, other)
        moved = {group: mine[:index] + mine[index + 1 :], other: (*theirs, mine[index])}
        self.set_prompts(replace(self.work.prompts, **moved))

    def add_prompts(self, positive: list[Prompt], negative: list[Prompt], probes: list[Probe]) -> int:
        """Adds what the sets do not hold yet; returns how many entries that were."""
        now = self.work.prompts
        known = {p.text.strip() for p in (*now.positive, *now.negative)}
        asked = {p.text.strip() for p in now.probes}
        new_positive, new_negative = without_known(positive, known), without_known(negative, known)
        new_probes = without_known(probes, asked)
        self.set_prompts(
            replace(
                now,
                positive=now.positive + new_positive,
                negative=now.negative + new_negative,
                probes=now.probes + new_probes,
            )
        )
        return len(new_positive) + len(new_negative) + len(new_probes)

    def format(self) -> Format:
        """How the contrast prompts are fed."""
        known = (*self.work.prompts.positive, *self.work.prompts.negative)
        return known[0].format if known else "raw"

    def switch_format(self) -> Format:
        """Feeds the contrast prompts the other way, and says which."""
        format: Format = "raw" if self.format() == "chat" else "chat"
        now = self.work.prompts
        positive = tuple(replace(p, format=format) for p in now.positive)
        negative = tuple(replace(p, format=format) for p in now.negative)
        self.set_prompts(replace(now, positive=positive, negative=negative))
        return format

    def undo(self) -> bool:
        """Takes back the last change of prompts, or of which edits are in the list; False where there is none."""
        if not self._undo:
            return False
        self._set(**self._undo.pop())
        self.tell(Topic.PROMPTS)
        self.tell(Topic.EDITS)
        return True

    def probe_of_question(self) -> Probe | None:
        """The probe whose text the question is, which is what says how its answers are tracked."""
        found = (p for p in self.work.prompts.probes if p.text.strip() == self.work.question.strip())
        return next(found, None)

    def ask_probe(self, probe: Probe) -> None:
        """Makes a probe the question."""
        self._set(question=probe.text, raw=probe.format == "raw")
        self.tell(Topic.QUESTION)

    def set_question(self, text: str) -> None:
        """What the generation pane asks."""
        if text != self.work.question:
            self._set(question=text)

    def question(self) -> Prompt:
        """The question as it is fed."""
        return Prompt(self.work.question, "raw" if self.work.raw else "chat")

    def set_generation(self, raw: bool, sampling: Sampling, prefill: str, samples: int, restart: bool) -> None:
        """How text is generated, and what a toggled edit does to the running text."""
        self._set(raw=raw, sampling=sampling, prefill=prefill, samples=samples, restart=restart)
        self.tell(Topic.QUESTION)

    def switch_restart(self) -> None:
        """A toggled edit acts on the next token, or starts the text anew."""
        self._set(restart=not self.work.restart)
        self.tell(Topic.QUESTION)

    # ---- features

    def choose_feature(self, feature: int) -> None:
        """The feature whose activations are shown."""
        if feature != self.work.feature:
            self._set(feature=feature)

    def toggle_pin(self, feature: int) -> None:
        """Pins a feature to the leaderboard, or unpins it."""
        pinned = self.work.pinned
        self._set(pinned=tuple(p for p in pinned if p != feature) if feature in pinned else (*pinned, feature))
        self.tell(Topic.RANKING)

    def set_label(self, feature: int, label: str) -> None:
        """The user's own name for a feature; "" takes it away."""
        labels = {k: v for k, v in self.work.labels.items() if k != feature}
        self._set(labels={**labels, feature: label.strip()} if label.strip() else labels)
        self.tell(Topic.NAMES)

    def take_pins(self, work: Workspace) -> None:
        """Pins, labels and the feature being read, out of another workspace."""
        if (work.pinned, work.labels, work.feature) != (self.work.pinned, self.work.labels, self.work.feature):
            self._set(pinned=work.pinned, labels=work.labels, feature=work.feature)

    # ---- edits

    def edits(self) -> tuple[Edit, ...]:
        """The edits that are switched on."""
        return tuple(slot.edit() for slot in self.work.edits if slot.on)

    def slot(self, feature: int) -> EditSlot | None:
        """A feature's line in the list of edits; NO_FEATURE's is the reconstruction's."""
        return next((slot for slot in self.work.edits if slot.feature == feature), None)

    def toggle_edit(self, feature: int) -> None:
        """Switches a feature's edit; a feature without one is ablated."""
        slot = self.slot(feature)
        self._change(EditSlot(feature) if slot is None else replace(slot, on=not slot.on))

    def toggle_reconstruction(self) -> None:
        """Switches whether the SAE's error is dropped."""
        slot = self.slot(NO_FEATURE)
        self._change(reconstruction() if slot is None else replace(slot, on=not slot.on))

    def step_edit(self, feature: int, steps: int) -> None:
        """Moves a feature's strength; one without an edit starts at a scale of 1, where nothing changes."""
        self._change(stepped(self.slot(feature) or EditSlot(feature, 1.0), steps))

    def move_edit(self, feature: int) -> None:
        """Lets a feature's edit act at the next choice of positions."""
        slot = self.slot(feature)
        if slot is not None:
            self._change(moved(slot))

    def remove_edit(self, feature: int) -> None:
        """Takes a feature out of the list of edits."""
        self._remember("edits")
        self._set(edits=tuple(slot for slot in self.work.edits if slot.feature != feature))
        self.tell(Topic.EDITS)

    def put_edits(self, edits: tuple[Edit, ...]) -> None:
        """Puts edits, switched on, in the place of those there are of the same features, or at the end."""
        self._remember("edits")
        for edit in edits:
            self._put(slot_of(edit))
        self.tell(Topic.EDITS)

    def clear_edits(self) -> None:
        """Empties the list of edits."""
        if self.work.edits:
            self._remember("edits")
            self._set(edits=())
        self.tell(Topic.EDITS)

    def add_edits(self, features: list[int]) -> None:
        """Ablates all of them; those in the list already are switched on and keep their strength."""
        self._remember("edits")
        known = {slot.feature for slot in self.work.edits}
        kept = tuple(replace(s, on=True) if s.feature in features else s for s in self.work.edits)
        self._set(edits=kept + tuple(EditSlot(f) for f in features if f not in known))
        self.tell(Topic.EDITS)

    def switch_all_edits(self) -> None:
        """All off if any is on, else all on."""
        on = not any(slot.on for slot in self.work.edits)
        self._set(edits=tuple(replace(slot, on=on) for slot in self.work.edits))
        self.tell(Topic.EDITS)

    def _change(self, slot: EditSlot) -> None:
        """Puts one edit; a new line in the list is a step of undo."""
        if self.slot(slot.feature) is None:
            self._remember("edits")
        self._put(slot)
        self.tell(Topic.EDITS)

    def _put(self, slot: EditSlot) -> None:
        slots = self.work.edits
        if self.slot(slot.feature) is None:
            self._set(edits=(*slots, slot))
        else:
            self._set(edits=tuple(slot if s.feature == slot.feature else s for s in slots))


Entry = TypeVar("Entry", Prompt, Probe)


def without_known(entries: list[Entry], known: set[str]) -> tuple[Entry, ...]:
    """The entries whose text is not known yet; each is known from then on."""
    found = []
    for entry in entries:
        if entry.text.strip() not in known:
            known.add(entry.text.strip())
            found.append(entry)
    return tuple(found)
