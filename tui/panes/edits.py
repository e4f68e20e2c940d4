"""The edits: which features are ablated or scaled, each with a switch of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from engine.session import EditSlot
from tui.words import strength_in_words

NOTHING = "space ablates a feature"


class EditsPane(Vertical):
    """`show` it the list of edits."""

    DEFAULT_CSS = """
    EditsPane {
        & OptionList { height: auto; max-height: 100%; background: $surface; text-wrap: nowrap;
            text-overflow: ellipsis; scrollbar-size-vertical: 1; overflow-x: hidden; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d,delete", "remove", "Remove", id="edits.remove", tooltip="Take the edit out of the list"),
        Binding("D", "clear", "Clear", id="edits.clear", tooltip="Empty the list of edits; u brings them back"),
        Binding("a", "all", "All on/off", id="edits.all", tooltip="Switch all edits off, or on again"),
    ]
    HELP = """\
What is done to the residual stream wherever these features fire: ablate sets the feature to zero, × scales it (× 1
changes nothing, a negative factor turns it round). The SAE's error term stays. space switches one edit, + and − change
its strength, a switches all."""

    @dataclass
    class RemoveWanted(Message):
        """An edit is to leave the list."""

        feature: int

    @dataclass
    class ClearWanted(Message):
        """The list is to be emptied."""

    @dataclass
    class AllWanted(Message):
        """All edits are to be switched."""

    @dataclass
    class ToggleWanted(Message):
        """An edit is to be switched, by enter or the mouse."""

        feature: int

    def compose(self) -> ComposeResult:
        """The list."""
        yield OptionList(id="edit-list", markup=False)

    @property
    def rows(self) -> OptionList:
        """The list, which has the focus."""
        return self.query_one(OptionList)

    def show(self, slots: tuple[EditSlot, ...], name_of: Callable[[int], str]) -> None:
        """Shows the edits; the cursor stays where it was. `name_of` gives a feature's words."""
        at = self.rows.highlighted
        self.rows.set_options(
            Option(
                Content.assemble(
                    f"{'▣' if slot.on else '▢'} ",
                    (f"{slot.feature:>5}", "bold" if slot.on else "dim"),
                    (f" {strength_in_words(slot.strength):8}", "" if slot.on else "dim"),
                    (name_of(slot.feature), "dim"),
                ),
                id=str(slot.feature),
            )
            for slot in slots
        )
        if not slots:
            self.rows.add_option(Option(Content(NOTHING).stylize("italic dim"), disabled=True))
        self.rows.highlighted = min(at or 0, len(slots) - 1) if slots else None
        on_now = sum(slot.on for slot in slots)
        self.border_title = "Edits" + (f" · {on_now} of {len(slots)} on" if slots else "")

    def feature(self) -> int | None:
        """The feature under the cursor."""
        at = self.rows.highlighted
        option = None if at is None else self.rows.get_option_at_index(at)
        return int(option.id) if option is not None and option.id else None

    @on(OptionList.OptionSelected)
    def toggle(self, event: OptionList.OptionSelected) -> None:
        """Enter or a click switches."""
        event.stop()
        if event.option.id:
            self.post_message(self.ToggleWanted(int(event.option.id)))

    def action_remove(self) -> None:
        """Removes the edit under the cursor."""
        feature, at = self.feature(), self.rows.highlighted
        if feature is None or at is None:
            return
        # out of the list at once: the next key, which may come before the message, is about the next edit
        self.rows.remove_option_at_index(at)
        if self.rows.option_count:
            self.rows.highlighted = min(at, self.rows.option_count - 1)
        self.post_message(self.RemoveWanted(feature))

    def action_clear(self) -> None:
        """Empties the list."""
        self.post_message(self.ClearWanted())

    def action_all(self) -> None:
        """Switches all."""
        self.post_message(self.AllWanted())
