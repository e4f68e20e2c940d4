"""The study: the user's prompts, edits, pins, labels and results. Pure state, without widgets or engine.

A study reports its changes to the main screen, which shows them in the panes.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from engine.files import session as sessions
from engine.files.session import Session, Workspace
from engine.records import (
    Attribution,
    Edit,
    Generated,
    Load,
    Loaded,
    Probe,
    ProbeTable,
    Prompt,
    PromptSet,
    Ranking,
    Recorded,
    Sampling,
)
from engine.records.measures import is_current
from tui.state.edit_list import EditList
from tui.state.edits import slot_of
from tui.state.effects import Effects
from tui.state.history import History
from tui.state.prompts import Prompts
from tui.state.texts import samples_of
from tui.state.topics import Topic

replace = msgspec.structs.replace

SAME_FEATURES = ("dtype", "reference")
"""Differences between two pairs under which effects measured with one are still shown for the other."""


class Study:
    """A user's work on one session. `id` is its row in the autosave store, `file` the session file, if any."""

    def __init__(self, load: Load, workspace: Workspace, id: str | None = None, file: Path | None = None) -> None:
        self.history = History(workspace)
        self.prompts, self.edits = Prompts(self.history), EditList(self.history)
        self.id = id or os.urandom(16).hex()
        self.file = file
        self.load = load
        self.loaded: Loaded | None = None
        self.results = sessions.new(load)
        self.differences: list[str] = []
        """In what the loaded pair differs from the one that the results are from; empty if they agree."""
        self.saved_version = -1
        """The version that `file` holds; -1 if it holds another state or there is no file."""

    @classmethod
    def from_session(
        cls, session: Session, id: str | None = None, file: Path | None = None, saved: bool = True
    ) -> Study:
        """Return the study of a session; one that the command line wrote has no workspace and gets one.

        `saved` says whether `file` holds exactly this session.
        """
        work = session.workspace or workspace_of(session)
        study = cls(session.load, work, id, file)
        study.results = session
        study.saved_version = 0 if saved else -1
        return study

    @property
    def work(self) -> Workspace:
        """The current workspace."""
        return self.history.now

    @property
    def version(self) -> int:
        """The count of changes."""
        return self.history.version

    def tell(self, topic: Topic) -> None:
        """Report that a part of the study has changed."""
        self.history.tell(topic)

    def session(self) -> Session:
        """Return the session as it is stored: with the pair that the results are from, else with the loaded one."""
        if self.differences:
            return replace(self.results, workspace=self.work)
        return replace(self.results, load=self.load, loaded=self.loaded or self.results.loaded, workspace=self.work)

    def saved_to(self, path: Path) -> None:
        """Note that the file `path` holds the current version."""
        self.file, self.saved_version = path, self.version
        self.tell(Topic.SESSION)

    @property
    def name(self) -> str:
        """The name in the header and in the list of sessions."""
        return self.file.name.removesuffix(sessions.SUFFIX) if self.file else self.work.prompts.name

    @property
    def is_empty(self) -> bool:
        """Whether the study has no changes and no results, so that it need not be stored."""
        return not (self.version or self.has_results)

    @property
    def has_results(self) -> bool:
        """Whether the session holds any result."""
        return bool(self.results.results)

    # ---- the question

    def probe_of_question(self) -> Probe | None:
        """Return the probe whose text is the question: its answers are tracked. None if there is none."""
        probes = (p for p in self.work.prompts.probes if p.text.strip() == self.work.question.strip())
        return next(probes, None)

    def ask_probe(self, probe: Probe) -> None:
        """Make a probe's text the question, in its format."""
        self.history.set(question=probe.text, raw=probe.format == "raw")
        self.tell(Topic.QUESTION)

    def set_question(self, text: str) -> None:
        """Set the text of the question."""
        if text != self.work.question:
            self.history.set(question=text)

    def question(self) -> Prompt:
        """Return the question as a prompt, raw or chat."""
        return Prompt(self.work.question, "raw" if self.work.raw else "chat")

    def set_generation(self, raw: bool, sampling: Sampling, prefill: str, samples: int, restart: bool) -> None:
        """Set how texts are generated, and whether a toggled edit restarts the running text."""
        self.history.set(raw=raw, sampling=sampling, prefill=prefill, samples=samples, restart=restart)
        self.tell(Topic.QUESTION)

    def switch_restart(self) -> None:
        """Switch whether a toggled edit acts on the next token or restarts the text."""
        self.history.set(restart=not self.work.restart)
        self.tell(Topic.QUESTION)

    # ---- features

    def choose_feature(self, feature: int) -> None:
        """Choose the feature whose activations are shown."""
        if feature != self.work.feature:
            self.history.set(feature=feature)

    def toggle_pin(self, feature: int) -> None:
        """Pin a feature to the leaderboard, or unpin it."""
        pinned = self.work.pinned
        self.history.set(pinned=tuple(p for p in pinned if p != feature) if feature in pinned else (*pinned, feature))
        self.tell(Topic.RANKING)

    def set_label(self, feature: int, label: str) -> None:
        """Set the user's label of a feature; "" removes it."""
        labels = {k: v for k, v in self.work.labels.items() if k != feature}
        self.history.set(labels={**labels, feature: label.strip()} if label.strip() else labels)
        self.tell(Topic.NAMES)

    def take_pins(self, work: Workspace) -> None:
        """Take pins, labels and the chosen feature over from another workspace."""
        if (work.pinned, work.labels, work.feature) != (self.work.pinned, self.work.labels, self.work.feature):
            self.history.set(pinned=work.pinned, labels=work.labels, feature=work.feature)

    # ---- results

    def now_loaded(self, load: Load, loaded: Loaded, chosen: bool) -> list[str]:
        """Take over what the engine has loaded; return in what it differs from the pair that the results are from.

        Another pair that the user chose begins a new session; with another SAE, edits, pins and labels are cleared.
        If it was not chosen, as when a session of another machine is opened, the results stay, and only the next new
        result begins a new session.
        """
        before = self.results.loaded
        differences = [] if before is None else sessions.differences(before, loaded)
        self.load, self.loaded = load, loaded
        self.differences = differences if self.has_results else []
        if chosen and differences:
            self._begin()
            if "SAE" in differences:
                self.history.set(edits=(), pinned=(), labels={}, feature=None)
        if not self.differences:
            self.results = replace(self.results, load=load, loaded=loaded)
        return differences

    def _begin(self) -> None:
        """Begin a new session on the loaded pair; the session so far is in the autosave store."""
        self.results = sessions.new(self.load, self.loaded)
        self.id, self.file, self.differences = os.urandom(16).hex(), None, []

    def add(self, result: Recorded) -> bool:
        """Add a result; return whether a new session had to begin for it.

        A ranking of the same prompts replaces the last one, for sorting again is no new result; so does the same
        attribution run again.
        """
        begun = bool(self.differences)
        if begun:
            self._begin()
        last = self.results.last(type(result))
        if last is not None and is_repeated(last, result):
            self.results = replace(self.results, results=tuple(r for r in self.results.results if r is not last))
        # stored with the prompts as they are now
        self.results = sessions.add(self.results, result, self.work.prompts)
        self.history.version += 1
        if isinstance(result, Ranking | Attribution):
            self.tell(Topic.RANKING)
        return begun

    def ranking(self) -> Ranking | None:
        """Return the last ranking, or None."""
        return self.results.last(Ranking)

    def recorded_edits(self) -> tuple[Edit, ...]:
        """Return the edits under which texts were generated, with the absolute strengths that were recorded."""
        texts = self.results.of(Generated)
        return tuple(edit for text in texts for change in text.schedule for edit in change.edits)

    def attribution(self) -> Attribution | None:
        """Return the last attribution, or None."""
        return self.results.last(Attribution)

    def effects(self) -> Effects | None:
        """Return the last attribution's effects; None if there is none, or if probes or pair have changed since."""
        attribution = self.attribution()
        if attribution is None or self.differences_from(self.results.loaded):
            return None
        return Effects(attribution) if is_current(attribution.request.measure, self.work.prompts.probes) else None

    def differences_from(self, pair: Loaded | None) -> str:
        """Say in what the loaded pair differs from the one that effects were measured with; "" if they still hold."""
        if pair is None or self.loaded is None:
            return ""
        return ", ".join(what for what in sessions.differences(pair, self.loaded) if what not in SAME_FEATURES)

    def ranking_is_stale(self) -> bool:
        """Return whether the prompts differ from those that were ranked."""
        ranking = self.ranking()
        if ranking is None:
            return False
        fed = [(p.text, p.format) for p in ranking.prompts]
        now = [(p.text, p.format) for p in (*self.work.prompts.positive, *self.work.prompts.negative)]
        return fed != now or ranking.n_positive != len(self.work.prompts.positive)


def is_repeated(last: Recorded, new: Recorded) -> bool:
    """Return whether a result repeats the last one of its kind: the same prompts ranked, or the same attribution."""
    match last, new:
        case Ranking(), Ranking():
            return last.prompts == new.prompts
        case Attribution(), Attribution():
            return last.request == new.request
    return False


def workspace_of(session: Session) -> Workspace:
    """Return a workspace for a session without one: its last prompts, question and edits."""
    prompts = session.prompt_sets[-1] if session.prompt_sets else PromptSet("new")
    last = session.last(Generated)
    if last is None:
        probes = session.last(ProbeTable)
        edits = probes.edits if probes else ()
        return start_workspace(prompts, edits)
    work = start_workspace(prompts, last.schedule[-1].edits if last.schedule else last.edits)
    return replace(
        work,
        question=last.prompt.text,
        raw=last.prompt.format == "raw",
        sampling=last.sampling,
        prefill=last.prompt.prefill,
        samples=samples_of(last),
    )


def start_workspace(prompts: PromptSet, edits: tuple[Edit, ...] = ()) -> Workspace:
    """Return a new workspace on a prompt set; its first probe is the question."""
    probe = prompts.probes[0] if prompts.probes else None
    return Workspace(
        prompts=prompts,
        question=probe.text if probe else "",
        raw=probe is not None and probe.format == "raw",
        edits=tuple(map(slot_of, edits)),
    )
