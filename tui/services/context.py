"""What the app starts with, and the context that its commands work in: study, services and main screen as a Desk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.records import Attribution, Load, Ranking
from engine.records.words.features import tokens_in_words
from tui.services.autosave import Autosave
from tui.services.bridge import Bridge
from tui.services.described import KnownFeatures
from tui.services.desk import Desk
from tui.services.live_text import LiveText
from tui.services.notebook import Notebook
from tui.services.tasks import Tasks
from tui.state.effects import Choice
from tui.state.study import Study

if TYPE_CHECKING:
    from engine.files.autosave import AutosaveStore
    from engine.serving.client import LiveEngine


@dataclass(frozen=True)
class Opening:
    """The first study, and functions that import and make the engine and the store, called after the first paint."""

    study: Study
    make_engine: Callable[[], LiveEngine]
    make_store: Callable[[], AutosaveStore]
    offer_last: bool = False
    """Whether to offer the last session, since the command line names nothing to open."""


class Context:
    """The services, and questions that several of them answer together."""

    def __init__(self, desk: Desk, bridge: Bridge, make_store: Callable[[], AutosaveStore]) -> None:
        self.desk, self.bridge = desk, bridge
        self.tasks = Tasks(desk, bridge)
        self.notebook = Notebook(desk)
        self.autosave = Autosave(desk, make_store)
        self.text = LiveText(desk, self.tasks, self.autosave)
        self.known = KnownFeatures(desk, self.tasks)
        self.load_tried: Load | None = None
        """The last entries of the model chooser, which proposes them again, so that a wrong one can be corrected."""
        self.choice: Choice | None = None
        """The last choice of a measure, which is offered again."""
        self.wanted: int | None = None
        """A feature whose row the leaderboard's cursor goes to once there is one."""
        self._tokens: dict[int, tuple[str, ...]] = {}
        """The tokens that features fire on most."""
        self._tokens_from: tuple[Ranking | None, Attribution | None] = (None, None)
        """The ranking and attribution that `_tokens` is from."""

    @property
    def study(self) -> Study:
        """The study that the user works on."""
        return self.desk.study

    # ---- names of features

    @property
    def labels(self) -> dict[int, str]:
        """The user's own labels of features: this session's, and those of other sessions with the same SAE."""
        return self.notebook.labels | self.study.work.labels

    def tokens_of(self, feature: int) -> tuple[str, ...]:
        """Return the tokens a feature fires on most; () where neither ranking nor attribution has it."""
        ranking, attribution = self.study.ranking(), self.study.attribution()
        if self._tokens_from[0] is not ranking or self._tokens_from[1] is not attribution:
            self._tokens_from = ranking, attribution
            self._tokens = {row.feature: row.tokens for row in attribution.features} if attribution else {}
            self._tokens |= {row.feature: row.tokens for row in ranking.features} if ranking else {}
        return self._tokens.get(feature, ())

    def name_of(self, feature: int) -> str:
        """Return a feature's label, else the tokens it fires on most."""
        label = self.study.work.labels.get(feature) or self.notebook.labels.get(feature)
        return label or tokens_in_words(self.tokens_of(feature))
