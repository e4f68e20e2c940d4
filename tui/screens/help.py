"""The help page, made from the bindings themselves, so that it is always up to date."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from textual.binding import Binding
from textual.dom import DOMNode

from engine.records.words.rich_text import Text

FIRST_STEPS = """\
r ranks the features that tell your positive from your negative prompts. Move through them: the tokens show where
each one fires. space ablates the feature, g generates baseline and edited text side by side; toggle again while they
stream. A ablates features one by one and says which ones influence an answer; there m finds the smallest set that
carries it, and enter takes it for g to generate with. v answers every probe. s saves to a file that `saescope replay`
runs again. Everything is kept as you go: q asks nothing.
"""


class Section(NamedTuple):
    """The help's section on a pane or page."""

    name: str
    about: str | None
    bindings: Sequence[Binding]


def help_text(everywhere: Sequence[Binding], sections: Sequence[Section]) -> Text:
    """Return the text of the help: first steps, every key, and what each pane shows."""
    text = Text(flowing(FIRST_STEPS))
    heading(text, "Everywhere")
    keys(text, everywhere)
    key(text, "tab", "The next pane")
    key(text, "ctrl+p", "Command palette: every command, and themes")
    key(text, "ctrl+r g s", "Rank, generate, save, from a text field too; esc leaves a field")
    for section in sections:
        heading(text, section.name)
        if section.about is not None:
            text.append(flowing(section.about), "dim")
        keys(text, section.bindings)
    return text


def section(name: str, owner: type[DOMNode]) -> Section:
    """Return the section of a pane or page, from its HELP and its BINDINGS."""
    return Section(name, getattr(owner, "HELP", None), [b for b in owner.BINDINGS if isinstance(b, Binding)])


def flowing(text: str) -> str:
    """Return a paragraph as one line, which is wrapped where it is shown."""
    return " ".join(text.split()) + "\n"


def heading(text: Text, name: str) -> None:
    """Append a section's heading."""
    text.append(f"\n{name}\n", "bold underline")


def keys(text: Text, bindings: Sequence[Binding]) -> None:
    """Append a line per binding that has a tooltip."""
    for binding in bindings:
        if binding.tooltip:
            key(text, binding.key_display or binding.key.split(",")[0], binding.tooltip)


def key(text: Text, name: str, what: str) -> None:
    """Append the line of a key."""
    text.append(f"  {name:10}", "bold").append(f" {what}\n")
