"""A dialog for several lines of text."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import TextArea

from tui.fields import TextField
from tui.screens.dialogs import Dialog


class AskNote(Dialog[str]):
    """Enter breaks the line, ctrl+s keeps the text."""

    DEFAULT_CSS = """
    AskNote TextArea { height: 8; border: none; padding: 0 1; background: $boost; &:focus { border: none; } }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+s", "keep", "Keep", id="note.keep", priority=True)]

    def __init__(self, title: str, text: str) -> None:
        super().__init__(title, "ctrl+s: keep, for every session with this SAE · empty: no note · escape: leave")
        self._text = text

    def compose_content(self) -> ComposeResult:
        """The text."""
        yield TextField(self._text, soft_wrap=True, highlight_cursor_line=False, tab_behavior="focus")

    def on_mount(self) -> None:
        """Behind what is there."""
        area = self.query_one(TextArea)
        area.move_cursor(area.document.end)
        area.focus()

    def action_keep(self) -> None:
        """Keeps it."""
        self.end(self.query_one(TextArea).text)
