"""A page of text to scroll through, such as help, messages or a replay's outcome."""

from __future__ import annotations

from typing import ClassVar

from rich.console import RenderableType
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.records.words.rich_text import Text


class Report(ModalScreen[None]):
    """A page of text; `show` replaces the text while the page is open."""

    DEFAULT_CSS = """
    Report {
        align: center middle;
        & > .frame {
            width: 130; max-width: 96%; height: 90%; padding: 0 1; border: round $accent; background: $surface;
        }
        & VerticalScroll { height: 1fr; scrollbar-size-vertical: 1; }
        & .hint { height: 1; color: $text-muted; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,question_mark", "leave", "Close", id="report.leave"),
    ]

    def __init__(self, title: str, text: RenderableType) -> None:
        super().__init__()
        self._title, self._text = title, text

    def compose(self) -> ComposeResult:
        with Vertical(classes="frame") as frame:
            frame.border_title = Text(self._title)
            with VerticalScroll():
                yield Static(self._text, id="report-text")
            yield Static("↑↓ scroll · escape closes", classes="hint", markup=False)

    def show(self, text: RenderableType) -> None:
        """Show another text."""
        self._text = text
        if self.is_mounted:
            self.query_one("#report-text", Static).update(text)

    def action_leave(self) -> None:
        """Close the page; a second key before it is closed does nothing."""
        if self.is_current:
            self.dismiss(None)
