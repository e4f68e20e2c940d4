"""Generating texts: start, change of edits while a text runs, stop, branch; and scoring of the tracked answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from engine.records import AnswersScored, Edit, Event, Generate, Generated, ScoreAnswers, TokenStep
from engine.records.errors import SaescopeError
from engine.serving.client import RequestCancelled
from tui.services.autosave import Autosave
from tui.services.desk import Desk
from tui.services.tasks import Tasks
from tui.state.texts import Pair, rewound

TOO_EARLY = "The text has no new token yet: w acts once there is one."


class Rewind(NamedTuple):
    """Where to generate a text again from."""

    at: int
    """The index of the first generated token that is replaced."""
    pair: Pair


class LiveText:
    """The running text; at most one runs at a time."""

    def __init__(self, desk: Desk, tasks: Tasks, autosave: Autosave) -> None:
        self.desk, self.tasks, self.autosave = desk, tasks, autosave
        self._generation: int | None = None
        """The id of the running request, once it is sent."""
        self._text = 0
        """The number of the running text: tokens of an earlier one that still arrive are not shown."""
        self._arrived = False
        """Whether the running text has a generated token yet."""
        self._stopping = False
        self._next: Callable[[Generated], None] | None = None
        """Starts the next text once the running one has ended and is kept."""

    def request(self, variants: tuple[tuple[Edit, ...], ...] = ()) -> Generate:
        """Return the request for the question under the edits that are on, with the study's settings."""
        study = self.desk.study
        work = study.work
        return Generate(study.question(), study.edits.on(), work.sampling, work.prefill, work.samples, variants)

    def generate(self, variants: tuple[tuple[Edit, ...], ...] = ()) -> None:
        """Generate from the question under the edits that are on and, in the same batch, under each of `variants`.

        A running text is stopped and kept first.
        """
        if not self.tasks.may_ask():
            return
        if not self.desk.study.work.question.strip():
            self.desk.notify("Type a question first.")
            self.desk.ask_for_question()
            return
        if not self._after_this(lambda ended: self._start(self.request(variants))):
            self._start(self.request(variants))

    def _start(self, request: Generate, kept: Generated | None = None) -> None:
        """Run a request in place of the running text; a branch continues the text `kept`."""
        study, pane = self.desk.study, self.desk.generation
        self._text += 1
        number, self._generation = self._text, None
        self._arrived, self._stopping, self._next = False, False, None
        edits = study.edits.on()
        pane.start(request, kept)

        def on_sent(request_id: int) -> None:
            self._generation = request_id
            if study.edits.on() != edits:  # toggled while the model was still being loaded
                self.tasks.bridge.set_edits(request_id, study.edits.on())

        def on_events(events: Sequence[Event]) -> None:
            steps = [event for event in events if isinstance(event, TokenStep)]
            if number == self._text and steps:
                self._arrived = True
                pane.add(steps)

        async def task() -> None:
            try:
                result = await self.tasks.ask(request, Generated, on_events, on_sent)
            except RequestCancelled:
                pane.stop("stopped; g runs it again")
                self.score_answers()
                return
            except SaescopeError:
                pane.stop("broken off" if self.tasks.bridge.alive else "the engine was lost; E restarts it, then g")
                raise
            self._generation = None
            self.autosave.keep_result(result)
            self.desk.show_generated(result)
            if result.fault:
                self.desk.report(result.fault, "The text is kept up to there.")
            begin, self._next = self._next, None
            if begin is not None:
                begin(result)
            else:
                self.score_answers()

        self.tasks.run("generate", task)

    # ---- while it runs

    def stop_text(self) -> bool:
        """End the running text at its next token, so that it is kept; return whether that had an effect.

        A text without a token cannot be ended so. One that is ending already is not stopped twice, but a text that
        was to start after it is called off.
        """
        if not self.desk.generation.running or self._generation is None or not self._arrived:
            return False
        if self._stopping:
            called_off, self._next = self._next is not None, None
            return called_off
        self._stopping = True
        self.tasks.bridge.stop(self._generation)
        return True

    def _after_this(self, begin: Callable[[Generated], None]) -> bool:
        """Stop the running text and call `begin` once it is kept; return False if there is nothing to keep."""
        if not self.stop_text() and not (self.desk.generation.running and self._stopping):
            return False  # a text that is stopping already is kept too
        self._next = begin
        return True

    def edits_changed(self) -> None:
        """Apply changed edits to the running text, or restart it if the user chose that; score the answers again."""
        study, pane = self.desk.study, self.desk.generation
        if pane.running and study.work.restart:
            self.generate()
            return
        if pane.running and self._generation is not None:
            self.tasks.bridge.set_edits(self._generation, study.edits.on())
            pane.change_edits(study.edits.on())
        self.score_answers()

    # ---- branches

    def rewind(self) -> None:
        """Keep the text before the cursor and generate the rest again under the edits that are on."""
        arms = self.desk.generation.arms
        at, running = arms.cursor(), self.desk.generation.running
        if at is None:
            self.desk.notify(TOO_EARLY if running else "No text to rewind yet: g generates one.")
            return
        rewind = Rewind(at, arms.pair)
        if running:
            if not self._after_this(lambda ended: self._branch(ended, rewind)):
                self.desk.notify(TOO_EARLY)
        elif arms.result is None:
            self.desk.notify("This text was not kept: g generates it again.")
        elif self.tasks.may_ask():
            self._branch(arms.result, rewind)

    def _branch(self, text: Generated, rewind: Rewind) -> None:
        study = self.desk.study
        max_tokens = study.work.sampling.max_tokens
        self._start(rewound(text, rewind.at, study.edits.on(), max_tokens, rewind.pair), text)

    # ---- answers

    def score_answers(self) -> None:
        """Score the tracked answers if the question is a probe with answers, and show their bars.

        A running text goes first: until it ends the bars are marked as out of date.
        """
        study, pane = self.desk.study, self.desk.generation
        probe = study.probe_of_question()
        if not self.tasks.ready or probe is None or not probe.answers:
            pane.arms.show_answers(None)
            return
        if pane.running:
            pane.arms.dim_answers()
            return

        async def task() -> None:
            edits = study.edits.on()
            scored = await self.tasks.ask(ScoreAnswers(probe, edits), AnswersScored)
            if study.probe_of_question() == probe and study.edits.on() == edits:
                pane.arms.show_answers(scored)

        self.tasks.run("score", task)
