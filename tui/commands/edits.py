"""Commands of edits: on and off, stronger and weaker, as published, several strengths side by side."""

from __future__ import annotations

import msgspec

from engine.files import prompt_sets
from engine.files.session import EditSlot
from engine.loading.demo import feature_lists
from engine.records import NO_FEATURE, Edit
from engine.records.edits import EDIT_KINDS
from engine.records.errors import UsageError
from engine.records.words.edits import (
    FIRST_STEP,
    LOSSY,
    PLACES,
    change_in_short,
    edit_in_short,
    edits_in_short,
    meaning_of,
)
from tui.commands import features
from tui.screens.text_forms import check_edit, check_tried, edit_of, kinds, numbers
from tui.services.context import Context
from tui.state.edits import variants
from tui.widgets.forms import Field, SummaryForm, Values


def toggle(context: Context, feature: int) -> None:
    """Ablate the feature, or switch its edit on or off."""
    context.study.edits.toggle(feature)


def stronger(context: Context, feature: int) -> None:
    """Make the feature's edit a step stronger."""
    _step(context, feature, 1)


def weaker(context: Context, feature: int) -> None:
    """Make the feature's edit a step weaker."""
    _step(context, feature, -1)


def _step(context: Context, feature: int, steps: int) -> None:
    if feature == NO_FEATURE:
        context.desk.notify("A reconstruction has no strength; space switches it.")
    else:
        context.study.edits.step(feature, steps)


def ablate_list(context: Context) -> None:
    """Ablate the demo SAE's packaged list of gender features."""
    context.study.edits.ablate(feature_lists.read("gender"))
    if context.study.ranking() is not None and not context.study.ranking_is_stale():
        features.rank(context)  # so that the list of edits shows what they fire on


def ask_edit(context: Context, feature: int) -> None:
    """Open the form of an edit: kind, strength and positions; only the positions for the reconstruction."""
    slot = context.study.edits.slot(feature) or EditSlot(feature)
    is_reconstruction = feature == NO_FEATURE
    names = tuple(kinds())
    kind = EDIT_KINDS[slot.kind].choice or names[0]
    of_a_feature = (
        Field("kind", "what", kind, choices=names),
        Field("strength", "strength", f"{slot.strength:g}", "a number"),
    )
    where = Field("at", "where", PLACES[slot.at], choices=tuple(PLACES.values()))

    def summary(values: Values) -> str:
        edit = edit_of(feature, values)
        lines = [edit_in_short(edit), meaning_of(edit)]
        lines += [LOSSY] * is_reconstruction + [FIRST_STEP] * (edit.at == "first-step")
        return "\n".join(lines)

    def keep(values: Values | None) -> None:
        if values is not None:
            edit = edit_of(feature, values)
            unchanged = (edit.kind, edit.strength) == (slot.kind, slot.strength)
            context.study.edits.put((msgspec.structs.replace(edit, absolute=slot.absolute if unchanged else None),))

    title = "Reconstruct, and drop the SAE's error" if is_reconstruction else f"Edit feature {feature}"
    fields = (where,) if is_reconstruction else (*of_a_feature, where)
    context.desk.open(SummaryForm(title, fields, summary, check_edit, "keep"), keep)


def publish(context: Context, feature: int) -> None:
    """Put the edit of the prompt set's published study on a feature."""
    prompts = context.study.work.prompts
    try:
        edits = prompt_sets.as_published(prompts.settings, feature)
    except UsageError as error:
        context.desk.notify(f"{error.message} {error.remedy}")
        return
    context.study.edits.put(edits)
    context.desk.notify(f"As published with {prompts.name}: {edits_in_short(edits)}. u takes it back.")


def ask_strengths(context: Context, feature: int) -> None:
    """Ask for strengths; generate under the edits that are on and, beside that, with the feature's edit at each."""
    study = context.study
    slot = study.edits.slot(feature)
    if feature == NO_FEATURE:
        context.desk.notify("A reconstruction has no strength: go to a feature's edit.")
        return
    edit = slot.edit() if slot is not None else Edit(feature)
    now = edit.strength if slot is not None and slot.on else None
    proposed = ", ".join(f"{s:g}" for s in EDIT_KINDS[edit.kind].tried if s != now)

    def tried(values: Values) -> tuple[tuple[Edit, ...], ...]:
        return variants(study.edits.on(), edit, numbers(values["strengths"]))

    def summary(values: Values) -> str:
        what = [change_in_short(msgspec.structs.replace(edit, strength=s)) for s in numbers(values["strengths"])]
        return (
            f"edited: {edits_in_short(study.edits.on())}\n"
            f"beside it, in the same batch, {feature}: {', '.join(what)}\n[ and ] turn from one to the next"
        )

    def run(values: Values | None) -> None:
        if values is not None:
            context.desk.bring("generation")
            context.text.generate(tried(values))

    field = Field("strengths", "strengths", proposed, "numbers, with commas between them")
    context.desk.open(SummaryForm(f"Try strengths of feature {feature}", (field,), summary, check_tried), run)
