"""Dialogs about edits: kind, strength and place of one; as published; several strengths side by side."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

import msgspec

from engine.files import prompt_sets
from engine.files.session import EditSlot
from engine.records import NO_FEATURE, Edit, EditKind, Positions
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
from tui import strengths
from tui.screens.dialogs import Field
from tui.screens.sheet import Sheet, Values

if TYPE_CHECKING:
    from tui.edit_screen import EditScreen

MOST_TRIED = 15
"""Strengths side by side: each is a row of the batch."""


def kinds() -> dict[str, EditKind]:
    """The kinds of a feature's edit, by what the form calls them."""
    return {row.choice: kind for kind, row in EDIT_KINDS.items() if row.choice}


class EditFlows:
    """One method a dialog."""

    def __init__(self, screen: EditScreen) -> None:
        self.screen = screen

    def ask_edit(self, feature: int) -> None:
        """Kind, strength and place; of the reconstruction, which has only one kind, the place."""
        slot = self.screen.study.slot(feature) or EditSlot(feature)
        whole = feature == NO_FEATURE
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
            lines += [LOSSY] * whole + [FIRST_STEP] * (edit.at == "first-step")
            return "\n".join(lines)

        def keep(values: Values | None) -> None:
            if values is not None:
                edit = edit_of(feature, values)
                same = (edit.kind, edit.strength) == (slot.kind, slot.strength)
                self.screen.study.put_edits((msgspec.structs.replace(edit, absolute=slot.absolute if same else None),))
                self.screen.edits_changed()

        title = "Reconstruct, and drop the SAE's error" if whole else f"Edit feature {feature}"
        fields = (where,) if whole else (*of_a_feature, where)
        self.screen.app.push_screen(Sheet(title, fields, summary, check_edit, "keep"), keep)

    def publish(self, feature: int) -> None:
        """Puts a feature under the edit that the prompt set's study made."""
        prompts = self.screen.study.work.prompts
        try:
            edits = prompt_sets.as_published(prompts.settings, feature)
        except UsageError as error:
            self.screen.notify(f"{error.message} {error.remedy}")
            return
        self.screen.study.put_edits(edits)
        self.screen.edits_changed()
        self.screen.notify(f"As published with {prompts.name}: {edits_in_short(edits)}. u takes it back.")

    def ask_strengths(self, feature: int) -> None:
        """Generates with the edits that are on and, beside them, with one feature's edit at other strengths."""
        study = self.screen.study
        slot = study.slot(feature)
        if feature == NO_FEATURE:
            self.screen.notify("A reconstruction has no strength: go to a feature's edit.")
            return
        edit = slot.edit() if slot is not None else Edit(feature)
        now = edit.strength if slot is not None and slot.on else None
        proposed = ", ".join(f"{s:g}" for s in EDIT_KINDS[edit.kind].tried if s != now)

        def tried(values: Values) -> tuple[tuple[Edit, ...], ...]:
            return strengths.variants(study.edits(), edit, numbers(values["strengths"]))

        def summary(values: Values) -> str:
            what = [change_in_short(msgspec.structs.replace(edit, strength=s)) for s in numbers(values["strengths"])]
            return (
                f"edited: {edits_in_short(study.edits())}\n"
                f"beside it, in the same batch, {feature}: {', '.join(what)}\n[ and ] turn from one to the next"
            )

        def run(values: Values | None) -> None:
            if values is not None:
                if self.screen.has_class("-single"):
                    self.screen.action_pane("generation")
                self.screen.work.generate(tried(values))

        field = Field("strengths", "strengths", proposed, "numbers, with commas between them")
        self.screen.app.push_screen(Sheet(f"Try strengths of feature {feature}", (field,), summary, check_tried), run)


def edit_of(feature: int, values: Values) -> Edit:
    """The edit that a form says."""
    at: Positions = next(at for at, words in PLACES.items() if words == values["at"])
    if feature == NO_FEATURE:
        return Edit(kind="reconstruct", at=at)
    return Edit(feature, float(values["strength"]), kinds()[values["kind"]], at)


def check_edit(values: Values) -> str:
    """What is wrong with an edit's form; "" if nothing is."""
    if "strength" not in values:
        return ""
    try:
        return "" if isfinite(float(values["strength"])) else "strength: a finite number."
    except ValueError:
        return "strength: a number, such as 0.125 or -1."


def numbers(text: str) -> tuple[float, ...]:
    """Numbers as typed, each once. Raises ValueError."""
    return tuple(dict.fromkeys(float(part) for part in text.replace(",", " ").split()))


def check_tried(values: Values) -> str:
    """What is wrong with a list of strengths; "" if nothing is."""
    try:
        found = numbers(values["strengths"])
    except ValueError:
        return "strengths: numbers with commas between them, such as 0, 0.5, 2."
    if not found:
        return "strengths: at least one."
    if not all(map(isfinite, found)):
        return "strengths: finite numbers."
    return "" if len(found) <= MOST_TRIED else f"strengths: at most {MOST_TRIED}, for each is a row of the batch."
