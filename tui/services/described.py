"""What the engine says of single features: asked once, and kept as long as it holds."""

from __future__ import annotations

from collections.abc import Callable

from engine.records import Describe, Described, Effect, Measure
from engine.records import attribution as measures
from engine.records.errors import SaescopeError, UsageError
from tui.services.desk import Desk
from tui.services.tasks import Tasks

ASKS, NO_ANSWER, NO_ENGINE = "the engine looks it up…", "no answer: ! says why", "no model is loaded: M chooses one"


class KnownFeatures:
    """Answers about features, by feature."""

    def __init__(self, desk: Desk, tasks: Tasks) -> None:
        self.desk, self.tasks = desk, tasks
        self._depends_on: tuple[object, ...] = ()
        """What the answers that are kept depend on."""
        self._found: dict[int, Described] = {}
        self._effects: dict[int, Effect] = {}
        self._failed: set[int] = set()

    def effect(self, feature: int) -> Effect | None:
        """What was asked for this feature alone."""
        self._forget_what_no_longer_holds()
        return self._effects.get(feature)

    def described(self, feature: int) -> Described | None:
        """What the engine said of it."""
        self._forget_what_no_longer_holds()
        return self._found.get(feature)

    def state(self, feature: int) -> str:
        """Why there is nothing more yet."""
        if feature in self._failed:
            return NO_ANSWER
        return ASKS if self.tasks.ready else NO_ENGINE

    def _forget_what_no_longer_holds(self) -> None:
        """Forgets everything once prompts, probes or what is loaded are others."""
        study = self.desk.study
        prompts = study.work.prompts
        now = (prompts.positive, prompts.negative, self._measure(), study.loaded)
        if now != self._depends_on:
            self._depends_on = now
            self._found, self._effects, self._failed = {}, {}, set()

    def _measure(self) -> Measure | None:
        """What single effects are taken on: as in the last attribution, else the first two answers."""
        effects = self.desk.study.effects()
        if effects is not None:
            return effects.found.request.measure
        try:
            measure = measures.default_measure(self.desk.study.work.prompts.probes)
            measures.check_measure(measure)
        except UsageError:
            return None
        return measure

    # ---- what is asked

    def want(self, feature: int, then: Callable[[], object]) -> None:
        """Asks what is not known yet; `then` is called once there is more, or will be none."""
        if self.described(feature) is None and self.tasks.may_ask():
            self._ask(feature, then, None)

    def want_effect(self, feature: int, then: Callable[[], object]) -> None:
        """Asks for the effect of ablating the feature, exactly."""
        effects, measure = self.desk.study.effects(), self._measure()
        row = effects.row(feature) if effects is not None else None
        if (row is not None and row.exact is not None) or self.effect(feature) is not None:
            return  # it stands there already
        if measure is None:
            self.desk.report("There is nothing to measure.", "Give a probe two answers (enter on it in pane 1).")
        elif self.tasks.may_ask():
            self._ask(feature, then, measure)

    def _ask(self, feature: int, then: Callable[[], object], measure: Measure | None) -> None:
        prompts = self.desk.study.work.prompts
        request = Describe(feature, (*prompts.positive, *prompts.negative), measure=measure)
        asked_for = self._depends_on

        async def task() -> None:
            try:
                found = await self.tasks.ask(request, Described)
            except SaescopeError:
                self._failed.add(feature)
                then()
                raise
            self._forget_what_no_longer_holds()
            if self._depends_on == asked_for:  # else the prompts have changed meanwhile
                self._found[feature] = found
                if found.effect is not None:
                    self._effects[feature] = found.effect
            then()

        self.tasks.run("describe", task)
