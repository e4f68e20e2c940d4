"""Generation: baseline and edited text side by side as they stream, and what the edit did to them."""

from __future__ import annotations

import difflib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Input, Static

from engine.records import AnswersScored, Generated, Sampling, TokenStep
from tui.panes.arm import ArmView, passage, without_end
from tui.token_text import DIFFERS


class GenerationPane(Vertical):
    """A question, two arms, a line of figures. Tokens come through `add`, the finished result through `show`."""

    DEFAULT_CSS = """
    GenerationPane {
        & #question-row { height: 1; }
        & #question-mark { width: 2; color: $accent; text-style: bold; }
        & #question { width: 1fr; padding: 0; }
        & #arms { height: 1fr; }
        & #arm-baseline { border-right: solid $panel; }
        & #figures { height: 1; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,a", "ask", "Ask", key_display="enter", id="generation.ask", tooltip="Type a question"),
        Binding("comma", "settings", "Settings", key_display=",", id="generation.settings",
                tooltip="Chat or raw, greedy or sampled, how many tokens"),
        Binding("t", "mode", "Mode", show=False, id="generation.mode",
                tooltip="Whether a toggled edit acts on the next token or restarts the text"),
    ]  # fmt: skip
    HELP = """\
Both texts come from one batch, token by token; the edits on the left act on the right one. A toggled edit acts on the
next token of the running text, or restarts it: the line below says which, t changes it. Tokens that differ are marked.
KL compares both arms on the baseline's tokens. Bars: probability of the tracked answers after the probe's prefill. No
edit shows by itself that the behaviour is gone: ask other questions too (v: all probes)."""

    @dataclass
    class Asked(Message):
        """Enter in the question: generate."""

        text: str

    @dataclass
    class QuestionChanged(Message):
        """The question was typed over."""

        text: str

    @dataclass
    class SettingsWanted(Message):
        """The settings are to be changed."""

    @dataclass
    class ModeWanted(Message):
        """A toggle is to act the other way."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._texts: tuple[list[str], list[str]] = ([], [])
        self._kl: list[float] = []
        self._started = 0.0
        self._seconds = 0.0
        self._steps = 0
        self._switches: list[int] = []
        self._first_divergence: int | None = None
        self._running = False
        self._settings = ""
        self._note = self._stale = ""
        self._scored: AnswersScored | None = None

    def compose(self) -> ComposeResult:
        """Question, arms, figures."""
        with Horizontal(id="question-row"):
            yield Static("›", id="question-mark")
            yield Input(id="question", placeholder="Ask the model something; enter generates")
        with Horizontal(id="arms"):
            yield ArmView("baseline", "g generates: the model as it is …", id="arm-baseline")
            yield ArmView("edited", "… and with the edits that are switched on.", id="arm-edited")
        yield Static(id="figures", markup=False)

    def on_mount(self) -> None:
        """The title."""
        self.border_title = "4 Generate"

    @property
    def question(self) -> Input:
        """Where the question is typed."""
        return self.query_one("#question", Input)

    def take_focus(self) -> None:
        """Focuses the edited text: letters stay keys until enter opens the question."""
        self.screen.set_focus(self.query_one("#arm-edited", ArmView).text)

    @property
    def _arms(self) -> tuple[ArmView, ArmView]:
        return self.query_one("#arm-baseline", ArmView), self.query_one("#arm-edited", ArmView)

    # ---- settings and question

    def show_settings(self, question: str, raw: bool, sampling: Sampling, restart: bool) -> None:
        """The question, and how it is asked."""
        if self.question.value != question:
            with self.prevent(Input.Changed):
                self.question.value = question
        sampled = f"sampled at {sampling.temperature:g}, seed {sampling.seed}" if sampling.temperature else "greedy"
        form = "raw" if raw else "chat"
        toggles = "restarts the text" if restart else "acts on the next token"
        self._settings = f"{sampled} · {sampling.max_tokens} tokens · {form} · a toggle {toggles}"
        self.border_subtitle = self._settings

    # ---- the running text

    @property
    def running(self) -> bool:
        """Whether a text is streaming."""
        return self._running

    def start(self, edits: str) -> None:
        """A new text begins under these edits."""
        self._texts, self._kl, self._switches, self._steps = ([], []), [], [], 0
        self._started, self._running, self._note, self._stale = time.monotonic(), True, "", ""
        self._first_divergence = None
        for arm in self._arms:
            arm.text.clear()
        self.show_edits(edits)
        self._show_figures()

    def show_edits(self, edits: str) -> None:
        """What the edited arm stands for; while text streams, from which token on."""
        if self._running and self._steps:
            self._switches.append(self._steps)
        self._arms[1].show_title(f"edited: {edits}")

    def add(self, steps: Sequence[TokenStep]) -> None:
        """Tokens that have come."""
        added: tuple[list[str], list[str]] = ([], [])
        for step in steps:
            self._steps = step.index + 1
            for row, token in enumerate((step.baseline, step.edited)):
                if token is not None:
                    added[row].append(token)
            if step.kl is not None:
                self._kl.append(step.kl)
        old = tuple(len(text) for text in self._texts)
        for text, new in zip(self._texts, added, strict=True):
            text.extend(new)
        for row, arm in enumerate(self._arms):
            other = self._texts[1 - row]
            shades = [
                DIFFERS if at >= len(other) or other[at] != token else 0
                for at, token in enumerate(added[row], start=old[row])
            ]
            arm.text.append(added[row], shades)
        if self._first_divergence is None:
            pairs = enumerate(zip(*self._texts, strict=False))
            self._first_divergence = next((at for at, (a, b) in pairs if a != b), None)
        self._seconds = time.monotonic() - self._started
        self._show_figures()

    def show(self, result: Generated, edits: str, note: str = "") -> None:
        """A finished text, differing tokens aligned and marked."""
        self._running, self._note = False, note
        self._kl, self._first_divergence = list(result.kl), result.first_divergence
        self._steps = max(len(result.baseline.token_ids), len(result.edited.token_ids))
        self._seconds = self._steps / result.tokens_per_second if result.tokens_per_second else 0.0
        self._switches = [change.token_index for change in result.schedule[1:]]
        if result.edits and result.positions and result.inactive_positions == result.positions:
            self._note = "the edited features were silent everywhere: nothing was changed"
        elif result.edits:
            self._note = note or f"edit silent at {result.inactive_positions} of {result.positions} positions"
        texts = (without_end(result.baseline), without_end(result.edited))
        for arm, tokens, differs in zip(self._arms, texts, differing(*texts), strict=True):
            arm.text.show([passage(tokens, differs)] if tokens else [])
        self.show_edits(edits)
        self._show_figures()

    def stop(self, note: str) -> None:
        """The text ends where it is."""
        self._running, self._note = False, note
        self._show_figures()

    def clear(self) -> None:
        """Back to the empty state."""
        self.start("")
        self.stop("")
        self._steps = 0
        for arm, title in zip(self._arms, ("baseline", "edited"), strict=True):
            arm.show_title(title)
            arm.show_answers(())
        self._show_figures()

    def show_stale(self, words: str) -> None:
        """What has changed since the text was generated; "" if nothing has."""
        self._stale = words
        self._show_figures()

    def show_answers(self, scored: AnswersScored | None) -> None:
        """The tracked answers' bars; None takes them away."""
        self._scored = scored
        for arm, row in zip(self._arms, ("baseline", "edited"), strict=True):
            arm.show_answers([(a.name, getattr(a, row)) for a in scored.answers] if scored else ())

    def dim_answers(self) -> None:
        """The edited arm's bars belong to edits that are no longer in force."""
        if self._scored is not None:
            self._arms[1].show_answers([(a.name, a.edited) for a in self._scored.answers], stale=True)

    def _show_figures(self) -> None:
        parts = []
        if self._steps:
            at = self._first_divergence
            parts.append(
                "same so far"
                if at is None and self._running
                else "same text"
                if at is None
                else f"differs from token {at + 1}"
            )
        if self._kl:
            parts.append(f"KL {sum(self._kl) / len(self._kl):.3f} nats a token")
        if self._switches:
            parts.append("edits changed at token " + ", ".join(str(at + 1) for at in self._switches))
        if self._running:
            parts.insert(0, f"● token {self._steps}, x stops")
        if self._stale and not self._running:
            parts.insert(0, self._stale)
        if self._note:
            parts.append(self._note)
        if self._steps and self._seconds > 0:
            parts.append(f"{self._steps / self._seconds:.0f} tokens/s")
        self.query_one("#figures", Static).update(" · ".join(parts))

    # ---- what the user does

    @on(Input.Changed, "#question")
    def tell_question(self, event: Input.Changed) -> None:
        """The question was typed over."""
        event.stop()
        self.post_message(self.QuestionChanged(event.value))

    @on(Input.Submitted, "#question")
    def tell_asked(self, event: Input.Submitted) -> None:
        """Generate; letters are keys again, so that edits can be toggled while text streams."""
        event.stop()
        self.take_focus()
        self.post_message(self.Asked(event.value))

    def key_escape(self) -> None:
        """Leaves the question."""
        if self.question.has_focus:
            self.take_focus()

    def action_ask(self) -> None:
        """Opens the question."""
        self.screen.set_focus(self.question)

    def action_settings(self) -> None:
        """Opens the settings."""
        self.post_message(self.SettingsWanted())

    def action_mode(self) -> None:
        """Changes what a toggle does."""
        self.post_message(self.ModeWanted())


def differing(one: Sequence[str], other: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Per token of each text: whether it has no counterpart in the other, both aligned."""
    marks = [True] * len(one), [True] * len(other)
    for a, b, size in difflib.SequenceMatcher(None, list(one), list(other), autojunk=False).get_matching_blocks():
        for offset in range(size):
            marks[0][a + offset] = marks[1][b + offset] = False
    return marks
