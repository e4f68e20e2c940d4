"""Edits: on and off, stronger and weaker, as published, several strengths side by side."""

from __future__ import annotations

import msgspec

from engine.files import prompt_sets
from engine.files.session import EditSlot
from engine.loading.demo import feature_lists
from engine.records import NO_FEATURE, Edit
from engine.records.errors import UsageError
from engine.records.words.edits import FIRST_STEP, LOSSY
from tui.commands import features
from tui.screens.text_forms import KINDS, MEANINGS, check_edit, check_tried, edit_of, numbers
from tui.services.context import Context
from tui.state import edits as strengths
from tui.state.edits import PLACES, edit_in_words, edits_in_words, strength_in_words
from tui.widgets.forms import Field, Sheet, Values


def toggle(context: Context, feature: int) -> None:
    """Ablates the feature, or switches its edit."""
    context.study.edits.toggle(feature)


def stronger(context: Context, feature: int) -> None:
    """A step stronger."""
    _step(context, feature, 1)


def weaker(context: Context, feature: int) -> None:
    """A step weaker."""
    _step(context, feature, -1)


def _step(context: Context, feature: int, steps: int) -> None:
    if feature == NO_FEATURE:
        context.desk.notify("A reconstruction has no strength; space switches it.")
    else:
        context.study.edits.step(feature, steps)


def ablate_list(context: Context) -> None:
    """Ablates the demo SAE's packaged list."""
    context.study.edits.ablate(feature_lists.read("gender"))
    if context.study.ranking() is not None and not context.study.ranking_is_stale():
        features.rank(context)  # so that the list says what they fire on


def ask_edit(context: Context, feature: int) -> None:
    """Kind, strength and place; of the reconstruction, which has only one kind, the place."""
    slot = context.study.edits.slot(feature) or EditSlot(feature)
    whole = feature == NO_FEATURE
    kind = next((name for name, kind in KINDS.items() if kind == slot.kind), next(iter(KINDS)))
    of_a_feature = (
        Field("kind", "what", kind, choices=tuple(KINDS)),
        Field("strength", "strength", f"{slot.strength:g}", "a number"),
    )
    where = Field("at", "where", PLACES[slot.at], choices=tuple(PLACES.values()))

    def summary(values: Values) -> str:
        edit = edit_of(feature, values)
        lines = [edit_in_words(edit), MEANINGS[edit.kind].format(edit.strength)]
        lines += [LOSSY] * whole + [FIRST_STEP] * (edit.at == "first-step")
        return "\n".join(lines)

    def keep(values: Values | None) -> None:
        if values is not None:
            edit = edit_of(feature, values)
            same = (edit.kind, edit.strength) == (slot.kind, slot.strength)
            context.study.edits.put((msgspec.structs.replace(edit, absolute=slot.absolute if same else None),))

    title = "Reconstruct, and drop the SAE's error" if whole else f"Edit feature {feature}"
    fields = (where,) if whole else (*of_a_feature, where)
    context.desk.open(Sheet(title, fields, summary, check_edit, "keep"), keep)


def publish(context: Context, feature: int) -> None:
    """Puts a feature under the edit that the prompt set's study made."""
    prompts = context.study.work.prompts
    try:
        edits = prompt_sets.as_published(prompts.settings, feature)
    except UsageError as error:
        context.desk.notify(f"{error.message} {error.remedy}")
        return
    context.study.edits.put(edits)
    context.desk.notify(f"As published with {prompts.name}: {edits_in_words(edits)}. u takes it back.")


def ask_strengths(context: Context, feature: int) -> None:
    """Generates with the edits that are on and, beside them, with one feature's edit at other strengths."""
    study = context.study
    slot = study.edits.slot(feature)
    if feature == NO_FEATURE:
        context.desk.notify("A reconstruction has no strength: go to a feature's edit.")
        return
    edit = slot.edit() if slot is not None else Edit(feature)
    now = edit.strength if slot is not None and slot.on else None
    proposed = ", ".join(f"{s:g}" for s in strengths.TRIED[edit.kind] if s != now)

    def tried(values: Values) -> tuple[tuple[Edit, ...], ...]:
        return strengths.variants(study.edits.on(), edit, numbers(values["strengths"]))

    def summary(values: Values) -> str:
        what = [strength_in_words(msgspec.structs.replace(edit, strength=s)) for s in numbers(values["strengths"])]
        return (
            f"edited: {edits_in_words(study.edits.on())}\n"
            f"beside it, in the same batch, {feature}: {', '.join(what)}\n[ and ] turn from one to the next"
        )

    def run(values: Values | None) -> None:
        if values is not None:
            context.desk.bring("generation")
            context.text.generate(tried(values))

    field = Field("strengths", "strengths", proposed, "numbers, with commas between them")
    context.desk.open(Sheet(f"Try strengths of feature {feature}", (field,), summary, check_tried), run)
