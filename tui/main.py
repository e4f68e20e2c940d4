"""The main screen: routes what panes post and keys ask for."""

from __future__ import annotations

import gc
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import BindingType
from textual.widgets import Input, TextArea

from engine.files.session import Result
from engine.records import Diagnosis, Load, Loaded, ProbeTable
from tui.commands import keys
from tui.commands.work import Work
from tui.edit_screen import EditScreen
from tui.panes.generation import GenerationPane
from tui.panes.leaderboard import LeaderboardPane
from tui.panes.prompts import PromptsPane
from tui.panes.tokens import TokensPane
from tui.services.bridge import Bridge
from tui.services.opening import Opening
from tui.widgets.health import HealthLine

if TYPE_CHECKING:
    from tui.commands.attribution import CauseFlows
    from tui.commands.features import FeatureFlow
    from tui.commands.pair import ModelFlow
    from tui.commands.prompts import Flows
    from tui.commands.sessions import SessionFlows
    from tui.commands.texts import TextFlows

AUTOSAVE_SECONDS = 0.25

DIALOGS = (
    "tui.commands.prompts",
    "tui.commands.edits",
    "tui.commands.texts",
    "tui.commands.attribution",
    "tui.commands.features",
)


class MainScreen(EditScreen):
    """Routes what panes post and keys ask for: changes the study, shows it, sets the engine to work."""

    BINDINGS: ClassVar[list[BindingType]] = [*keys.MAIN]

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self.work = Work(self, Bridge(opening.make_engine, self))

    # the dialogs are imported behind the first paint

    @cached_property
    def flows(self) -> Flows:
        """Dialogs about prompts, and pages."""
        from tui.commands.prompts import Flows

        return Flows(self)

    @cached_property
    def text_flows(self) -> TextFlows:
        """Dialogs about texts."""
        from tui.commands.texts import TextFlows

        return TextFlows(self)

    @cached_property
    def causes(self) -> CauseFlows:
        """Attribution and the smallest set."""
        from tui.commands.attribution import CauseFlows

        return CauseFlows(self)

    @cached_property
    def feature_page(self) -> FeatureFlow:
        """Features' pages, labels and notes."""
        from tui.commands.features import FeatureFlow

        return FeatureFlow(self)

    @cached_property
    def sessions(self) -> SessionFlows:
        """Sessions."""
        from tui.commands.sessions import SessionFlows

        return SessionFlows(self, self._opening.make_store())

    @cached_property
    def models(self) -> ModelFlow:
        """Which model and SAE."""
        from tui.commands.pair import ModelFlow

        return ModelFlow(self)

    def on_mount(self) -> None:
        """Shows the prompts; once they are painted the rest follows."""
        self.prompts.show(self.study.work.prompts)
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
        if self._opening.offer_last:
            self.sessions.offer_last()
        self.work.load(self.study.load)
        self.set_interval(AUTOSAVE_SECONDS, self.autosave)
        self.set_timer(1.0, lambda: self.run_worker(import_dialogs, group="imports", thread=True))

    def autosave(self) -> None:
        """Keeps the study as it is now, if it has changed."""
        self.sessions.autosave()

    # ---- what the engine found

    def take_loaded(self, load: Load, loaded: Loaded, chosen: bool) -> None:
        """A model was loaded; results of another one are pointed out."""
        before, sae_before = self.study.load, self.study.results.loaded
        others = self.study.now_loaded(load, loaded, chosen)
        taken = chosen and self.models.take_over(before, sae_before, loaded)
        if taken or (chosen and others):
            self.show_study()
        self.show_loaded()
        if self.study.attribution() is not None:
            self.show_ranking()  # its effects may be another SAE's, or hold again
        if self.study.foreign:
            what = ", ".join(others)
            self.report(
                f"These results were recorded with another {what} than is loaded now.",
                "They stay as they are; R runs them again here, and the next new result begins a new session.",
            )

    def keep_result(self, result: Result) -> None:
        """A result goes into the session."""
        if self.study.foreign:
            self.sessions.keep_now()
        if self.study.add(result):
            self.notify("A new session begins here; the one so far is under ctrl+o.")
            self.show_session()

    @property
    def is_undisturbed(self) -> bool:
        """Nobody types and no page lies over it: a page may open."""
        return self.is_current and not isinstance(self.focused, Input | TextArea)

    # ---- running things

    def keep_open_prompt(self) -> None:
        """What is being typed over a line counts as typed."""
        typed = self.prompts.close_editor()
        if typed is not None:
            self.study.put_prompt(typed.group, typed.index, typed.text)
            self.show_prompts()

    def action_rank(self) -> None:
        """Ranks all features."""
        self.keep_open_prompt()
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

    def action_attribute(self) -> None:
        """Which features influence an answer?"""
        self.causes.ask_measure()

    def action_causes(self) -> None:
        """The last attribution again."""
        self.causes.show_last()

    def action_stop(self) -> None:
        """Stops what runs; a text of which there is something is kept as far as it has come."""
        if not self.work.stop_text() and not self.work.bridge.cancel_all():
            self.notify("Nothing is running.")

    @on(GenerationPane.Asked)
    def generate_from_question(self, event: GenerationPane.Asked) -> None:
        """Enter in the question."""
        self.study.set_question(event.text)
        self.work.generate()

    @on(GenerationPane.QuestionChanged)
    def keep_question(self, event: GenerationPane.QuestionChanged) -> None:
        """The question as it is typed; the bars are those of a probe that it is."""
        self.study.set_question(event.text)
        self.work.score_answers()

    @on(GenerationPane.SettingsWanted)
    def change_settings(self) -> None:
        """How text is generated."""
        self.text_flows.change_settings()

    @on(GenerationPane.ModeWanted)
    def change_mode(self) -> None:
        """What a toggle does to the running text."""
        self.study.switch_restart()
        self.show_question()

    @on(GenerationPane.RewindWanted)
    def rewind(self) -> None:
        """From the cursor on, anew."""
        self.work.rewind()

    @on(GenerationPane.BranchesWanted)
    def show_branches(self) -> None:
        """The kept texts."""
        self.text_flows.show_branches()

    @on(Bridge.Lost)
    def show_loss(self, event: Bridge.Lost) -> None:
        """The engine is gone; everything the user has is kept."""
        self.header.show_progress(None)
        self.show_loss_in_header()
        if self.generation.running:
            self.generation.stop("the engine was lost; E restarts it, then g")
        self.report(event.error.message, "E restarts it with the same model and SAE. Nothing you made is lost.")

    # ---- prompts

    @on(PromptsPane.PlaceChosen)
    def follow_prompt(self, event: PromptsPane.PlaceChosen) -> None:
        """The tokens follow the cursor in the prompts."""
        if event.index is not None and event.group != "probes" and self.furnished.is_set():
            before = 0 if event.group == "positive" else len(self.study.work.prompts.positive)
            self.tokens.go_to_prompt(before + event.index)

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

    def action_undo(self) -> None:
        """The last change of prompts, or of which edits are in the list, is taken back."""
        undone = self.study.undo()
        self.notify("Undone." if undone else "Nothing to undo.")
        if undone:
            self.show_prompts()
            self.edits_changed()

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

    # ---- features

    @on(LeaderboardPane.FeatureMoved)
    def read_feature(self, event: LeaderboardPane.FeatureMoved) -> None:
        """The tokens follow the leaderboard's cursor."""
        self.read(event.feature)

    @on(LeaderboardPane.ReadWanted)
    def go_to_tokens(self, event: LeaderboardPane.ReadWanted) -> None:
        """Enter on a feature: read it."""
        self.read(event.feature)
        self.action_pane("tokens")

    @on(LeaderboardPane.SortWanted)
    def sort(self, event: LeaderboardPane.SortWanted) -> None:
        """Another column."""
        self.work.rank(by=event.by)

    @on(LeaderboardPane.WeightWanted)
    def change_weight(self, event: LeaderboardPane.WeightWanted) -> None:
        """With the weight towards rare features, or without it."""
        self.work.rank(weight=event.on)

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
        self.read(feature)
        if isinstance(self.focused_pane(), PromptsPane):
            self.action_pane("tokens")  # where keys act on it
        if not self.features.go_to(feature) and self.study.ranking() is not None and not self.study.ranking_is_stale():
            self.jump = feature
            self.work.rank()

    def action_jump(self) -> None:
        """Asks for a number."""
        self.flows.ask_feature()

    def action_pin(self) -> None:
        """Pins or unpins."""

        def pin(feature: int) -> None:
            self.study.toggle_pin(feature)
            self.show_ranking()

        self._with_feature(pin)

    def action_label(self) -> None:
        """A name of the user's own."""
        self._with_feature(self.feature_page.ask_label)

    def action_describe(self) -> None:
        """The feature's page."""
        self._with_feature(self.feature_page.open)

    def action_copy(self) -> None:
        """Number, command line or snippet to the clipboard."""
        self._with_feature(self.text_flows.ask_copy)

    def show_probes(self, table: ProbeTable) -> None:
        """All probes; who is typing meanwhile is not interrupted."""
        if self.is_undisturbed:
            self.flows.show_probes(table)
        else:
            self.notify("The probes are done: V shows the table.")

    def action_last_probes(self) -> None:
        """The last table of probes again."""
        tables = self.study.results.probe_tables
        if tables:
            self.flows.show_probes(tables[-1])
        else:
            self.notify("No probes were run yet: v runs them.")

    @on(HealthLine.Clicked)
    def action_doctor(self) -> None:
        """The doctor's report; it has not changed as long as the same pair is loaded."""
        if self.health.diagnosis is None:
            self.work.run_doctor()
        else:
            self.flows.show_diagnosis(self.health.diagnosis)

    def take_diagnosis(self, diagnosis: Diagnosis) -> None:
        """The doctor is done; who is typing meanwhile is not interrupted."""
        self.health.show_diagnosis(diagnosis)
        if self.is_undisturbed:
            self.flows.show_diagnosis(diagnosis)
        else:
            self.notify("The doctor is done: H shows the report.")

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
        self.models.choose()

    def action_restart_engine(self) -> None:
        """A new engine with the same model and SAE."""
        self.sessions.restart_engine()

    def action_help(self) -> None:
        """Every key."""
        self.flows.help()

    def action_messages(self) -> None:
        """What was reported."""
        self.flows.show_messages()


def import_dialogs() -> None:
    """Before the first is asked for; in a thread, since it takes a tenth of a second."""
    for name in DIALOGS:
        import_module(name)
