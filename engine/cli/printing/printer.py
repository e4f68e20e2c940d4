"""Results on a terminal, progress on standard error; with --json one JSON object and nothing else.

The modules beside this one know what results look like, one subject each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from engine.cli.printing import progress, texts
from engine.cli.printing.pair import preset_table
from engine.files.recorded import replay_in_words
from engine.loading.presets import Preset
from engine.records import (
    Attribution,
    Event,
    Generated,
    Loaded,
    MinimalSet,
    Record,
    Replayable,
    Replayed,
)
from engine.records.texts import edits_in_force
from engine.records.words.edits import edit_notes
from engine.records.words.rich_text import Terminal, Text
from engine.records.words.safe_text import to_json


def write_json(text: str) -> None:
    """Write a line of JSON to standard output; in escapes where its encoding, such as ASCII's, lacks the characters."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text))
    sys.stdout.write(text + "\n")


class Printer:
    """Prints results to standard output as text or JSON, everything else to standard error."""

    def __init__(self, json: bool) -> None:
        self.json = json
        # a pipe or a file has no width: give tables as much as they need
        self.out = Terminal(width=None if sys.stdout.isatty() else 200)
        self.err = Terminal(stderr=True)

    def _record(self, record: Record) -> bool:
        """Print the record as JSON if JSON was asked for; return whether it was."""
        if self.json:
            self._json(record)
        return self.json

    def _json(self, value: Any) -> None:
        write_json(to_json(value))

    def note(self, text: str) -> None:
        """Print a remark beside the result."""
        self.err.print(Text(text, style="dim"), soft_wrap=True)

    def error(self, message: str, remedy: str) -> None:
        """Print what went wrong and what to do about it."""
        self.err.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
        if remedy:
            self.err.print(Text(remedy), soft_wrap=True)

    def heading(self, text: str) -> None:
        """Print the heading of a step of the tour."""
        if not self.json:
            self.out.print(Text(f"\n{text}\n", style="bold"))

    def watching(self) -> AbstractContextManager[Callable[[Event], None]]:
        """Return a sink for events: a progress bar on a terminal, one line per stage elsewhere."""
        return progress.watching(self.err, self.note)

    # ---- results

    def loaded(self, loaded: Loaded) -> None:
        """Print on standard error what is loaded, in one line, and what is to be doubted about it."""
        self.note(
            f"{loaded.model} ({loaded.dtype}, {loaded.device}) · {loaded.hook} · SAE {loaded.sae}: "
            f"{loaded.d_sae:,} features, {loaded.encoder}"
        )
        for doubt in loaded.doubts:
            self.err.print(Text(f"? {doubt}", style="yellow"), soft_wrap=True)

    def result(self, show: Callable[..., None], result: Record, *more: Any) -> None:
        """Print a result by `show`, a function of the terminal, the result and `more` in a module beside this one."""
        if not self._record(result):
            show(self.out, result, *more)

    def generated(self, result: Generated, compare: bool) -> None:
        """Print all arms, marking differing tokens; without `compare` or further arms only the edited text."""
        if self._record(result):
            return
        if compare or result.more:
            texts.compared(self.out, result)
            return
        texts.alone(self.out, result)
        for note in (*edit_notes(edits_in_force(result)), *result.warnings):
            self.note(note)

    def attribution_with_set(self, result: Attribution, minimal_set: MinimalSet | None) -> None:
        """Print one JSON object: the attribution with the minimal set in it, null if there is none."""
        self._json({**msgspec.to_builtins(result), "minimal_set": minimal_set})

    def differences(self, recorded: Loaded, now: Loaded) -> None:
        """Print in what the loaded pair differs from the recorded one."""
        before, after = msgspec.to_builtins(recorded), msgspec.to_builtins(now)
        for name, value in before.items():
            if after[name] != value and value not in (None, "", (), []):  # an older session may lack the field
                self.note(f"{name}: recorded {value}, now {after[name]}")

    def replayed(self, results: Sequence[tuple[Replayable, Replayed]]) -> None:
        """Print which results are the same, and where the others first differ, a line per result."""
        if self.json:
            rows = [{"recorded": type(old).__name__, **msgspec.to_builtins(again)} for old, again in results]
            self._json({"results": rows})
            return
        for recorded, again in results:
            first, *more = replay_in_words(recorded, again)
            verdict = "same" if again.same else "DIFFERS"
            self.out.print(Text("\n".join([f"{verdict}  {first}", *(f"    {line}" for line in more)])), soft_wrap=True)

    def presets(self, presets: Sequence[Preset]) -> None:
        """Print the table of presets."""
        if self.json:
            rows = [{**msgspec.to_builtins(p), "bytes_needed": p.bytes_needed()} for p in presets]
            self._json({"presets": rows})
            return
        self.out.print(preset_table(presets, self.out.width))

    def tour_end(self) -> None:
        """Print where to go after the tour."""
        if not self.json:
            commands = ("saescope feature N", "saescope generate PROMPT --ablate N --compare", "saescope --help")
            self.out.print("\nNext:", Text(", ").join(Text(command, "bold") for command in commands))
