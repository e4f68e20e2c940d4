"""Small dialogs: ask for a text, choose one of a list, fill in a form. Escape always leaves without a change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Select, Static
from textual.widgets.option_list import Option

from engine.records.words.rich_text import Text
from tui.fields import LineField
from tui.words import from_a_field, in_a_field

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


@dataclass(frozen=True)
class Field:
    """A line of a form; one with `choices` is chosen, not typed."""

    name: str
    label: str
    value: str
    placeholder: str = ""
    choices: tuple[str, ...] = ()


class Form(Dialog[dict[str, str]]):
    """Several fields; returns their values by name. `check` returns what is wrong, "" if nothing is."""

    DEFAULT_CSS = """
    Form {
        & VerticalScroll { height: auto; max-height: 18; }
        & .row { height: 1; }
        & .label { width: 18; color: $text-muted; }
        & Select { width: 1fr; height: 1; }
        & Select > SelectCurrent { border: none; height: 1; padding: 0 1; background: $boost; }
        & Select:focus > SelectCurrent { border: none; background: $accent 30%; }
        & Input { width: 1fr; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "keep", "Keep", id="form.keep", priority=True),
        Binding("down", "field(1)", show=False, priority=True),
        Binding("up", "field(-1)", show=False, priority=True),
    ]

    def __init__(
        self,
        title: str,
        fields: Sequence[Field],
        check: Callable[[dict[str, str]], str] = lambda values: "",
        hint: str = "enter: keep · tab, ↑↓: next field · escape: leave",
    ) -> None:
        super().__init__(title, hint)
        self._fields, self._check = fields, check

    def compose_content(self) -> ComposeResult:
        """A row a field."""
        with VerticalScroll(can_focus=False):
            for field in self._fields:
                with Horizontal(classes="row"):
                    yield Static(Text(field.label), classes="label", markup=False)
                    if field.choices:
                        yield Select(
                            [(c, c) for c in field.choices], value=field.value, allow_blank=False, id=f"f-{field.name}"
                        )
                    else:
                        yield LineField(in_a_field(field.value), placeholder=field.placeholder, id=f"f-{field.name}")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """An open list of choices has the arrows for itself."""
        return action != "field" or not any(choice.expanded for choice in self.query(Select))

    def action_field(self, step: int) -> None:
        """To the next field, or the one before."""
        if step > 0:
            self.focus_next()
        else:
            self.focus_previous()

    def _value(self, field: Field) -> str:
        if field.choices:
            return str(self.query_one(f"#f-{field.name}", Select).value)
        return from_a_field(self.query_one(f"#f-{field.name}", Input).value)

    @on(Input.Submitted)
    def action_keep(self) -> None:
        """Checks and returns the values."""
        values = {field.name: self._value(field) for field in self._fields}
        problem = self._check(values)
        if problem:
            self.show_problem(problem)
        else:
            self.end(values)
