"""A feature's page: what is known at once, then what the engine finds out; ←→ go on to the next feature."""

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
from engine.records.words.rich_text import Text
from engine.records.words.tokens import feature_in_words, tokens_in_words
from tui.screens import feature_parts as card
from tui.services.context import Context
from tui.state.edits import effect_in_words

WIDE = 150
"""Columns from which the parts stand side by side."""

HINT = "←→ other features · ↑↓ scroll · space ablate · l label · n note · e effect · y copy · escape closes"


class FeaturePage(ModalScreen[None]):
    """Shows one of `order` at a time."""

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
        """The page."""
        with Vertical(classes="frame"):
            with VerticalScroll(can_focus=False):
                yield Static(id="card")
            yield Static(HINT, classes="hint", markup=False)

    def on_mount(self) -> None:
        """Shows the feature."""
        self._show_feature()

    def on_resize(self, event: events.Resize) -> None:
        """Side by side, or not any more."""
        self.draw()

    def _show_feature(self) -> None:
        self.draw()
        self.context.known.want(self.feature, self.draw)

    def draw(self) -> None:
        """What is known of the feature by now."""
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
        for what, words in (("Note", notebook.note(feature)), ("Explanation", notebook.explanation(feature))):
            if words:
                head.append(f"{what}: ", "bold").append(words + "\n", "not bold")
        address = address_of(study.loaded, feature)
        if address:
            head.append(f"{address}\n", "dim")
        found = known.described(feature)
        head.append_text(card.ranked(*row_of(study.ranking(), feature)))
        head.append_text(card.effect(feature, study.effects(), known.effect(feature)))
        if found is None:
            return [head, Text(known.state(feature), "dim")]
        head.append_text(card.fires(found))
        names = context.labels
        if self.size.width < WIDE:
            parts = [card.histogram(found.histogram), card.strongest(found), card.lens(found), Text()]
            return [head, *parts, card.related(found, names)]
        beside = Table.grid(padding=(0, 3), expand=True)
        beside.add_column(ratio=1)
        beside.add_column()
        beside.add_row(card.strongest(found), Group(card.histogram(found.histogram), card.lens(found)))
        return [head, beside, Text(), card.related(found, names)]

    # ---- keys

    def action_leave(self) -> None:
        """Closes the page; a second key that comes before it is gone does nothing."""
        if self.is_current:
            self.dismiss(None)

    def action_move(self, step: int) -> None:
        """Another feature, without closing."""
        at = self._order.index(self.feature) + step
        if 0 <= at < len(self._order):
            self.feature = self._order[at]
            self.query_one(VerticalScroll).scroll_home(animate=False)
            self._show_feature()

    def action_scroll(self, where: str) -> None:
        """Further down, or up."""
        getattr(self.query_one(VerticalScroll), f"scroll_{where}")(animate=False)

    def action_ablate(self) -> None:
        """Ablates the feature, or switches its edit."""
        self.context.study.edits.toggle(self.feature)
        self.draw()

    def action_label(self) -> None:
        """A name of the user's own."""
        self._label(self.feature, self.draw)

    def action_note(self) -> None:
        """What the user thinks of it."""
        self._note(self.feature, self.draw)

    def action_effect(self) -> None:
        """Ablates it for certain: seconds."""
        self.context.known.want_effect(self.feature, self.draw)

    def action_copy(self) -> None:
        """Its address, else its number."""
        self._copy(self.feature)


def address_of(loaded: Loaded | None, feature: int) -> str:
    """A feature's page on Neuronpedia; "" where the SAE has none that is known."""
    return (address(loaded, feature) or "") if loaded else ""


def row_of(ranking: Ranking | None, feature: int) -> tuple[FeatureRow | None, int, int]:
    """(a feature's row in the leaderboard, its place there, how many rows there are)."""
    rows = ranking.features if ranking is not None else ()
    found = next(((row, at) for at, row in enumerate(rows, 1) if row.feature == feature), (None, 0))
    return (*found, len(rows))
