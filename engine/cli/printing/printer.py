"""What results look like on a terminal, and progress on standard error. With --json: one object, nothing else.

What a result looks like is said by the modules beside this one, each of which knows results of one subject.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from engine.cli.printing import attribution as causes
from engine.cli.printing import card, features, progress, texts
from engine.cli.printing import pair as checks
from engine.cli.printing.pair import preset_table
from engine.loading.presets import Preset
from engine.records import (
    Attribution,
    Described,
    Diagnosis,
    Event,
    Generated,
    Loaded,
    MinimalSet,
    ProbeTable,
    Ranking,
    Record,
    Replayable,
    Replayed,
    Shown,
)
from engine.records.texts import edits_in_force
from engine.records.words.edits import edit_notes
from engine.records.words.replays import replay_in_words
from engine.records.words.rich_text import Terminal, Text
from engine.records.words.tokens import to_json


class Printer:
    """Prints results to standard output as text or JSON, everything else to standard error."""

    def __init__(self, json: bool) -> None:
        self.json = json
        # a pipe or a file has no width: tables there are as wide as they need to be
        self.out = Terminal(width=None if sys.stdout.isatty() else 200)
        self.err = Terminal(stderr=True)

    def _record(self, record: Record) -> bool:
        """Prints the record if JSON was asked for."""
        if self.json:
            self._json(record)
        return self.json

    def _json(self, value: Any) -> None:
        sys.stdout.write(to_json(value) + "\n")

    def note(self, text: str) -> None:
        """A remark beside the result."""
        self.err.print(Text(text, style="dim"), soft_wrap=True)

    def error(self, message: str, remedy: str) -> None:
        """What went wrong, and what to do."""
        self.err.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
        if remedy:
            self.err.print(Text(remedy), soft_wrap=True)

    def heading(self, text: str) -> None:
        """A step of the tour."""
        if not self.json:
            self.out.print(Text(f"\n{text}\n", style="bold"))

    def watching(self) -> AbstractContextManager[Callable[[Event], None]]:
        """A sink for events: a progress bar on a terminal, one line per stage elsewhere."""
        return progress.watching(self.err, self.note)

    # ---- results

    def loaded(self, loaded: Loaded) -> None:
        """One line on standard error: what is loaded."""
        self.note(
            f"{loaded.model} ({loaded.dtype}, {loaded.device}) · {loaded.hook} · SAE {loaded.sae}: "
            f"{loaded.d_sae:,} features, {loaded.encoder}"
        )

    def ranking(self, result: Ranking) -> None:
        """The leaderboard."""
        if not self._record(result):
            features.ranking(self.out, result)

    def shown(self, result: Shown, n_positive: int) -> None:
        """Coloured tokens, a line a prompt, with each prompt's strongest token."""
        if not self._record(result):
            features.shown(self.out, result, n_positive)

    def described(self, result: Described, page: str = "") -> None:
        """A feature's card, with its SAE's page on Neuronpedia."""
        if not self._record(result):
            card.described(self.out, result, page)

    def generated(self, result: Generated, compare: bool) -> None:
        """All arms with differing tokens marked, or the edited text alone where there is no more."""
        if self._record(result):
            return
        if compare or result.more:
            texts.compared(self.out, result)
            return
        texts.alone(self.out, result)
        for note in edit_notes(edits_in_force(result)):
            self.note(note)

    def probe_table(self, result: ProbeTable) -> None:
        """Every probe × baseline/edited."""
        if not self._record(result):
            texts.probe_table(self.out, result)

    def attribution(self, result: Attribution, rows: int | None = None) -> None:
        """Which features a measure depends on; so many rows, or those that were ablated."""
        if not self._record(result):
            causes.attribution(self.out, result, rows)

    def attribution_with_set(self, result: Attribution, found: MinimalSet | None) -> None:
        """Both as one JSON object: the attribution with the set in it, None where there is none."""
        self._json({**msgspec.to_builtins(result), "minimal_set": found})

    def minimal_set(self, result: MinimalSet) -> None:
        """The smallest set that carries a measure, printed below an attribution."""
        if not self._record(result):
            self.out.print()
            causes.minimal_set(self.out, result)

    def diagnosis(self, result: Diagnosis) -> None:
        """The doctor's checks."""
        if not self._record(result):
            checks.diagnosis(self.out, result)

    def differences(self, recorded: Loaded, now: Loaded) -> None:
        """What is loaded now that is not what was recorded."""
        before, after = msgspec.to_builtins(recorded), msgspec.to_builtins(now)
        for name, value in before.items():
            if after[name] != value and value not in (None, "", (), []):  # what an older session does not say
                self.note(f"{name}: recorded {value}, now {after[name]}")

    def replayed(self, results: Sequence[tuple[Replayable, Replayed]]) -> None:
        """What came out the same and where the rest first differs, a line a result."""
        if self.json:
            rows = [{"recorded": type(old).__name__, **msgspec.to_builtins(again)} for old, again in results]
            self._json({"results": rows})
            return
        for recorded, again in results:
            first, *more = replay_in_words(recorded, again)
            verdict = "same" if again.same else "DIFFERS"
            self.out.print(Text("\n".join([f"{verdict}  {first}", *(f"    {line}" for line in more)])), soft_wrap=True)

    def presets(self, found: Sequence[Preset]) -> None:
        """The table of presets."""
        if self.json:
            rows = [{**msgspec.to_builtins(p), "bytes_needed": p.bytes_needed()} for p in found]
            self._json({"presets": rows})
            return
        self.out.print(preset_table(found, self.out.width))

    def tour_end(self) -> None:
        """Where to go from the tour."""
        if not self.json:
            commands = ("saescope feature N", "saescope generate PROMPT --ablate N --compare", "saescope --help")
            self.out.print("\nNext:", Text(", ").join(Text(command, "bold") for command in commands))
