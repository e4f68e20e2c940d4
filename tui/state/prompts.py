"""The prompts that the user works on, and their changes."""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

from engine.records import Format, Probe, Prompt, PromptSet
from tui.state.history import History
from tui.state.topics import Topic

replace = msgspec.structs.replace

Group = Literal["positive", "negative", "probes"]
"""The part of a prompt set that an entry is in."""


class Prompts:
    """The prompts of a workspace, and their changes."""

    def __init__(self, history: History) -> None:
        self._history = history

    @property
    def now(self) -> PromptSet:
        """The current prompts."""
        return self._history.now.prompts

    def set(self, prompts: PromptSet) -> None:
        """Replace the prompts, which can be undone."""
        if prompts != self.now:
            self._history.remember("prompts")
            self._history.set(prompts=prompts)
        self._history.tell(Topic.PROMPTS)

    def put(self, group: str, index: int | None, text: str) -> int:
        """Replace a prompt's text, or append a prompt in the set's format (index None); return its index."""
        entries = list(getattr(self.now, group))
        if index is None:
            entries.append(Prompt(text, self.format()))
        else:
            entries[index] = replace(entries[index], text=text)
        self.set(replace(self.now, **{group: tuple(entries)}))
        return len(entries) - 1 if index is None else index

    def put_probe(self, index: int | None, probe: Probe) -> None:
        """Replace a probe, or append one (index None)."""
        probes = list(self.now.probes)
        if index is None:
            probes.append(probe)
        else:
            probes[index] = probe
        self.set(replace(self.now, probes=tuple(probes)))

    def delete(self, group: str, index: int) -> None:
        """Remove a prompt or probe."""
        entries = getattr(self.now, group)
        self.set(replace(self.now, **{group: entries[:index] + entries[index + 1 :]}))

    def move(self, group: str, index: int) -> None:
        """Move a prompt to the end of the other set: positive or negative."""
        other = "negative" if group == "positive" else "positive"
        mine, theirs = getattr(self.now, group), getattr(self.now, other)
        moved = {group: mine[:index] + mine[index + 1 :], other: (*theirs, mine[index])}
        self.set(replace(self.now, **moved))

    def add(self, positive: list[Prompt], negative: list[Prompt], probes: list[Probe]) -> int:
        """Append the prompts and probes whose texts are new; return their count."""
        now = self.now
        known = {p.text.strip() for p in (*now.positive, *now.negative)}
        known_probes = {p.text.strip() for p in now.probes}
        new_positive, new_negative = without_known(positive, known), without_known(negative, known)
        new_probes = without_known(probes, known_probes)
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
        """Return the format in which the contrast prompts are fed: the first one's."""
        known = (*self.now.positive, *self.now.negative)
        return known[0].format if known else "raw"

    def switch_format(self) -> Format:
        """Switch the contrast prompts between raw and chat; return the new format."""
        format: Format = "raw" if self.format() == "chat" else "chat"
        now = self.now
        positive = tuple(replace(p, format=format) for p in now.positive)
        negative = tuple(replace(p, format=format) for p in now.negative)
        self.set(replace(now, positive=positive, negative=negative))
        return format


Entry = TypeVar("Entry", Prompt, Probe)


def without_known(entries: list[Entry], known: set[str]) -> tuple[Entry, ...]:
    """Return the entries whose text is not in `known`, without repeats; add their texts to `known`."""
    new = []
    for entry in entries:
        if entry.text.strip() not in known:
            known.add(entry.text.strip())
            new.append(entry)
    return tuple(new)
