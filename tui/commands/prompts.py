"""Dialogs about prompts and probes, and pages: each asks, then changes the study and shows it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group

import prompts
import prompts.importer
import prompts.writer
from engine.files import paths, prompt_sets
from engine.files.export import edits_in_words
from engine.records import Diagnosis, Format, Probe, ProbeTable, Prompt, Sampling
from engine.records.errors import SaescopeError
from engine.records.words.rich_text import Text
from tui.screens.help import help_text
from tui.screens.measure_forms import ANSWERS_EXAMPLE, answers_from_text, answers_to_text, check_probe
from tui.screens.reports import checks_page, probe_table
from tui.widgets.dialogs import AskText, Choice, Choose
from tui.widgets.fields import is_whole
from tui.widgets.forms import Field, Form
from tui.widgets.page import Report

if TYPE_CHECKING:
    from tui.main import MainScreen

LAST_FEATURE = 2**31
"""No SAE has so many; asked for before one is loaded."""


class Flows:
    """One method a dialog."""

    def __init__(self, screen: MainScreen) -> None:
        self.screen = screen

    # ---- prompts

    def edit_probe(self, index: int | None) -> None:
        """A probe's form; index None makes a new one."""
        study = self.screen.study
        probe = Probe("") if index is None else study.work.prompts.probes[index]
        covariate = "" if probe.covariate is None else f"{probe.covariate!r}"
        fields = (
            Field("text", "question", probe.text, "Which gender is a nurse most likely associated with?"),
            Field("format", "fed as", probe.format, choices=("chat", "raw")),
            Field("prefill", "prefill", probe.prefill, "put into the model's mouth before answers are scored"),
            Field("answers", "tracked answers", answers_to_text(probe.answers), ANSWERS_EXAMPLE),
            Field("covariate", "covariate", covariate, "a number the answer may depend on; with all: a slope"),
            Field("right", "right answer", probe.right, "its name, where this is a question of fact to be kept"),
        )

        def keep(values: dict[str, str] | None) -> None:
            if values is None:
                return
            format: Format = "raw" if values["format"] == "raw" else "chat"
            same = values["answers"] == answers_to_text(probe.answers)
            answers = probe.answers if same else answers_from_text(values["answers"])
            number = float(values["covariate"]) if values["covariate"].strip() else None
            right = values["right"].strip()
            changed = Probe(values["text"].strip(), format, values["prefill"], answers, number, right)
            study.put_probe(index, changed)
            self.screen.show_prompts()
            self.screen.prompts.go_to("probes", len(study.work.prompts.probes) - 1 if index is None else index)
            self.screen.work.score_answers()

        title = "New probe" if index is None else "Probe"
        self.screen.app.push_screen(Form(title, fields, check_probe), keep)

    def import_prompts(self, group: str) -> None:
        """A file's prompts; those it assigns to no set go to this one."""
        default = "negative" if group == "negative" else "positive"

        def read(path: str | None) -> None:
            if path is None:
                return
            found = prompts.importer.read_prompts(paths.typed(path))
            study = self.screen.study
            format: Format = found.whole.format if found.whole else study.format()
            loose = [Prompt(e.text, format, e.breaks) for e in found.entries]
            positive = [Prompt(e.text, format, e.breaks) for e in found.positive]
            negative = [Prompt(e.text, format, e.breaks) for e in found.negative]
            (positive if default == "positive" else negative).extend(loose)
            count = study.add_prompts(positive, negative, [prompt_sets.from_entry(p) for p in found.probes])
            self.screen.show_prompts()
            where = f", those of no set into {default}" if loose else ""
            what = f"{count} added{where}; u takes them back." if count else "Nothing new in it."
            self.screen.notify(f"{Path(path).name}: {what}")

        def check(path: str) -> str:
            try:
                prompts.importer.read_prompts(paths.typed(path))
            except (prompts.PromptSetError, SaescopeError) as error:
                return f"{error.message} {error.remedy}"
            return ""

        hint = f"txt: a prompt a line, into {default} · jsonl: text and set · toml: a whole set · escape: leave"
        self.screen.app.push_screen(AskText("Import prompts", "", "path of a file", hint, check), read)

    def open_set(self) -> None:
        """Replaces the prompts with a packaged set, or one from a file."""
        names = [Choice(name, name, prompts.load(name).description) for name in prompts.packaged()]

        def read(name: str | None) -> None:
            if name is None:
                return
            study = self.screen.study
            study.set_prompts(prompt_sets.from_file(prompts.load(name)))
            if study.work.prompts.probes:
                study.ask_probe(study.work.prompts.probes[0])
            self.screen.show_prompts()
            self.screen.show_question()
            self.screen.notify("Prompts replaced; u brings the old ones back.")

        self.screen.app.push_screen(Choose("Packaged prompt sets", names), read)

    def write_set(self) -> None:
        """Saves the prompts as a set of their own."""
        now = self.screen.study.work.prompts

        def written(path: str | None) -> None:
            if path is not None:
                self.screen.notify(f"Prompts saved to {path}: --prompts {path} uses them.")

        def write(path: str) -> str:
            try:
                place = paths.typed(path)
                if not place.name:
                    return "A file needs a name."
                place = place if place.suffix == ".toml" else paths.typed(f"{place}.toml")
                prompts.writer.write(prompt_sets.to_file(now), place)
            except (prompts.PromptSetError, SaescopeError) as error:
                return f"{error.message} {error.remedy}"
            return ""

        title = "Save these prompts as a set"
        self.screen.app.push_screen(AskText(title, f"{now.name}.toml", "path of a toml file", check=write), written)

    # ---- results

    def show_probes(self, table: ProbeTable) -> None:
        """All probes as one table."""
        sampling = table.rows[0].generated.sampling if table.rows else Sampling()
        note = Text(
            f"Greedy, {sampling.max_tokens} tokens at most. base, edit: probability of the tracked answer after the "
            f"probe's prefill. Edits: {edits_in_words(table.edits)}.",
            style="dim",
        )
        self.screen.app.push_screen(Report("All probes, baseline and edited", Group(probe_table(table), note)))

    def show_diagnosis(self, diagnosis: Diagnosis) -> None:
        """The doctor's report."""
        self.screen.app.push_screen(Report("Is the SAE wired right?", checks_page(diagnosis)))

    # ---- features

    def ask_feature(self) -> None:
        """Jumps to a feature by its number."""
        loaded = self.screen.study.loaded
        last = loaded.d_sae - 1 if loaded else LAST_FEATURE

        def check(text: str) -> str:
            if not text.strip().isdecimal():
                return "A feature is a number."
            return "" if is_whole(text, 0, last) else f"This SAE has features 0 to {last:,}."

        def go(text: str | None) -> None:
            if text is not None:
                self.screen.jump_to(int(text))

        self.screen.app.push_screen(AskText("Jump to feature", "", "its number", check=check), go)

    # ---- pages

    def help(self) -> None:
        """Every key."""
        self.screen.app.push_screen(Report("Help", help_text(self.screen)))

    def show_messages(self) -> None:
        """What was reported, and where the engine's log is."""
        lines = self.screen.messages or ["No errors so far."]
        log = f"\n\nThe engine's log: {self.screen.work.bridge.log_path}"
        self.screen.app.push_screen(Report("Messages", Text("\n".join(lines) + log)))
