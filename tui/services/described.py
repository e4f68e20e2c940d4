"""Descriptions and exact effects of single features: asked once, and kept until prompts, measure or pair change."""

from __future__ import annotations

from collections.abc import Callable

from engine.records import Describe, Described, Effect, Measure
from engine.records import attribution as measures
from engine.records.errors import SaescopeError, UsageError
from tui.services.desk import Desk
from tui.services.tasks import Tasks

ASKS, NO_ANSWER, NO_ENGINE = "the engine looks it up…", "no answer: ! says why", "no model is loaded: M chooses one"


class KnownFeatures:
    """The engine's answers about single features."""

    def __init__(self, desk: Desk, tasks: Tasks) -> None:
        self.desk, self.tasks = desk, tasks
        self._depends_on: tuple[object, ...] = ()
        """Prompts, measure and pair for which the answers below hold."""
        self._found: dict[int, Described] = {}
        self._effects: dict[int, Effect] = {}
        self._failed: set[int] = set()

    def effect(self, feature: int) -> Effect | None:
        """Return the effect that was asked for this feature alone; None if it is not known."""
        self._forget_what_no_longer_holds()
        return self._effects.get(feature)

    def described(self, feature: int) -> Described | None:
        """Return the engine's description of a feature; None if it is not known."""
        self._forget_what_no_longer_holds()
        return self._found.get(feature)

    def state(self, feature: int) -> str:
        """Say why the description of a feature is not there yet."""
        if feature in self._failed:
            return NO_ANSWER
        return ASKS if self.tasks.ready else NO_ENGINE

    def _forget_what_no_longer_holds(self) -> None:
        """Forget all answers if the prompts, the measure or the loaded pair have changed."""
        study = self.desk.study
        prompts = study.work.prompts
        now = (prompts.positive, prompts.negative, self._measure(), study.loaded)
        if now != self._depends_on:
            self._depends_on = now
            self._found, self._effects, self._failed = {}, {}, set()

    def _measure(self) -> Measure | None:
        """Return the measure of single effects: the last attribution's, else the default; None if that is invalid."""
        effects = self.desk.study.effects()
        if effects is not None:
            return effects.found.request.measure
        try:
            measure = measures.default_measure(self.desk.study.work.prompts.probes)
            measures.check_measure(measure)
        except UsageError:
            return None
        return measure

    # ---- requests

    def want(self, feature: int, then: Callable[[], object]) -> None:
        """Ask for a feature's description unless it is known; `then` is called once it is there or has failed."""
        if self.described(feature) is None and self.tasks.may_ask():
            self._ask(feature, then, None)

    def want_effect(self, feature: int, then: Callable[[], object]) -> None:
        """Ask for the exact effect of ablating a feature, unless it is known; `then` as in `want`."""
        effects, measure = self.desk.study.effects(), self._measure()
        row = effects.row(feature) if effects is not None else None
        if (row is not None and row.exact is not None) or self.effect(feature) is not None:
            return  # known already
        if measure is None:
            self.desk.report("There is nothing to measure.", "Give a probe two answers (enter on it in pane 1).")
        elif self.tasks.may_ask():
            self._ask(feature, then, measure)

    def _ask(self, feature: int, then: Callable[[], object], measure: Measure | None) -> None:
        prompts = self.desk.study.work.prompts
        request = Describe(feature, (*prompts.positive, *prompts.negative), measure=measure)
        depends_on = self._depends_on

        async def task() -> None:
            try:
                description = await self.tasks.ask(request, Described)
            except SaescopeError:
                self._failed.add(feature)
                then()
                raise
            self._forget_what_no_longer_holds()
            if self._depends_on == depends_on:  # else the answer is out of date already
                self._found[feature] = description
                if description.effect is not None:
                    self._effects[feature] = description.effect
            then()

        self.tasks.run("describe", task)
