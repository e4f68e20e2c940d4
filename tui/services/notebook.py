"""Labels, notes and explanations of features, which outlast a session, as the app uses them.

Their files are read and written in threads: another process may lock them for seconds. A label or note that is set can
be read back at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from engine.records import Loaded
from engine.records.errors import SaescopeError
from tui.services.desk import Desk
from tui.services.state_folder import keep_details
from tui.state.topics import Topic

if TYPE_CHECKING:
    from engine.files.explanations import Explanations
    from engine.files.notes import Note, Notes

T = TypeVar("T")


class Notebook:
    """Labels and notes of the loaded SAE's features from all sessions, and imported explanations."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._sae = ""
        """The fingerprint of the SAE that the labels, notes and explanations are about."""
        self.labels: dict[int, str] = {}
        self._notes: dict[int, str] = {}
        self._explanations: dict[int, str] = {}
        self._puts: Counter[tuple[str, int]] = Counter()
        """How often each ("label" or "note", feature) was set: text read from the file before that is older."""
        self._files = asyncio.Lock()
        """Held by the one task that reads or writes the files; tasks get it in the order in which they start."""

    def note(self, feature: int) -> str:
        """Return the user's note about a feature; "" if there is none."""
        return self._notes.get(feature, "")

    def explanation(self, feature: int) -> str:
        """Return the imported explanation of a feature; "" if there is none."""
        return self._explanations.get(feature, "")

    def read(self, loaded: Loaded) -> None:
        """Read labels, notes and explanations of the loaded SAE; forget those of another SAE at once."""
        sae = loaded.sae_fingerprint
        if sae != self._sae:
            self._sae, self.labels, self._notes, self._explanations = sae, {}, {}, {}

        puts = self._puts.copy()

        def merged(kind: str, stored: dict[int, str], here: dict[int, str]) -> dict[int, str]:
            newer = {feature for (what, feature), n in self._puts.items() if what == kind and n != puts[what, feature]}
            read = {feature: text for feature, text in stored.items() if text and feature not in newer}
            return read | {feature: text for feature, text in here.items() if feature in newer}

        def read_notes() -> tuple[dict[int, Note], tuple[str, ...]]:
            notes = open_notes()
            return notes.of(sae), notes.problems

        def take_notes(read: tuple[dict[int, Note], tuple[str, ...]]) -> None:
            notes, problems = read
            if self._sae == sae:
                before = self.labels, self._notes
                self.labels = merged("label", {f: note.label for f, note in notes.items()}, self.labels)
                self._notes = merged("note", {f: note.notes for f, note in notes.items()}, self._notes)
                if (self.labels, self._notes) != before:
                    self.desk.study.tell(Topic.NAMES)
            if problems:
                self.desk.report(f"Some notes cannot be read: {problems[0]}", "Mend the line in the file.")

        def take_explanations(explanations: dict[int, str]) -> None:
            if self._sae == sae:
                self._explanations = explanations

        self._work(read_notes, take_notes)
        self._work(lambda: open_explanations().of(sae), take_explanations)

    def set_label(self, feature: int, label: str) -> None:
        """Keep a feature's label; "" removes it."""
        if label:
            self.labels[feature] = label
        else:
            self.labels.pop(feature, None)
        self._puts["label", feature] += 1
        self._put(feature, label=label)

    def set_note(self, feature: int, note: str) -> None:
        """Keep a feature's note; "" removes it."""
        self._notes[feature] = note
        self._puts["note", feature] += 1
        self._put(feature, notes=note)

    def _put(self, feature: int, label: str | None = None, notes: str | None = None) -> None:
        loaded = self.desk.study.loaded
        if loaded is not None:  # else there is no SAE to keep it for
            sae, name = loaded.sae_fingerprint, loaded.sae
            self._work(lambda: open_notes().put(sae, name, feature, label, notes), lambda nothing: None)

    def import_explanations(self, path: Path) -> None:
        """Import an export of Neuronpedia, and notify of how many features it explains."""
        loaded = self.desk.study.loaded
        if loaded is None:
            self.desk.report("No model is loaded.", "Explanations belong to a SAE: M chooses model and SAE.")
            return

        def add() -> tuple[str, dict[int, str]]:
            explanations = open_explanations()
            added = explanations.add(loaded, path)
            left_out = f", {added.skipped:,} lines left out" if added.skipped else ""
            return f"{added.count:,} features explained{left_out}: f shows it.", explanations.of(loaded.sae_fingerprint)

        def take(imported: tuple[str, dict[int, str]]) -> None:
            if self._sae == loaded.sae_fingerprint:
                self._explanations = imported[1]
            self.desk.notify(imported[0])

        self._work(add, take)

    def _work(self, task: Callable[[], T], then: Callable[[T], None]) -> None:
        """Run `task`, which uses the files, in a thread, then `then` with its result; report errors."""

        async def work() -> None:
            try:
                async with self._files:
                    result = await asyncio.to_thread(task)
                then(result)
            except SaescopeError as error:
                self.desk.report(error.message, error.remedy)
            except Exception as error:  # a defect of ours is no reason to end the app
                self.desk.report(f"A defect of saescope: {error!r}", f"Your work is kept. {keep_details()}")

        self.desk.run_behind(work, "notes")

    async def finish(self) -> None:
        """Wait until everything is written."""
        await asyncio.sleep(0)  # lets tasks that were just started take the lock
        async with self._files:
            pass


def open_notes() -> Notes:
    """Return the user's notes; imports their module only here, after the first paint."""
    from engine.files.notes import Notes

    return Notes()


def open_explanations() -> Explanations:
    """Return the imported explanations."""
    from engine.files.explanations import Explanations

    return Explanations()
