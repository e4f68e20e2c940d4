"""Dialogs about texts: how they are generated, the kept ones, and what goes to the clipboard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from engine.files.export import nnsight_script as snippets
from engine.files.export.command_line import command_line
from engine.records import Edit, Sampling
from engine.records.texts import SAMPLING, Setting
from engine.records.words.edits import settled
from tui.branches import siblings
from tui.screens.branches import Branches, Chosen
from tui.screens.dialogs import Choice, Choose, Field, Form
from tui.words import is_whole

if TYPE_CHECKING:
    from tui.main_screen import MainScreen

replace = msgspec.structs.replace

ACTS, RESTARTS = "acts on the next token", "restarts the text"

MOST_SAMPLES = 16


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
            *sampling_fields(now),
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


# ---- settings as typed


def in_a_line(text: str) -> str:
    """A text as it can be typed: line breaks and tabs as \\n and \\t, a backslash doubled."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


def from_a_line(text: str) -> str:
    """The reverse of `in_a_line`."""
    return "\\".join(part.replace("\\n", "\n").replace("\\t", "\t") for part in text.split("\\\\"))


def stops_of(text: str) -> tuple[str, ...]:
    """Stop strings as typed, | with its spaces between them."""
    return tuple(from_a_line(part) for part in text.split(" | ") if part)


def sampling_fields(sampling: Sampling) -> list[Field]:
    """The form's fields that say how tokens are chosen."""
    return [Field(row.field, row.label, as_typed(row, getattr(sampling, row.field)), row.hint) for row in SAMPLING]


def as_typed(setting: Setting, value: Any) -> str:
    """The value of a setting as the form shows it."""
    if setting.repeats:
        return " | ".join(map(in_a_line, value))
    return str(value) if setting.read_as is int else f"{value:g}"


def sampling_of(values: dict[str, str]) -> Sampling:
    """The sampling that a form says."""
    read: dict[str, Any] = {}
    for row in SAMPLING:
        text = values[row.field]
        read[row.field] = stops_of(text) if row.repeats else row.read(text)
    return Sampling(**read)


def problem_with(setting: Setting, text: str) -> str:
    """What is wrong with a setting as typed; "" if nothing is."""
    most = setting.most_in_form
    try:
        value = setting.read(text)
    except ValueError:
        value = None
    if value is not None and (most is None or value <= most):
        return ""
    return f"{setting.label}: {setting.must_be}{'' if most is None else f' and at most {most:,}'}."


def check_settings(values: dict[str, str]) -> str:
    """What is wrong with the generation settings; "" if nothing is."""
    for setting in SAMPLING:
        problem = "" if setting.repeats else problem_with(setting, values[setting.field])
        if problem:
            return problem
    if not is_whole(values["samples"], 1, MOST_SAMPLES):
        return f"samples: a whole number from 1 to {MOST_SAMPLES}."
    if int(values["samples"]) > 1 and float(values["temperature"]) == 0:
        return "samples: greedy ones are all the same; give a temperature above 0."
    return ""
