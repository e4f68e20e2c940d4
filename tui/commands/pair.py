"""Which model and SAE: the chooser, and what a preset brings along once it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.files import paths
from engine.loading import presets
from engine.records import Load, Loaded
from tui.screens.model_form import ModelForm
from tui.state.presets import take_over
from tui.widgets.forms import Field

if TYPE_CHECKING:
    from tui.main import MainScreen

LOCAL = ("/", "~", ".")
"""What a path begins with, and no name on the hub."""

DTYPES = ("automatic", "float32", "bfloat16", "float16")


class ModelFlow:
    """Asks for another pair, and loads it."""

    def __init__(self, screen: MainScreen) -> None:
        self.screen = screen
        self._tried: Load | None = None
        """What the chooser was last filled in with, to be corrected if it did not load."""

    def choose(self) -> None:
        """Model, SAE, hook point, device and dtype; what is loaded already is used again."""
        load = self._tried or self.screen.study.load
        fields = (
            Field("model", "model", load.model or "", "folder or hub name; empty: the packaged demo"),
            Field("sae", "SAE", load.sae or "", "folder, hub place, or SAELens' RELEASE/ID"),
            Field("hook", "hook point", load.hook or "", "empty: the one the SAE names"),
            Field("device", "device", load.device or "", "cpu or cuda:N; empty: a GPU if there is one"),
            Field("dtype", "dtype", load.dtype if load.dtype in DTYPES else DTYPES[0], choices=DTYPES),
        )

        def chosen(values: dict[str, str] | None) -> None:
            if values is None:
                return
            dtype = None if values["dtype"] == DTYPES[0] else values["dtype"]
            given = {name: values[name].strip() or None for name in ("model", "sae", "hook", "device")}
            wanted = Load(**given, dtype=dtype, threads=load.threads, reference=load.reference)
            self._tried = wanted
            self.screen.work.load(wanted, chosen=True)

        loaded = self.screen.study.loaded
        form = ModelForm(
            "Model and SAE; the session so far stays under ctrl+o",
            fields,
            check_load,
            presets.everyone(),
            presets.of_sae(load.sae) if load.sae or not load.model else None,
            self.screen.header.memory if loaded else None,
            loaded.device if loaded else "",
        )
        self.screen.app.push_screen(form, chosen)

    def take_over(self, before: Load, sae_before: Loaded | None, loaded: Loaded) -> bool:
        """Another SAE was chosen: if it is a preset's, its prompts and labelled features come along, if it has any."""
        if sae_before is not None and sae_before.sae_fingerprint == loaded.sae_fingerprint:
            return False
        study = self.screen.study
        preset = presets.of_sae(study.load.sae)
        said = take_over(study, preset, presets.of_sae(before.sae)) if preset else ""
        if said:
            self.screen.notify(said)
        return bool(said)


def check_load(values: dict[str, str]) -> str:
    """What is wrong with the chooser's fields, as far as can be seen without loading; "" if nothing is."""
    model, sae = values["model"].strip(), values["sae"].strip()
    if model and not sae:
        return "Which SAE? It belongs to one model and one layer: give its folder, or its place on the hub."
    for name, text in (("model", model), ("SAE", sae)):
        if text.startswith(LOCAL) and paths.problem(text):
            return f"{name}: {paths.problem(text)}"
    if model.startswith(LOCAL) and not paths.typed(model).is_dir():
        return f"model: there is no folder {model}."
    if sae.startswith(LOCAL) and not paths.typed(sae).exists():
        return f"SAE: there is no folder {sae}."
    return ""
