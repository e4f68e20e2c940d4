"""What services and commands ask of the main screen, so that they need not know it."""

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
    """The texts of pane 4."""

    @property
    def result(self) -> Generated | None:
        """The finished text that is shown."""

    @property
    def beside(self) -> Generated | None:
        """The kept text in the baseline's place."""

    @property
    def pair(self) -> Pair:
        """The baseline and the edited text that are shown."""

    def cursor(self) -> int | None:
        """The generated token under the cursor."""

    def show_answers(self, scored: AnswersScored | None) -> None:
        """The tracked answers' bars; None takes them away."""

    def dim_answers(self) -> None:
        """Marks the bars as out of date."""


class TextPane(Protocol):
    """Pane 4, as far as a running text needs it."""

    @property
    def running(self) -> bool:
        """Whether a text is streaming."""

    @property
    def arms(self) -> TextColumns:
        """The texts."""

    def start(self, request: Generate, kept: Generated | None = None) -> None:
        """A new text begins; a branch with what it keeps of another."""

    def change_edits(self, edits: tuple[Edit, ...]) -> None:
        """Other edits rule from the next token on."""

    def add(self, steps: Sequence[TokenStep]) -> None:
        """Shows tokens that have come."""

    def stop(self, note: str) -> None:
        """The text ends where it is."""


class Desk(Protocol):
    """The main screen: what the user is at, and where things are shown."""

    study: Study

    def work_on(self, study: Study) -> None:
        """Hears from now on what another study tells."""

    # ---- saying, opening, working behind the screen

    def notify(self, message: str) -> None:
        """Says something in passing."""

    def report(self, message: str, remedy: str) -> None:
        """Says what went wrong and what to do."""

    def forget_notes(self) -> None:
        """Takes what was said off the screen."""

    @property
    def messages(self) -> list[str]:
        """What was said, oldest first."""

    def open(self, page: Screen[T], then: Callable[[T | None], None] | None = None) -> None:
        """Opens a page or a dialog; `then` gets what it comes to."""

    def copy(self, text: str) -> None:
        """Puts a text on the clipboard."""

    def run_behind(self, task: Callable[[], Awaitable[None]], group: str, exclusive: bool = False) -> None:
        """Runs a task in the app's loop; an exclusive one takes the place of the one of its group."""

    @property
    def is_running(self) -> bool:
        """Whether the app has not ended."""

    @property
    def is_undisturbed(self) -> bool:
        """Nobody types and no page lies over the main screen: a page may open."""

    # ---- panes

    @property
    def generation(self) -> TextPane:
        """Pane 4."""

    def pane_at_hand(self) -> str:
        """The pane that has the focus; "" where none has."""

    def action_pane(self, name: str) -> None:
        """Focuses a pane, and shows it where only one is shown."""

    def bring(self, name: str) -> None:
        """Focuses a pane where only one is shown."""

    def ask_for_question(self) -> None:
        """Opens the question."""

    def commit_typing(self) -> None:
        """What is being typed over a prompt counts as typed."""

    def probe_at_hand(self) -> int | None:
        """The probe under the cursor of the prompts pane, where that has the focus."""

    def go_to_prompt(self, group: Group, index: int) -> None:
        """Moves the cursor of the prompts pane."""

    def go_to_feature(self, feature: int) -> bool:
        """Moves the leaderboard's cursor; False where the feature has no row."""

    def ranked_features(self) -> list[int]:
        """The leaderboard's features, top down."""

    # ---- showing what the engine found

    def show_tokens(self, shown: Shown) -> None:
        """A feature's activations."""

    def show_token_features(self, found: TokenFeatures) -> None:
        """The features of the token under the cursor."""

    def show_generated(self, result: Generated) -> None:
        """A finished generation."""

    def show_kept(self, found: Generated) -> None:
        """One of the kept texts."""

    def put_beside(self, found: Generated) -> None:
        """A kept text in the baseline's place."""

    def show_engine(self, words: str) -> None:
        """What the engine is at; "" is ready."""

    def show_no_load(self) -> None:
        """A load failed or was stopped: what was loaded before still is."""

    def show_loaded(self) -> None:
        """A model was loaded."""

    @property
    def memory(self) -> MemoryLeft | None:
        """Memory of the model's device, as last heard."""

    @property
    def diagnosis(self) -> Diagnosis | None:
        """What the doctor said of the pair that is loaded."""

    def show_diagnosis(self, diagnosis: Diagnosis) -> None:
        """Whether the SAE is wired right, in the header."""

    def pane_types(self) -> tuple[tuple[str, type[Widget]], ...]:
        """(name, class) of each pane, as help lists them."""
