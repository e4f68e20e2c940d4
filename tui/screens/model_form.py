"""The model chooser: a list of presets, and fields that they fill in or that the user types any model and SAE into."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual import on
from textual.app import ComposeResult
from textual.widgets import Input, OptionList, Select, Static
from textual.widgets.option_list import Option

from engine.loading.presets import Preset
from engine.records import MemoryLeft
from engine.records.words.numbers import size_in_words
from engine.records.words.rich_text import Text
from tui.widgets.forms import Field, Form

HINT = "enter fills in, enter again loads · tab: next field · escape: leave"

NAME_WIDTH = 22


class ModelForm(Form):
    """The model chooser. `memory` is that of the device that models are loaded on; None while nothing is loaded."""

    DEFAULT_CSS = """
    ModelForm {
        & OptionList { height: auto; max-height: 9; border: none; padding: 0; background: $surface; }
        & #detail { height: 2; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
    }
    """

    def __init__(
        self,
        title: str,
        fields: Sequence[Field],
        check: Callable[[dict[str, str]], str],
        presets: Sequence[Preset],
        current: Preset | None,
        memory: MemoryLeft | None,
        device: str,
    ) -> None:
        super().__init__(title, fields, check, HINT)
        self._presets, self._current, self._memory, self._device = presets, current, memory, device

    def compose_content(self) -> ComposeResult:
        """Compose the presets, the details of the one under the cursor, and the fields."""
        yield OptionList(*(Option(self._line(p), id=p.name) for p in self._presets), markup=False)
        yield Static(id="detail", markup=False)
        yield from super().compose_content()

    def on_mount(self) -> None:
        """Put the cursor on the preset that is loaded."""
        if self._current is not None:
            self.query_one(OptionList).highlighted = self._presets.index(self._current)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave the arrow keys to the list of presets, except for down on its last line."""
        chooser = self.query_one(OptionList) if self.is_mounted else None
        if action == "field" and chooser is not None and chooser.has_focus:
            at_end = chooser.highlighted == len(self._presets) - 1
            return at_end and parameters == (1,)
        return super().check_action(action, parameters)

    def _is_too_big(self, preset: Preset) -> bool:
        return self._memory is not None and preset.bytes_needed() > self._memory.total

    def _line(self, preset: Preset) -> Text:
        mark, style = ("✗ ", "dim") if self._is_too_big(preset) else ("  ", "")
        size = size_in_words(preset.bytes_needed())
        return Text.assemble((f"{mark}{preset.name:{NAME_WIDTH}} {size:>8}  ", style), (preset.title, "dim"))

    @on(OptionList.OptionHighlighted)
    def show_detail(self, event: OptionList.OptionHighlighted) -> None:
        """Show the SAE of the preset under the cursor, and whether its weights fit in memory."""
        preset = self._presets[event.option_index]
        needs = f"weights of {size_in_words(preset.bytes_needed())}"
        if self._memory is not None:
            has = f"{self._device} has {size_in_words(self._memory.total)}"
            needs += f": too big, {has}" if self._is_too_big(preset) else f", {has}"
        pair = preset.sae or f"{preset.model_name} and its {preset.sae_name}"
        self.query_one("#detail", Static).update(Text(f"{pair}\n{needs}"))

    @on(OptionList.OptionSelected)
    def take(self, event: OptionList.OptionSelected) -> None:
        """Fill in the fields; enter in one of them loads."""
        preset = self._presets[event.option_index]
        taken = {"model": preset.model, "sae": preset.sae, "hook": preset.hook if preset.sae else ""}
        for name, value in taken.items():
            self.query_one(f"#f-{name}", Input).value = value or ""
        self.query_one("#f-bos", Select).value = preset.bos
        self.show_problem("")
        self.query_one("#f-model", Input).focus()
