"""What the user of the app has: prompts, edits, pins, labels, results. No widgets, no engine: state alone.

It tells what changes. Panes are shown it by the main screen; they never hold it themselves.
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
"""In what the pair may differ without its features' effects being those of other features."""


class Study:
    """One piece of work. `id` is its row in the autosave, `file` where it was last saved by name."""

    def __init__(self, load: Load, workspace: Workspace, id: str | None = None, file: Path | None = None) -> None:
        self.history = History(workspace)
        self.prompts, self.edits = Prompts(self.history), EditList(self.history)
        self.id = id or os.urandom(16).hex()
        self.file = file
        self.load = load
        self.loaded: Loaded | None = None
        self.results = sessions.new(load)
        self.foreign: list[str] = []
        """In what the pair that is loaded differs from the one the results came from."""
        self.saved_version = -1
        """The version that `file` holds; -1 where it does not hold this."""

    @classmethod
    def from_session(
        cls, session: Session, id: str | None = None, file: Path | None = None, saved: bool = True
    ) -> Study:
        """The study a session file or the autosave holds; one that the command line wrote has no workspace.

        `saved` says whether `file` holds just this session.
        """
        work = session.workspace or workspace_of(session)
        study = cls(session.load, work, id, file)
        study.results = session
        study.saved_version = 0 if saved else -1
        return study

    @property
    def work(self) -> Workspace:
        """The workspace as it is now."""
        return self.history.now

    @property
    def version(self) -> int:
        """How often anything was changed."""
        return self.history.version

    def tell(self, topic: Topic) -> None:
        """Tells that a part of it has changed."""
        self.history.tell(topic)

    def session(self) -> Session:
        """Everything, as it goes into a file: with what the results came from, else with what is loaded."""
        if self.foreign:
            return replace(self.results, workspace=self.work)
        return replace(self.results, load=self.load, loaded=self.loaded or self.results.loaded, workspace=self.work)

    def saved_to(self, path: Path) -> None:
        """A file holds all of it now."""
        self.file, self.saved_version = path, self.version
        self.tell(Topic.SESSION)

    @property
    def name(self) -> str:
        """What the header and the list of sessions call it."""
        return self.file.name.removesuffix(sessions.SUFFIX) if self.file else self.work.prompts.name

    @property
    def is_empty(self) -> bool:
        """Nothing in it that the user made: not worth being offered again."""
        return not (self.version or self.has_results)

    @property
    def has_results(self) -> bool:
        """Whether the engine found anything."""
        return bool(self.results.results)

    # ---- the question

    def probe_of_question(self) -> Probe | None:
        """The probe whose text the question is, which is what says how its answers are tracked."""
        found = (p for p in self.work.prompts.probes if p.text.strip() == self.work.question.strip())
        return next(found, None)

    def ask_probe(self, probe: Probe) -> None:
        """Makes a probe the question."""
        self.history.set(question=probe.text, raw=probe.format == "raw")
        self.tell(Topic.QUESTION)

    def set_question(self, text: str) -> None:
        """What the generation pane asks."""
        if text != self.work.question:
            self.history.set(question=text)

    def question(self) -> Prompt:
        """The question as it is fed."""
        return Prompt(self.work.question, "raw" if self.work.raw else "chat")

    def set_generation(self, raw: bool, sampling: Sampling, prefill: str, samples: int, restart: bool) -> None:
        """How text is generated, and what a toggled edit does to the running text."""
        self.history.set(raw=raw, sampling=sampling, prefill=prefill, samples=samples, restart=restart)
        self.tell(Topic.QUESTION)

    def switch_restart(self) -> None:
        """A toggled edit acts on the next token, or starts the text anew."""
        self.history.set(restart=not self.work.restart)
        self.tell(Topic.QUESTION)

    # ---- features

    def choose_feature(self, feature: int) -> None:
        """The feature whose activations are shown."""
        if feature != self.work.feature:
            self.history.set(feature=feature)

    def toggle_pin(self, feature: int) -> None:
        """Pins a feature to the leaderboard, or unpins it."""
        pinned = self.work.pinned
        self.history.set(pinned=tuple(p for p in pinned if p != feature) if feature in pinned else (*pinned, feature))
        self.tell(Topic.RANKING)

    def set_label(self, feature: int, label: str) -> None:
        """The user's own name for a feature; "" takes it away."""
        labels = {k: v for k, v in self.work.labels.items() if k != feature}
        self.history.set(labels={**labels, feature: label.strip()} if label.strip() else labels)
        self.tell(Topic.NAMES)

    def take_pins(self, work: Workspace) -> None:
        """Pins, labels and the feature being read, out of another workspace."""
        if (work.pinned, work.labels, work.feature) != (self.work.pinned, self.work.labels, self.work.feature):
            self.history.set(pinned=work.pinned, labels=work.labels, feature=work.feature)

    # ---- results

    def now_loaded(self, load: Load, loaded: Loaded, chosen: bool) -> list[str]:
        """What the engine has loaded; returns in what it differs from what the results came from.

        Another pair that the user chose begins a session of its own, and another SAE's features leave the edits.
        Otherwise, as on another machine, the results stay, and the next new one begins the new session.
        """
        before = self.results.loaded
        others = [] if before is None else sessions.differences(before, loaded)
        self.load, self.loaded = load, loaded
        self.foreign = others if self.has_results else []
        if chosen and others:
            self._begin()
            if "SAE" in others:
                self.history.set(edits=(), pinned=(), labels={}, feature=None)
        if not self.foreign:
            self.results = replace(self.results, load=load, loaded=loaded)
        return others

    def _begin(self) -> None:
        """A new session on what is loaded; the one so far is in the autosave."""
        self.results = sessions.new(self.load, self.loaded)
        self.id, self.file, self.foreign = os.urandom(16).hex(), None, []

    def add(self, result: sessions.Result) -> bool:
        """Keeps a result; returns whether a new session had to begin for it.

        A ranking of the same prompts replaces the last one, for sorting again is no new result; so does the same
        attribution run again.
        """
        begun = bool(self.foreign)
        if begun:
            self._begin()
        last = self.results.last(type(result))
        if last is not None and is_repeated(last, result):
            self.results = replace(self.results, results=tuple(r for r in self.results.results if r is not last))
        # with the prompts as they are now
        self.results = sessions.add(self.results, result, self.work.prompts)
        self.history.version += 1
        if isinstance(result, Ranking | Attribution):
            self.tell(Topic.RANKING)
        return begun

    def ranking(self) -> Ranking | None:
        """The last ranking."""
        return self.results.last(Ranking)

    def recorded_edits(self) -> tuple[Edit, ...]:
        """The edits that texts were generated under, with what their strengths came to."""
        texts = self.results.of(Generated)
        return tuple(edit for text in texts for change in text.schedule for edit in change.edits)

    def attribution(self) -> Attribution | None:
        """The last attribution."""
        return self.results.last(Attribution)

    def effects(self) -> Effects | None:
        """The last attribution by feature; None where there is none, or of other probes or another SAE."""
        found = self.attribution()
        if found is None or self.other_than(self.results.loaded):
            return None
        return Effects(found) if is_current(found.request.measure, self.work.prompts.probes) else None

    def other_than(self, pair: Loaded | None) -> str:
        """In what the pair that is loaded differs from one whose features' effects are known; "" where they hold."""
        if pair is None or self.loaded is None:
            return ""
        return ", ".join(what for what in sessions.differences(pair, self.loaded) if what not in SAME_FEATURES)

    def ranking_is_stale(self) -> bool:
        """The prompts are no longer those that were ranked."""
        ranking = self.ranking()
        if ranking is None:
            return False
        fed = [(p.text, p.format) for p in ranking.prompts]
        now = [(p.text, p.format) for p in (*self.work.prompts.positive, *self.work.prompts.negative)]
        return fed != now or ranking.n_positive != len(self.work.prompts.positive)


def is_repeated(last: sessions.Result, new: sessions.Result) -> bool:
    """Whether a result stands for the last one of its kind: the same prompts ranked again, or attributed again."""
    match last, new:
        case Ranking(), Ranking():
            return last.prompts == new.prompts
        case Attribution(), Attribution():
            return last.request == new.request
    return False


def workspace_of(session: Session) -> Workspace:
    """A workspace for a session that has none: its last prompts, question and edits."""
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
    """A workspace on a prompt set: its first probe is the question."""
    probe = prompts.probes[0] if prompts.probes else None
    return Workspace(
        prompts=prompts,
        question=probe.text if probe else "",
        raw=probe is not None and probe.format == "raw",
        edits=tuple(map(slot_of, edits)),
    )
