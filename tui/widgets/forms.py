"""Forms of several fields, with a line below that shows errors or a summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import Input, Select, Static

from engine.records.words.rich_text import Text
from tui.widgets.dialogs import Dialog
from tui.widgets.fields import LineField, from_a_field, in_a_field


@dataclass(frozen=True)
class Field:
    """A field of a form; one with `choices` is chosen, not typed."""

    name: str
    label: str
    value: str
    placeholder: str = ""
    choices: tuple[str, ...] = ()


class Form(Dialog[dict[str, str]]):
    """A form; its result is the values by field name. `check` returns what is wrong with them, "" if nothing is."""

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
        """Leave the arrow keys to an open list of choices."""
        return action != "field" or not any(choice.expanded for choice in self.query(Select))

    def action_field(self, step: int) -> None:
        """Focus the next field, or the previous one if `step` is -1."""
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
        """Close with the values if `check` passes."""
        values = {field.name: self._value(field) for field in self._fields}
        problem = self._check(values)
        if problem:
            self.show_problem(problem)
        else:
            self.end(values)


Values = dict[str, str]


class Turn(Static, can_focus=True):
    """A field for one of a few values, turned by ←→ or space; unlike a Select it leaves enter to the dialog."""

    DEFAULT_CSS = """
    Turn { width: 1fr; height: 1; padding: 0 1; background: $boost; text-wrap: nowrap; text-overflow: ellipsis; }
    Turn:focus { background: $accent 30%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,space", "turn(1)", show=False),
        Binding("left", "turn(-1)", show=False),
    ]

    @dataclass
    class Turned(Message):
        """Another value was chosen."""

        value: str

    def __init__(self, values: Sequence[str], value: str, *, id: str) -> None:
        super().__init__(id=id)
        self._values, self.value = values, value

    def on_mount(self) -> None:
        self._draw()

    def _draw(self) -> None:
        only = len(self._values) < 2
        self.update(Text(self.value if only else f"‹ {self.value} ›"))

    def action_turn(self, step: int) -> None:
        """Choose the next value, or the previous one if `step` is -1."""
        self.value = self._values[(self._values.index(self.value) + step) % len(self._values)]
        self._draw()
        self.post_message(self.Turned(self.value))

    def on_click(self, event: events.Click) -> None:
        """Focus the field and choose the next value."""
        self.focus()
        self.action_turn(1)


class SummaryForm(Dialog[Values]):
    """A form with a summary of its values. `check` returns what is wrong with them, "" if nothing is."""

    DEFAULT_CSS = """
    SummaryForm {
        & .fields { height: auto; }
        & .row { height: 1; }
        & .label { width: 18; color: $text-muted; }
        & Input { width: 1fr; }
        & .summary { height: auto; padding: 1 0; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "run", "Run", id="sheet.run"),
        Binding("down", "field(1)", show=False, priority=True),
        Binding("up", "field(-1)", show=False, priority=True),
    ]

    def __init__(
        self,
        title: str,
        fields: Sequence[Field],
        summary: Callable[[Values], str],
        check: Callable[[Values], str],
        verb: str = "run",
    ) -> None:
        super().__init__(title, f"enter: {verb} · tab, ↑↓: next field · ←→: another choice · escape: leave")
        self._fields, self._summary, self._check = fields, summary, check

    def compose_content(self) -> ComposeResult:
        with Vertical(classes="fields"):
            for field in self._fields:
                with Horizontal(classes="row"):
                    yield Static(Text(field.label), classes="label", markup=False)
                    if field.choices:
                        yield Turn(field.choices, field.value, id=f"f-{field.name}")
                    else:
                        yield LineField(field.value, placeholder=field.placeholder, id=f"f-{field.name}")
        yield Static(classes="summary", markup=False)

    def on_mount(self) -> None:
        self.show_summary()

    def values(self) -> Values:
        """Return the current values by field name."""
        values = {}
        for field in self._fields:
            kind: type[Turn | Input] = Turn if field.choices else Input
            values[field.name] = self.query_one(f"#f-{field.name}", kind).value
        return values

    @on(Turn.Turned)
    @on(Input.Changed)
    def show_summary(self) -> None:
        """Show the summary of the values, or what is wrong with them."""
        values = self.values()
        problem = self._check(values)
        self.show_problem(problem)
        line = self.query_one(".summary", Static)
        line.display = not problem
        if not problem:
            line.update(Text(self._summary(values)))

    def action_field(self, step: int) -> None:
        """Focus the next field, or the previous one if `step` is -1."""
        if step > 0:
            self.focus_next()
        else:
            self.focus_previous()

    @on(Input.Submitted)
    def action_run(self) -> None:
        """Close with the values if `check` passes."""
        values = self.values()
        if not self._check(values):
            self.end(values)
