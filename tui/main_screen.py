"""The main screen: composes header, panes and footer, routes what panes post, and shows what the engine found."""

from __future__ import annotations

import gc
from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.screen import Screen
from textual.widgets import Footer

from engine import feature_lists
from engine.records import (
    Described,
    Generated,
    ProbeTable,
    Shown,
    TokenFeatures,
)
from tui.bridge import Bridge
from tui.header import Header
from tui.opening import Opening
from tui.panes.edits import EditsPane
from tui.panes.generation import GenerationPane
from tui.panes.leaderboard import LeaderboardPane
from tui.panes.prompts import PromptsPane
from tui.panes.tokens import TokensPane
from tui.tabs import TabLine
from tui.words import strength_in_words, tokens_in_words
from tui.work import Work

if TYPE_CHECKING:
    from tui.flows import Flows
    from tui.session_flows import SessionFlows

Pane = PromptsPane | TokensPane | LeaderboardPane | GenerationPane | EditsPane
AUTOSAVE_SECONDS = 0.25
PANES = ("prompts", "tokens", "features", "generation")
SINGLE_BELOW = (100, 28)
"""Columns and lines under which one pane is shown at a time."""


class MainScreen(Screen[None]):
    """Everything the user works with. State is in `study`, engine tasks in `work`."""

    DEFAULT_CSS = """
    MainScreen {
        & .pane {
            border: round $foreground 30%; padding: 0 1; background: $surface;
            border-title-color: $foreground 80%; border-subtitle-color: $foreground 60%;
        }
        & .pane:focus-within {
            border: round $accent; border-title-color: $accent; border-title-style: bold;
        }
        & #top { height: 11fr; }
        & #bottom { height: 9fr; }
        & #prompts { width: 26fr; }
        & #tokens { width: 36fr; }
        & #features { width: 42fr; }
        & #edits { width: 30; }
        & #generation { width: 1fr; }
        & #tabs { display: none; }
        & .-stale { border-subtitle-color: $warning; border-subtitle-style: bold; }
    }
    MainScreen.-single {
        & #tabs { display: block; }
        & #top, & #bottom { height: 1fr; display: none; }
        & #prompts, & #tokens, & #features { display: none; width: 1fr; }
        & #bottom { layout: vertical; }
        & #edits { width: 1fr; height: auto; min-height: 3; max-height: 6; }
        &.-show-prompts #top, &.-show-tokens #top, &.-show-features #top, &.-show-generation #bottom { display: block; }
        &.-show-prompts #prompts, &.-show-tokens #tokens, &.-show-features #features { display: block; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "pane('prompts')", "Prompts", show=False, id="pane.prompts", tooltip="To the prompts"),
        Binding("2", "pane('tokens')", "Tokens", show=False, id="pane.tokens", tooltip="To the tokens"),
        Binding("3", "pane('features')", "Features", show=False, id="pane.features", tooltip="To the leaderboard"),
        Binding("4", "pane('generation')", "Generate", show=False, id="pane.generation", tooltip="To the texts"),
        Binding("e", "pane('edits')", "Edits", show=False, id="pane.edits", tooltip="To the list of edits"),
        Binding("space", "toggle_edit", "Ablate", id="feature.ablate", tooltip="Ablate the feature; again: off, on"),
        Binding("plus,equals_sign", "strength(1)", "Stronger", show=False, key_display="+", id="feature.plus",
                tooltip="Scale the feature up a step"),
        Binding("minus", "strength(-1)", "Weaker", show=False, key_display="-", id="feature.minus",
                tooltip="Scale the feature down a step"),
        Binding("p", "pin", "Pin", show=False, id="feature.pin", tooltip="Pin the feature to the leaderboard"),
        Binding("l", "label", "Label", show=False, id="feature.label", tooltip="Give the feature a name of your own"),
        Binding("f", "describe", "About", id="feature.describe", tooltip="Strongest tokens and logit lens"),
        Binding("y", "copy", "Copy", show=False, id="feature.copy",
                tooltip="Copy its number, the same command line, or an nnsight snippet"),
        Binding("number_sign", "jump", "Jump", show=False, key_display="#", id="feature.jump",
                tooltip="Jump to a feature by its number"),
        Binding("r", "rank", "Rank", id="run.rank", tooltip="Rank the features by contrast"),
        Binding("g", "generate", "Generate", id="run.generate", tooltip="Generate, baseline and edited"),
        Binding("v", "probes", "Probes", id="run.probes", tooltip="All probes, baseline and edited, as one table"),
        Binding("x", "stop", "Stop", show=False, id="run.stop", tooltip="Stop what the engine does"),
        Binding("R", "replay", "Replay", show=False, id="run.replay", tooltip="Run the session's results again"),
        Binding("E", "restart_engine", "Restart", show=False, id="run.restart", tooltip="Restart the engine"),
        Binding("M", "choose_model", "Model", show=False, id="run.model", tooltip="Choose model, SAE and hook point"),
        Binding("s", "save", "Save", show=False, id="session.save", tooltip="Save the session to its file"),
        Binding("S", "save_as", "Save as", show=False, id="session.save_as", tooltip="Save to another file"),
        Binding("ctrl+o", "open", "Open", show=False, id="session.open", tooltip="Open a session", priority=True),
        Binding("ctrl+r", "rank", "Rank", show=False, id="run.rank_typing", priority=True),
        Binding("ctrl+g", "generate", "Generate", show=False, id="run.generate_typing", priority=True),
        Binding("ctrl+s", "save", "Save", show=False, id="session.save_typing", priority=True),
        Binding("question_mark", "help", "Help", key_display="?", id="app.help", tooltip="Every key"),
        Binding("exclamation_mark", "messages", "Messages", show=False, key_display="!", id="app.messages",
                tooltip="What was said, errors included"),
        Binding("q", "app.quit", "Quit", show=False, id="app.quit", tooltip="Quit; everything is saved"),
    ]  # fmt: skip
    OF_A_FEATURE = ("toggle_edit", "strength", "pin", "label", "describe", "copy")
    """Actions that need a feature at hand, and are hidden in panes that have none."""

    def __init__(self, opening: Opening) -> None:
        super().__init__()
        self._opening = opening
        self.study = opening.study
        self.work = Work(self, Bridge(opening.make_engine, self))
        self.messages: list[str] = []
        """What was reported, oldest first."""
        self.current = "prompts"
        self.add_class("-show-prompts")  # here, for a class that changes later is a second round of styling

    # the dialogs are imported behind the first paint

    @cached_property
    def flows(self) -> Flows:
        """Dialogs about prompts, features and generation."""
        from tui.flows import Flows

        return Flows(self)

    @cached_property
    def sessions(self) -> SessionFlows:
        """Sessions, and what is loaded."""
        from tui.session_flows import SessionFlows

        return SessionFlows(self, self._opening.make_store())

    def compose(self) -> ComposeResult:
        """Header, panes, footer."""
        yield Header(id="header")
        yield TabLine(PANES, id="tabs")
        with Horizontal(id="top"):
            for pane in (PromptsPane(id="prompts"), TokensPane(id="tokens"), LeaderboardPane(id="features")):
                yield pane.add_class("pane")
        with Horizontal(id="bottom"):
            yield EditsPane(id="edits").add_class("pane")
            yield GenerationPane(id="generation").add_class("pane")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Shows the study and starts the engine once the screen is there."""
        self.show_study()
        self.prompts.rows.focus()
        self.call_after_refresh(self._start)

    def _start(self) -> None:
        gc.enable()  # the front door switches it off
        if self._opening.offer_last:
            self.sessions.offer_last()
        self.work.load(self.study.load)
        self.set_interval(AUTOSAVE_SECONDS, self.autosave)

    def autosave(self) -> None:
        """Keeps the study as it is now, if it has changed."""
        self.sessions.autosave()

    # ---- panes

    @property
    def header(self) -> Header:
        """The first line."""
        return self.query_one(Header)

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

    def on_resize(self, event: events.Resize) -> None:
        """One pane at a time where there is no room for four."""
        width, height = SINGLE_BELOW
        self.set_class(event.size.width < width or event.size.height < height, "-single")
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
            "prompts": self.prompts.rows.focus,
            "tokens": self.tokens.text.focus,
            "features": self.features.take_focus,
            "generation": self.generation.take_focus,
            "edits": self.edits.rows.focus,
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

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hides what makes no sense where the focus is."""
        if action in self.OF_A_FEATURE:
            return isinstance(self.focused_pane(), TokensPane | LeaderboardPane | EditsPane | GenerationPane)
        return True

    # ---- showing the study

    def show_study(self) -> None:
        """Shows everything the study holds, after a start or when another session was opened."""
        work = self.study.work
        self.prompts.show(work.prompts)
        self.tokens.clear()
        self.generation.clear()
        self.generation.show_settings(work.question, work.raw, work.sampling, work.restart)
        self.show_ranking()
        generations = self.study.results.generations
        if generations:
            self._show_text(generations[-1], "from the session")
        self.show_session()
        self._reread()

    def show_session(self) -> None:
        """The session's name and whether its file holds all of it."""
        study = self.study
        if study.file is None:
            words = f"{study.name} autosaved"
        else:
            words = f"{study.name} " + ("saved" if study.version == study.saved_version else "changed, s saves")
        self.header.show_session(words)

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
        self.app.clear_notifications()
        self.header.show_loaded(self.study.loaded)
        self.header.show_engine("")
        self.show_ranking()
        self._reread()
        self.work.score_answers()

    def show_ranking(self) -> None:
        """The leaderboard, with what is pinned, labelled and edited."""
        work = self.study.work
        ranking = self.study.ranking()
        self.features.show(ranking, work.pinned, work.labels, work.edits)
        self.edits.show(work.edits, self.name_of)
        self._show_staleness()
        if ranking is not None and ranking.features and work.feature is None:
            self._read(ranking.features[0].feature)

    def show_features(self) -> None:
        """Everything that names features: a label or a pin has changed."""
        self.show_ranking()
        self._reread()

    def _show_staleness(self) -> None:
        self.features.show_staleness("prompts changed: r ranks again" if self.study.ranking_is_stale() else "")

    def show_tokens(self, shown: Shown) -> None:
        """A feature's activations."""
        work = self.study.work
        label, tokens = work.labels.get(shown.feature, ""), self.tokens_of(shown.feature)
        self.tokens.show(shown, len(work.prompts.positive), label, tokens)

    def tokens_of(self, feature: int) -> tuple[str, ...]:
        """What a feature fires on most, where the ranking knows it."""
        ranking = self.study.ranking()
        rows = ranking.features if ranking is not None else ()
        return next((row.tokens for row in rows if row.feature == feature), ())

    def show_token_features(self, found: TokenFeatures) -> None:
        """The features of the token under the cursor."""
        self.tokens.show_features(found, self.study.work.labels)

    def show_card(self, found: Described) -> None:
        """A feature's card."""
        self.flows.show_card(found)

    def show_generated(self, result: Generated) -> None:
        """A finished generation."""
        self._show_text(result, "")

    def _show_text(self, result: Generated, note: str) -> None:
        schedule_end = result.schedule[-1].edits if result.schedule else result.edits
        words = ", ".join(f"{e.feature} {strength_in_words(e.scale)}" for e in schedule_end)
        self.generation.show(result, words or "no edits", note)
        self._show_generation_staleness()

    def show_probes(self, table: ProbeTable) -> None:
        """All probes."""
        self.flows.show_probes(table)

    def _reread(self) -> None:
        """Shows the chosen feature on the prompts as they are now."""
        feature = self.study.work.feature
        if feature is not None:
            self.work.show_feature(feature)

    def _read(self, feature: int) -> None:
        self.study.choose_feature(feature)
        self.work.show_feature(feature)

    # ---- the engine

    @on(Bridge.Working)
    def show_working(self, event: Bridge.Working) -> None:
        """What the engine does."""
        self.header.show_progress(event.progress)

    @on(Bridge.Memory)
    def show_memory(self, event: Bridge.Memory) -> None:
        """Memory left."""
        self.header.show_memory(event.left)

    @on(Bridge.Lost)
    def show_loss(self, event: Bridge.Lost) -> None:
        """The engine is gone; everything the user has is kept."""
        self.header.show_progress(None)
        self.show_loss_in_header()
        if self.generation.running:
            self.generation.stop("the engine was lost; E restarts it, then g")
        self.report(event.error.message, "E restarts it with the same model and SAE. Nothing you made is lost.")

    def show_loss_in_header(self) -> None:
        """Which key brings the engine back."""
        self.header.show_engine("no engine · E restarts it", broken=True)

    def report(self, message: str, remedy: str) -> None:
        """One line of what went wrong and what to do; the messages page keeps it."""
        self.messages.append(f"{datetime.now():%H:%M:%S}  {message} {remedy}".rstrip())
        self.notify(remedy or message, title=message if remedy else "", severity="error", timeout=10)

    # ---- running things

    def action_rank(self) -> None:
        """Ranks all features."""
        prompts = self.study.work.prompts
        if not prompts.positive or not prompts.negative:
            missing = "positive" if not prompts.positive else "negative"
            self.report(f"There are no {missing} prompts.", "A contrast needs both: a in the prompts pane adds one.")
            return
        if self.has_class("-single"):
            self.action_pane("features")
        self.work.rank()

    def action_generate(self) -> None:
        """Generates; on a probe in the prompts pane, that probe is asked."""
        if isinstance(self.focused_pane(), PromptsPane):
            place = self.prompts.place()
            if place.group == "probes" and place.index is not None:
                self.study.ask_probe(self.study.work.prompts.probes[place.index])
                self.show_question()
        if self.has_class("-single"):
            self.action_pane("generation")
        self.work.generate()

    def action_probes(self) -> None:
        """All probes as one table."""
        self.work.run_probes()

    def action_stop(self) -> None:
        """Stops what runs."""
        if not self.work.bridge.cancel_all():
            self.notify("Nothing is running.")

    @on(GenerationPane.Asked)
    def generate_from_question(self, event: GenerationPane.Asked) -> None:
        """Enter in the question."""
        self.study.set_question(event.text)
        self.work.generate()

    @on(GenerationPane.QuestionChanged)
    def keep_question(self, event: GenerationPane.QuestionChanged) -> None:
        """The question as it is typed."""
        self.study.set_question(event.text)

    @on(GenerationPane.SettingsWanted)
    def change_settings(self) -> None:
        """How text is generated."""
        self.flows.change_settings()

    @on(GenerationPane.ModeWanted)
    def change_mode(self) -> None:
        """What a toggle does to the running text."""
        work = self.study.work
        self.study.set_generation(work.raw, work.sampling, not work.restart)
        self.show_question()

    def show_question(self) -> None:
        """The question and how it is asked."""
        work = self.study.work
        self.generation.show_settings(work.question, work.raw, work.sampling, work.restart)
        self._show_generation_staleness()
        self.work.score_answers()

    # ---- prompts

    def show_prompts(self) -> None:
        """The prompts have changed."""
        self.prompts.show(self.study.work.prompts)
        self._show_staleness()
        self._reread()

    @on(PromptsPane.Edited)
    def keep_prompt(self, event: PromptsPane.Edited) -> None:
        """A prompt was typed."""
        index = self.study.put_prompt(event.group, event.index, event.text)
        self.show_prompts()
        self.prompts.go_to(event.group, index)

    @on(PromptsPane.DeleteWanted)
    def delete_prompt(self, event: PromptsPane.DeleteWanted) -> None:
        """An entry goes."""
        self.study.delete_entry(event.group, event.index)
        self.show_prompts()
        self.notify("Deleted; u brings it back.")

    @on(PromptsPane.MoveWanted)
    def move_prompt(self, event: PromptsPane.MoveWanted) -> None:
        """A prompt changes sides."""
        self.study.move_prompt(event.group, event.index)
        self.show_prompts()

    @on(PromptsPane.UndoWanted)
    def undo_prompts(self) -> None:
        """The last change is taken back."""
        if not self.study.undo():
            self.notify("Nothing to undo.")
        self.show_prompts()

    @on(PromptsPane.FormatWanted)
    def change_format(self) -> None:
        """Raw or chat."""
        format = self.study.switch_format()
        self.show_prompts()
        self.notify(f"Prompts are fed {'through the chat template' if format == 'chat' else 'raw'}.")

    @on(PromptsPane.ProbeWanted)
    def edit_probe(self, event: PromptsPane.ProbeWanted) -> None:
        """A probe's form."""
        self.flows.edit_probe(event.index)

    @on(PromptsPane.ImportWanted)
    def import_prompts(self, event: PromptsPane.ImportWanted) -> None:
        """A file of prompts."""
        self.flows.import_prompts(event.group)

    @on(PromptsPane.WriteWanted)
    def action_write_set(self) -> None:
        """These prompts as a set."""
        self.flows.write_set()

    # ---- features and edits

    def feature_at_hand(self) -> int | None:
        """The feature an action is about: under the cursor of the pane with the focus, else the one being read."""
        pane = self.focused_pane()
        if isinstance(pane, EditsPane):
            return pane.feature()
        if isinstance(pane, TokensPane):
            listed = pane.listed_feature()
            return self.study.work.feature if listed is None else listed
        if isinstance(pane, LeaderboardPane):
            return pane.feature()
        return self.study.work.feature

    def _with_feature(self, action: Callable[[int], object]) -> None:
        feature = self.feature_at_hand()
        if feature is None:
            self.notify("No feature is chosen yet: r ranks them, # looks one up.")
        else:
            action(feature)

    @on(LeaderboardPane.FeatureMoved)
    def read_feature(self, event: LeaderboardPane.FeatureMoved) -> None:
        """The tokens follow the leaderboard's cursor."""
        self._read(event.feature)

    @on(LeaderboardPane.ReadWanted)
    def go_to_tokens(self, event: LeaderboardPane.ReadWanted) -> None:
        """Enter on a feature: read it."""
        self._read(event.feature)
        self.action_pane("tokens")

    @on(LeaderboardPane.SortWanted)
    def sort(self, event: LeaderboardPane.SortWanted) -> None:
        """Another column."""
        self.work.rank(by=event.by)

    @on(TokensPane.TopWanted)
    def list_features(self, event: TokensPane.TopWanted) -> None:
        """The features of a token."""
        self.work.features_at(event.prompt, event.token)

    @on(TokensPane.FeatureChosen)
    def read_listed(self, event: TokensPane.FeatureChosen) -> None:
        """A feature out of a token's list."""
        self.jump_to(event.feature)

    def jump_to(self, feature: int) -> None:
        """Reads any feature; one without a row gets one with the next ranking."""
        self._read(feature)
        if not self.features.go_to(feature) and self.study.ranking() is not None and not self.study.ranking_is_stale():
            self.work.rank()

    def action_jump(self) -> None:
        """Asks for a number."""
        self.flows.ask_feature()

    def action_toggle_edit(self) -> None:
        """Ablates, or switches the edit."""

        def toggle(feature: int) -> None:
            self.study.toggle_edit(feature)
            self.edits_changed()

        self._with_feature(toggle)

    def action_strength(self, steps: int) -> None:
        """Another strength."""

        def step(feature: int) -> None:
            self.study.step_edit(feature, steps)
            self.edits_changed()

        self._with_feature(step)

    @on(EditsPane.ToggleWanted)
    def toggle_listed(self, event: EditsPane.ToggleWanted) -> None:
        """Enter or a click in the list of edits."""
        self.study.toggle_edit(event.feature)
        self.edits_changed()

    @on(EditsPane.RemoveWanted)
    def remove_edit(self, event: EditsPane.RemoveWanted) -> None:
        """An edit leaves the list."""
        self.study.remove_edit(event.feature)
        self.edits_changed()

    @on(EditsPane.AllWanted)
    def switch_all(self) -> None:
        """All edits off, or on."""
        self.study.switch_all_edits()
        self.edits_changed()

    def edits_changed(self) -> None:
        """Shows the edits and puts the running text under them."""
        self._show_edits()
        self.work.edits_changed()
        self._show_generation_staleness()

    def _show_edits(self) -> None:
        slots = self.study.work.edits
        self.edits.show(slots, self.name_of)
        self.features.show_marks(slots)

    def name_of(self, feature: int) -> str:
        """A feature's own label, else what it fires on."""
        return self.study.work.labels.get(feature) or tokens_in_words(self.tokens_of(feature))

    def edits_in_words(self) -> str:
        """The edits that are on."""
        found = self.study.edits()
        return ", ".join(f"{e.feature} {strength_in_words(e.scale)}" for e in found) or "no edits"

    def _show_generation_staleness(self) -> None:
        generations = self.study.results.generations
        if self.generation.running or not generations:
            return
        last = generations[-1]
        ruled = last.schedule[-1].edits if last.schedule else last.edits
        if ruled != self.study.edits():
            self.generation.show_note("edits changed since: g generates again")
        elif last.sampling != self.study.work.sampling:
            self.generation.show_note("settings changed since: g generates again")

    def action_pin(self) -> None:
        """Pins or unpins."""

        def pin(feature: int) -> None:
            self.study.toggle_pin(feature)
            self.show_ranking()

        self._with_feature(pin)

    def action_label(self) -> None:
        """A name of the user's own."""
        self._with_feature(self.flows.ask_label)

    def action_describe(self) -> None:
        """The feature's card."""
        self._with_feature(self.work.describe)

    def action_copy(self) -> None:
        """Number, command line or snippet to the clipboard."""
        self._with_feature(self.flows.ask_copy)

    def ablate_list(self) -> None:
        """Ablates the demo SAE's packaged list."""
        self.study.add_edits(feature_lists.read("gender"))
        self.edits_changed()

    # ---- sessions, model, pages

    def action_save(self) -> None:
        """Saves to the session's file."""
        self.sessions.save()

    def action_save_as(self) -> None:
        """Saves to another file."""
        self.sessions.save_as()

    def action_open(self) -> None:
        """Opens another session."""
        self.sessions.open()

    def action_replay(self) -> None:
        """Runs the session's results again."""
        self.sessions.replay()

    def action_choose_model(self) -> None:
        """Model, SAE, hook point."""
        self.sessions.choose_model()

    def action_restart_engine(self) -> None:
        """A new engine with the same model and SAE."""
        self.sessions.restart_engine()

    def action_help(self) -> None:
        """Every key."""
        self.flows.help()

    def action_messages(self) -> None:
        """What was reported."""
        self.flows.show_messages()
