"""The list of a question's kept texts, to show one or put it beside the text that is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from engine.records import Generated
from engine.records.words.rich_text import Text
from tui.state.texts import difference_in_words, name_of
from tui.widgets.dialogs import Dialog


class Chosen(NamedTuple):
    """The user's choice of a text, by its place in the list."""

    place: int
    beside: bool
    """Whether to put it beside the text that is shown, instead of showing it."""


class Branches(Dialog[Chosen]):
    """The kept texts, newest first, two lines each."""

    DEFAULT_CSS = """
    Branches {
        & > .frame { width: 130; }
        & OptionList { height: auto; max-height: 70vh; border: none; padding: 0; background: $surface; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "beside", "Beside", id="branches.beside", tooltip="Put it beside the text that is shown"),
    ]

    def __init__(self, texts: Sequence[Generated], shown: Generated | None, beside: Generated | None) -> None:
        super().__init__("Kept texts of this question", "enter: show · space: put beside · escape: leave")
        self._texts, self._shown, self._beside = texts, shown, beside

    def compose_content(self) -> ComposeResult:
        yield OptionList(*map(self._line, self._texts), markup=False)

    def on_mount(self) -> None:
        """Put the cursor on the text that is shown."""
        at = next((i for i, text in enumerate(self._texts) if text is self._shown), 0)
        self.query_one(OptionList).highlighted = at

    def _line(self, text: Generated) -> Option:
        mark = "▸" if text is self._shown else "◂" if text is self._beside else " "
        difference = difference_in_words(text, self._shown)
        return Option(Text.assemble(f"{mark} ", (name_of(text), "bold"), "\n    ", (difference, "dim")))

    @on(OptionList.OptionSelected)
    def show(self, event: OptionList.OptionSelected) -> None:
        """Choose the text under the cursor to be shown."""
        self.end(Chosen(event.option_index, False))

    def action_beside(self) -> None:
        """Choose the text under the cursor to be put beside."""
        at = self.query_one(OptionList).highlighted
        if at is not None:
            self.end(Chosen(at, True))
