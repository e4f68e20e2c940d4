"""What the app asks of the engine beside texts: each task keeps its result in the study and shows it in a pane."""

from __future__ import annotations

from collections.abc import Callable

from engine.records import (
    NO_FEATURE,
    Attribution,
    Causes,
    CausesReplayed,
    Diagnosis,
    Doctor,
    FeaturesAt,
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
    RunProbes,
    Show,
    Shown,
    TokenFeatures,
)
from engine.records.errors import SaescopeError
from engine.records.words.numbers import count_in_words
from engine.serving.client import RequestCancelled
from tui.commands.generating import Generating

ROWS = 200
"""How many features the leaderboard holds; any other one is found by its number."""


class Work(Generating):
    """The screen's tasks: each is started by its method, and none of them blocks."""

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
        edited = [slot.feature for slot in work.edits if slot.feature != NO_FEATURE]
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

    # ---- probes, doctor

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
