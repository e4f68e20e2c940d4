"""Presets in the app: their prompts and labelled features, taken over into a study. No widgets."""

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
    """Return a prompt set by its name, or from a file. Raises PromptSetError."""
    return prompt_sets.from_file(prompts.load(name))


def with_pins(work: Workspace, preset: Preset) -> Workspace:
    """Return the workspace with the preset's features pinned, and labelled where the user has not labelled them.

    The first one is chosen if no feature is.
    """
    features = [pin.feature for pin in preset.pinned]
    pinned = (*work.pinned, *(f for f in features if f not in work.pinned))
    labels = {**{pin.feature: pin.label for pin in preset.pinned}, **work.labels}
    feature = work.feature if work.feature is not None or not features else features[0]
    return msgspec.structs.replace(work, pinned=pinned, labels=labels, feature=feature)


def take_over(study: Study, preset: Preset, before: Preset | None) -> str:
    """Give a study the prompts and pins of the preset that was loaded; return a sentence on them, "" if there are none.

    The prompts replace only an untouched packaged set that the user did not choose, never the user's own prompts.
    """
    changes = []
    default_sets = {DEFAULT_SET, *([before.prompts] if before else [])}
    untouched = next((s for s in map(packaged_set, sorted(default_sets)) if s == study.work.prompts), None)
    if untouched is not None and untouched.name != preset.prompts:
        probe_text = untouched.probes[0].text if untouched.probes else ""
        study.prompts.set(packaged_set(preset.prompts))
        if study.work.question in ("", probe_text) and study.work.prompts.probes:
            study.ask_probe(study.work.prompts.probes[0])
        changes.append(f"its prompts {preset.prompts}")
    if preset.pinned:
        study.take_pins(with_pins(study.work, preset))
        changes.append("its labelled features pinned")
    return f"Preset {preset.name}: {', '.join(changes)}." if changes else ""
