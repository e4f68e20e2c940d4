"""Features' pages: what the engine says of each is asked once and kept; labels and notes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.files import paths
from engine.files.explanations import address
from engine.records import Describe, Described, Effect, FeatureRow, Measure
from engine.records import attribution as measures
from engine.records.errors import SaescopeError, UsageError
from engine.records.words.tokens import tokens_in_words
from tui.screens.feature_page import FeaturePage
from tui.state.effects import Effects
from tui.widgets.dialogs import AskNote, AskText

if TYPE_CHECKING:
    from tui.main import MainScreen

ASKS, NO_ANSWER, NO_ENGINE = "the engine looks it up…", "no answer: ! says why", "no model is loaded: M chooses one"

Context = tuple[object, ...]


class FeatureFlow:
    """Opens pages, and knows what they show."""

    def __init__(self, screen: MainScreen) -> None:
        self.screen = screen
        self._context: Context = ()
        """What the answers kept depend on."""
        self._found: dict[int, Described] = {}
        self._effects: dict[int, Effect] = {}
        self._failed: set[int] = set()

    def open(self, feature: int, order: list[int] | None = None) -> None:
        """A feature's page; `order` are the features that ←→ go through, the leaderboard's unless given."""
        known = order or self.screen.features.shown()
        self.screen.app.push_screen(FeaturePage(self, feature, known if feature in known else [feature, *known]))

    # ---- what is known

    def tokens_in_words(self, feature: int) -> str:
        """What it fires on most."""
        return tokens_in_words(self.screen.tokens_of(feature))

    def note(self, feature: int) -> str:
        """The user's own."""
        return self.screen.notebook.note(feature)

    def explanation(self, feature: int) -> str:
        """Somebody else's."""
        return self.screen.notebook.explanation(feature)

    def address(self, feature: int) -> str:
        """Its page on Neuronpedia; "" where the SAE has none that is known."""
        loaded = self.screen.study.loaded
        return (address(loaded, feature) or "") if loaded else ""

    def row(self, feature: int) -> tuple[FeatureRow | None, int, int]:
        """(its row in the leaderboard, its place there, how many rows there are)."""
        ranking = self.screen.study.ranking()
        rows = ranking.features if ranking is not None else ()
        found = next(((row, at) for at, row in enumerate(rows, 1) if row.feature == feature), (None, 0))
        return (*found, len(rows))

    def effects(self) -> Effects | None:
        """The last attribution's."""
        return self.screen.study.effects()

    def effect(self, feature: int) -> Effect | None:
        """What was asked for this feature alone."""
        self._check_context()
        return self._effects.get(feature)

    def described(self, feature: int) -> Described | None:
        """What the engine said of it."""
        self._check_context()
        return self._found.get(feature)

    def state(self, feature: int) -> str:
        """Why there is nothing more yet."""
        if feature in self._failed:
            return NO_ANSWER
        return ASKS if self.screen.work.ready else NO_ENGINE

    def _check_context(self) -> None:
        """Forgets everything once prompts, probes or what is loaded are others."""
        study = self.screen.study
        prompts = study.work.prompts
        now: Context = (prompts.positive, prompts.negative, self._measure(), study.loaded)
        if now != self._context:
            self._context = now
            self._found, self._effects, self._failed = {}, {}, set()

    def _measure(self) -> Measure | None:
        """What single effects are taken on: as in the last attribution, else the first two answers."""
        effects = self.effects()
        if effects is not None:
            return effects.found.request.measure
        try:
            measure = measures.default_measure(self.screen.study.work.prompts.probes)
            measures.check_measure(measure)
        except UsageError:
            return None
        return measure

    # ---- what is asked

    def want(self, page: FeaturePage) -> None:
        """Asks what is not known yet."""
        if self.described(page.feature) is None and self.screen.work.may_ask():
            self._ask(page, None)

    def want_effect(self, page: FeaturePage) -> None:
        """Ablates the feature for certain."""
        effects, measure = self.effects(), self._measure()
        row = effects.row(page.feature) if effects is not None else None
        if (row is not None and row.exact is not None) or self.effect(page.feature) is not None:
            return  # it stands there already
        if measure is None:
            self.screen.report("There is nothing to measure.", "Give a probe two answers (enter on it in pane 1).")
        elif self.screen.work.may_ask():
            self._ask(page, measure)

    def _ask(self, page: FeaturePage, measure: Measure | None) -> None:
        feature, work = page.feature, self.screen.work
        prompts = self.screen.study.work.prompts
        request = Describe(feature, (*prompts.positive, *prompts.negative), measure=measure)
        context = self._context

        async def task() -> None:
            try:
                found = await work.ask(request, Described)
            except SaescopeError:
                self._failed.add(feature)
                page.draw()
                raise
            self._check_context()
            if self._context == context:  # else the prompts have changed meanwhile
                self._found[feature] = found
                if found.effect is not None:
                    self._effects[feature] = found.effect
            page.draw()

        work.run("describe", task)

    # ---- labels, notes, copying

    def ask_label(self, feature: int, then: Callable[[], object] = lambda: None) -> None:
        """A name of the user's own."""

        def keep(text: str | None) -> None:
            if text is not None:
                self.screen.study.set_label(feature, text)
                self.screen.notebook.set_label(feature, text.strip())
                self.screen.show_features()
                then()

        before = self.screen.labels.get(feature, "")
        hint = "enter: keep, for every session with this SAE · empty: no label · escape: leave"
        self.screen.app.push_screen(AskText(f"Label of feature {feature}", before, "what it means to you", hint), keep)

    def ask_note(self, feature: int, then: Callable[[], object]) -> None:
        """What the user thinks of it."""

        def keep(text: str | None) -> None:
            if text is not None:
                self.screen.notebook.set_note(feature, text.strip())
                then()

        self.screen.app.push_screen(AskNote(f"Note on feature {feature}", self.note(feature)), keep)

    def import_explanations(self) -> None:
        """What others say about this SAE's features, out of an export of Neuronpedia."""

        def read(path: str | None) -> None:
            if path is not None:
                self.screen.notebook.import_explanations(paths.typed(path))

        def check(path: str) -> str:
            there = path.strip() and not paths.problem(path) and paths.typed(path).exists()
            return "" if there else paths.problem(path) or "There is no such file or folder."

        hint = "a .jsonl or .jsonl.gz file, or the folder of them, with lines of index and description"
        self.screen.app.push_screen(AskText("Import explanations", "", "path", hint, check), read)

    def copy(self, feature: int) -> None:
        """Its address where it has one, else its number."""
        text = self.address(feature) or str(feature)
        self.screen.app.copy_to_clipboard(text)
        self.screen.notify(f"Copied: {text}")
