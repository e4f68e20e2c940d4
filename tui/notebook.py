"""Labels, notes and explanations of features that outlast a session, as the app uses them.

The files are read and written in threads: another app may hold their lock for seconds. What is put is there at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.errors import SaescopeError
from engine.records import Loaded

if TYPE_CHECKING:
    from engine.notes import Note, Notes
    from tui.workbench import Workbench


class Notebook:
    """What is known of the loaded SAE's features from other sessions, and from others."""

    def __init__(self, screen: Workbench) -> None:
        self.screen = screen
        self._sae = ""
        """Whose labels and notes these are: a SAE's fingerprint."""
        self.labels: dict[int, str] = {}
        self._notes: dict[int, str] = {}
        self._files = asyncio.Lock()
        """One change at a time, in the order in which they were made."""

    def note(self, feature: int) -> str:
        """The user's own text about a feature; "" where there is none."""
        return self._notes.get(feature, "")

    def explanation(self, feature: int) -> str:
        """What others say it stands for; "" where nothing is known."""
        return ""

    def read(self, loaded: Loaded) -> None:
        """Reads what is known of this SAE; another SAE's labels go at once."""
        if loaded.sae_fingerprint != self._sae:
            self._sae, self.labels, self._notes = loaded.sae_fingerprint, {}, {}

        def take(found: dict[int, Note]) -> None:
            if self._sae == loaded.sae_fingerprint:
                self.labels = {feature: note.label for feature, note in found.items() if note.label}
                self._notes = {feature: note.notes for feature, note in found.items() if note.notes}
                if found:
                    self.screen.show_features()

        self._work(lambda notes: notes.of(loaded.sae_fingerprint), take)

    def set_label(self, feature: int, label: str) -> None:
        """Keeps a label; "" takes it away."""
        if label:
            self.labels[feature] = label
        else:
            self.labels.pop(feature, None)
        self._put(feature, label=label)

    def set_note(self, feature: int, note: str) -> None:
        """Keeps a note; "" takes it away."""
        self._notes[feature] = note
        self._put(feature, notes=note)

    def _put(self, feature: int, label: str | None = None, notes: str | None = None) -> None:
        loaded = self.screen.study.loaded
        if loaded is not None:  # else whose feature is it?
            sae, name = loaded.sae_fingerprint, loaded.sae
            self._work(lambda kept: kept.put(sae, name, feature, label, notes), lambda _: None)

    def _work(self, task: Callable[[Notes], object], then: Callable[[dict[int, Note]], None]) -> None:
        """Does something with the file in a thread, and goes on with what came of it; errors are reported."""

        async def work() -> None:
            async with self._files:
                try:
                    found = await asyncio.to_thread(self._in_thread, task)
                except SaescopeError as error:
                    self.screen.report(error.message, error.remedy)
                    return
            if isinstance(found, dict):
                then(found)

        self.screen.run_worker(work, group="notes")  # type: ignore[arg-type]

    def _in_thread(self, task: Callable[[Notes], object]) -> object:
        from engine.notes import Notes  # behind the first paint

        return task(Notes())

    async def finish(self) -> None:
        """Waits for what is still to be written."""
        async with self._files:
            pass
