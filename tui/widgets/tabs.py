"""The line of tabs, shown while only one pane is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual import events
from textual.message import Message
from textual.widgets import Static

from engine.records.words.rich_text import Text


class TabLine(Static):
    """The panes' names with their number keys; a click chooses one."""

    DEFAULT_CSS = """
    TabLine { height: 1; padding: 0 1; background: $boost; text-wrap: nowrap; }
    """

    @dataclass
    class TabChosen(Message):
        """A tab was clicked."""

        name: str

    def __init__(self, names: Sequence[str], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._names = names

    def show(self, current: str) -> None:
        """Mark the current tab."""
        text = Text(no_wrap=True)
        for number, name in enumerate(self._names, 1):
            text.append(f" {number} {name.capitalize()} ", "bold reverse" if name == current else "")
            text.append(" ")
        self.update(text)

    def on_click(self, event: events.Click) -> None:
        """Post TabChosen for the tab under the pointer."""
        start = 1
        for number, name in enumerate(self._names, 1):
            width = len(f" {number} {name} ")
            if start <= event.x < start + width:
                self.post_message(self.TabChosen(name))
                return
            start += width + 1
