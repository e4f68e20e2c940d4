"""Commands that open a page to read: help and messages."""

from __future__ import annotations

from textual.screen import Screen

from engine.records.words.rich_text import Text
from tui.commands.keys import MAIN
from tui.screens.effects_page import CausesScreen
from tui.screens.feature_page import FeaturePage
from tui.screens.help import help_text, section
from tui.screens.minimal_set_page import MinimalSetScreen
from tui.services.context import Context
from tui.widgets.page import Report

PAGES: tuple[tuple[str, type[Screen[None]]], ...] = (
    ("A, C Which features influence the answer?", CausesScreen),
    ("m The smallest set", MinimalSetScreen),
    ("f A feature's page", FeaturePage),
)


def show_help(context: Context) -> None:
    """Open a page that lists every key."""
    sections = [section(name, owner) for name, owner in (*context.desk.pane_types(), *PAGES)]
    context.desk.open(Report("Help", help_text(MAIN, sections)))


def show_messages(context: Context) -> None:
    """Open a page of all notifications, with the path of the engine's log."""
    lines = context.desk.messages or ["No errors so far."]
    log = f"\n\nThe engine's log: {context.bridge.log_path}"
    context.desk.open(Report("Messages", Text("\n".join(lines) + log)))
