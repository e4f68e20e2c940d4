"""Texts: generated, branched off, under other edits while they run, stopped; and the tracked answers' bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from engine.client import RequestCancelled
from engine.errors import SaescopeError
from engine.records import AnswersScored, Edit, Event, Generate, Generated, ScoreAnswers, TokenStep
from tui.branches import rewound
from tui.bridge import Bridge
from tui.pairs import Pair
from tui.tasks import Tasks

if TYPE_CHECKING:
    from tui.main_screen import MainScreen


class Rewind(NamedTuple):
    """Where a text is to be generated anew from."""

    at: int
    """The generated token."""
    pair: Pair


class Generating(Tasks):
    """What is asked of the engine about texts."""

    def __init__(self, screen: MainScreen, bridge: Bridge) -> None:
        super().__init__(screen, bridge)
        self._generation: int | None = None
        """The id of the running generation."""
        self._text = 0
        """Numbers the texts: tokens of one that was started anew are not shown."""
        self._arrived = False
        """Whether the running text has a token of its own."""
        self._stopping = False
        self._rewind: Rewind | None = None
        """What to do once the running text has ended."""

    def request(self, variants: tuple[tuple[Edit, ...], ...] = ()) -> Generate:
        """What the question, the edits that are on and the settings ask for."""
        study = self.screen.study
        work = study.work
        return Generate(study.question(), study.edits(), work.sampling, work.prefill, work.samples, variants)

    def generate(self, variants: tuple[tuple[Edit, ...], ...] = ()) -> None:
        """Generates anew from the question, with the edits that are on, and with other ones beside them."""
        if not self.may_ask():
            return
        if not self.screen.study.work.question.strip():
            self.screen.notify("Type a question first.")
            self.screen.generation.question.focus()
            return
        self._start(self.request(variants))

    def _start(self, request: Generate, kept: Generated | None = None) -> None:
        """Runs it in place of the text that runs; a branch goes on from a kept text."""
        study, pane = self.screen.study, self.screen.generation
        self._text += 1
        number, self._generation = self._text, None
        self._arrived, self._stopping, self._rewind = False, False, None
        wanted = study.edits()
        pane.start(request, kept)

        def on_sent(request_id: int) -> None:
            self._generation = request_id
            if study.edits() != wanted:  # toggled while the model was still being loaded
                self.bridge.set_edits(request_id, study.edits())

        def on_events(events: Sequence[Event]) -> None:
            steps = [event for event in events if isinstance(event, TokenStep)]
            if number == self._text and steps:
                self._arrived = True
                pane.add(steps)

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
            self._generation = None
            self.screen.keep_result(result)
            self.screen.show_generated(result)
            rewind, self._rewind = self._rewind, None
            if rewind is not None:
                self._branch(result, rewind)
            else:
                self.score_answers()

        self.run("generate", task)

    # ---- while it runs

    def stop_text(self) -> bool:
        """Ends the running text at its next token, so that it is kept; False where it has none yet, or was told to."""
        if not self.screen.generation.running or self._generation is None or not self._arrived or self._stopping:
            return False
        self._stopping = True
        self.bridge.stop(self._generation)
        return True

    def edits_changed(self) -> None:
        """Applies a toggled edit to the running text, or starts it anew; else the text is marked as out of date."""
        study, pane = self.screen.study, self.screen.generation
        if pane.running and study.work.restart:
            self.generate()
            return
        if pane.running and self._generation is not None:
            self.bridge.set_edits(self._generation, study.edits())
            pane.change_edits(study.edits())
        self.score_answers()

    # ---- branches

    def rewind(self) -> None:
        """Keeps the text before the cursor, and generates the rest anew under the edits that are on."""
        arms = self.screen.generation.arms
        at = arms.cursor()
        if at is None:
            self.screen.notify("No text to rewind yet: g generates one.")
        elif self.screen.generation.running:
            if self.stop_text() or self._stopping:
                self._rewind = Rewind(at, arms.pair)
        elif arms.result is None:
            self.screen.notify("This text was not kept: g generates it again.")
        elif self.may_ask():
            self._branch(arms.result, Rewind(at, arms.pair))

    def _branch(self, found: Generated, rewind: Rewind) -> None:
        self._start(rewound(found, rewind.at, self.screen.study.edits(), rewind.pair), found)

    # ---- answers

    def score_answers(self) -> None:
        """The tracked answers' bars, where the question is a probe that tracks some.

        A running text goes first: until it ends the bars are marked as out of date.
        """
        study, pane = self.screen.study, self.screen.generation
        probe = study.probe_of_question()
        if not self.ready or probe is None or not probe.answers:
            pane.arms.show_answers(None)
            return
        if pane.running:
            pane.arms.dim_answers()
            return

        async def task() -> None:
            scored = await self.ask(ScoreAnswers(probe, study.edits()), AnswersScored)
            pane.arms.show_answers(scored)

        self.run("score", task)
