"""Edits of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.records.base import Record

EditKind = Literal["scale", "set", "steer", "project", "reconstruct"]

Positions = Literal["all", "prompt", "generated", "last", "first-step"]
"""Where an edit acts. `last` is the prompt's last token. `first-step` is the whole prompt including its BOS and
attention sinks, which every other choice leaves alone; its effect stays in the prompt's keys and values, so later
tokens see it."""

NO_FEATURE = -1
"""The feature of an edit of kind `reconstruct`, which is about all features."""


class Edit(Record, frozen=True):
    """One feature's edit. f is its activation, D its decoder row, h the hooked vector, u the scale of that vector.

    scale        f becomes strength * f; 0 ablates
    set          f becomes strength * M, where M is the feature's maximum on the reference text
    steer        h becomes h + strength * M * r * D, where r is the median of u on the reference text
    project      the part of h along D is multiplied by strength; 0 removes it
    reconstruct  h becomes its reconstruction from the edited activations: the SAE's error is lost
    """

    feature: int = NO_FEATURE
    strength: float = 0.0
    kind: EditKind = "scale"
    at: Positions = "all"
    absolute: float | None = None
    """The strength of `set` in units of f, or of `steer` as a multiple of D. It is recorded so that another reference
    text does not change the edit. The engine fills it in; if it is already there, the engine uses it."""


@dataclass(frozen=True)
class EditForm:
    """A word for an edit: the name of its command-line option, also used in --variant."""

    word: str
    takes: str
    """What follows the word, such as "FEATURE[=FACTOR]"; "" if nothing does."""
    help: str
    example: str = ""
    """Example of what follows the word."""

    @property
    def equals(self) -> tuple[str, ...]:
        """What may stand between feature and strength: "=", or "" if no strength follows."""
        if "[=" in self.takes:
            return "", "="
        return ("=",) if "=" in self.takes else ("",)


@dataclass(frozen=True)
class Linear:
    """A number that depends on an edit's amount x: constant + factor * x."""

    constant: float = 0.0
    factor: float = 0.0

    def at(self, amount: float) -> float:
        """Return the number for an amount."""
        return self.constant + self.factor * amount


ZERO = Linear()


@dataclass(frozen=True)
class SlotMaths:
    """The maths of an edit that needs one feature's encoder and decoder only.

    Where the edit acts, (u (gain f + offset) + push) D is added to h. All three depend on the edit's amount: its
    strength or, if its kind has a unit, `absolute`.
    """

    gain: Linear = ZERO
    offset: Linear = ZERO
    push: Linear = ZERO
    amount_is: str = ""
    """What the amount does, for a reader of the exported script, such as "f becomes the amount"."""


Unit = Literal["", "activation", "vector"]
"""The unit of a strength: none, the feature's maximum M, or M * r, by which D is multiplied."""


@dataclass(frozen=True)
class KindOfEdit:
    """Everything about a kind of edit; its maths if it takes a slot. Texts may contain {feature} and {strength}."""

    forms: tuple[EditForm, ...]
    choice: str
    """The kind's name in the app's form; "" for a kind that is about all features."""
    meaning: str
    """What the edit does, for the app's form."""
    help: str
    """What it does, as a sentence of the app's help that begins with the word or sign for it."""
    says: str
    """The edit in a sentence."""
    short: str
    """What the edit does, in a few letters."""
    done: str
    """Participle for counting several edits of this kind, such as "scaled"."""
    says_at_0: str = ""
    """Replaces `says` if the strength is 0; "" replaces nothing. The next two do the same for `short` and `done`."""
    short_at_0: str = ""
    done_at_0: str = ""
    steps: tuple[float, ...] = (0.0,)
    """Strengths that + and − step through."""
    tried: tuple[float, ...] = ()
    """Strengths to propose for trying side by side."""
    unit: Unit = ""
    """The unit of the strength, which the reference text gives; `absolute` then holds the resulting amount."""
    slot: SlotMaths | None = None
    """The maths of an edit that takes a slot of the edit tensors; None for a kind with maths of its own."""

    @property
    def only_where_it_fires(self) -> bool:
        """Whether such an edit changes nothing where the feature is silent."""
        return self.slot is not None and self.slot.offset == self.slot.push == ZERO


EDIT_KINDS: dict[EditKind, KindOfEdit] = {
    "scale": KindOfEdit(
        forms=(
            EditForm("ablate", "FEATURE|@LIST", "set to zero; repeatable, as all with a FEATURE are", "4133"),
            EditForm("scale", "FEATURE=FACTOR", "multiply the activation", "4133=0.125"),
        ),
        choice="scale (0 ablates)",
        meaning="f becomes {strength:g} × f: nothing where the feature is silent",
        help="ablate sets the feature to zero, × scales it (× 1 changes nothing, a negative factor turns it round).",
        says="{feature} x {strength:g}",
        says_at_0="{feature} ablated",
        short="×{strength:g}",
        short_at_0="ablate",
        done="scaled",
        done_at_0="ablated",
        steps=(-1.0, -0.5, 0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0),
        tried=(0.0, 0.25, 0.5, 1.5, 2.0),
        slot=SlotMaths(gain=Linear(-1.0, 1.0)),
    ),
    "set": KindOfEdit(
        forms=(
            EditForm(
                "set",
                "FEATURE=MAXIMA",
                "set the activation, in units of the feature's maximum on the reference text",
                "4133=2",
            ),
        ),
        choice="set",
        meaning="f becomes {strength:g} × its maximum on the reference text, wherever the edit acts",
        help="= sets it to so many times its maximum on the reference text.",
        says="{feature} set to {strength:g} x its maximum",
        short="= {strength:g} max",
        done="set",
        steps=(0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0),
        tried=(0.0, 0.5, 1.0, 2.0),
        unit="activation",
        slot=SlotMaths(gain=Linear(-1.0), offset=Linear(factor=1.0), amount_is="f becomes the amount"),
    ),
    "steer": KindOfEdit(
        forms=(
            EditForm(
                "steer",
                "FEATURE=MAXIMA",
                "push along the feature's direction wherever it fires or not, in the same units",
                "4133=3",
            ),
        ),
        choice="steer",
        meaning="{strength:+g} × its maximum is added along its direction, whether it fires or not",
        help="steer adds its direction wherever the edit acts, whether the feature fires or not.",
        says="{feature} steered by {strength:g}",
        short="steer {strength:+g}",
        done="steered",
        steps=(-5.0, -3.0, -2.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0),
        tried=(-2.0, -1.0, 1.0, 2.0),
        unit="vector",
        slot=SlotMaths(push=Linear(factor=1.0), amount_is="amount * decoder row is added"),
    ),
    "project": KindOfEdit(
        forms=(
            EditForm(
                "project",
                "FEATURE[=FACTOR]",
                "take out what lies along the feature's direction, or leave FACTOR times it",
                "4133=0.5",
            ),
        ),
        choice="project (0: out)",
        meaning="the part of the stream along its direction becomes {strength:g} × itself, whether it fires or not",
        help="project takes its direction out or scales it, also whether the feature fires or not.",
        says="{feature} projected to x {strength:g}",
        says_at_0="{feature} projected out",
        short="project ×{strength:g}",
        short_at_0="project out",
        done="projected",
        steps=(0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
        tried=(0.0, 0.5, 2.0),
    ),
    "reconstruct": KindOfEdit(
        forms=(
            EditForm(
                "reconstruct",
                "",
                "put the SAE's reconstruction in place of the vectors: lossy, what it misses (its error) is dropped",
            ),
        ),
        choice="",
        meaning="the SAE's reconstruction stands in place of the stream",
        help="reconstruct, which is lossy, puts the SAE's reconstruction in place of the stream; else its error stays.",
        says="reconstructed, the SAE's error dropped",
        short="reconstruct",
        done="reconstructed",
    ),
}
"""Every kind of edit. A new one needs its name in EditKind and a row here; without a `slot` also its maths in
generation/edit_tensors and edits, and its lines in files/export/nnsight_script, which otherwise leaves it out."""

DEFAULT_KIND: EditKind = Edit().kind


def has_no_amount(edit: Edit) -> bool:
    """Return whether the edit's strength is in a unit whose size is not known yet."""
    return bool(EDIT_KINDS[edit.kind].unit) and edit.absolute is None


def amount_of(edit: Edit) -> float:
    """Return the x of a slot's maths: `absolute` if the kind has a unit, else the strength."""
    return (edit.absolute or 0.0) if EDIT_KINDS[edit.kind].unit else edit.strength


def edit_forms() -> dict[str, tuple[EditKind, EditForm]]:
    """Return the kind and form of every word, in the table's order."""
    return {form.word: (kind, form) for kind, row in EDIT_KINDS.items() for form in row.forms}
