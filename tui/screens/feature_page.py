"""A feature's page: first what the app knows, then the engine's description; ←→ go to other features."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.console import Group, RenderableType
from rich.table import Table
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.files.explanations import address
from engine.records import FeatureRow, Loaded, Ranking
from engine.records.words.features import feature_in_words, tokens_in_words
from engine.records.words.rich_text import Text
from tui.screens import feature_parts as card
from tui.services.context import Context
from tui.state.edits import effect_in_words

WIDE = 150
"""Terminal columns from which the parts are shown side by side."""

HINT = "←→ other features · ↑↓ scroll · space ablate · l label · n note · e effect · y copy · escape closes"


class FeaturePage(ModalScreen[None]):
    """The page of one feature at a time; ← and → go through `order`."""

    DEFAULT_CSS = """
    FeaturePage {
        align: center middle;
        & > .frame {
            width: 180; max-width: 96%; height: 90%; padding: 0 1; border: round $accent; background: $surface;
        }
        & VerticalScroll { height: 1fr; scrollbar-size-vertical: 1; }
        & .hint { height: auto; color: $text-muted; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,f,enter", "leave", "Close", id="page.leave"),
        Binding("right", "move(1)", "Next", id="page.next", tooltip="The next feature"),
        Binding("left", "move(-1)", "Before", id="page.before", tooltip="The feature before"),
        Binding("down", "scroll('down')", show=False),
        Binding("up", "scroll('up')", show=False),
        Binding("pagedown", "scroll('page_down')", show=False),
        Binding("pageup", "scroll('page_up')", show=False),
        Binding("home", "scroll('home')", show=False),
        Binding("end", "scroll('end')", show=False),
        Binding("space", "ablate", "Ablate", id="page.ablate", tooltip="Ablate the feature; again: off, on"),
        Binding("l", "label", "Label", id="page.label", tooltip="Give the feature a name of your own"),
        Binding("n", "note", "Note", id="page.note", tooltip="Write down what you think of the feature"),
        Binding("e", "effect", "Effect", id="page.effect", tooltip="Ablate it, and measure the answer"),
        Binding("y", "copy", "Copy", id="page.copy", tooltip="Copy its address on Neuronpedia, or its number"),
    ]

    def __init__(
        self,
        context: Context,
        feature: int,
        order: list[int],
        *,
        label: Callable[[int, Callable[[], object]], None],
        note: Callable[[int, Callable[[], object]], None],
        copy: Callable[[int], None],
    ) -> None:
        super().__init__()
        self.context, self.feature, self._order = context, feature, order
        self._label, self._note, self._copy = label, note, copy

    def compose(self) -> ComposeResult:
        with Vertical(classes="frame"):
            with VerticalScroll(can_focus=False):
                yield Static(id="card")
            yield Static(HINT, classes="hint", markup=False)

    def on_mount(self) -> None:
        self._show_feature()

    def on_resize(self, event: events.Resize) -> None:
        """Redraw the parts, side by side if they fit."""
        self.draw()

    def _show_feature(self) -> None:
        self.draw()
        self.context.known.want(self.feature, self.draw)

    def draw(self) -> None:
        """Draw what is known of the feature by now."""
        if not self.is_mounted:
            return
        feature = self.feature
        frame = self.query_one(".frame")
        frame.border_title = Text(f"Feature {feature_in_words(feature, self.context.name_of(feature), ())}")
        place = self._order.index(feature) + 1 if feature in self._order else 0
        frame.border_subtitle = f"{place} of {len(self._order)}" if place else ""
        self.query_one("#card", Static).update(Group(*self._parts()))

    def _parts(self) -> list[RenderableType]:
        context, feature = self.context, self.feature
        study, known, notebook = context.study, context.known, context.notebook
        head = Text()
        slot = study.edits.slot(feature)
        if slot is not None:
            head.append(f"{'▣' if slot.on else '▢'} {effect_in_words(slot)}\n", "bold")
        if context.labels.get(feature):
            head.append(f"Fires most on {tokens_in_words(context.tokens_of(feature))}\n")
        for heading, words in (("Note", notebook.note(feature)), ("Explanation", notebook.explanation(feature))):
            if words:
                head.append(f"{heading}: ", "bold").append(words + "\n", "not bold")
        address = address_of(study.loaded, feature)
        if address:
            head.append(f"{address}\n", "dim")
        described = known.described(feature)
        head.append_text(card.ranked(*row_of(study.ranking(), feature)))
        head.append_text(card.effect(feature, study.effects(), known.effect(feature)))
        if described is None:
            return [head, Text(known.state(feature), "dim")]
        head.append_text(card.fires(described))
        names = context.labels
        if self.size.width < WIDE:
            parts = [card.histogram(described.histogram), card.strongest(described), card.lens(described), Text()]
            return [head, *parts, card.related(described, names)]
        beside = Table.grid(padding=(0, 3), expand=True)
        beside.add_column(ratio=1)
        beside.add_column()
        beside.add_row(card.strongest(described), Group(card.histogram(described.histogram), card.lens(described)))
        return [head, beside, Text(), card.related(described, names)]

    # ---- keys

    def action_leave(self) -> None:
        """Close the page; a second key before it is closed does nothing."""
        if self.is_current:
            self.dismiss(None)

    def action_move(self, step: int) -> None:
        """Show the next feature of `order`, or the previous one if `step` is -1."""
        at = self._order.index(self.feature) + step
        if 0 <= at < len(self._order):
            self.feature = self._order[at]
            self.query_one(VerticalScroll).scroll_home(animate=False)
            self._show_feature()

    def action_scroll(self, where: str) -> None:
        getattr(self.query_one(VerticalScroll), f"scroll_{where}")(animate=False)

    def action_ablate(self) -> None:
        """Ablate the feature, or switch its edit on or off."""
        self.context.study.edits.toggle(self.feature)
        self.draw()

    def action_label(self) -> None:
        self._label(self.feature, self.draw)

    def action_note(self) -> None:
        self._note(self.feature, self.draw)

    def action_effect(self) -> None:
        """Measure the effect of ablating the feature exactly, which takes seconds."""
        self.context.known.want_effect(self.feature, self.draw)

    def action_copy(self) -> None:
        """Copy the feature's address, else its number."""
        self._copy(self.feature)


def address_of(loaded: Loaded | None, feature: int) -> str:
    """Return the address of a feature's page on Neuronpedia; "" if none is known for the SAE."""
    return (address(loaded, feature) or "") if loaded else ""


def row_of(ranking: Ranking | None, feature: int) -> tuple[FeatureRow | None, int, int]:
    """Return a feature's row in the ranking or None, its place from 1 or 0, and the number of rows."""
    rows = ranking.features if ranking is not None else ()
    row_and_place = next(((row, at) for at, row in enumerate(rows, 1) if row.feature == feature), (None, 0))
    return (*row_and_place, len(rows))
