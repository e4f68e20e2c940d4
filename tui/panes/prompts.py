"""The prompts pane: positive and negative prompts and probes, edited in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.lazy import Lazy
from textual.message import Message
from textual.widgets import OptionList, TextArea
from textual.widgets.option_list import Option

from engine.records import Prompt, PromptSet
from engine.records.words.rich_text import Text
from engine.records.words.safe_text import visible
from tui.services.context import Context
from tui.state.prompts import Group
from tui.widgets.fields import TextField

GROUPS: tuple[Group, ...] = ("positive", "negative", "probes")

MARKS = {"positive": "+", "negative": "−", "probes": "?"}

EMPTY = {
    "positive": "a: a prompt that shows the behaviour",
    "negative": "a: one that does not",
    "probes": "a: a question that measures it",
}

NEW = "new"
"""The option id of the line made for a prompt that is being added."""

FEW_LABELINGS = 1000

LENGTH_RATIO = 1.5


@dataclass(frozen=True)
class Place:
    """A line of the list: a group's heading (index None) or one of its entries."""

    group: Group
    index: int | None

    @property
    def id(self) -> str:
        """The line's option id."""
        return f"{self.group}:{'' if self.index is None else self.index}"

    @classmethod
    def of(cls, option_id: str) -> Place:
        """Return the line that an option id stands for."""
        group, _, index = option_id.partition(":")
        known_group = next(g for g in GROUPS if g == group)
        return cls(known_group, int(index) if index else None)


@dataclass(frozen=True)
class Typed:
    """A prompt as it was typed; index None for a new one."""

    group: Group
    index: int | None
    text: str


class PromptEditor(TextField):
    """The editor of a prompt, over its line of the list. Enter keeps the text, escape drops it, ctrl+j adds a line."""

    DEFAULT_CSS = """
    PromptEditor {
        layer: over; width: 100%; height: auto; min-height: 1; max-height: 8;
        border: none; padding: 0 1; background: $boost; display: none;
        &:focus { border: none; }
    }
    """

    @dataclass
    class Done(Message):
        """The user has finished typing: the text, None if it is dropped."""

        text: str | None

    BINDINGS: ClassVar[list[BindingType]] = [  # for the footer: _on_key acts on them before TextArea takes them
        Binding("enter", "keep", "Keep"),
        Binding("escape", "drop", "Drop"),
        Binding("ctrl+j", "newline", "Line break"),
    ]

    async def _on_key(self, event: events.Key) -> None:
        if event.key in ("enter", "escape"):
            event.stop()
            event.prevent_default()
            self.post_message(self.Done(self.text if event.key == "enter" else None))
            return
        if event.key == "ctrl+j":
            event.stop()
            event.prevent_default()
            self.insert("\n")
            return
        await super()._on_key(event)


class PromptsPane(Vertical):
    """Pane 1: positive prompts, negative prompts and probes in one list."""

    DEFAULT_CSS = """
    PromptsPane {
        layers: base over;
        & OptionList {
            layer: base; height: 1fr; background: $surface;
            text-wrap: nowrap; text-overflow: ellipsis; scrollbar-size-vertical: 1; overflow-x: hidden;
        }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "add", "Add", id="prompts.add", tooltip="Add a prompt to the set under the cursor"),
        Binding("d,delete", "delete", "Delete", id="prompts.delete", tooltip="Delete the prompt under the cursor"),
        Binding("m", "move", "Move", id="prompts.move", tooltip="Move to the other set: positive or negative"),
        Binding("i", "import", "Import", id="prompts.import", tooltip="Import prompts from a txt, jsonl or toml file"),
        Binding("c", "format", "Chat/raw", show=False, id="prompts.format", tooltip="Feed prompts as chat, or raw"),
        Binding("w", "write", "Save set", show=False, id="prompts.write", tooltip="Save these prompts as a set"),
    ]
    HELP = """\
Prompts that show the behaviour (+) against prompts that do not (−): the contrast ranks the features. Good negatives
break one confound each: the same topic without the behaviour, the behaviour on another topic. Probes (?) are questions
whose answers are tracked. Enter edits in place (ctrl+j: line break); on a probe g asks it."""

    @dataclass
    class PlaceChosen(Message):
        """The cursor has moved to another line."""

        group: Group
        index: int | None

    def __init__(self, context: Context, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.context = context
        self._prompts = PromptSet("new")
        self._editing: Place | None = None
        self._line = 0
        """The index of the list's line that the editor covers."""

    def compose(self) -> ComposeResult:
        yield OptionList(id="prompt-list", markup=False)
        yield Lazy(PromptEditor(id="prompt-editor", soft_wrap=True, highlight_cursor_line=False))

    @property
    def rows(self) -> OptionList:
        """The list of prompts, which takes the focus."""
        return self.query_one("#prompt-list", OptionList)

    def redraw(self) -> None:
        """Show the study's prompts; the cursor stays on its line."""
        self._prompts = prompts = self.context.study.work.prompts
        at = self.rows.highlighted
        self.rows.set_options([option for group in GROUPS for option in self._options(group)])
        count = self.rows.option_count
        self.rows.highlighted = min(at if at is not None else 1, count - 1)
        formats = {p.format for p in (*prompts.positive, *prompts.negative)}
        self.border_title = Text(f"1 Prompts · {prompts.name}" + (" · chat" if formats == {"chat"} else ""))
        self.border_subtitle = caution(prompts)

    def _options(self, group: Group) -> list[Option]:
        entries: Sequence[object] = getattr(self._prompts, group)
        heading = Text.assemble((f"{MARKS[group]} {group}", "bold"), (f"  {len(entries)}", "dim"))
        options = [Option(heading, id=Place(group, None).id)]
        texts = [getattr(entry, "text", "") for entry in entries]
        options += [Option(Text("  " + visible(text)), id=Place(group, i).id) for i, text in enumerate(texts)]
        if not entries:
            options[0] = Option(Text.assemble(heading, (f"  {EMPTY[group]}", "italic dim")), id=Place(group, None).id)
        return options

    def place(self) -> Place:
        """Return the line under the cursor."""
        at = self.rows.highlighted
        option = self.rows.get_option_at_index(at) if at is not None else None
        if option is None or option.id is None or option.id == NEW:
            return Place("positive", None)
        return Place.of(option.id)

    def go_to(self, group: Group, index: int) -> None:
        """Move the cursor to an entry."""
        self.rows.highlighted = self.rows.get_option_index(Place(group, index).id)

    # ---- editing in place

    @on(OptionList.OptionSelected)
    def edit_or_add(self, event: OptionList.OptionSelected) -> None:
        """On enter or a click, edit the entry, or add one to the group of the heading."""
        event.stop()
        place = self.place()
        if place.index is None:
            self.action_add()
        elif place.group == "probes":
            self._edit_probe(place.index)
        else:
            self._edit(place, self._prompts_of(place.group)[place.index].text)

    def _prompts_of(self, group: Group) -> tuple[Prompt, ...]:
        return self._prompts.positive if group == "positive" else self._prompts.negative

    def _edit(self, place: Place, text: str) -> None:
        if not self.query(PromptEditor):  # the editor is mounted only after the first paint
            self.call_after_refresh(self._edit, place, text)
            return
        line = self.rows.highlighted or 0
        if place.index is None:  # a new line, so that no other prompt is covered
            line += 1
            options = list(self.rows.options)
            self.rows.set_options([*options[:line], Option("", id=NEW), *options[line:]])
            self.rows.highlighted = line
        self._editing, self._line = place, line
        editor = self.query_one(PromptEditor)
        editor.text = text
        editor.move_cursor(editor.document.end)
        editor.display = True
        self.screen.set_focus(editor)  # at once: keys typed already belong in the editor
        self.call_after_refresh(self._place_editor)

    @on(TextArea.Changed, "#prompt-editor")
    def _place_editor(self) -> None:
        """Put the editor over its line, or higher where the text would not fit."""
        editor = self.query_one(PromptEditor)
        top = self._line - round(self.rows.scroll_offset.y)
        room = self.rows.size.height - max(1, editor.outer_size.height)
        editor.styles.offset = (0, max(0, min(top, room)))

    def on_resize(self) -> None:
        """Keep the editor over its line."""
        if self._editing is not None:
            self.call_after_refresh(self._place_editor)

    @on(PromptEditor.Done)
    def keep(self, event: PromptEditor.Done) -> None:
        """Close the editor and put its text into the prompts, unless it was dropped or is empty."""
        typed = self.close_editor()
        if typed is not None and event.text is not None:
            self.go_to(typed.group, self.context.study.prompts.put(typed.group, typed.index, typed.text))

    def commit(self) -> None:
        """Close the editor and keep what the user is still typing."""
        typed = self.close_editor()
        if typed is not None:
            self.context.study.prompts.put(typed.group, typed.index, typed.text)

    def close_editor(self) -> Typed | None:
        """Close the editor if it is open; return what was typed, None if that is empty."""
        place, self._editing = self._editing, None
        if place is None:
            return None
        editor = self.query_one(PromptEditor)
        had_focus, text = editor.has_focus, editor.text.strip()
        editor.display = False
        if place.index is None:  # remove the line made for the new prompt
            self.rows.highlighted = max(0, self._line - 1)
            self.redraw()
        if had_focus:
            self.screen.set_focus(self.rows)
        return Typed(place.group, place.index, text) if text else None

    @on(events.DescendantBlur)
    def keep_what_was_typed(self, event: events.DescendantBlur) -> None:
        """Keep the text when the editor loses the focus by mouse or tab, so that nothing typed is lost."""
        editor = event.widget
        if isinstance(editor, PromptEditor) and self._editing is not None:
            editor.post_message(PromptEditor.Done(editor.text))

    @on(OptionList.OptionHighlighted)
    def tell_place(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        place = self.place()
        self.post_message(self.PlaceChosen(place.group, place.index))

    # ---- keys

    def action_add(self) -> None:
        """Add an entry to the group under the cursor."""
        place = self.place()
        if place.group == "probes":
            self._edit_probe(None)
            return
        self._edit(Place(place.group, None), "")

    def action_delete(self) -> None:
        place = self.place()
        if place.index is not None:
            self.context.study.prompts.delete(place.group, place.index)
            self.notify("Deleted; u brings it back.")

    def action_move(self) -> None:
        place = self.place()
        if place.index is None:
            return
        if place.group == "probes":
            self.notify("A probe is in neither set: only prompts move.", severity="warning")
            return
        self.context.study.prompts.move(place.group, place.index)

    def action_import(self) -> None:
        from tui.commands import prompts

        prompts.import_prompts(self.context, self.place().group)

    def action_format(self) -> None:
        """Switch the prompts between chat and raw."""
        format = self.context.study.prompts.switch_format()
        self.notify(f"Prompts are fed {'through the chat template' if format == 'chat' else 'raw'}.")

    def action_write(self) -> None:
        from tui.commands import prompts

        prompts.write_set(self.context)

    def _edit_probe(self, index: int | None) -> None:
        from tui.commands import prompts

        prompts.edit_probe(self.context, index)


def caution(prompts: PromptSet) -> str:
    """Say in a few words what weakens a contrast of these prompts; "" if nothing does."""
    m, n = len(prompts.positive), len(prompts.negative)
    if not m or not n:
        return "a contrast needs both sets"
    longer, shorter = sorted((mean_words(prompts.positive), mean_words(prompts.negative)), reverse=True)
    if longer > LENGTH_RATIO * shorter:
        return f"unbalanced: {longer:.0f} against {shorter:.0f} words a prompt"
    if comb(m + n, m) < FEW_LABELINGS:
        return f"few: {m} against {n} has {comb(m + n, m)} labelings"
    return ""


def mean_words(prompts: tuple[Prompt, ...]) -> float:
    """Return the mean length of the prompts in words; only the engine can count tokens."""
    return sum(len(p.text.split()) for p in prompts) / len(prompts)
