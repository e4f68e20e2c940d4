"""Commands of prompts and probes: edit, import, replace, save as a set, undo."""

from __future__ import annotations

from pathlib import Path

import prompts
import prompts.importer
import prompts.writer
from engine.files import paths, prompt_sets
from engine.records import Format, Probe, Prompt
from engine.records.errors import SaescopeError
from tui.screens.measure_forms import ANSWERS_EXAMPLE, answers_from_text, answers_to_text, check_probe
from tui.services.context import Context
from tui.state.topics import Topic
from tui.widgets.dialogs import AskText, Choice, Choose
from tui.widgets.forms import Field, Form

# ---- prompts


def edit_probe(context: Context, index: int | None) -> None:
    """Open the form of a probe; index None makes a new one."""
    study = context.study
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
        unchanged = values["answers"] == answers_to_text(probe.answers)
        answers = probe.answers if unchanged else answers_from_text(values["answers"])
        number = float(values["covariate"]) if values["covariate"].strip() else None
        right = values["right"].strip()
        changed = Probe(values["text"].strip(), format, values["prefill"], answers, number, right)
        study.prompts.put_probe(index, changed)
        context.desk.go_to_prompt("probes", len(study.work.prompts.probes) - 1 if index is None else index)
        context.text.score_answers()

    title = "New probe" if index is None else "Probe"
    context.desk.open(Form(title, fields, check_probe), keep)


def import_prompts(context: Context, group: str) -> None:
    """Ask for a file and import its prompts.

    Prompts that the file assigns to no set go to `group`, or to the positive ones if that is the probes.
    """
    default = "negative" if group == "negative" else "positive"

    def read(path: str | None) -> None:
        if path is None:
            return
        imported = prompts.importer.read_prompts(paths.typed(path))
        study = context.study
        format: Format = imported.whole.format if imported.whole else study.prompts.format()
        loose = [Prompt(e.text, format, e.breaks) for e in imported.entries]
        positive = [Prompt(e.text, format, e.breaks) for e in imported.positive]
        negative = [Prompt(e.text, format, e.breaks) for e in imported.negative]
        (positive if default == "positive" else negative).extend(loose)
        count = study.prompts.add(positive, negative, [prompt_sets.from_entry(p) for p in imported.probes])
        where = f", those of no set into {default}" if loose else ""
        what = f"{count} added{where}; u takes them back." if count else "Nothing new in it."
        context.desk.notify(f"{Path(path).name}: {what}")

    def check(path: str) -> str:
        try:
            prompts.importer.read_prompts(paths.typed(path))
        except (prompts.PromptSetError, SaescopeError) as error:
            return f"{error.message} {error.remedy}"
        return ""

    hint = f"txt: a prompt a line, into {default} · jsonl: text and set · toml: a whole set · escape: leave"
    context.desk.open(AskText("Import prompts", "", "path of a file", hint, check), read)


def open_set(context: Context) -> None:
    """Replace the prompts with a packaged set that the user chooses."""
    names = [Choice(name, name, prompts.load(name).description) for name in prompts.packaged()]

    def read(name: str | None) -> None:
        if name is None:
            return
        study = context.study
        study.prompts.set(prompt_sets.from_file(prompts.load(name)))
        if study.work.prompts.probes:
            study.ask_probe(study.work.prompts.probes[0])
        else:
            study.tell(Topic.QUESTION)  # the question may have been a probe of the old set
        context.desk.notify("Prompts replaced; u brings the old ones back.")

    context.desk.open(Choose("Packaged prompt sets", names), read)


def write_set(context: Context) -> None:
    """Ask for a file and save the prompts in it as a prompt set."""
    now = context.study.work.prompts

    def written(path: str | None) -> None:
        if path is not None:
            context.desk.notify(f"Prompts saved to {path}: --prompts {path} uses them.")

    warned_of: list[Path] = []

    def write(path: str) -> str:
        try:
            place = paths.typed(path)
            if not place.name:
                return "A file needs a name."
            place = place if place.suffix == ".toml" else paths.typed(f"{place}.toml")
            if place.exists() and place not in warned_of:
                warned_of.append(place)
                return f"{place.name} is there already: enter again replaces it."
            prompts.writer.write(prompt_sets.to_file(now), place)
        except (prompts.PromptSetError, SaescopeError) as error:
            return f"{error.message} {error.remedy}"
        return ""

    title = "Save these prompts as a set"
    context.desk.open(AskText(title, f"{now.name}.toml", "path of a toml file", check=write), written)


# ---- changes


def undo(context: Context) -> None:
    """Undo the last change of the prompts, or of which edits are in the list."""
    context.desk.notify("Undone." if context.study.history.undo() else "Nothing to undo.")
