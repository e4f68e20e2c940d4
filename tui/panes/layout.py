"""The panes on one screen: layout, focus, and one pane at a time where four do not fit. Knows no commands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from textual import events, on
from textual.app import ComposeResult
from textual.binding import ActiveBinding
from textual.containers import Horizontal
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Footer

from tui.panes.edits import EditsPane
from tui.panes.generation import GenerationPane
from tui.panes.leaderboard import LeaderboardPane
from tui.panes.prompts import PromptsPane
from tui.panes.tokens import TokensPane
from tui.services.context import Context
from tui.widgets.header import Header
from tui.widgets.health import HealthLine
from tui.widgets.tabs import TabLine

Pane = PromptsPane | TokensPane | LeaderboardPane | GenerationPane | EditsPane

PANES = ("prompts", "tokens", "features", "generation")

SINGLE_BELOW = (100, 28)
"""Columns and lines below which one pane is shown at a time."""

WIDE = {"run.attribute": 100, "edits.all": 100, "generation.settings": 100, "edits.reconstruct": 110}

WIDE |= {"generation.branches": 110, "edits.clear": 120}
"""Footer keys, by binding id, that are shown only from this many columns on."""


PANE_TYPES: tuple[tuple[str, type[Widget]], ...] = (
    ("1 Prompts", PromptsPane),
    ("2 Tokens", TokensPane),
    ("3 Features", LeaderboardPane),
    ("Edits", EditsPane),
    ("4 Generate", GenerationPane),
)


class Frame(Widget):
    """Placeholder of a pane: the first paint waits for one pane, not for five."""


class PanesScreen(Screen[None]):
    """Header, panes and footer."""

    context: Context
    """What the panes work with; set before the screen is composed."""

    def __init__(self) -> None:
        super().__init__()
        self.current = "prompts"
        self.furnished = asyncio.Event()
        """Set once all panes are mounted."""
        self.add_class("-show-prompts")  # here: a class added later would style all widgets again

    def compose(self) -> ComposeResult:
        """Compose the header and the first pane, and frames that `furnish` replaces by the other panes."""
        yield Header(id="header")
        with Horizontal(id="second"):
            yield TabLine(PANES, id="tabs")
            yield HealthLine(id="health")
        with Horizontal(id="top"):
            yield PromptsPane(self.context, id="prompts").add_class("pane")
            yield Frame(id="tokens").add_class("pane")
            yield Frame(id="features").add_class("pane")
        with Horizontal(id="bottom"):
            yield Frame(id="edits").add_class("pane")
            yield Frame(id="generation").add_class("pane")
        yield Frame(id="foot")

    async def furnish(self) -> None:
        """Replace the frames by the other panes and the footer, with no paint in between."""
        late: dict[str, tuple[Widget, ...]] = {
            "#top": (TokensPane(self.context, id="tokens"), LeaderboardPane(self.context, id="features")),
            "#bottom": (EditsPane(self.context, id="edits"), GenerationPane(self.context, id="generation")),
        }
        with self.app.batch_update():
            await self.query(Frame).remove()
            for place, panes in late.items():
                await self.query_one(place).mount(*(pane.add_class("pane") for pane in panes))
            await self.mount(Footer(compact=True, show_command_palette=False))
        self.refresh_bindings()  # a new footer is empty until bindings are refreshed

    @property
    def header(self) -> Header:
        return self.query_one(Header)

    @property
    def health(self) -> HealthLine:
        return self.query_one(HealthLine)

    @property
    def prompts(self) -> PromptsPane:
        return self.query_one(PromptsPane)

    @property
    def tokens(self) -> TokensPane:
        return self.query_one(TokensPane)

    @property
    def features(self) -> LeaderboardPane:
        return self.query_one(LeaderboardPane)

    @property
    def generation(self) -> GenerationPane:
        return self.query_one(GenerationPane)

    @property
    def edits(self) -> EditsPane:
        return self.query_one(EditsPane)

    def with_keys(self) -> tuple[DOMNode, ...]:
        """Return the screen and its panes: the widgets with key bindings of their own."""
        return (self, self.prompts, self.tokens, self.features, self.edits, self.generation)

    def pane_types(self) -> tuple[tuple[str, type[Widget]], ...]:
        """Return (name, class) of each pane, as help lists them."""
        return PANE_TYPES

    def on_resize(self, event: events.Resize) -> None:
        """Show one pane at a time where four do not fit."""
        width, height = SINGLE_BELOW
        self.set_class(event.size.width < width or event.size.height < height, "-single")
        self.refresh_bindings()
        self._show_current()

    def _show_current(self) -> None:
        single = self.has_class("-single")  # else the classes change nothing, and styling all widgets again takes time
        for name in PANES:
            self.set_class(name == self.current, f"-show-{name}", update=single)
        self.query_one(TabLine).show(self.current)

    @on(TabLine.TabChosen)
    def choose_tab(self, event: TabLine.TabChosen) -> None:
        self.action_pane(event.name)

    def action_pane(self, name: str) -> None:
        """Focus a pane; where only one pane is shown, show this one."""
        self.current = "generation" if name == "edits" else name
        self._show_current()
        targets: dict[str, Callable[[], object]] = {
            "prompts": lambda: self.set_focus(self.prompts.rows),  # at once: the next key may be queued already
            "tokens": lambda: self.set_focus(self.tokens.text),
            "features": self.features.take_focus,
            "generation": self.generation.take_focus,
            "edits": lambda: self.set_focus(self.edits.rows),
        }
        targets[name]()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """Make the pane that got the focus the current one."""
        pane = self.focused_pane()
        if pane is not None and pane.id:
            self.current = "generation" if pane.id == "edits" else pane.id
            self._show_current()

    def focused_pane(self) -> Pane | None:
        """Return the pane that has the focus; None if none has."""
        node: Any = self.focused
        while node is not None and not isinstance(node, Pane):
            node = node.parent
        return node

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        """The active bindings; a narrow footer hides some of them, whose keys still act."""
        bindings, width = super().active_bindings, self.size.width
        return {
            key: active._replace(binding=replace(active.binding, show=False))
            if WIDE.get(active.binding.id or "", 0) > width
            else active
            for key, active in bindings.items()
        }

    def pane_at_hand(self) -> str:
        """Return the id of the pane that has the focus; "" if none has."""
        pane = self.focused_pane()
        return (pane.id or "") if pane is not None else ""

    def bring(self, name: str) -> None:
        """Show and focus a pane where only one is shown."""
        if self.has_class("-single"):
            self.action_pane(name)
