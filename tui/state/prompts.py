"""The prompts that the user works on: typed, moved, imported, fed raw or as chat."""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

from engine.records import Format, Probe, Prompt, PromptSet
from tui.state.history import History
from tui.state.topics import Topic

replace = msgspec.structs.replace

Group = Literal["positive", "negative", "probes"]
"""Where an entry of the prompts stands."""


class Prompts:
    """The prompts of a workspace."""

    def __init__(self, history: History) -> None:
        self._history = history

    @property
    def now(self) -> PromptSet:
        """The prompts as they are."""
        return self._history.now.prompts

    def set(self, prompts: PromptSet) -> None:
        """Other prompts; `undo` brings the old ones back."""
        if prompts != self.now:
            self._history.remember("prompts")
            self._history.set(prompts=prompts)
        self._history.tell(Topic.PROMPTS)

    def put(self, group: str, index: int | None, text: str) -> int:
        """Types over a prompt, or adds one at the end (index None), fed as the set's others are; returns its index."""
        entries = list(getattr(self.now, group))
        if index is None:
            entries.append(Prompt(text, self.format()))
        else:
            entries[index] = replace(entries[index], text=text)
        self.set(replace(self.now, **{group: tuple(entries)}))
        return len(entries) - 1 if index is None else index

    def put_probe(self, index: int | None, probe: Probe) -> None:
        """Changes a probe, or adds one (index None)."""
        probes = list(self.now.probes)
        if index is None:
            probes.append(probe)
        else:
            probes[index] = probe
        self.set(replace(self.now, probes=tuple(probes)))

    def delete(self, group: str, index: int) -> None:
        """Takes a prompt or probe out."""
        entries = getattr(self.now, group)
        self.set(replace(self.now, **{group: entries[:index] + entries[index + 1 :]}))

    def move(self, group: str, index: int) -> None:
        """Moves a prompt to the other set."""
        other = "negative" if group == "positive" else "positive"
        mine, theirs = getattr(self.now, group), getattr(self.now, other)
        moved = {group: mine[:index] + mine[index + 1 :], other: (*theirs, mine[index])}
        self.set(replace(self.now, **moved))

    def add(self, positive: list[Prompt], negative: list[Prompt], probes: list[Probe]) -> int:
        """Adds what the sets do not hold yet; returns how many entries that were."""
        now = self.now
        known = {p.text.strip() for p in (*now.positive, *now.negative)}
        asked = {p.text.strip() for p in now.probes}
        new_positive, new_negative = without_known(positive, known), without_known(negative, known)
        new_probes = without_known(probes, asked)
        self.set(
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
        known = (*self.now.positive, *self.now.negative)
        return known[0].format if known else "raw"

    def switch_format(self) -> Format:
        """Feeds the contrast prompts the other way, and says which."""
        format: Format = "raw" if self.format() == "chat" else "chat"
        now = self.now
        positive = tuple(replace(p, format=format) for p in now.positive)
        negative = tuple(replace(p, format=format) for p in now.negative)
        self.set(replace(now, positive=positive, negative=negative))
        return format


Entry = TypeVar("Entry", Prompt, Probe)


def without_known(entries: list[Entry], known: set[str]) -> tuple[Entry, ...]:
    """The entries whose text is not known yet; each is known from then on."""
    found = []
    for entry in entries:
        if entry.text.strip() not in known:
            known.add(entry.text.strip())
            found.append(entry)
    return tuple(found)
