"""Presets in the app: whose prompts and labelled features a study takes over. No widgets."""

from __future__ import annotations

import msgspec

import prompts
from engine.files import prompt_sets
from engine.files.session import Workspace
from engine.loading.presets import Preset
from engine.records import PromptSet
from tui.state.study import Study

DEFAULT_SET = "gender_bias"


def packaged_set(name: str) -> PromptSet:
    """A prompt set by its name, or from a file. Raises PromptSetError."""
    return prompt_sets.from_file(prompts.load(name))


def with_pins(work: Workspace, preset: Preset) -> Workspace:
    """The workspace with the preset's features pinned, labelled where the user has not, and the first one read."""
    features = [pin.feature for pin in preset.pinned]
    pinned = (*work.pinned, *(f for f in features if f not in work.pinned))
    labels = {**{pin.feature: pin.label for pin in preset.pinned}, **work.labels}
    feature = work.feature if work.feature is not None or not features else features[0]
    return msgspec.structs.replace(work, pinned=pinned, labels=labels, feature=feature)


def take_over(study: Study, preset: Preset, before: Preset | None) -> str:
    """Gives a study what belongs to a preset that was loaded; says what that was, "" if it was nothing.

    Its prompts only replace a packaged set that came by itself and is untouched, never anything of the user's.
    """
    said = []
    came_by_itself = {DEFAULT_SET, *([before.prompts] if before else [])}
    now = next((s for s in map(packaged_set, sorted(came_by_itself)) if s == study.work.prompts), None)
    if now is not None and now.name != preset.prompts:
        asked = now.probes[0].text if now.probes else ""
        study.prompts.set(packaged_set(preset.prompts))
        if study.work.question in ("", asked) and study.work.prompts.probes:
            study.ask_probe(study.work.prompts.probes[0])
        said.append(f"its prompts {preset.prompts}")
    if preset.pinned:
        study.take_pins(with_pins(study.work, preset))
        said.append("its labelled features pinned")
    return f"Preset {preset.name}: {', '.join(said)}." if said else ""
