"""The generation pane: the question, baseline and edited text side by side as they stream, and figures on them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, Static

from engine.files.session import Workspace
from engine.records import Edit, Generate, Generated, TokenStep
from engine.records.edits import EDIT_KINDS
from engine.records.words.rich_text import Text
from engine.records.words.texts import limits_in_words
from tui.panes.text_pair import Arms
from tui.services.context import Context
from tui.state.effects import strings_in_words
from tui.state.texts import FIRST, Pair, kl_kept, positions_of, prompt_of, schedule_of, staleness
from tui.widgets.fields import LineField, from_a_field, in_a_field


class GenerationPane(Vertical):
    """Pane 4: the question, two arms and a line of figures. `add` appends tokens, `show` shows a finished result."""

    DEFAULT_CSS = """
    GenerationPane {
        & #question-row { height: 1; }
        & #question-mark { width: 2; color: $accent; text-style: bold; }
        & #question { width: 1fr; padding: 0; }
        & #figures { height: 1; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,a", "ask", "Ask", key_display="enter", id="generation.ask", tooltip="Type a question"),
        Binding("comma", "settings", "Settings", key_display=",", id="generation.settings",
                tooltip="Chat or raw, how tokens are sampled, how many, stop strings, prefill, samples"),
        Binding("w", "rewind", "Rewind", id="generation.rewind",
                tooltip="Keep the tokens before the cursor, go on from there under the edits as they are now"),
        Binding("b", "branches", "Branches", id="generation.branches",
                tooltip="The kept texts of this question: show one, or put it beside the edited text"),
        Binding("B", "beside", "Beside", show=False, id="generation.beside",
                tooltip="Between the baseline and the kept text that was put beside"),
        Binding("left_square_bracket", "turn(-1)", "Before", show=False, key_display="[", id="generation.before",
                tooltip="The sample or variant before"),
        Binding("right_square_bracket", "turn(1)", "Next", show=False, key_display="]", id="generation.next",
                tooltip="The next sample or variant"),
        Binding("t", "mode", "Mode", show=False, id="generation.mode",
                tooltip="Whether a toggled edit acts on the next token or restarts the text"),
    ]  # fmt: skip
    HELP = """\
Both texts come from one batch, token by token; the edits on the left act on the right one. A toggled edit acts on the
next token of the running text, or restarts it: the line below says which, t changes it. Tokens that differ are marked;
where edits changed on the way, the tokens that follow have another background. Arrows or the mouse move the cursor
through the edited text; w keeps what stands before it, and generates the rest anew under the edits as they are now. No
text is lost by that, nor by g: b lists them all. w goes as far as the settings say now, all else is as the text was
asked: to go on with one that came to its limit, raise "tokens at most" and press w at its end. x ends a running text at
its next token, and keeps it. KL compares both arms on the baseline's tokens. Bars: probability of the tracked answers
after the probe's prefill. No edit shows by itself that the behaviour is gone: ask other questions too (v: all
probes)."""

    def __init__(self, context: Context, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.context = context
        self._kl: list[float] = []
        self._started = 0.0
        self._kept = 0
        self._speed = 0.0
        self._running = False
        self._note = self._stale = ""
        self._was_beside: Generated | None = None
        """The kept text that was last shown in the baseline's place."""

    def compose(self) -> ComposeResult:
        with Horizontal(id="question-row"):
            yield Static("›", id="question-mark")
            yield LineField(id="question", placeholder="Ask the model something; enter generates")
        yield Arms()
        yield Static(id="figures", markup=False)

    def on_mount(self) -> None:
        self.border_title = "4 Generate"

    @property
    def question(self) -> Input:
        return self.query_one("#question", Input)

    @property
    def arms(self) -> Arms:
        """The columns of text."""
        return self.query_one(Arms)

    def take_focus(self) -> None:
        """Focus the edited text: letters act as keys until enter opens the question."""
        self.screen.set_focus(self.arms.views[1].text)

    # ---- settings and question

    def redraw(self) -> None:
        """Show the study's question and its settings."""
        work = self.context.study.work
        question = in_a_field(work.question)
        if self.question.value != question:
            with self.prevent(Input.Changed):
                self.question.value = question
        self.border_subtitle = Text(settings_in_words(work))

    # ---- the running text

    @property
    def running(self) -> bool:
        """Whether a text is streaming."""
        return self._running

    def start(self, request: Generate, kept: Generated | None = None) -> None:
        """Start to show a new text; a branch starts with the tokens that it keeps of `kept`."""
        self._kl, self._speed = kl_kept(kept, request, self.arms.pair), 0.0
        self._started, self._running, self._note, self._stale = time.monotonic(), True, "", ""
        self.arms.start(request, kept)
        self._kept = self.arms.steps
        self._show_figures()

    def change_edits(self, edits: tuple[Edit, ...]) -> None:
        """Show that other edits apply from the next token on."""
        self.arms.change_edits(edits)
        self._show_figures()

    def add(self, steps: Sequence[TokenStep]) -> None:
        """Append tokens that have arrived."""
        if not steps:
            return
        self.arms.add(steps)
        self._kl += [step.kl for step in steps if step.kl is not None]
        seconds = time.monotonic() - self._started
        self._speed = (self.arms.steps - self._kept) / seconds if seconds > 0 else 0.0
        self._show_figures()

    def show(self, result: Generated, note: str = "", pair: Pair | None = None) -> None:
        """Show a finished text."""
        self._running, self._note = False, note
        self._kl, self._speed = list(result.kl), result.tokens_per_second
        self.arms.show(result, pair)
        self._show_figures()

    def stop(self, note: str) -> None:
        """End the running text where it is, and show why in `note`."""
        self._running, self._note = False, note
        self._show_figures()

    def clear(self) -> None:
        """Return to the empty state."""
        self._kl, self._speed = [], 0.0
        self._running, self._note, self._stale = False, "", ""
        self.arms.clear()
        self.arms.show_answers(None)
        self._show_figures()

    def show_staleness(self) -> None:
        """Show whether edits, question or settings have changed since the text was generated."""
        shown = self.arms.result
        if not self._running and shown is not None:
            self._stale = staleness(shown, self.context.text.request())
            self._show_figures()

    def put_beside(self, text: Generated | None) -> None:
        """Show a kept text in the baseline's place; None shows the baseline again."""
        self._was_beside = text or self._was_beside
        self.arms.put_beside(text)
        self._show_figures()

    def _show_figures(self) -> None:
        arms = self.arms
        parts = []
        if arms.steps:
            same = "same so far" if self._running else "same text"
            parts.append(same if arms.apart is None else f"differs from token {arms.apart + 1}")
        parts += self._ending()
        if self._kl and arms.pair == FIRST and arms.beside is None:
            parts.append(f"KL {sum(self._kl) / len(self._kl):.3f} nats a token")
        if arms.num_pairs > 1:
            parts.insert(0, f"{arms.page + 1} of {arms.num_pairs}, [ ] turn")
        if self._running:
            parts.insert(0, f"● token {arms.steps}, x stops")
        elif self._stale:
            parts.insert(0, self._stale)
        if self._speed:
            parts.append(f"{self._speed:.0f} tokens/s")
        self.query_one("#figures", Static).update(Text(" · ".join(parts)), layout=False)

    def _ending(self) -> list[str]:
        """Say how a text ended, and at how many positions its edits did nothing."""
        result, pair = self.arms.result, self.arms.pair
        if result is None:
            return [self._note] if self._note else []
        parts = [f"stopped at token {self.arms.steps}"] * result.stopped + ["ended early"] * bool(result.fault)
        positions, silent = positions_of(result, pair.edited)
        edited = [edit for change in schedule_of(result, pair) for edit in change.edits]
        if edited and positions and silent == positions:
            fire_nowhere = all(EDIT_KINDS[edit.kind].only_where_it_fires for edit in edited)
            silent_everywhere = "the edited features were silent everywhere: nothing was changed"
            parts.append(silent_everywhere if fire_nowhere else "the edits changed nothing")
        elif edited and not self._note:
            parts.append(f"edit silent at {silent} of {positions} positions")
        return parts + [self._note] * bool(self._note) + [f"⚠ {warning}" for warning in result.warnings]

    # ---- what the user does

    @on(Input.Changed, "#question")
    def tell_question(self, event: Input.Changed) -> None:
        """Keep the question that is being typed, and score its answers."""
        event.stop()
        self.context.study.set_question(from_a_field(event.value))
        self.context.text.score_answers()

    @on(Input.Submitted, "#question")
    def tell_asked(self, event: Input.Submitted) -> None:
        """Generate, and leave the field, so that keys can toggle edits while text streams."""
        event.stop()
        self.take_focus()
        self.context.study.set_question(from_a_field(event.value))
        self.context.text.generate()

    def key_escape(self) -> None:
        """Leave the question's field."""
        if self.question.has_focus:
            self.take_focus()

    def action_ask(self) -> None:
        self.screen.set_focus(self.question)

    def action_settings(self) -> None:
        from tui.commands import texts

        texts.change_settings(self.context)

    def action_rewind(self) -> None:
        self.context.text.rewind()

    def action_branches(self) -> None:
        from tui.commands import texts

        texts.show_branches(self.context)

    def action_beside(self) -> None:
        """Switch between the baseline and the kept text in its place."""
        study, kept = self.context.study, self._was_beside
        if self.arms.beside is not None:
            self.put_beside(None)
        elif kept is not None and kept in study.results.of(Generated) and prompt_of(kept) == study.question():
            self.put_beside(kept)
        else:
            self.notify("b lists the kept texts of this question; there space puts one beside.")

    def action_turn(self, step: int) -> None:
        """Show the next or previous sample or variant."""
        if self.arms.num_pairs > 1:
            self.arms.turn(step)
            self._show_figures()
        else:
            self.notify("Only one text: , asks for several samples, T tries other strengths.")

    def action_mode(self) -> None:
        self.context.study.switch_restart()


def settings_in_words(work: Workspace) -> str:
    """Describe how the question is asked: the main settings, and others that differ from their defaults."""
    now = work.sampling
    parts = [f"sampled at {now.temperature:g}, seed {now.seed}" if now.temperature else "greedy"]
    parts += limits_in_words(now) if now.temperature else []
    parts += [f"{work.samples} samples"] * (work.samples > 1)
    parts += [f"{now.max_tokens} tokens", "raw" if work.raw else "chat"]
    parts += [f"stops at {strings_in_words(now.stop)}"] * bool(now.stop)
    parts += [f"prefill {strings_in_words((work.prefill,))}"] * bool(work.prefill)
    parts.append(f"a toggle {'restarts the text' if work.restart else 'acts on the next token'}")
    return " · ".join(parts)
