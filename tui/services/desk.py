"""Protocols of the main screen and its text pane, as services and commands use them without importing them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from textual.screen import Screen
from textual.widget import Widget

from engine.records import (
    AnswersScored,
    Diagnosis,
    Edit,
    Generate,
    Generated,
    MemoryLeft,
    Shown,
    TokenFeatures,
    TokenStep,
)
from tui.state.prompts import Group
from tui.state.study import Study
from tui.state.texts import Pair

T = TypeVar("T")


class TextColumns(Protocol):
    """The columns of text in pane 4."""

    @property
    def result(self) -> Generated | None:
        """The finished text that is shown, if any."""

    @property
    def beside(self) -> Generated | None:
        """The kept text that is shown in the baseline's place, if any."""

    @property
    def pair(self) -> Pair:
        """The baseline and the edited text that are shown."""

    def cursor(self) -> int | None:
        """Return the index of the generated token under the cursor; None if there is none."""

    def show_answers(self, scored: AnswersScored | None) -> None:
        """Show the bars of the tracked answers; None removes them."""

    def dim_answers(self) -> None:
        """Mark the bars as out of date."""


class TextPane(Protocol):
    """Pane 4, as LiveText uses it."""

    @property
    def running(self) -> bool:
        """Whether a text is streaming."""

    @property
    def arms(self) -> TextColumns:
        """The columns of text."""

    def start(self, request: Generate, kept: Generated | None = None) -> None:
        """Start to show a new text; a branch starts with the tokens that it keeps of `kept`."""

    def change_edits(self, edits: tuple[Edit, ...]) -> None:
        """Show that other edits apply from the next token on."""

    def add(self, steps: Sequence[TokenStep]) -> None:
        """Append tokens that have arrived."""

    def stop(self, note: str) -> None:
        """End the running text where it is, and show why in `note`."""


class Desk(Protocol):
    """The main screen: what the user is working on, and where things are shown."""

    study: Study

    def work_on(self, study: Study) -> None:
        """Work on another study: show its changes from now on."""

    # ---- notifications, pages, background tasks

    def notify(self, message: str) -> None:
        """Show a notification."""

    def report(self, message: str, remedy: str) -> None:
        """Notify of an error: what went wrong and what to do."""

    def forget_notes(self) -> None:
        """Remove all notifications from the screen."""

    @property
    def messages(self) -> list[str]:
        """All notifications so far, oldest first."""

    def open(self, page: Screen[T], then: Callable[[T | None], None] | None = None) -> None:
        """Open a page or a dialog; `then` gets its result."""

    def copy(self, text: str) -> None:
        """Copy `text` to the clipboard."""

    def run_behind(self, task: Callable[[], Awaitable[None]], group: str, exclusive: bool = False) -> None:
        """Run a task in the app's loop; an exclusive one replaces the running task of its group."""

    @property
    def is_running(self) -> bool:
        """Whether the app is still running."""

    @property
    def is_undisturbed(self) -> bool:
        """Whether a page may open: the user is not typing, and no page covers the main screen."""

    # ---- panes

    @property
    def generation(self) -> TextPane:
        """The generation pane, pane 4."""

    def pane_at_hand(self) -> str:
        """Return the id of the pane that has the focus; "" if none has."""

    def action_pane(self, name: str) -> None:
        """Focus a pane; where only one pane is shown, show this one."""

    def bring(self, name: str) -> None:
        """Show and focus a pane where only one is shown."""

    def ask_for_question(self) -> None:
        """Focus the question's field."""

    def commit_typing(self) -> None:
        """Keep what the user is still typing over a prompt."""

    def probe_at_hand(self) -> int | None:
        """Return the index of the probe under the focused prompts pane's cursor; None if there is none."""

    def go_to_prompt(self, group: Group, index: int) -> None:
        """Move the prompts pane's cursor to a prompt."""

    def go_to_feature(self, feature: int) -> bool:
        """Move the leaderboard's cursor to a feature; return False if it has no row."""

    def ranked_features(self) -> list[int]:
        """Return the leaderboard's features, top down."""

    # ---- showing results and the state of the engine

    def show_tokens(self, shown: Shown) -> None:
        """Show a feature's activations on the prompts."""

    def show_token_features(self, features: TokenFeatures) -> None:
        """Show the features of the token under the cursor."""

    def show_generated(self, result: Generated) -> None:
        """Show a finished generation."""

    def show_kept(self, text: Generated) -> None:
        """Show a kept text that the user has chosen."""

    def put_beside(self, text: Generated) -> None:
        """Show a kept text in the baseline's place."""

    def show_engine(self, words: str) -> None:
        """Show in the header what the engine is doing; "" means ready."""

    def show_no_load(self) -> None:
        """Show that a load failed or was stopped: the pair of before, if any, is still loaded."""

    def show_loaded(self) -> None:
        """Show the pair that was loaded, and all that depends on it."""

    @property
    def memory(self) -> MemoryLeft | None:
        """Memory left on the model's device, as last reported."""

    @property
    def diagnosis(self) -> Diagnosis | None:
        """The doctor's diagnosis of the loaded pair; None until there is one."""

    def show_diagnosis(self, diagnosis: Diagnosis) -> None:
        """Show in the second line whether the SAE is wired right."""

    def pane_types(self) -> tuple[tuple[str, type[Widget]], ...]:
        """Return (name, class) of each pane, as help lists them."""
