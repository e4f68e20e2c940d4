"""Labels, notes and explanations of features that outlast a session, as the app uses them.

The files are read and written in threads: another app may hold their lock for seconds. What is put is there at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from engine.records import Loaded
from engine.records.errors import SaescopeError
from tui.services.crash import keep_details
from tui.services.desk import Desk
from tui.state.topics import Topic

if TYPE_CHECKING:
    from engine.files.explanations import Explanations
    from engine.files.notes import Note, Notes

T = TypeVar("T")


class Notebook:
    """What is known of the loaded SAE's features from other sessions, and from others."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._sae = ""
        """Whose labels and notes these are: a SAE's fingerprint."""
        self.labels: dict[int, str] = {}
        self._notes: dict[int, str] = {}
        self._explanations: dict[int, str] = {}
        self._puts: Counter[tuple[str, int]] = Counter()
        """How often a feature's label or note was put: what was read before is older."""
        self._files = asyncio.Lock()
        """One reads or writes at a time, in the order in which that was wanted."""

    def note(self, feature: int) -> str:
        """The user's own text about a feature; "" where there is none."""
        return self._notes.get(feature, "")

    def explanation(self, feature: int) -> str:
        """What others say it stands for; "" where nothing is known."""
        return self._explanations.get(feature, "")

    def read(self, loaded: Loaded) -> None:
        """Reads what is known of this SAE; another SAE's labels go at once."""
        sae = loaded.sae_fingerprint
        if sae != self._sae:
            self._sae, self.labels, self._notes, self._explanations = sae, {}, {}, {}

        puts = self._puts.copy()

        def merged(kind: str, found: dict[int, str], here: dict[int, str]) -> dict[int, str]:
            later = {feature for (what, feature), n in self._puts.items() if what == kind and n != puts[what, feature]}
            read = {feature: text for feature, text in found.items() if text and feature not in later}
            return read | {feature: text for feature, text in here.items() if feature in later}

        def read_notes() -> tuple[dict[int, Note], tuple[str, ...]]:
            notes = open_notes()
            return notes.of(sae), notes.problems

        def take_notes(found: tuple[dict[int, Note], tuple[str, ...]]) -> None:
            notes, problems = found
            if self._sae == sae:
                before = self.labels, self._notes
                self.labels = merged("label", {f: note.label for f, note in notes.items()}, self.labels)
                self._notes = merged("note", {f: note.notes for f, note in notes.items()}, self._notes)
                if (self.labels, self._notes) != before:
                    self.desk.study.tell(Topic.NAMES)
            if problems:
                self.desk.report(f"Some notes cannot be read: {problems[0]}", "Mend the line in the file.")

        def take_explanations(found: dict[int, str]) -> None:
            if self._sae == sae:
                self._explanations = found

        self._work(read_notes, take_notes)
        self._work(lambda: open_explanations().of(sae), take_explanations)

    def set_label(self, feature: int, label: str) -> None:
        """Keeps a label; "" takes it away."""
        if label:
            self.labels[feature] = label
        else:
            self.labels.pop(feature, None)
        self._puts["label", feature] += 1
        self._put(feature, label=label)

    def set_note(self, feature: int, note: str) -> None:
        """Keeps a note; "" takes it away."""
        self._notes[feature] = note
        self._puts["note", feature] += 1
        self._put(feature, notes=note)

    def _put(self, feature: int, label: str | None = None, notes: str | None = None) -> None:
        loaded = self.desk.study.loaded
        if loaded is not None:  # else whose feature is it?
            sae, name = loaded.sae_fingerprint, loaded.sae
            self._work(lambda: open_notes().put(sae, name, feature, label, notes), lambda nothing: None)

    def import_explanations(self, path: Path) -> None:
        """Takes in an export of Neuronpedia, and says how many features it explains."""
        loaded = self.desk.study.loaded
        if loaded is None:
            self.desk.report("No model is loaded.", "Explanations belong to a SAE: M chooses model and SAE.")
            return

        def add() -> tuple[str, dict[int, str]]:
            explanations = open_explanations()
            added = explanations.add(loaded, path)
            left_out = f", {added.skipped:,} lines left out" if added.skipped else ""
            return f"{added.count:,} features explained{left_out}: f shows it.", explanations.of(loaded.sae_fingerprint)

        def take(found: tuple[str, dict[int, str]]) -> None:
            if self._sae == loaded.sae_fingerprint:
                self._explanations = found[1]
            self.desk.notify(found[0])

        self._work(add, take)

    def _work(self, task: Callable[[], T], then: Callable[[T], None]) -> None:
        """Does something with the files in a thread, and goes on with what came of it; errors are reported."""

        async def work() -> None:
            try:
                async with self._files:
                    found = await asyncio.to_thread(task)
                then(found)
            except SaescopeError as error:
                self.desk.report(error.message, error.remedy)
            except Exception as error:  # a defect of ours is no reason to end the app
                self.desk.report(f"A defect of saescope: {error!r}", f"Your work is kept. {keep_details()}")

        self.desk.run_behind(work, "notes")

    async def finish(self) -> None:
        """Waits for what is still to be written."""
        await asyncio.sleep(0)  # what was just wanted begins
        async with self._files:
            pass


def open_notes() -> Notes:
    """The user's file of notes; imported behind the first paint."""
    from engine.files.notes import Notes

    return Notes()


def open_explanations() -> Explanations:
    """The explanations that were imported."""
    from engine.files.explanations import Explanations

    return Explanations()
