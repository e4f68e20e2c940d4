"""The help page, made from the bindings themselves, so that it never lags behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.binding import Binding
from textual.screen import Screen
from textual.widget import Widget

from engine.records.words.rich_text import Text
from tui.panes.edits import EditsPane
from tui.panes.generation import GenerationPane
from tui.panes.leaderboard import LeaderboardPane
from tui.panes.prompts import PromptsPane
from tui.panes.tokens import TokensPane
from tui.screens.effects_page import CausesScreen
from tui.screens.feature_page import FeaturePage
from tui.screens.minimal_set_page import MinimalSetScreen

if TYPE_CHECKING:
    from tui.main import MainScreen

PANES: tuple[tuple[str, type[Widget]], ...] = (
    ("1 Prompts", PromptsPane),
    ("2 Tokens", TokensPane),
    ("3 Features", LeaderboardPane),
    ("Edits", EditsPane),
    ("4 Generate", GenerationPane),
)

PAGES: tuple[tuple[str, type[Screen[None]]], ...] = (
    ("A, C Which features influence the answer?", CausesScreen),
    ("m The smallest set", MinimalSetScreen),
    ("f A feature's page", FeaturePage),
)

FIRST_STEPS = """\
r ranks the features that tell your positive from your negative prompts. Move through them: the tokens show where
each one fires. space ablates the feature, g generates baseline and edited text side by side; toggle again while they
stream. A ablates features one by one and says which ones influence an answer; there m finds the smallest set that
carries it, and enter takes it for g to generate with. v answers every probe. s saves to a file that `saescope replay`
runs again. Everything is kept as you go: q asks nothing.
"""


def help_text(screen: MainScreen) -> Text:
    """Every key of every pane, and what the panes mean."""
    text = Text(flowing(FIRST_STEPS))
    heading(text, "Everywhere")
    keys(text, [b for b in screen.BINDINGS if isinstance(b, Binding)])
    key(text, "tab", "The next pane")
    key(text, "ctrl+p", "Command palette: every command, and themes")
    key(text, "ctrl+r g s", "Rank, generate, save, from a text field too; esc leaves a field")
    for name, pane in PANES:
        heading(text, name)
        text.append(flowing(getattr(pane, "HELP", "")), "dim")
        keys(text, [b for b in pane.BINDINGS if isinstance(b, Binding)])
    for name, page in PAGES:
        heading(text, name)
        keys(text, [b for b in page.BINDINGS if isinstance(b, Binding)])
    return text


def flowing(text: str) -> str:
    """A paragraph as one line, to be wrapped where it is shown."""
    return " ".join(text.split()) + "\n"


def heading(text: Text, name: str) -> None:
    """A section's name."""
    text.append(f"\n{name}\n", "bold underline")


def keys(text: Text, bindings: list[Binding]) -> None:
    """A line a binding."""
    for binding in bindings:
        if binding.tooltip:
            key(text, binding.key_display or binding.key.split(",")[0], binding.tooltip)


def key(text: Text, name: str, what: str) -> None:
    """One line."""
    text.append(f"  {name:10}", "bold").append(f" {what}\n")
