"""A line that says whether the SAE is wired right, first from loading, then from the doctor's diagnosis."""

from __future__ import annotations

from textual import events
from textual.message import Message
from textual.widgets import Static

from engine.records import Check, Diagnosis, Loaded
from engine.records.words.numbers import count
from engine.records.words.rich_text import Text


class HealthLine(Static):
    """The line of health, in the longest wording that fits; a click asks for the doctor's report."""

    DEFAULT_CSS = """
    HealthLine { width: 1fr; height: 1; padding: 0 1; background: $boost; color: $text-muted; text-wrap: nowrap; }
    HealthLine.-wrong { color: $text-error; text-style: bold; }
    """

    class Clicked(Message):
        """The line was clicked."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._wordings: list[str] = []
        self.diagnosis: Diagnosis | None = None
        """The doctor's diagnosis of the loaded pair; None until there is one."""

    def show_loaded(self, loaded: Loaded | None) -> None:
        """Show what loading measured, and forget the diagnosis of another pair."""
        self.diagnosis = None
        self._show([] if loaded is None else wordings_of_loaded(loaded), bool(loaded and loaded.doubts))

    def show_diagnosis(self, diagnosis: Diagnosis) -> None:
        """Show the doctor's diagnosis."""
        self.diagnosis = diagnosis
        self._show(wordings_of_diagnosis(diagnosis), bool(red(diagnosis)))

    def _show(self, wordings: list[str], wrong: bool) -> None:
        self._wordings = wordings
        self.set_class(wrong, "-wrong")
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def on_click(self, event: events.Click) -> None:
        self.post_message(self.Clicked())

    def _draw(self) -> None:
        room = self.size.width - 2
        texts = [Text(wording, no_wrap=True, overflow="ellipsis") for wording in self._wordings] or [Text("")]
        self.update(next((text for text in texts if text.cell_len <= room), texts[-1]))


def wordings_of_loaded(loaded: Loaded) -> list[str]:
    """Return wordings of what loading measured, longest first."""
    if loaded.doubts:
        every = " · ".join(loaded.doubts)
        return [
            f"✗ {every} · H: the doctor finds out",
            f"✗ {every} · H: doctor",
            f"✗ {' · '.join(doubt.partition(':')[0] for doubt in loaded.doubts)} · H: doctor",
            f"✗ {loaded.doubts[0]} · H: doctor",
            f"✗ {loaded.doubts[0].partition(':')[0]} · H: doctor",
            f"✗ {count(len(loaded.doubts), 'doubt')} · H: doctor",
        ]
    if loaded.l0 is None or loaded.variance_explained is None:
        return ["H: is this SAE wired right?"]
    ve, l0 = f"{loaded.variance_explained:.2f}", f"{loaded.l0:.0f}"
    published = [
        "" if value is None else f" (published {value:{form}})"
        for value, form in ((loaded.published_variance_explained, ".2f"), (loaded.published_l0, ".0f"))
    ]
    long = (
        f"wired ✓  variance explained {ve}{published[0]} · L0 {l0}{published[1]} "
        f"on {loaded.reference_tokens:,} tokens of {loaded.reference}"
    )
    wordings = [f"{long} · H: doctor", f"wired ✓ VE {ve}{published[0]} · L0 {l0}{published[1]} · H: doctor"]
    if loaded.notes:
        note = f"note: {loaded.notes[0]}" if len(loaded.notes) == 1 else f"{len(loaded.notes)} notes"
        wordings.insert(0, f"{long} · {note} · H: doctor")
    return [*wordings, f"wired ✓ VE {ve} · L0 {l0} · H: doctor", f"wired ✓ VE {ve} · L0 {l0}", f"✓ VE {ve}"]


def wordings_of_diagnosis(diagnosis: Diagnosis) -> list[str]:
    """Return wordings of the doctor's diagnosis, longest first."""
    numbers = f"VE {diagnosis.variance_explained:.2f} · L0 {diagnosis.l0:.0f}"
    if names := red(diagnosis):
        return [
            f"✗ the doctor found: {', '.join(names)} · {numbers} · H shows why",
            f"✗ {', '.join(names)} · H shows why",
            f"✗ {count(len(names), 'check')} failed: H",
        ]
    passed = count(sum(check.ok is True for check in diagnosis.checks), "check")
    doubtful = [check.name for check in diagnosis.checks if in_doubt(check)]
    doubt = f" · in doubt: {', '.join(doubtful)}" if doubtful else ""
    return [
        f"doctor ✓  {passed} passed{doubt} · {numbers} · H shows them",
        f"doctor ✓{doubt} · {numbers} · H",
        f"doctor ✓ {numbers}",
    ]


def red(diagnosis: Diagnosis) -> list[str]:
    """Return the names of the checks that failed."""
    return [check.name for check in diagnosis.checks if check.ok is False]


def in_doubt(check: Check) -> bool:
    """Return whether a check has neither passed nor failed, but has a remedy."""
    return check.ok is None and bool(check.remedy)
