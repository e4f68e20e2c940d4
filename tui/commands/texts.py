"""Commands of texts: generate, stop, answer the probes, change settings, show kept texts, copy."""

from __future__ import annotations

import msgspec
from rich.console import Group

from engine.files.export import nnsight_script as snippets
from engine.files.export.command_line import command_line
from engine.records import (
    Edit,
    Generated,
    ProbeTable,
    RunProbes,
    Sampling,
)
from engine.records.words.edits import edits_in_words, with_recorded_amounts
from engine.records.words.rich_text import Text
from tui.screens.kept_texts import Branches, Chosen
from tui.screens.reports import probe_table
from tui.screens.text_forms import ACTS, RESTARTS, check_settings, from_a_line, in_a_line, sampling_fields, sampling_of
from tui.services.context import Context
from tui.state.texts import siblings
from tui.widgets.dialogs import Choice, Choose
from tui.widgets.forms import Field, Form
from tui.widgets.page import Report

replace = msgspec.structs.replace


def generate(context: Context) -> None:
    """Generate; with the prompts pane's cursor on a probe, make that probe the question first."""
    probe = context.desk.probe_at_hand()
    if probe is not None:
        context.study.ask_probe(context.study.work.prompts.probes[probe])
    context.desk.bring("generation")
    context.text.generate()


def stop(context: Context) -> None:
    """Stop all that runs; a running text that has tokens is kept as far as it has come."""
    if not context.text.stop_text() and not context.bridge.cancel_all():
        context.desk.notify("Nothing is running.")


# ---- probes


def run_probes(context: Context) -> None:
    """Answer every probe and open the table."""
    if not context.tasks.may_ask():
        return
    study = context.study
    if not study.work.prompts.probes:
        context.desk.notify("The set has no probes: add one in the prompts pane, under ? probes.")
        return

    async def task() -> None:
        table = await context.tasks.ask(RunProbes(study.work.prompts.probes, study.edits.on()), ProbeTable)
        context.autosave.keep_result(table)
        if context.desk.is_undisturbed:
            show_probes(context, table)
        else:
            context.desk.notify("The probes are done: V shows the table.")

    context.tasks.run("probes", task)


def last_probes(context: Context) -> None:
    """Show the last table of probes again."""
    tables = context.study.results.of(ProbeTable)
    if tables:
        show_probes(context, tables[-1])
    else:
        context.desk.notify("No probes were run yet: v runs them.")


def show_probes(context: Context, table: ProbeTable) -> None:
    """Open the table of all probes."""
    sampling = table.rows[0].generated.sampling if table.rows else Sampling()
    note = Text(
        f"Greedy, {sampling.max_tokens} tokens at most. base, edit: probability of the tracked answer after the "
        f"probe's prefill. Edits: {edits_in_words(table.edits)}.",
        style="dim",
    )
    context.desk.open(Report("All probes, baseline and edited", Group(probe_table(table), note)))


# ---- settings, kept texts, clipboard


def change_settings(context: Context) -> None:
    """Open the form of settings: how the question is fed, how tokens are sampled, and what a toggled edit does."""
    study = context.study
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

    context.desk.open(Form("Generation", fields, check_settings), keep)


def show_branches(context: Context) -> None:
    """Open the list of the question's kept texts."""
    study, desk = context.study, context.desk
    texts = siblings(study.results.of(Generated), study.question())
    if not texts:
        desk.notify("No text of this question is kept yet: g generates one.")
        return

    def take(chosen: Chosen | None) -> None:
        if chosen is None:
            return
        if chosen.beside:
            desk.put_beside(texts[chosen.place])
        elif desk.generation.running:
            desk.notify("A text is running: x stops it, and keeps it.")
        else:
            desk.show_kept(texts[chosen.place])

    arms = desk.generation.arms
    context.desk.open(Branches(texts, arms.result, arms.beside), take)


def ask_copy(context: Context, feature: int) -> None:
    """Copy a feature's number, a command line or an nnsight script to the clipboard, as the user chooses."""
    study = context.study
    work = study.work
    # where no edit is on, the feature's ablation is reproduced
    edits = with_recorded_amounts(study.edits.on() or (Edit(feature),), study.recorded_edits())
    request = replace(context.text.request(), edits=edits)
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
        context.desk.copy(texts[choice])
        context.desk.notify("Copied, by OSC 52: through SSH too. In tmux: set -g set-clipboard on.")

    context.desk.open(Choose("Copy to the clipboard", choices), copy)
