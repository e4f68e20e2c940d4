"""The main screen: runs the keys' commands and shows changes of the study in the panes."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from typing import ClassVar, TypeVar

from textual import on
from textual.binding import BindingType
from textual.screen import Screen
from textual.widgets import Input, TextArea

from engine.records import NO_FEATURE, Diagnosis, Generated, MemoryLeft, Shown, TokenFeatures
from tui.commands import keys
from tui.panes.edits import EditsPane
from tui.panes.generation import GenerationPane
from tui.panes.layout import PanesScreen
from tui.panes.leaderboard import LeaderboardPane
from tui.panes.prompts import PromptsPane
from tui.panes.tokens import TokensPane
from tui.services.bridge import Bridge
from tui.services.context import Context, Opening
from tui.state.prompts import Group
from tui.state.study import Study
from tui.state.texts import FIRST, Pair
from tui.state.topics import Topic
from tui.widgets.health import HealthLine

T = TypeVar("T")

AUTOSAVE_SECONDS = 0.25


class MainScreen(PanesScreen):
    """Header, panes and footer, which show the study."""

    BINDINGS: ClassVar[list[BindingType]] = [*keys.MAIN]

    def __init__(self, opening: Opening) -> None:
        super().__init__()
        self._opening = opening
        self.study = opening.study
        self.study.history.tell = self.show_topic
        self.bridge = Bridge(opening.make_engine, self)
        self.context = Context(self, self.bridge, opening.make_store)
        self.messages: list[str] = []
        """All notifications so far, oldest first."""

    def on_mount(self) -> None:
        """Show the prompts; mount the rest once they are painted."""
        self.prompts.redraw()
        self.prompts.rows.focus()
        self.call_after_refresh(self._start)

    async def _start(self) -> None:
        try:
            await self.furnish()
            self.show_study()
        finally:
            self.furnished.set()  # even after an error: keys wait for it, ctrl+q among them
        gc.freeze()  # these objects live as long as the app: collecting garbage among them would delay keys
        gc.enable()  # saescope.py disables it until the first paint
        from tui.commands import pair, sessions  # imported after the first paint, as all commands are

        if self._opening.offer_last:
            sessions.offer_last(self.context)
        pair.load(self.context, self.study.load)
        self.set_interval(AUTOSAVE_SECONDS, self.context.autosave.keep)
        self.set_timer(1.0, lambda: self.run_worker(keys.import_commands, group="imports", thread=True))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Allow commands about a feature only in the panes of tokens, features, edits and texts."""
        if action == "do" and keys.BY_ID[str(parameters[0])].needs:
            return isinstance(self.focused_pane(), TokensPane | LeaderboardPane | EditsPane | GenerationPane)
        return True

    # ---- commands

    def action_do(self, id: str) -> None:
        """Run a command, on the feature at hand if it needs one."""
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
        """Return the feature that a command acts on: under the focused pane's cursor, else the chosen one."""
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
        """Return the feature, or NO_FEATURE, under the edits pane's cursor; None if another pane has the focus."""
        return self.edits.line() if isinstance(self.focused_pane(), EditsPane) else None

    # ---- showing changes of the study

    def work_on(self, study: Study) -> None:
        """Work on another study: show its changes from now on."""
        self.study.history.tell = lambda topic: None
        self.study = study
        study.history.tell = self.show_topic

    def show_topic(self, topic: Topic) -> None:
        """Show the part of the study that has changed."""
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
        """Show the whole study: the app has started, or another session was opened."""
        work = self.study.work
        self.prompts.redraw()
        self.tokens.clear()
        self.generation.clear()
        self.generation.redraw()
        self.show_ranking()
        if work.feature is not None:
            self.features.go_to(work.feature)
        generations = self.study.results.of(Generated)
        if generations:
            self._show_text(generations[-1], "from the session")
        self.show_session()
        self.reread()

    def show_session(self) -> None:
        """Show the session's name and whether it is saved."""
        study = self.study
        if study.file is None:
            words = f"{study.name} autosaved"
        else:
            words = f"{study.name} " + ("saved" if study.version == study.saved_version else "changed, s saves")
        self.header.show_session(words)

    def show_prompts(self) -> None:
        """Show the prompts, and which results are out of date with them."""
        self.prompts.redraw()
        self.features.redraw_for_prompts()
        self.reread()

    def show_question(self) -> None:
        """Show the question and its settings, and score its answers."""
        self.generation.redraw()
        self.generation.show_staleness()
        self.context.text.score_answers()

    def show_ranking(self) -> None:
        """Show the leaderboard and the names of edited features; choose the first feature if none is chosen."""
        self.features.redraw()
        self.edits.redraw()
        ranking = self.study.ranking()
        if ranking is not None and ranking.features and self.study.work.feature is None:
            self.read(ranking.features[0].feature)

    def show_features(self) -> None:
        """Show again everything that names features."""
        self.show_ranking()
        self.reread()

    def reread(self) -> None:
        """Show the chosen feature on the prompts as they are now."""
        if self.study.work.feature is None:
            return
        from tui.commands import features

        features.show_chosen(self.context)

    def read(self, feature: int) -> None:
        """Choose another feature and show it on the prompts."""
        from tui.commands import features

        features.read(self.context, feature)

    def show_edits(self) -> None:
        """Show the list of edits and the leaderboard's marks; apply the edits to the running text."""
        self.edits.redraw()
        self.features.redraw_marks()
        self.context.text.edits_changed()
        self.generation.show_staleness()

    # ---- what commands and services call (services/desk.py)

    def report(self, message: str, remedy: str) -> None:
        """Notify of an error: what went wrong and what to do. The messages page keeps it."""
        self.notify(remedy or message, title=message if remedy else "", severity="error", timeout=10)

    def forget_notes(self) -> None:
        """Remove all notifications from the screen."""
        self.app.clear_notifications()

    def open(self, page: Screen[T], then: Callable[[T | None], None] | None = None) -> None:
        """Open a page or a dialog; `then` gets its result."""
        self.app.push_screen(page, then)

    def copy(self, text: str) -> None:
        """Copy `text` to the clipboard."""
        self.app.copy_to_clipboard(text)

    def run_behind(self, task: Callable[[], Awaitable[None]], group: str, exclusive: bool = False) -> None:
        """Run a task in the app's loop; an exclusive one replaces the running task of its group."""
        self.run_worker(task, group=group, exclusive=exclusive)

    @property
    def is_undisturbed(self) -> bool:
        """Whether a page may open: the user is not typing, and no page covers this screen."""
        return self.is_current and not isinstance(self.focused, Input | TextArea)

    def ask_for_question(self) -> None:
        """Focus the question's field."""
        self.generation.question.focus()

    def commit_typing(self) -> None:
        """Keep what the user is still typing over a prompt."""
        self.prompts.commit()

    def probe_at_hand(self) -> int | None:
        """Return the index of the probe under the focused prompts pane's cursor; None if there is none."""
        if not isinstance(self.focused_pane(), PromptsPane):
            return None
        place = self.prompts.place()
        return place.index if place.group == "probes" else None

    def go_to_prompt(self, group: Group, index: int) -> None:
        """Move the prompts pane's cursor to a prompt."""
        self.prompts.go_to(group, index)

    def go_to_feature(self, feature: int) -> bool:
        """Move the leaderboard's cursor to a feature; return False if it has no row."""
        return self.features.go_to(feature)

    def ranked_features(self) -> list[int]:
        """Return the leaderboard's features, top down."""
        return self.features.shown()

    # ---- showing results and the state of the engine

    def show_tokens(self, shown: Shown) -> None:
        """Show a feature's activations on the prompts."""
        self.tokens.show(shown)

    def show_token_features(self, features: TokenFeatures) -> None:
        """Show the features of the token under the cursor."""
        self.tokens.show_features(features)

    def show_generated(self, result: Generated) -> None:
        """Show a finished generation."""
        self._show_text(result, "")

    def show_kept(self, text: Generated) -> None:
        """Show a kept text that the user has chosen."""
        self._show_text(text, "kept", FIRST)

    def _show_text(self, result: Generated, note: str, pair: Pair | None = None) -> None:
        self.generation.show(result, note, pair)
        self.generation.show_staleness()

    def put_beside(self, text: Generated) -> None:
        """Show a kept text in the baseline's place."""
        self.generation.put_beside(text)

    def show_engine(self, words: str) -> None:
        """Show in the header what the engine is doing; "" means ready."""
        self.header.show_engine(words)

    def show_no_load(self) -> None:
        """Show that a load failed or was stopped: the pair of before, if any, is still loaded."""
        if not self.bridge.alive:
            self.show_loss_in_header()
        elif self.study.loaded is None:
            self.header.show_engine("no model: M chooses one", broken=True)
        else:
            self.header.show_engine("")

    def show_loaded(self) -> None:
        """Show the pair that was loaded, and all that depends on it."""
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
        self.header.show_progress(event.progress)

    @on(Bridge.Memory)
    def show_memory(self, event: Bridge.Memory) -> None:
        self.header.show_memory(event.left)

    @property
    def memory(self) -> MemoryLeft | None:
        """Memory left on the model's device, as last reported."""
        return self.header.memory

    @property
    def diagnosis(self) -> Diagnosis | None:
        """The doctor's diagnosis of the loaded pair; None until there is one."""
        return self.health.diagnosis

    def show_diagnosis(self, diagnosis: Diagnosis) -> None:
        """Show in the second line whether the SAE is wired right."""
        self.health.show_diagnosis(diagnosis)

    def show_loss_in_header(self) -> None:
        """Show which key restarts the engine."""
        self.header.show_engine("no engine · E restarts it", broken=True)

    @on(Bridge.Lost)
    def show_loss(self, event: Bridge.Lost) -> None:
        """Show that the engine is gone; the user's work is kept."""
        self.header.show_progress(None)
        self.show_loss_in_header()
        if self.generation.running:
            self.generation.stop("the engine was lost; E restarts it, then g")
        self.report(event.error.message, "E restarts it with the same model and SAE. Nothing you made is lost.")

    @on(HealthLine.Clicked)
    def ask_the_doctor(self) -> None:
        """Run the doctor."""
        self.action_do("run.doctor")

    # ---- panes that follow each other

    @on(PromptsPane.PlaceChosen)
    def follow_prompt(self, event: PromptsPane.PlaceChosen) -> None:
        """Move the tokens pane to the prompt under the prompts pane's cursor."""
        if event.index is not None and event.group != "probes" and self.furnished.is_set():
            before = 0 if event.group == "positive" else len(self.study.work.prompts.positive)
            self.tokens.go_to_prompt(before + event.index)

    @on(LeaderboardPane.FeatureMoved)
    def read_feature(self, event: LeaderboardPane.FeatureMoved) -> None:
        """Show the feature under the leaderboard's cursor on the prompts."""
        self.read(event.feature)
