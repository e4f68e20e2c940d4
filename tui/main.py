"""The main screen: layout, focus, one pane at a time; runs commands, and shows what the study tells."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import ActiveBinding, BindingType
from textual.containers import Horizontal
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Footer, Input, TextArea

from engine.records import NO_FEATURE, Diagnosis, Generated, MemoryLeft, Shown, TokenFeatures
from tui.commands import keys
from tui.panes.edits import EditsPane
from tui.panes.generation import GenerationPane
from tui.panes.leaderboard import LeaderboardPane
from tui.panes.prompts import PromptsPane
from tui.panes.tokens import TokensPane
from tui.services.bridge import Bridge
from tui.services.context import Context
from tui.services.opening import Opening
from tui.state.prompts import Group
from tui.state.study import Study
from tui.state.texts import FIRST, Pair
from tui.state.topics import Topic
from tui.widgets.header import Header
from tui.widgets.health import HealthLine
from tui.widgets.tabs import TabLine

T = TypeVar("T")

Pane = PromptsPane | TokensPane | LeaderboardPane | GenerationPane | EditsPane

PANES = ("prompts", "tokens", "features", "generation")

SINGLE_BELOW = (100, 28)
"""Columns and lines under which one pane is shown at a time."""

WIDE = {"run.attribute": 100, "edits.all": 100, "generation.settings": 100, "edits.reconstruct": 110}

WIDE |= {"generation.branches": 110, "edits.clear": 120}
"""Keys that the footer shows from so many columns on."""


PANE_TYPES: tuple[tuple[str, type[Widget]], ...] = (
    ("1 Prompts", PromptsPane),
    ("2 Tokens", TokensPane),
    ("3 Features", LeaderboardPane),
    ("Edits", EditsPane),
    ("4 Generate", GenerationPane),
)

AUTOSAVE_SECONDS = 0.25


class Frame(Widget):
    """Stands where a pane will be: the first paint waits for one pane, not for five."""


class MainScreen(Screen[None]):
    """Header, panes and footer, and the study as they show it."""

    BINDINGS: ClassVar[list[BindingType]] = [*keys.MAIN]

    def __init__(self, opening: Opening) -> None:
        super().__init__()
        self._opening = opening
        self.study = opening.study
        self.study.history.tell = self.show_topic
        self.bridge = Bridge(opening.make_engine, self)
        self.context = Context(self, self.bridge, opening.make_store)
        self.messages: list[str] = []
        """What was reported, oldest first."""
        self.current = "prompts"
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
            yield PromptsPane(self.context, id="prompts").add_class("pane")
            yield Frame(id="tokens").add_class("pane")
            yield Frame(id="features").add_class("pane")
        with Horizontal(id="bottom"):
            yield Frame(id="edits").add_class("pane")
            yield Frame(id="generation").add_class("pane")
        yield Frame(id="foot")

    async def furnish(self) -> None:
        """Puts the other panes and the footer where the frames are, with no paint in between."""
        late: dict[str, tuple[Widget, ...]] = {
            "#top": (TokensPane(self.context, id="tokens"), LeaderboardPane(self.context, id="features")),
            "#bottom": (EditsPane(self.context, id="edits"), GenerationPane(self.context, id="generation")),
        }
        with self.app.batch_update():
            await self.query(Frame).remove()
            for place, panes in late.items():
                await self.query_one(place).mount(*(pane.add_class("pane") for pane in panes))
            await self.mount(Footer(compact=True, show_command_palette=False))
        self.refresh_bindings()  # the footer hears of keys that change, not of those there are

    def on_mount(self) -> None:
        """Shows the prompts; once they are painted the rest follows."""
        self.prompts.look()
        self.prompts.rows.focus()
        self.call_after_refresh(self._start)

    async def _start(self) -> None:
        try:
            await self.furnish()
            self.show_study()
        finally:
            self.furnished.set()  # also where that failed: keys wait for it, ctrl+q among them
        gc.freeze()  # what there is now stays: looking through it again and again would hold up keys
        gc.enable()  # the front door switches it off
        from tui.commands import pair, sessions  # behind the first paint, as all commands are

        if self._opening.offer_last:
            sessions.offer_last(self.context)
        pair.load(self.context, self.study.load)
        self.set_interval(AUTOSAVE_SECONDS, self.context.autosave.keep)
        self.set_timer(1.0, lambda: self.run_worker(keys.import_commands, group="imports", thread=True))

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
        if action == "do" and keys.BY_ID[str(parameters[0])].needs:
            return isinstance(self.focused_pane(), TokensPane | LeaderboardPane | EditsPane | GenerationPane)
        return True

    # ---- commands

    def action_do(self, id: str) -> None:
        """Runs a command, on the feature at hand if it needs one."""
        command = keys.BY_ID[id]
        if not command.needs:
            command.function(self.context)
        elif command.needs == keys.EDIT and self._listed_line() == NO_FEATURE:
            command.function(self.context, NO_FEATURE)
        else:
            self._do_with_feature(command)

    def _do_with_feature(self, command: keys.Command) -> None:
        feature = self.feature_at_hand()
        if self._listed_line() == NO_FEATURE:
            self.notify("This line is about all features.")
        elif feature is None:
            self.notify("No feature is chosen yet: r ranks them, # looks one up.")
        else:
            command.function(self.context, feature)

    def feature_at_hand(self) -> int | None:
        """The feature an action is about: under the cursor of the pane with the focus, else the one being read."""
        pane = self.focused_pane()
        if isinstance(pane, EditsPane):
            return pane.feature()
        if isinstance(pane, TokensPane):
            listed = pane.listed_feature()
            return self.study.work.feature if listed is None else listed
        if isinstance(pane, LeaderboardPane):
            return pane.feature() if self.study.ranking() is not None else self.study.work.feature
        return self.study.work.feature

    def _listed_line(self) -> int | None:
        """What the line under the cursor of the list of edits is about; None where another pane has the focus."""
        return self.edits.line() if isinstance(self.focused_pane(), EditsPane) else None

    # ---- the study: what it tells is shown

    def work_on(self, study: Study) -> None:
        """Hears from now on what another study tells."""
        self.study.history.tell = lambda topic: None
        self.study = study
        study.history.tell = self.show_topic

    def show_topic(self, topic: Topic) -> None:
        """Shows what of the study has changed."""
        shows: dict[Topic, Callable[[], None]] = {
            Topic.ALL: self.show_study,
            Topic.PROMPTS: self.show_prompts,
            Topic.QUESTION: self.show_question,
            Topic.EDITS: self.show_edits,
            Topic.RANKING: self.show_ranking,
            Topic.NAMES: self.show_features,
            Topic.SESSION: self.show_session,
        }
        shows[topic]()

    def show_study(self) -> None:
        """Shows everything the study holds, after a start or when another session was opened."""
        work = self.study.work
        self.prompts.look()
        self.tokens.clear()
        self.generation.clear()
        self.generation.look()
        self.show_ranking()
        if work.feature is not None:
            self.features.go_to(work.feature)
        generations = self.study.results.of(Generated)
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
        """The prompts, and what no longer holds of them."""
        self.prompts.look()
        self.features.look_at_prompts()
        self.reread()

    def show_question(self) -> None:
        """The question and how it is asked."""
        self.generation.look()
        self.generation.show_staleness()
        self.context.text.score_answers()

    def show_ranking(self) -> None:
        """The leaderboard, and the names of edited features."""
        self.features.look()
        self.edits.look()
        ranking = self.study.ranking()
        if ranking is not None and ranking.features and self.study.work.feature is None:
            self.read(ranking.features[0].feature)

    def show_features(self) -> None:
        """Everything that names features."""
        self.show_ranking()
        self.reread()

    def reread(self) -> None:
        """The chosen feature on the prompts as they are now."""
        if self.study.work.feature is None:
            return
        from tui.commands import features

        features.show_chosen(self.context)

    def read(self, feature: int) -> None:
        """Another feature is shown on the prompts."""
        from tui.commands import features

        features.read(self.context, feature)

    def show_edits(self) -> None:
        """The list of edits, and the leaderboard's marks; the running text follows."""
        self.edits.look()
        self.features.look_at_edits()
        self.context.text.edits_changed()
        self.generation.show_staleness()

    # ---- what commands ask of the screen (services.desk)

    def report(self, message: str, remedy: str) -> None:
        """One line of what went wrong and what to do; the messages page keeps it."""
        self.notify(remedy or message, title=message if remedy else "", severity="error", timeout=10)

    def forget_notes(self) -> None:
        """Takes what was said off the screen."""
        self.app.clear_notifications()

    def open(self, page: Screen[T], then: Callable[[T | None], None] | None = None) -> None:
        """Opens a page or a dialog; `then` gets what it comes to."""
        self.app.push_screen(page, then)

    def copy(self, text: str) -> None:
        """Puts a text on the clipboard."""
        self.app.copy_to_clipboard(text)

    def run_behind(self, task: Callable[[], Awaitable[None]], group: str, exclusive: bool = False) -> None:
        """Runs a task in the app's loop; an exclusive one takes the place of the one of its group."""
        self.run_worker(task, group=group, exclusive=exclusive)

    @property
    def is_undisturbed(self) -> bool:
        """Nobody types and no page lies over it: a page may open."""
        return self.is_current and not isinstance(self.focused, Input | TextArea)

    def pane_at_hand(self) -> str:
        """The pane that has the focus; "" where none has."""
        pane = self.focused_pane()
        return (pane.id or "") if pane is not None else ""

    def bring(self, name: str) -> None:
        """Focuses a pane where only one is shown."""
        if self.has_class("-single"):
            self.action_pane(name)

    def ask_for_question(self) -> None:
        """Opens the question."""
        self.generation.question.focus()

    def commit_typing(self) -> None:
        """What is being typed over a prompt counts as typed."""
        self.prompts.commit()

    def probe_at_hand(self) -> int | None:
        """The probe under the cursor of the prompts pane, where that has the focus."""
        if not isinstance(self.focused_pane(), PromptsPane):
            return None
        place = self.prompts.place()
        return place.index if place.group == "probes" else None

    def go_to_prompt(self, group: Group, index: int) -> None:
        """Moves the cursor of the prompts pane."""
        self.prompts.go_to(group, index)

    def go_to_feature(self, feature: int) -> bool:
        """Moves the leaderboard's cursor; False where the feature has no row."""
        return self.features.go_to(feature)

    def ranked_features(self) -> list[int]:
        """The leaderboard's features, top down."""
        return self.features.shown()

    def pane_types(self) -> tuple[tuple[str, type[Widget]], ...]:
        """(name, class) of each pane, as help lists them."""
        return PANE_TYPES

    # ---- what the engine found

    def show_tokens(self, shown: Shown) -> None:
        """A feature's activations."""
        self.tokens.show(shown)

    def show_token_features(self, found: TokenFeatures) -> None:
        """The features of the token under the cursor."""
        self.tokens.show_features(found)

    def show_generated(self, result: Generated) -> None:
        """A finished generation."""
        self._show_text(result, "")

    def show_kept(self, found: Generated) -> None:
        """One of the kept texts, chosen by the user."""
        self._show_text(found, "kept", FIRST)

    def _show_text(self, result: Generated, note: str, pair: Pair | None = None) -> None:
        self.generation.show(result, note, pair)
        self.generation.show_staleness()

    def put_beside(self, found: Generated) -> None:
        """A kept text in the baseline's place."""
        self.generation.put_beside(found)

    def show_engine(self, words: str) -> None:
        """What the engine is at; "" is ready."""
        self.header.show_engine(words)

    def show_no_load(self) -> None:
        """A load failed or was stopped: what was loaded before still is."""
        if not self.bridge.alive:
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
            self.context.notebook.read(self.study.loaded)
        self.show_ranking()
        self.reread()
        self.context.text.score_answers()

    @on(Bridge.Working)
    def show_working(self, event: Bridge.Working) -> None:
        """What the engine does."""
        self.header.show_progress(event.progress)

    @on(Bridge.Memory)
    def show_memory(self, event: Bridge.Memory) -> None:
        """Memory left."""
        self.header.show_memory(event.left)

    @property
    def memory(self) -> MemoryLeft | None:
        """Memory of the model's device, as last heard."""
        return self.header.memory

    @property
    def diagnosis(self) -> Diagnosis | None:
        """What the doctor said of the pair that is loaded."""
        return self.health.diagnosis

    def show_diagnosis(self, diagnosis: Diagnosis) -> None:
        """Whether the SAE is wired right, in the second line."""
        self.health.show_diagnosis(diagnosis)

    def show_loss_in_header(self) -> None:
        """Which key brings the engine back."""
        self.header.show_engine("no engine · E restarts it", broken=True)

    @on(Bridge.Lost)
    def show_loss(self, event: Bridge.Lost) -> None:
        """The engine is gone; everything the user has is kept."""
        self.header.show_progress(None)
        self.show_loss_in_header()
        if self.generation.running:
            self.generation.stop("the engine was lost; E restarts it, then g")
        self.report(event.error.message, "E restarts it with the same model and SAE. Nothing you made is lost.")

    @on(HealthLine.Clicked)
    def ask_the_doctor(self) -> None:
        """A click on the line of health."""
        self.action_do("run.doctor")

    # ---- panes that follow each other

    @on(PromptsPane.PlaceChosen)
    def follow_prompt(self, event: PromptsPane.PlaceChosen) -> None:
        """The tokens follow the cursor in the prompts."""
        if event.index is not None and event.group != "probes" and self.furnished.is_set():
            before = 0 if event.group == "positive" else len(self.study.work.prompts.positive)
            self.tokens.go_to_prompt(before + event.index)

    @on(LeaderboardPane.FeatureMoved)
    def read_feature(self, event: LeaderboardPane.FeatureMoved) -> None:
        """The tokens follow the leaderboard's cursor."""
        self.read(event.feature)
