"""Small dialogs: a text, a choice, a note."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static, TextArea
from textual.widgets.option_list import Option

from engine.records.words.rich_text import Text
from tui.widgets.fields import LineField, TextField

T = TypeVar("T")


class Dialog(ModalScreen[T | None], Generic[T]):
    """A frame in the middle of the screen with a title and a line of keys."""

    DEFAULT_CSS = """
    Dialog {
        align: center middle;
        & > .frame {
            width: 76; max-width: 96%; height: auto; max-height: 90%; padding: 0 1;
            border: round $accent; background: $surface;
        }
        & .problem { color: $text-error; height: auto; display: none; }
        & .hint { color: $text-muted; height: auto; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave", id="dialog.leave")]

    def __init__(self, title: str, hint: str = "") -> None:
        super().__init__()
        self._title, self._hint = title, hint
        self._ended = False

    def compose(self) -> ComposeResult:
        """The frame around the dialog's own widgets."""
        with Vertical(classes="frame") as frame:
            frame.border_title = Text(self._title)
            yield from self.compose_content()
            yield Static(classes="problem", markup=False)
            if self._hint:
                yield Static(Text(self._hint), classes="hint", markup=False)

    def compose_content(self) -> ComposeResult:
        """The dialog's own widgets."""
        yield from ()

    def end(self, value: T | None) -> None:
        """Closes the dialog with its result; a second enter that comes before it is gone does nothing."""
        if self.is_current and not self._ended:
            self._ended = True
            self.dismiss(value)

    def show_problem(self, problem: str) -> None:
        """Says what is wrong; the dialog stays."""
        line = self.query_one(".problem", Static)
        line.update(Text(problem))
        line.display = bool(problem)

    def action_leave(self) -> None:
        """Leaves without a change."""
        self.end(None)


class AskText(Dialog[str]):
    """One line of text. `check` returns what is wrong with it, "" if nothing is."""

    def __init__(
        self,
        title: str,
        value: str = "",
        placeholder: str = "",
        hint: str = "enter: go on · escape: leave",
        check: Callable[[str], str] = lambda text: "",
    ) -> None:
        super().__init__(title, hint)
        self._value, self._placeholder, self._check = value, placeholder, check
        self._early = ""

    def compose_content(self) -> ComposeResult:
        """The line."""
        yield LineField(self._value, placeholder=self._placeholder)

    @on(Input.Submitted)
    def go_on(self, event: Input.Submitted) -> None:
        """Checks and returns the text."""
        problem = self._check(event.value)
        if problem:
            self.show_problem(problem)
        else:
            self.end(event.value)

    @on(Input.Changed)
    def forget_problem(self) -> None:
        """What was wrong may no longer be."""
        self.show_problem("")

    def on_key(self, event: events.Key) -> None:
        """Keeps what is typed before the line is there to take it."""
        if self.focused is None and event.is_printable and event.character:
            self._early += event.character

    def on_mount(self) -> None:
        """Puts it in."""
        line = self.query_one(Input)
        line.focus()
        self.call_after_refresh(lambda: line.insert_text_at_cursor(self._early) if self._early else None)


@dataclass(frozen=True)
class Choice:
    """One line of a Choose dialog."""

    id: str
    text: str
    detail: str = ""


class Choose(Dialog[str]):
    """One of a list; returns its id."""

    DEFAULT_CSS = """
    Choose OptionList { height: auto; max-height: 18; border: none; padding: 0; background: $surface; }
    """

    def __init__(self, title: str, choices: Sequence[Choice], hint: str = "enter: choose · escape: leave") -> None:
        super().__init__(title, hint)
        self._choices = choices

    def compose_content(self) -> ComposeResult:
        """The list."""
        yield OptionList(
            *(
                Option(Text.assemble(c.text, ("  " + c.detail if c.detail else "", "dim")), id=c.id)
                for c in self._choices
            ),
            markup=False,
        )

    @on(OptionList.OptionSelected)
    def choose(self, event: OptionList.OptionSelected) -> None:
        """Returns the choice."""
        self.end(event.option.id)


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
