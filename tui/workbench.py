"""The main screen's layout, and everything it shows of the study. What the user does is main_screen.py's."""

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

from engine.records import Attribution, Generated, Ranking, Shown, TokenFeatures
from engine.records.words.tokens import tokens_in_words
from tui.commands.keys import OF_A_FEATURE
from tui.commands.work import Work
from tui.panes.edits import EditsPane
from tui.panes.generation import GenerationPane
from tui.panes.leaderboard import LeaderboardPane
from tui.panes.prompts import PromptsPane
from tui.panes.tokens import TokensPane
from tui.services.bridge import Bridge
from tui.services.notebook import Notebook
from tui.services.opening import Opening
from tui.state.texts import FIRST, Pair, prompt_of, staleness
from tui.widgets.header import Header
from tui.widgets.health import HealthLine
from tui.widgets.tabs import TabLine

Pane = PromptsPane | TokensPane | LeaderboardPane | GenerationPane | EditsPane

PANES = ("prompts", "tokens", "features", "generation")

SINGLE_BELOW = (100, 28)
"""Columns and lines under which one pane is shown at a time."""

WIDE = {"run.attribute": 100, "edits.all": 100, "generation.settings": 100, "edits.reconstruct": 110}

WIDE |= {"generation.branches": 110, "edits.clear": 120}
"""Keys that the footer shows from so many columns on."""


class Frame(Widget):
    """Stands where a pane will be: the first paint waits for one pane, not for five."""


class Workbench(Screen[None]):
    """Header, panes and footer, and the study as they show it."""

    work: Work

    def __init__(self, opening: Opening) -> None:
        super().__init__()
        self._opening = opening
        self.study = opening.study
        self.notebook = Notebook(self)
        self._tokens: dict[int, tuple[str, ...]] = {}
        """What features fire on most."""
        self._tokens_from: tuple[Ranking | None, Attribution | None] = (None, None)
        """Of which ranking and attribution."""
        self._was_beside: Generated | None = None
        """The kept text that was last put beside."""
        self.messages: list[str] = []
        """What was reported, oldest first."""
        self.current = "prompts"
        self.jump: int | None = None
        """A feature that the leaderboard goes to once it has a row."""
        self.furnished = asyncio.Event()
        """Set once all panes are there."""
        self.add_class("-show-prompts")  # here, for a class that changes later is a second round of styling

    def compose(self) -> ComposeResult:
        """Header and first pane; frames where `furnish` puts the others."""
        yield Header(id="header")
        with Horizontal(id="second"):
            yield TabLine(PANES, id="tabs")
            yield HealthLine(id="health")
        with Horizontal(id="top"):
            yield PromptsPane(id="prompts").add_class("pane")
            yield Frame(id="tokens").add_class("pane")
            yield Frame(id="features").add_class("pane")
        with Horizontal(id="bottom"):
            yield Frame(id="edits").add_class("pane")
            yield Frame(id="generation").add_class("pane")
        yield Frame(id="foot")

    async def furnish(self) -> None:
        """Puts the other panes and the footer where the frames are, with no paint in between."""
        late: dict[str, tuple[Widget, ...]] = {
            "#top": (TokensPane(id="tokens"), LeaderboardPane(id="features")),
            "#bottom": (EditsPane(id="edits"), GenerationPane(id="generation")),
        }
        with self.app.batch_update():
            await self.query(Frame).remove()
            for place, panes in late.items():
                await self.query_one(place).mount(*(pane.add_class("pane") for pane in panes))
            await self.mount(Footer(compact=True, show_command_palette=False))
        self.refresh_bindings()  # the footer hears of keys that change, not of those there are

    @property
    def header(self) -> Header:
        """The first line."""
        return self.query_one(Header)

    @property
    def health(self) -> HealthLine:
        """Whether the SAE is wired right."""
        return self.query_one(HealthLine)

    @property
    def prompts(self) -> PromptsPane:
        """Pane 1."""
        return self.query_one(PromptsPane)

    @property
    def tokens(self) -> TokensPane:
        """Pane 2."""
        return self.query_one(TokensPane)

    @property
    def features(self) -> LeaderboardPane:
        """Pane 3."""
        return self.query_one(LeaderboardPane)

    @property
    def generation(self) -> GenerationPane:
        """Pane 4."""
        return self.query_one(GenerationPane)

    @property
    def edits(self) -> EditsPane:
        """The list of edits."""
        return self.query_one(EditsPane)

    def with_keys(self) -> tuple[DOMNode, ...]:
        """The screen and its panes: what has keys of its own."""
        return (self, self.prompts, self.tokens, self.features, self.edits, self.generation)

    def on_resize(self, event: events.Resize) -> None:
        """One pane at a time where there is no room for four."""
        width, height = SINGLE_BELOW
        self.set_class(event.size.width < width or event.size.height < height, "-single")
        self.refresh_bindings()
        self._show_current()

    def _show_current(self) -> None:
        for name in PANES:
            self.set_class(name == self.current, f"-show-{name}")
        self.query_one(TabLine).show(self.current)

    @on(TabLine.TabChosen)
    def choose_tab(self, event: TabLine.TabChosen) -> None:
        """A click on a tab."""
        self.action_pane(event.name)

    def action_pane(self, name: str) -> None:
        """Focuses a pane, and shows it where only one is shown."""
        self.current = "generation" if name == "edits" else name
        self._show_current()
        targets: dict[str, Callable[[], object]] = {
            "prompts": lambda: self.set_focus(self.prompts.rows),  # at once: the next key may be here already
            "tokens": lambda: self.set_focus(self.tokens.text),
            "features": self.features.take_focus,
            "generation": self.generation.take_focus,
            "edits": lambda: self.set_focus(self.edits.rows),
        }
        targets[name]()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """The pane with the focus is the current one, however the focus came there."""
        pane = self.focused_pane()
        if pane is not None and pane.id:
            self.current = "generation" if pane.id == "edits" else pane.id
            self._show_current()

    def focused_pane(self) -> Pane | None:
        """The pane that has the focus."""
        node: Any = self.focused
        while node is not None and not isinstance(node, Pane):
            node = node.parent
        return node

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        """Without what a narrow footer has no room for: the keys act all the same."""
        found, width = super().active_bindings, self.size.width
        return {
            key: active._replace(binding=replace(active.binding, show=False))
            if WIDE.get(active.binding.id or "", 0) > width
            else active
            for key, active in found.items()
        }

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hides what makes no sense where the focus is."""
        if action in OF_A_FEATURE:
            return isinstance(self.focused_pane(), TokensPane | LeaderboardPane | EditsPane | GenerationPane)
        return True

    # ---- showing the study

    def show_study(self) -> None:
        """Shows everything the study holds, after a start or when another session was opened."""
        work = self.study.work
        self.prompts.show(work.prompts)
        self.tokens.clear()
        self.generation.clear()
        self.generation.show_settings(work)
        self.show_ranking()
        if work.feature is not None:
            self.features.go_to(work.feature)
        generations = self.study.results.generations
        if generations:
            self._show_text(generations[-1], "from the session")
        self.show_session()
        self.reread()

    def show_session(self) -> None:
        """The session's name and whether its file holds all of it."""
        study = self.study
        if study.file is None:
            words = f"{study.name} autosaved"
        else:
            words = f"{study.name} " + ("saved" if study.version == study.saved_version else "changed, s saves")
        self.header.show_session(words)

    def show_prompts(self) -> None:
        """The prompts have changed."""
        self.prompts.show(self.study.work.prompts)
        self._show_staleness()
        self.features.show_effects(self.study.effects())
        self.reread()

    def show_question(self) -> None:
        """The question and how it is asked."""
        self.generation.show_settings(self.study.work)
        self.show_generation_staleness()
        self.work.score_answers()

    def show_ranking(self) -> None:
        """The leaderboard, with what is pinned, labelled and edited."""
        work = self.study.work
        ranking = self.study.ranking()
        self.features.show(ranking, work.pinned, self.labels, work.edits, self.study.effects())
        self.edits.show(work.edits, self.name_of)
        self._show_staleness()
        if self.jump is not None and self.features.go_to(self.jump):
            self.jump = None
        if ranking is not None and ranking.features and work.feature is None:
            self.read(ranking.features[0].feature)

    def _show_staleness(self) -> None:
        words = ""
        if self.study.ranking_is_stale():
            words = "prompts changed: r ranks again"
        elif self.study.attribution() is not None and self.study.other_than(self.study.results.loaded):
            words = "effects of another pair: A measures again"
        elif self.study.attribution() is not None and self.study.effects() is None:
            words = "probes changed: A measures effects again"
        self.features.show_staleness(words)

    def show_features(self) -> None:
        """Everything that names features: a label or a pin has changed."""
        self.show_ranking()
        self.reread()

    def show_tokens(self, shown: Shown) -> None:
        """A feature's activations."""
        work = self.study.work
        label, tokens = self.labels.get(shown.feature, ""), self.tokens_of(shown.feature)
        self.tokens.show(shown, len(work.prompts.positive), label, tokens)

    def reread(self) -> None:
        """Shows the chosen feature on the prompts as they are now."""
        feature = self.study.work.feature
        if feature is not None:
            self.work.show_feature(feature)

    def read(self, feature: int) -> None:
        """Another feature is shown on the prompts."""
        self.study.choose_feature(feature)
        self.work.show_feature(feature)

    def show_token_features(self, found: TokenFeatures) -> None:
        """The features of the token under the cursor."""
        self.tokens.show_features(found, self.name_of)

    def show_edits(self) -> None:
        """The list of edits, and the leaderboard's marks."""
        slots = self.study.work.edits
        self.edits.show(slots, self.name_of)
        self.features.show_marks(slots)

    def show_generated(self, result: Generated) -> None:
        """A finished generation."""
        self._show_text(result, "")

    def show_kept(self, found: Generated) -> None:
        """One of the kept texts, chosen by the user."""
        self._show_text(found, "kept", FIRST)

    def _show_text(self, result: Generated, note: str, pair: Pair | None = None) -> None:
        self.generation.show(result, note, pair)
        self.show_generation_staleness()

    def put_beside(self, found: Generated) -> None:
        """A kept text in the baseline's place."""
        self._was_beside = found
        self.generation.put_beside(found)

    @on(GenerationPane.BesideWanted)
    def switch_beside(self) -> None:
        """The baseline for the kept text beside, or the other way round."""
        arms, kept = self.generation.arms, self._was_beside
        if arms.beside is not None:
            self.generation.put_beside(None)
        elif kept is not None and kept in self.study.results.generations and prompt_of(kept) == self.study.question():
            self.generation.put_beside(kept)
        else:
            self.notify("b lists the kept texts of this question; there space puts one beside.")

    def show_generation_staleness(self) -> None:
        """Says so where the text was generated under other edits or settings than there are now."""
        shown = self.generation.arms.result
        if not self.generation.running and shown is not None:
            self.generation.show_stale(staleness(shown, self.work.request()))

    # ---- the engine's state

    def show_engine(self, words: str) -> None:
        """What the engine is at; "" is ready."""
        self.header.show_engine(words)

    def show_no_load(self) -> None:
        """A load failed or was stopped: what was loaded before still is."""
        if not self.work.bridge.alive:
            self.show_loss_in_header()
        elif self.study.loaded is None:
            self.header.show_engine("no model: M chooses one", broken=True)
        else:
            self.header.show_engine("")

    def show_loaded(self) -> None:
        """A model was loaded."""
        self.header.show_loaded(self.study.loaded)
        self.health.show_loaded(self.study.loaded)
        self.header.show_engine("")
        if self.study.loaded is not None:
            self.notebook.read(self.study.loaded)
        self.show_ranking()
        self.reread()
        self.work.score_answers()

    @on(Bridge.Working)
    def show_working(self, event: Bridge.Working) -> None:
        """What the engine does."""
        self.header.show_progress(event.progress)

    @on(Bridge.Memory)
    def show_memory(self, event: Bridge.Memory) -> None:
        """Memory left."""
        self.header.show_memory(event.left)

    def show_loss_in_header(self) -> None:
        """Which key brings the engine back."""
        self.header.show_engine("no engine · E restarts it", broken=True)

    def report(self, message: str, remedy: str) -> None:
        """One line of what went wrong and what to do; the messages page keeps it."""
        self.notify(remedy or message, title=message if remedy else "", severity="error", timeout=10)

    # ---- words

    @property
    def labels(self) -> dict[int, str]:
        """The user's own names of features: this session's, and those of other sessions with the same SAE."""
        return self.notebook.labels | self.study.work.labels

    def tokens_of(self, feature: int) -> tuple[str, ...]:
        """What a feature fires on most, where the ranking or the attribution knows it."""
        ranking, attribution = self.study.ranking(), self.study.attribution()
        if self._tokens_from[0] is not ranking or self._tokens_from[1] is not attribution:
            self._tokens_from = ranking, attribution
            self._tokens = {row.feature: row.tokens for row in attribution.features} if attribution else {}
            self._tokens |= {row.feature: row.tokens for row in ranking.features} if ranking else {}
        return self._tokens.get(feature, ())

    def name_of(self, feature: int) -> str:
        """A feature's own label, else what it fires on."""
        label = self.study.work.labels.get(feature) or self.notebook.labels.get(feature)
        return label or tokens_in_words(self.tokens_of(feature))
