"""Dialogs about texts: how they are generated, the kept ones, and what goes to the clipboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from engine.files.export import nnsight_script as snippets
from engine.files.export.command_line import command_line
from engine.records import Edit
from engine.records.words.edits import settled
from tui.screens.kept_texts import Branches, Chosen
from tui.screens.text_forms import ACTS, RESTARTS, check_settings, from_a_line, in_a_line, sampling_of
from tui.state.texts import siblings
from tui.widgets.dialogs import Choice, Choose
from tui.widgets.forms import Field, Form

if TYPE_CHECKING:
    from tui.main import MainScreen

replace = msgspec.structs.replace


class TextFlows:
    """One method a dialog."""

    def __init__(self, screen: MainScreen) -> None:
        self.screen = screen

    def change_settings(self) -> None:
        """How the question is fed, how tokens are chosen, how many, and what a toggle does."""
        study = self.screen.study
        work, now = study.work, study.work.sampling
        fields = (
            Field("form", "question is fed", "raw" if work.raw else "chat", choices=("chat", "raw")),
            Field("prefill", "prefill", in_a_line(work.prefill), "how the answer begins; \\n: a line break"),
            Field("tokens", "tokens at most", str(now.max_tokens)),
            Field("stop", "stop strings", " | ".join(map(in_a_line, now.stop)), "The end | \\n\\n"),
            Field("temperature", "temperature", f"{now.temperature:g}", "0: greedy"),
            Field("seed", "seed", str(now.seed), "for a temperature above 0, as all below"),
            Field("top_k", "top-k", str(now.top_k), "only the so many likeliest tokens; 0: all"),
            Field("top_p", "top-p", f"{now.top_p:g}", "only the likeliest with this probability together; 1: all"),
            Field("min_p", "min-p", f"{now.min_p:g}", "only those with this share of the likeliest one's; 0: all"),
            Field("samples", "samples", str(work.samples), "how often each text is sampled"),
            Field("toggle", "a toggled edit", RESTARTS if work.restart else ACTS, choices=(ACTS, RESTARTS)),
        )

        def keep(values: dict[str, str] | None) -> None:
            if values is None:
                return
            raw, restart = values["form"] == "raw", values["toggle"] == RESTARTS
            prefill, samples = from_a_line(values["prefill"]), int(values["samples"])
            study.set_generation(raw, sampling_of(values), prefill, samples, restart)
            self.screen.show_question()

        self.screen.app.push_screen(Form("Generation", fields, check_settings), keep)

    def show_branches(self) -> None:
        """The kept texts of the question."""
        study, screen = self.screen.study, self.screen
        texts = siblings(study.results.generations, study.question())
        if not texts:
            screen.notify("No text of this question is kept yet: g generates one.")
            return

        def take(chosen: Chosen | None) -> None:
            if chosen is None:
                return
            if chosen.beside:
                screen.put_beside(texts[chosen.place])
            elif screen.generation.running:
                screen.notify("A text is running: x stops it, and keeps it.")
            else:
                screen.show_kept(texts[chosen.place])

        arms = screen.generation.arms
        screen.app.push_screen(Branches(texts, arms.result, arms.beside), take)

    def ask_copy(self, feature: int) -> None:
        """Puts a feature's number, a command line or a snippet on the clipboard."""
        study = self.screen.study
        work = study.work
        # without an edit of its own, the feature's ablation is what there is to reproduce
        edits = settled(study.edits() or (Edit(feature),), study.recorded_edits())
        request = replace(self.screen.work.request(), edits=edits)
        if not work.question:
            request = replace(request, prompt=replace(request.prompt, text="…"))
        choices = [Choice("number", "its number", str(feature))]
        command = command_line(study.load, request)
        choices.append(Choice("command", "the same as a command line", command))
        if study.loaded is not None:
            how = "greedy, though yours is sampled" if work.sampling.temperature else "reproduces the edited text"
            choices.append(Choice("snippet", "an nnsight script", how))

        def copy(choice: str | None) -> None:
            if choice is None:
                return
            texts = {"number": str(feature), "command": command}
            if choice == "snippet" and study.loaded is not None:
                texts["snippet"] = snippets.nnsight_snippet(study.loaded, study.load, request)
            self.screen.app.copy_to_clipboard(texts[choice])
            self.screen.notify("Copied, by OSC 52: through SSH too. In tmux: set -g set-clipboard on.")

        self.screen.app.push_screen(Choose("Copy to the clipboard", choices), copy)
