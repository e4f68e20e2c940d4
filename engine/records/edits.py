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
class KindOfEdit:
    """Everything about a kind of edit except its maths. Texts may contain {feature} and {strength}."""

    forms: tuple[EditForm, ...]
    choice: str
    """The kind's name in the app's form; "" for a kind that is about all features."""
    meaning: str
    """What the edit does, for the app's form."""
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
    has_unit: bool = False
    """Whether the strength is in units that the reference text gives; `absolute` then holds the resulting amount."""
    takes_slot: bool = True
    """Whether one feature's encoder and decoder are all it needs: a slot of the edit tensors, some lines of a script.
    """


EDIT_KINDS: dict[EditKind, KindOfEdit] = {
    "scale": KindOfEdit(
        forms=(
            EditForm("ablate", "FEATURE|@LIST", "set to zero; repeatable, as the next four are", "4133"),
            EditForm("scale", "FEATURE=FACTOR", "multiply the activation", "4133=0.125"),
        ),
        choice="scale (0 ablates)",
        meaning="f becomes {strength:g} × f: nothing where the feature is silent",
        says="{feature} x {strength:g}",
        says_at_0="{feature} ablated",
        short="×{strength:g}",
        short_at_0="ablate",
        done="scaled",
        done_at_0="ablated",
        steps=(-1.0, -0.5, 0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0),
        tried=(0.0, 0.25, 0.5, 1.5, 2.0),
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
        says="{feature} set to {strength:g} x its maximum",
        short="= {strength:g} max",
        done="set",
        steps=(0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0),
        tried=(0.0, 0.5, 1.0, 2.0),
        has_unit=True,
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
        says="{feature} steered by {strength:g}",
        short="steer {strength:+g}",
        done="steered",
        steps=(-5.0, -3.0, -2.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0),
        tried=(-2.0, -1.0, 1.0, 2.0),
        has_unit=True,
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
        says="{feature} projected to x {strength:g}",
        says_at_0="{feature} projected out",
        short="project ×{strength:g}",
        short_at_0="project out",
        done="projected",
        steps=(0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
        tried=(0.0, 0.5, 2.0),
        takes_slot=False,
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
        says="reconstructed, the SAE's error dropped",
        short="reconstruct",
        done="reconstructed",
        takes_slot=False,
    ),
}
"""Every kind of edit. A new one needs its name in EditKind, a row here, and its maths in generation/edit_tensors and
edits."""


def edit_forms() -> dict[str, tuple[EditKind, EditForm]]:
    """Return the kind and form of every word, in the table's order."""
    return {form.word: (kind, form) for kind, row in EDIT_KINDS.items() for form in row.forms}
