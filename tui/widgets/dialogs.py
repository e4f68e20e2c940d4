"""Small dialogs that ask for a line of text, a choice or a note."""

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
    """A dialog: a frame in the middle of the screen with a title and a line of keys."""

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
        """Compose the frame around the dialog's own widgets."""
        with Vertical(classes="frame") as frame:
            frame.border_title = Text(self._title)
            yield from self.compose_content()
            yield Static(classes="problem", markup=False)
            if self._hint:
                yield Static(Text(self._hint), classes="hint", markup=False)

    def compose_content(self) -> ComposeResult:
        """Compose the dialog's own widgets, which a subclass defines."""
        yield from ()

    def end(self, value: T | None) -> None:
        """Close the dialog with its result; a second enter before it is closed does nothing."""
        if self.is_current and not self._ended:
            self._ended = True
            self.dismiss(value)

    def show_problem(self, problem: str) -> None:
        """Show what is wrong; the dialog stays open."""
        line = self.query_one(".problem", Static)
        line.update(Text(problem))
        line.display = bool(problem)

    def action_leave(self) -> None:
        """Close the dialog with None."""
        self.end(None)


class AskText(Dialog[str]):
    """Ask for a line of text. `check` returns what is wrong with it, "" if nothing is."""

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
        yield LineField(self._value, placeholder=self._placeholder)

    @on(Input.Submitted)
    def go_on(self, event: Input.Submitted) -> None:
        """Close with the text if `check` passes."""
        problem = self._check(event.value)
        if problem:
            self.show_problem(problem)
        else:
            self.end(event.value)

    @on(Input.Changed)
    def forget_problem(self) -> None:
        """Remove the last problem once the text changes."""
        self.show_problem("")

    def on_key(self, event: events.Key) -> None:
        """Keep what is typed before the field has the focus."""
        if self.focused is None and event.is_printable and event.character:
            self._early += event.character

    def on_mount(self) -> None:
        """Focus the field and insert what was typed early."""
        line = self.query_one(Input)
        line.focus()
        self.call_after_refresh(lambda: line.insert_text_at_cursor(self._early) if self._early else None)


@dataclass(frozen=True)
class Choice:
    """A line of a Choose dialog."""

    id: str
    text: str
    detail: str = ""


class Choose(Dialog[str]):
    """Ask for one of several choices; the result is its id."""

    DEFAULT_CSS = """
    Choose OptionList { height: auto; max-height: 18; border: none; padding: 0; background: $surface; }
    """

    def __init__(self, title: str, choices: Sequence[Choice], hint: str = "enter: choose · escape: leave") -> None:
        super().__init__(title, hint)
        self._choices = choices

    def compose_content(self) -> ComposeResult:
        yield OptionList(
            *(
                Option(Text.assemble(c.text, ("  " + c.detail if c.detail else "", "dim")), id=c.id)
                for c in self._choices
            ),
            markup=False,
        )

    @on(OptionList.OptionSelected)
    def choose(self, event: OptionList.OptionSelected) -> None:
        self.end(event.option.id)


class AskNote(Dialog[str]):
    """Ask for a note of several lines. Enter breaks the line, ctrl+s keeps the text."""

    DEFAULT_CSS = """
    AskNote TextArea { height: 8; border: none; padding: 0 1; background: $boost; &:focus { border: none; } }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+s", "keep", "Keep", id="note.keep", priority=True)]

    def __init__(self, title: str, text: str) -> None:
        super().__init__(title, "ctrl+s: keep, for every session with this SAE · empty: no note · escape: leave")
        self._text = text

    def compose_content(self) -> ComposeResult:
        yield TextField(self._text, soft_wrap=True, highlight_cursor_line=False, tab_behavior="focus")

    def on_mount(self) -> None:
        """Focus the text with the cursor at its end."""
        area = self.query_one(TextArea)
        area.move_cursor(area.document.end)
        area.focus()

    def action_keep(self) -> None:
        self.end(self.query_one(TextArea).text)
