"""What the user of the app has: prompts, edits, pins, labels, results. No widgets, no engine: state alone.

Every change goes through a method here and raises `version`, which is how the autosave knows that there is something
to save. Panes are shown this state by the main screen; they never hold it themselves.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import msgspec

from engine import session as sessions
from engine.records import (
    Attribution,
    Edit,
    Format,
    Load,
    Loaded,
    Probe,
    Prompt,
    PromptSet,
    Ranking,
    Sampling,
)
from engine.session import EditSlot, Session, Workspace
from tui.effects import Effects, is_current

replace = msgspec.structs.replace

SCALES = (-1.0, -0.5, 0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)
"""Strengths that + and - step through; 0 ablates, 1 changes nothing."""
UNDO_STEPS = 100
SAME_FEATURES = ("dtype", "reference")
"""In what the pair may differ without its features' effects being those of other features."""


class Study:
    """One piece of work. `id` is its row in the autosave, `file` where it was last saved by name."""

    def __init__(self, load: Load, workspace: Workspace, id: str | None = None, file: Path | None = None) -> None:
        self.id = id or os.urandom(16).hex()
        self.file = file
        self.load = load
        self.loaded: Loaded | None = None
        self.work = workspace
        self.results = sessions.new(load)
        self.foreign: list[str] = []
        """In what the pair that is loaded differs from the one the results came from."""
        self.version = 0
        self.saved_version = -1
        """The version that `file` holds; -1 where it does not hold this."""
        self._undo: list[dict[str, object]] = []
        """What each change replaced: the prompts, or the list of edits."""

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

    def session(self) -> Session:
        """Everything, as it goes into a file: with what the results came from, else with what is loaded."""
        if self.foreign:
            return replace(self.results, workspace=self.work)
        return replace(self.results, load=self.load, loaded=self.loaded or self.results.loaded, workspace=self.work)

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
        results = self.results
        texts = results.generations or results.probe_tables
        return bool(results.rankings or texts or results.attributions or results.minimal_sets)

    def _set(self, **changes: object) -> None:
        self.work = replace(self.work, **changes)
        self.version += 1

    # ---- prompts

    def set_prompts(self, prompts: PromptSet) -> None:
        """Other prompts; `undo` brings the old ones back."""
        if prompts != self.work.prompts:
            self._remember("prompts")
            self._set(prompts=prompts)

    def _remember(self, field: str) -> None:
        self._undo = [*self._undo[-UNDO_STEPS:], {field: getattr(self.work, field)}]

    def put_prompt(self, group: str, index: int | None, text: str) -> int:
        """Types over a prompt, or adds one at the end (index None), fed as the set's others are; returns its index."""
        entries = list(getattr(self.work.prompts, group))
        if index is None:
            entries.append(Prompt(text, self.format()))
        else:
            entries[index] = replace(entries[index], text=text)
        self.set_prompts(replace(self.work.prompts, **{group: tuple(entries)}))
        return len(entries) - 1 if index is None else index

    def put_probe(self, index: int | None, probe: Probe) -> None:
        """Changes a probe, or adds one (index None)."""
        probes = list(self.work.prompts.probes)
        if index is None:
            probes.append(probe)
        else:
            probes[index] = probe
        self.set_prompts(replace(self.work.prompts, probes=tuple(probes)))

    def delete_entry(self, group: str, index: int) -> None:
        """Takes a prompt or probe out."""
        entries = getattr(self.work.prompts, group)
        self.set_prompts(replace(self.work.prompts, **{group: entries[:index] + entries[index + 1 :]}))

    def move_prompt(self, group: str, index: int) -> None:
        """Moves a prompt to the other set."""
        other = "negative" if group == "positive" else "positive"
        mine, theirs = getattr(self.work.prompts, group), getattr(self.work.prompts, other)
        moved = {group: mine[:index] + mine[index + 1 :], other: (*theirs, mine[index])}
        self.set_prompts(replace(self.work.prompts, **moved))

    def add_prompts(self, positive: list[Prompt], negative: list[Prompt], probes: list[Probe]) -> int:
        """Adds what the sets do not hold yet; returns how many entries that were."""
        now = self.work.prompts
        known = {p.text.strip() for p in (*now.positive, *now.negative)}
        asked = {p.text.strip() for p in now.probes}
        new_positive, new_negative = without_known(positive, known), without_known(negative, known)
        new_probes = without_known(probes, asked)
        self.set_prompts(
            replace(
                now,
                positive=now.positive + new_positive,
                negative=now.negative + new_negative,
                probes=now.probes + new_probes,
            )
        )
        return len(new_positive) + len(new_negative) + len(new_probes)

    def format(self) -> Format:
        """How the contrast prompts are fed."""
        known = (*self.work.prompts.positive, *self.work.prompts.negative)
        return known[0].format if known else "raw"

    def switch_format(self) -> Format:
        """Feeds the contrast prompts the other way, and says which."""
        format: Format = "raw" if self.format() == "chat" else "chat"
        now = self.work.prompts
        positive = tuple(replace(p, format=format) for p in now.positive)
        negative = tuple(replace(p, format=format) for p in now.negative)
        self.set_prompts(replace(now, positive=positive, negative=negative))
        return format

    def undo(self) -> bool:
        """Takes back the last change of prompts, or of which edits are in the list; False where there is none."""
        if not self._undo:
            return False
        self._set(**self._undo.pop())
        return True

    def probe_of_question(self) -> Probe | None:
        """The probe whose text the question is, which is what says how its answers are tracked."""
        found = (p for p in self.work.prompts.probes if p.text.strip() == self.work.question.strip())
        return next(found, None)

    def ask_probe(self, probe: Probe) -> None:
        """Makes a probe the question."""
        self._set(question=probe.text, raw=probe.format == "raw")

    def set_question(self, text: str) -> None:
        """What the generation pane asks."""
        if text != self.work.question:
            self._set(question=text)

    def question(self) -> Prompt:
        """The question as it is fed."""
        return Prompt(self.work.question, "raw" if self.work.raw else "chat")

    def set_generation(self, raw: bool, sampling: Sampling, restart: bool) -> None:
        """How text is generated, and what a toggled edit does to the running text."""
        self._set(raw=raw, sampling=sampling, restart=restart)

    # ---- features

    def choose_feature(self, feature: int) -> None:
        """The feature whose activations are shown."""
        if feature != self.work.feature:
            self._set(feature=feature)

    def toggle_pin(self, feature: int) -> None:
        """Pins a feature to the leaderboard, or unpins it."""
        pinned = self.work.pinned
        self._set(pinned=tuple(p for p in pinned if p != feature) if feature in pinned else (*pinned, feature))

    def set_label(self, feature: int, label: str) -> None:
        """The user's own name for a feature; "" takes it away."""
        labels = {k: v for k, v in self.work.labels.items() if k != feature}
        self._set(labels={**labels, feature: label.strip()} if label.strip() else labels)

    def take_pins(self, work: Workspace) -> None:
        """Pins, labels and the feature being read, out of another workspace."""
        if (work.pinned, work.labels, work.feature) != (self.work.pinned, self.work.labels, self.work.feature):
            self._set(pinned=work.pinned, labels=work.labels, feature=work.feature)

    # ---- edits

    def edits(self) -> tuple[Edit, ...]:
        """The edits that are switched on."""
        return tuple(slot.edit() for slot in self.work.edits if slot.on)

    def slot(self, feature: int) -> EditSlot | None:
        """A feature's line in the list of edits."""
        return next((slot for slot in self.work.edits if slot.feature == feature), None)

    def toggle_edit(self, feature: int) -> None:
        """Switches a feature's edit; a feature without one is ablated."""
        slot = self.slot(feature)
        if slot is None:
            self._set(edits=(*self.work.edits, EditSlot(feature)))
        else:
            self._put(replace(slot, on=not slot.on))

    def step_edit(self, feature: int, steps: int) -> None:
        """Moves a feature's strength along SCALES; a feature without an edit starts at 1, where nothing changes."""
        slot = self.slot(feature)
        if slot is None:
            slot = EditSlot(feature, 1.0)
            self._set(edits=(*self.work.edits, slot))
        # the nearest of the known strengths, then on from there
        at = min(range(len(SCALES)), key=lambda i: abs(SCALES[i] - slot.strength))
        self._put(replace(slot, strength=SCALES[max(0, min(len(SCALES) - 1, at + steps))], on=True))

    def remove_edit(self, feature: int) -> None:
        """Takes a feature out of the list of edits."""
        self._remember("edits")
        self._set(edits=tuple(slot for slot in self.work.edits if slot.feature != feature))

    def set_edit(self, feature: int, strength: float) -> None:
        """Scales a feature by this factor."""
        if self.slot(feature) is None:
            self._set(edits=(*self.work.edits, EditSlot(feature)))
        self._put(EditSlot(feature, strength))

    def clear_edits(self) -> None:
        """Empties the list of edits."""
        if self.work.edits:
            self._remember("edits")
            self._set(edits=())

    def add_edits(self, features: list[int]) -> None:
        """Ablates all of them; those in the list already are switched on and keep their strength."""
        self._remember("edits")
        known = {slot.feature for slot in self.work.edits}
        kept = tuple(replace(s, on=True) if s.feature in features else s for s in self.work.edits)
        self._set(edits=kept + tuple(EditSlot(f) for f in features if f not in known))

    def switch_all_edits(self) -> None:
        """All off if any is on, else all on."""
        on = not any(slot.on for slot in self.work.edits)
        self._set(edits=tuple(replace(slot, on=on) for slot in self.work.edits))

    def _put(self, slot: EditSlot) -> None:
        self._set(edits=tuple(slot if s.feature == slot.feature else s for s in self.work.edits))

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
                self._set(edits=(), pinned=(), labels={}, feature=None)
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
        rankings, attributions = self.results.rankings, self.results.attributions
        if isinstance(result, Ranking) and rankings and rankings[-1].prompts == result.prompts:
            self.results = replace(self.results, rankings=rankings[:-1])
        if isinstance(result, Attribution) and attributions and attributions[-1].request == result.request:
            self.results = replace(self.results, attributions=attributions[:-1])
        # with the prompts as they are now
        self.results = sessions.add(self.results, result, self.work.prompts)
        self.version += 1
        return begun

    def ranking(self) -> Ranking | None:
        """The last ranking."""
        return self.results.rankings[-1] if self.results.rankings else None

    def attribution(self) -> Attribution | None:
        """The last attribution."""
        return self.results.attributions[-1] if self.results.attributions else None

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


Entry = TypeVar("Entry", Prompt, Probe)


def without_known(entries: list[Entry], known: set[str]) -> tuple[Entry, ...]:
    """The entries whose text is not known yet; each is known from then on."""
    found = []
    for entry in entries:
        if entry.text.strip() not in known:
            known.add(entry.text.strip())
            found.append(entry)
    return tuple(found)


def workspace_of(session: Session) -> Workspace:
    """A workspace for a session that has none: its last prompts, question and edits."""
    prompts = session.prompt_sets[-1] if session.prompt_sets else PromptSet("new")
    last = session.generations[-1] if session.generations else None
    if last is None:
        probes = session.probe_tables[-1] if session.probe_tables else None
        edits = probes.edits if probes else ()
        return start_workspace(prompts, edits)
    work = start_workspace(prompts, last.edits)
    return replace(work, question=last.prompt.text, raw=last.prompt.format == "raw", sampling=last.sampling)


def start_workspace(prompts: PromptSet, edits: tuple[Edit, ...] = ()) -> Workspace:
    """A workspace on a prompt set: its first probe is the question."""
    probe = prompts.probes[0] if prompts.probes else None
    return Workspace(
        prompts=prompts,
        question=probe.text if probe else "",
        raw=probe is not None and probe.format == "raw",
        edits=tuple(EditSlot(**msgspec.structs.asdict(e)) for e in edits),
    )
