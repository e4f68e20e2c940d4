"""Prompt set files as the engine's records, and back. Knows nothing of where files are."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engine.records import Answer, Edit, Probe, Prompt, PromptSet
from engine.records.errors import UsageError
from prompts import Entry, ProbeEntry, PromptSetFile, Settings


def from_file(found: PromptSetFile) -> PromptSet:
    """A prompt set file as the engine's record; of its settings only those that are not as by default."""
    defaults = msgspec.structs.asdict(Settings())
    settings = {name: x for name, x in msgspec.structs.asdict(found.settings).items() if x != defaults[name]}
    return PromptSet(
        name=found.name,
        positive=tuple(Prompt(entry.text, found.format, entry.breaks) for entry in found.positive),
        negative=tuple(Prompt(entry.text, found.format, entry.breaks) for entry in found.negative),
        probes=tuple(from_entry(probe) for probe in found.probe),
        description=found.description,
        settings=settings,
    )


def from_entry(probe: ProbeEntry) -> Probe:
    """A probe of a file as the engine's record."""
    answers = tuple(Answer(name, strings) for name, strings in probe.answers.items())
    return Probe(probe.text, probe.format, probe.prefill, answers, probe.covariate, probe.right)


def as_published(settings: Mapping[str, bool | float | str], feature: int) -> tuple[Edit, ...]:
    """A feature's edit as a prompt set's settings say that a study made it, and the reconstruction where it used one.

    Raises UsageError where they say nothing.
    """
    if not settings:
        raise UsageError(
            "The prompt set has no [settings]: it does not say how a study edited its feature.",
            "Take a set that does, such as founding_5v2, or add [settings] to it.",
        )
    found = _settings(settings, "the prompt set")
    edit = Edit(feature, found.scale, at=found.positions)
    return (edit, Edit(kind="reconstruct", at=found.positions)) if found.reconstruct else (edit,)


def _settings(settings: Mapping[str, bool | float | str], whose: str) -> Settings:
    try:
        return msgspec.convert(settings, Settings)
    except msgspec.ValidationError as error:
        raise UsageError(f"The settings of {whose}: {error}.", "Mend or delete the setting.") from error


def to_file(found: PromptSet) -> PromptSetFile:
    """The engine's record as a file. Raises UsageError where a file cannot say what the record says."""
    formats = {prompt.format for prompt in (*found.positive, *found.negative)}
    if len(formats) > 1:
        raise UsageError(
            f"The prompt set {found.name!r} mixes raw and chat prompts, and a file has one format for all of them.",
            "Give all its prompts the same format.",
        )
    return PromptSetFile(
        name=found.name,
        description=found.description,
        format=formats.pop() if formats else "raw",
        settings=_settings(found.settings, repr(found.name)),
        positive=tuple(Entry(prompt.text, prompt.breaks) for prompt in found.positive),
        negative=tuple(Entry(prompt.text, prompt.breaks) for prompt in found.negative),
        probe=tuple(to_entry(probe) for probe in found.probes),
    )


def to_entry(probe: Probe) -> ProbeEntry:
    """A probe as a file has it. Raises UsageError for two answers of one name."""
    answers = {answer.name: answer.strings for answer in probe.answers}
    if len(answers) < len(probe.answers):
        raise UsageError(f"The probe {probe.text!r} has two answers of the same name.", "Rename or delete one.")
    return ProbeEntry(probe.text, probe.format, probe.prefill, answers, probe.covariate, probe.right)
