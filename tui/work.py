"""What the app asks of the engine: each task awaits one result, keeps it in the study and shows it in a pane.

Tasks of a kind replace each other, so a late result never overwrites a newer one. Errors are reported by the screen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from engine.client import RequestCancelled
from engine.errors import SaescopeError
from engine.records import (
    AnswersScored,
    Attribution,
    Causes,
    CausesReplayed,
    Diagnosis,
    Doctor,
    Event,
    FeaturesAt,
    Generate,
    Generated,
    Load,
    Loaded,
    ProbeTable,
    Prompt,
    Rank,
    Ranking,
    RankReplayed,
    Replay,
    ReplayCauses,
    Replayed,
    ReplayRank,
    Request,
    RunProbes,
    ScoreAnswers,
    Show,
    Shown,
    TokenFeatures,
    TokenStep,
)
from tui.bridge import Bridge, OnEvents
from tui.crash import keep_details
from tui.words import count_in_words

if TYPE_CHECKING:
    from tui.main_screen import MainScreen

T = TypeVar("T")
ROWS = 200
"""How many features the leaderboard holds; any other one is found by its number."""


class Work:
    """The screen's tasks. `start` each through its method; none of them blocks."""

    def __init__(self, screen: MainScreen, bridge: Bridge) -> None:
        self.screen, self.bridge = screen, bridge
        self._generation: int | None = None
        """The id of the running generation."""
        self._text = 0
        """Numbers the texts: tokens of one that was started anew are not shown."""
        self._loads = 0
        self._no_load_runs = asyncio.Event()
        self._no_load_runs.set()

    @property
    def ready(self) -> bool:
        """Whether a model is loaded."""
        return self.bridge.alive and self.screen.study.loaded is not None

    def run(self, kind: str, task: Callable[[], Awaitable[None]]) -> None:
        """Runs a task in place of the one of its kind; what goes wrong is reported."""

        async def guarded() -> None:
            try:
                await task()
            except RequestCancelled:
                pass
            except SaescopeError as error:
                if error is not self.bridge.lost:  # a lost engine is reported once, for all tasks together
                    self.screen.report(error.message, error.remedy)
            except Exception as error:  # a defect of ours in one task is no reason to end the app
                self.screen.report(f"A defect of saescope: {error!r}", f"Your work is kept. {keep_details()}")

        # not yet called: a task replaced before it starts is no coroutine that nobody awaits
        self.screen.run_worker(guarded, group=kind, exclusive=True)  # type: ignore[arg-type]

    def may_ask(self) -> bool:
        """Whether a model is there or on its way; says what to do if not."""
        if not self._no_load_runs.is_set():
            self.screen.notify("As soon as the model is loaded.")
            return True
        if not self.bridge.alive:
            self.screen.report("The engine is not running.", "E restarts it; prompts, edits and results are kept.")
        elif not self.ready:
            self.screen.report("No model is loaded.", "M chooses model and SAE.")
        return self.ready

    async def no_load_runs(self) -> None:
        """Waits until no load runs."""
        await self._no_load_runs.wait()

    async def ask(
        self,
        request: Request,
        kind: type[T],
        on_events: OnEvents | None = None,
        on_sent: Callable[[int], None] | None = None,
    ) -> T:
        """Runs a request once no load runs. A load that failed has been reported: then this just ends."""
        study = self.screen.study
        await self._no_load_runs.wait()
        if not self.ready or self.screen.study is not study:
            raise RequestCancelled
        result = await self.bridge.run(request, kind, on_events, on_sent)
        if self.screen.study is not study:  # another session was opened meanwhile
            raise RequestCancelled
        return result

    # ---- loading

    def load(self, load: Load, chosen: bool = False) -> None:
        """Starts the engine if it is not running, and loads model and SAE; `chosen` where the user asked for others."""
        self._loads += 1
        number = self._loads
        self._no_load_runs.clear()
        if number > 1:
            self.screen.app.clear_notifications()  # what was said of the load before

        async def task() -> None:
            screen = self.screen
            try:
                if not self.bridge.alive:
                    screen.show_engine("starting the engine")
                    await self.bridge.start()
                loaded = await self.bridge.run(load, Loaded)
                screen.sessions.keep_now()  # before it may become another session
                screen.take_loaded(load, loaded, chosen)
            except (SaescopeError, RequestCancelled):
                screen.show_no_load()
                raise
            finally:
                if number == self._loads:
                    self._no_load_runs.set()

        self.run("load", task)

    # ---- features

    def rank(self, by: str | None = None, weight: bool | None = None) -> None:
        """Ranks all features; `by` sorts the ranking there is by another column.

        `weight` says whether rare features count more; None leaves it as it was.
        """
        if not self.may_ask():
            return
        study = self.screen.study
        before = study.ranking()
        column = by or (before.by if before is not None else "score")
        if column == "g" and min(len(study.work.prompts.positive), len(study.work.prompts.negative)) < 4:
            column = "score"
        if weight is None:
            weight = before.density_weight if before is not None else True
        request = Rank(study.work.prompts, by=column, top=ROWS, density_weight=weight, also=self._rows_wanted())

        async def task() -> None:
            ranking = await self.ask(request, Ranking)
            self.screen.keep_result(ranking)
            self.screen.show_ranking()

        self.run("rank", task)

    def _rows_wanted(self) -> tuple[int, ...]:
        """Features that have a row whatever their place."""
        work = self.screen.study.work
        edited = [slot.feature for slot in work.edits]
        chosen = [] if work.feature is None else [work.feature]
        return tuple(dict.fromkeys([*work.pinned, *edited, *chosen]))

    def show_feature(self, feature: int) -> None:
        """Shows a feature's activations on the prompts."""
        study = self.screen.study
        prompts = (*study.work.prompts.positive, *study.work.prompts.negative)
        if not self.ready or not prompts:
            return

        async def task() -> None:
            shown = await self.ask(Show(feature, prompts), Shown)
            self.screen.show_tokens(shown)

        self.run("show", task)

    def features_at(self, prompt: Prompt, token: int) -> None:
        """Lists the features of one token."""
        if not self.may_ask():
            return

        async def task() -> None:
            found = await self.ask(FeaturesAt(prompt, token), TokenFeatures)
            self.screen.show_token_features(found)

        self.run("features at", task)

    # ---- generation

    def generate(self) -> None:
        """Generates anew from the question, with the edits that are on."""
        if not self.may_ask():
            return
        study, pane = self.screen.study, self.screen.generation
        if not study.work.question.strip():
            self.screen.notify("Type a question first.")
            pane.question.focus()
            return
        request = Generate(study.question(), study.edits(), study.work.sampling)
        self._text += 1
        number, self._generation = self._text, None
        pane.start(self.screen.edits_in_words())

        def on_sent(request_id: int) -> None:
            self._generation = request_id
            if study.edits() != request.edits:  # toggled while the model was still being loaded
                self.bridge.set_edits(request_id, study.edits())

        def on_events(events: Sequence[Event]) -> None:
            if number == self._text:
                pane.add([event for event in events if isinstance(event, TokenStep)])

        async def task() -> None:
            try:
                result = await self.ask(request, Generated, on_events, on_sent)
            except RequestCancelled:
                pane.stop("stopped; g runs it again")
                self.score_answers()
                return
            except SaescopeError:
                pane.stop("broken off" if self.bridge.alive else "the engine was lost; E restarts it, then g")
                raise
            self.screen.keep_result(result)
            self.screen.show_generated(result)
            self.score_answers()

        self.run("generate", task)

    def edits_changed(self) -> None:
        """Applies a toggled edit to the running text, or starts it anew; else the text is marked as out of date."""
        study, pane = self.screen.study, self.screen.generation
        if pane.running and study.work.restart:
            self.generate()
            return
        if pane.running and self._generation is not None:
            self.bridge.set_edits(self._generation, study.edits())
            pane.show_edits(self.screen.edits_in_words())
        self.score_answers()

    def score_answers(self) -> None:
        """The tracked answers' bars, where the question is a probe that tracks some.

        A running text goes first: until it ends the bars are marked as out of date.
        """
        study, pane = self.screen.study, self.screen.generation
        probe = study.probe_of_question()
        if not self.ready or probe is None or not probe.answers:
            pane.show_answers(None)
            return
        if pane.running:
            pane.dim_answers()
            return

        async def task() -> None:
            scored = await self.ask(ScoreAnswers(probe, study.edits()), AnswersScored)
            pane.show_answers(scored)

        self.run("score", task)

    def run_probes(self) -> None:
        """Answers every probe and opens the table."""
        if not self.may_ask():
            return
        study = self.screen.study
        if not study.work.prompts.probes:
            self.screen.notify("The set has no probes: add one in the prompts pane, under ? probes.")
            return

        async def task() -> None:
            table = await self.ask(RunProbes(study.work.prompts.probes, study.edits()), ProbeTable)
            self.screen.keep_result(table)
            self.screen.show_probes(table)

        self.run("probes", task)

    def run_doctor(self) -> None:
        """Examines how model and SAE are wired, and opens the report."""
        if not self.may_ask():
            return

        async def task() -> None:
            loads = self._loads
            diagnosis = await self.ask(Doctor(), Diagnosis)
            if loads == self._loads:  # another pair is being loaded otherwise
                self.screen.take_diagnosis(diagnosis)

        self.run("doctor", task)

    # ---- replay

    def replay(self, tell: Callable[[str, bool | None], None]) -> None:
        """Runs every result of the session again; `tell` hears a line each and whether it came out the same."""
        results = self.screen.study.results
        generations = [*results.generations, *(r.generated for t in results.probe_tables for r in t.rows)]

        async def task() -> None:
            for ranking in results.rankings:
                again = await self.ask(ReplayRank(ranking), RankReplayed)
                where = "same rows" if again.same else f"row {(again.first_difference or 0) + 1} differs"
                change = f"largest score change {again.largest_score_change:.2g}"
                tell(f"ranking of {ranking.n_positive} against {ranking.n_negative}: {where}, {change}", again.same)
            for recorded in generations:
                replayed = await self.ask(Replay(recorded), Replayed)
                tell(replay_in_words(recorded, replayed), replayed.same)
            causes: list[Causes] = [*results.attributions, *results.minimal_sets]
            for found in causes:
                redone = await self.ask(ReplayCauses(found), CausesReplayed)
                tell(causes_in_words(found, redone), redone.same)
            count = len(results.rankings) + len(generations) + len(causes)
            tell(f"{count_in_words(count, 'result')} run again.", None)

        self.run("replay", task)


def causes_in_words(recorded: Causes, redone: CausesReplayed) -> str:
    """One line for an attribution or a set."""
    measure = recorded.request.measure
    what = "attribution" if isinstance(recorded, Attribution) else "smallest set"
    where = "same features" if redone.same else f"place {(redone.first_difference or 0) + 1} differs"
    return f"{what}, {measure.toward} against {measure.against}: {where}, largest change {redone.largest_change:.2g}"


def replay_in_words(recorded: Generated, replayed: Replayed) -> str:
    """One line for a generation, more where it diverged."""
    lines = [recorded.prompt.text.strip().replace("\n", "⏎")]
    if not replayed.prompt_ids_same:
        lines.append("the prompt is fed as other token ids than recorded")
    for arm in replayed.arms:
        if not arm.same:
            gap = "" if arm.margin is None else f"; the two likeliest tokens are {arm.margin:.3g} nats apart there"
            where = f"{arm.name} differs from token {(arm.first_divergence or 0) + 1}"
            lines.append(f"{where}: recorded {arm.recorded_token!r}, now {arm.replayed_token!r}{gap}")
    return "\n    ".join(lines)
