"""Prompt set files converted to the engine's records, and back. Does not read or write files."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engine.records import Answer, Edit, Probe, Prompt, PromptSet
from engine.records.errors import UsageError
from prompts import Entry, ProbeEntry, PromptSetFile, Settings


def from_file(file: PromptSetFile) -> PromptSet:
    """Return a prompt set file as the engine's record, with only the settings that differ from the defaults."""
    defaults = msgspec.structs.asdict(Settings())
    settings = {name: x for name, x in msgspec.structs.asdict(file.settings).items() if x != defaults[name]}
    return PromptSet(
        name=file.name,
        positive=tuple(Prompt(entry.text, file.format, entry.breaks) for entry in file.positive),
        negative=tuple(Prompt(entry.text, file.format, entry.breaks) for entry in file.negative),
        probes=tuple(from_entry(probe) for probe in file.probe),
        description=file.description,
        settings=settings,
    )


def from_entry(probe: ProbeEntry) -> Probe:
    """Return a file's probe as the engine's record."""
    answers = tuple(Answer(name, strings) for name, strings in probe.answers.items())
    return Probe(probe.text, probe.format, probe.prefill, answers, probe.covariate, probe.right)


def as_published(settings: Mapping[str, bool | float | str], feature: int) -> tuple[Edit, ...]:
    """Return the edit of a feature that a prompt set's settings describe, with the reconstruction if they use one.

    Raises UsageError if there are no settings.
    """
    if not settings:
        raise UsageError(
            "The prompt set has no [settings]: it does not say how a study edited its feature.",
            "Take a set that does, such as founding_5v2, or add [settings] to it.",
        )
    published = _settings(settings, "the prompt set")
    edit = Edit(feature, published.scale, at=published.positions)
    return (edit, Edit(kind="reconstruct", at=published.positions)) if published.reconstruct else (edit,)


def _settings(settings: Mapping[str, bool | float | str], whose: str) -> Settings:
    try:
        return msgspec.convert(settings, Settings)
    except msgspec.ValidationError as error:
        raise UsageError(f"The settings of {whose}: {error}.", "Mend or delete the setting.") from error


def to_file(prompt_set: PromptSet) -> PromptSetFile:
    """Return the engine's record as a prompt set file. Raises UsageError if a file cannot express the record."""
    formats = {prompt.format for prompt in (*prompt_set.positive, *prompt_set.negative)}
    if len(formats) > 1:
        raise UsageError(
            f"The prompt set {prompt_set.name!r} mixes raw and chat prompts, "
            "and a file has one format for all of them.",
            "Give all its prompts the same format.",
        )
    return PromptSetFile(
        name=prompt_set.name,
        description=prompt_set.description,
        format=formats.pop() if formats else "raw",
        settings=_settings(prompt_set.settings, repr(prompt_set.name)),
        positive=tuple(Entry(prompt.text, prompt.breaks) for prompt in prompt_set.positive),
        negative=tuple(Entry(prompt.text, prompt.breaks) for prompt in prompt_set.negative),
        probe=tuple(to_entry(probe) for probe in prompt_set.probes),
    )


def to_entry(probe: Probe) -> ProbeEntry:
    """Return a probe as a file has it. Raises UsageError for two answers with the same name."""
    answers = {answer.name: answer.strings for answer in probe.answers}
    if len(answers) < len(probe.answers):
        raise UsageError(f"The probe {probe.text!r} has two answers of the same name.", "Rename or delete one.")
    return ProbeEntry(probe.text, probe.format, probe.prefill, answers, probe.covariate, probe.right)
