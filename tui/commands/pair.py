"""Commands of the pair of model and SAE: choose it, load it, take over its preset, run the doctor."""

from __future__ import annotations

from typing import cast, get_args

from engine.files import paths
from engine.loading import presets
from engine.records import Diagnosis, Doctor, Load, Loaded
from engine.records.base import Bos
from engine.records.errors import SaescopeError
from engine.serving.client import RequestCancelled
from tui.screens.model_form import ModelForm
from tui.screens.reports import checks_page
from tui.services.context import Context
from tui.state.presets import take_over
from tui.state.topics import Topic
from tui.widgets.forms import Field
from tui.widgets.page import Report

LOCAL = ("/", "~", ".")
"""What a path may begin with, but no name on the hub."""

DTYPES = ("automatic", "float32", "bfloat16", "float16")


def choose(context: Context) -> None:
    """Open the form of model, SAE, hook point, device and dtype, and load what the user chooses."""
    before = context.load_tried or context.study.load
    fields = (
        Field("model", "model", before.model or "", "folder or hub name; empty: the packaged demo"),
        Field("sae", "SAE", before.sae or "", "folder, hub place, or SAELens' RELEASE/ID"),
        Field("hook", "hook point", before.hook or "", "empty: the one the SAE names"),
        Field("device", "device", before.device or "", "cpu or cuda:N; empty: a GPU if there is one"),
        Field("dtype", "dtype", before.dtype if before.dtype in DTYPES else DTYPES[0], choices=DTYPES),
        Field("bos", "BOS before prompts", before.bos, choices=get_args(Bos)),
    )

    def chosen(values: dict[str, str] | None) -> None:
        if values is None:
            return
        dtype = None if values["dtype"] == DTYPES[0] else values["dtype"]
        texts = {name: values[name].strip() or None for name in ("model", "sae", "hook", "device")}
        bos = cast(Bos, values["bos"])
        wanted = Load(**texts, dtype=dtype, threads=before.threads, reference=before.reference, bos=bos)
        context.load_tried = wanted
        load(context, wanted, chosen=True)

    loaded = context.study.loaded
    form = ModelForm(
        "Model and SAE; the session so far stays under ctrl+o",
        fields,
        check_load,
        presets.everyone(),
        presets.of_sae(before.sae) if before.sae or not before.model else None,
        context.desk.memory if loaded else None,
        loaded.device if loaded else "",
    )
    context.desk.open(form, chosen)


def _take_over(context: Context, before: Load, sae_before: Loaded | None, loaded: Loaded) -> bool:
    """If a preset's SAE was loaded in place of another, take over its prompts and pins; return whether it had any."""
    if sae_before is not None and sae_before.sae_fingerprint == loaded.sae_fingerprint:
        return False
    study = context.study
    preset = presets.of_sae(study.load.sae)
    taken = take_over(study, preset, presets.of_sae(before.sae)) if preset else ""
    if taken:
        context.desk.notify(taken)
    return bool(taken)


# ---- loading


def load(context: Context, wanted: Load, chosen: bool = False) -> None:
    """Start the engine if it is not running, and load model and SAE; `chosen` says that the user chose them."""
    if context.tasks.loads:
        context.desk.forget_notes()  # notifications of the load before

    async def task() -> None:
        try:
            if not context.bridge.alive:
                context.desk.show_engine("starting the engine")
                await context.bridge.start()
            loaded = await context.bridge.run(wanted, Loaded)
            context.autosave.keep_now()  # before the study may begin another session
            take_loaded(context, wanted, loaded, chosen)
        except (SaescopeError, RequestCancelled):
            context.desk.show_no_load()
            raise

    context.tasks.run_load(task)


def take_loaded(context: Context, wanted: Load, loaded: Loaded, chosen: bool) -> None:
    """Take over and show the loaded pair; report if the results are from another pair."""
    study = context.study
    before, sae_before = study.load, study.results.loaded
    differences = study.now_loaded(wanted, loaded, chosen)
    taken = chosen and _take_over(context, before, sae_before, loaded)
    if taken or (chosen and differences):
        study.tell(Topic.ALL)
    context.desk.show_loaded()
    if study.attribution() is not None:
        study.tell(Topic.RANKING)  # the effects may be of another SAE now, or hold again
    if study.differences:
        what = ", ".join(differences)
        context.desk.report(
            f"These results were recorded with another {what} than is loaded now.",
            "They stay as they are; R runs them again here, and the next new result begins a new session.",
        )


def restart_engine(context: Context) -> None:
    """Restart a lost engine with the model and SAE that were loaded."""
    if context.bridge.alive:
        context.desk.notify("The engine is running; x stops what it does.")
        return
    load(context, context.study.load)


# ---- the doctor


def doctor(context: Context) -> None:
    """Show the doctor's report; it is made once per loaded pair."""
    diagnosis = context.desk.diagnosis
    if diagnosis is not None:
        _show_diagnosis(context, diagnosis)
    elif context.tasks.may_ask():
        _examine(context)


def _examine(context: Context) -> None:
    tasks = context.tasks

    async def task() -> None:
        loads = tasks.loads
        diagnosis = await tasks.ask(Doctor(), Diagnosis)
        if loads != tasks.loads:  # another pair has been or is being loaded
            return
        context.desk.show_diagnosis(diagnosis)
        if context.desk.is_undisturbed:
            _show_diagnosis(context, diagnosis)
        else:
            context.desk.notify("The doctor is done: H shows the report.")

    tasks.run("doctor", task)


def _show_diagnosis(context: Context, diagnosis: Diagnosis) -> None:
    context.desk.open(Report("Is the SAE wired right?", checks_page(diagnosis)))


def check_load(values: dict[str, str]) -> str:
    """Say what is wrong with the form's fields, as far as can be seen without loading; "" if nothing is."""
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
