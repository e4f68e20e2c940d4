"""The edits pane: the list of edits, each with a switch."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from engine.files.session import EditSlot
from engine.records import NO_FEATURE
from engine.records.words.edits import kinds_explained
from engine.records.words.rich_text import Text
from tui.services.context import Context
from tui.state.edits import effect_in_words

NOTHING = "space ablates a feature"

LOSSY = "lossy: the SAE's error is dropped"

FIRST_STEP = "stays in keys and values"


class EditsPane(Vertical):
    """The list of edits."""

    DEFAULT_CSS = """
    EditsPane {
        & OptionList { height: auto; max-height: 100%; background: $surface; text-wrap: nowrap;
            text-overflow: ellipsis; scrollbar-size-vertical: 1; overflow-x: hidden; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w", "move", "Where", id="edits.where",
                tooltip="Where the edit acts: all tokens, prompt, generated, last of the prompt, first step"),
        Binding("c", "reconstruct", "Reconstruct", id="edits.reconstruct",
                tooltip="Drop the SAE's error as well, which is lossy; again: off, on"),
        Binding("d,delete", "remove", "Remove", id="edits.remove", tooltip="Take the edit out of the list"),
        Binding("D", "clear", "Clear", id="edits.clear", tooltip="Empty the list of edits; u brings them back"),
        Binding("a", "all", "All on/off", id="edits.all", tooltip="Switch all edits off, or on again"),
    ]  # fmt: skip
    HELP = f"""\
What is done to the residual stream where these features fire. {kinds_explained()} An edit acts on all tokens but BOS
and attention sinks, or where w puts it. first step is the prompt's pass alone, BOS included: what it did stays in the
prompt's keys and values, so later tokens see it. space switches one edit, + and − change its strength, * its kind,
strength and place, a switches all."""

    def __init__(self, context: Context, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.context = context
        self._slots: dict[int, EditSlot] = {}

    def compose(self) -> ComposeResult:
        yield OptionList(id="edit-list", markup=False)

    @property
    def rows(self) -> OptionList:
        return self.query_one(OptionList)

    def redraw(self) -> None:
        """Show the study's edits; the cursor stays on its line."""
        slots, name_of = self.context.study.work.edits, self.context.name_of
        at = self.rows.highlighted
        self._slots = {slot.feature: slot for slot in slots}
        width = max((len(effect_in_words(slot)) for slot in slots), default=0)
        self.rows.set_options(
            Option(line_of(slot, width, name_of(slot.feature)), id=str(slot.feature)) for slot in slots
        )
        if not slots:
            self.rows.add_option(Option(Text(NOTHING, "italic dim"), disabled=True))
        self.rows.highlighted = min(at or 0, len(slots) - 1) if slots else None
        on_now = sum(slot.on for slot in slots)
        self.border_title = "Edits" + (f" · {on_now} of {len(slots)} on" if slots else "")
        self.show_note()

    @on(OptionList.OptionHighlighted)
    def show_note(self) -> None:
        """Show a caution about the edit under the cursor, if there is one."""
        line = self.line()
        slot = None if line is None else self._slots.get(line)
        notes = []
        if slot is not None and slot.kind == "reconstruct":
            notes.append(LOSSY)
        if slot is not None and slot.at == "first-step":
            notes.append(FIRST_STEP)
        self.border_subtitle = " · ".join(reversed(notes))

    def line(self) -> int | None:
        """Return the feature of the line under the cursor, NO_FEATURE on the reconstruction; None on no line."""
        at = self.rows.highlighted
        option = None if at is None else self.rows.get_option_at_index(at)
        return int(option.id) if option is not None and option.id else None

    def feature(self) -> int | None:
        """Return the feature under the cursor; None on the reconstruction, or if there is no line."""
        line = self.line()
        return None if line == NO_FEATURE else line

    @on(OptionList.OptionSelected)
    def toggle(self, event: OptionList.OptionSelected) -> None:
        """Switch an edit on enter or a click."""
        event.stop()
        if event.option.id:
            self.context.study.edits.toggle(int(event.option.id))

    def action_remove(self) -> None:
        line = self.line()
        if line is not None:
            self.context.study.edits.remove(line)

    def action_move(self) -> None:
        """Let the edit under the cursor act at the next choice of positions."""
        line = self.line()
        if line is not None:
            self.context.study.edits.move(line)

    def action_reconstruct(self) -> None:
        """Switch the reconstruction on or off."""
        self.context.study.edits.toggle_reconstruction()

    def action_clear(self) -> None:
        self.context.study.edits.clear()

    def action_all(self) -> None:
        """Switch all edits off, or on."""
        self.context.study.edits.switch_all()


def line_of(slot: EditSlot, width: int, name: str) -> Text:
    """Format a line: switch, feature, effect and name; "all" and "lossy" for the reconstruction."""
    number = "  all" if slot.kind == "reconstruct" else f"{slot.feature:>5}"
    return Text.assemble(
        f"{'▣' if slot.on else '▢'} ",
        (number, "bold" if slot.on else "dim"),
        (f" {effect_in_words(slot):{width}} ", "" if slot.on else "dim"),
        ("lossy" if slot.kind == "reconstruct" else name, "dim"),
    )
