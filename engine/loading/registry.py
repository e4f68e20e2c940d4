"""What is published about SAEs: our own presets, then SAELens' registry where that package is installed.

The registry is read as the data file it is: importing sae_lens takes seconds. Knows nothing of files or of torch.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from engine.loading import presets
from engine.records.errors import SaeError

FILE = "pretrained_saes.yaml"

LOADERS = {
    None: "SAELens",
    "sae_lens": "SAELens",
    "gemma_2": "Gemma Scope",
    "gemma_3": "Gemma Scope 2",
    "llama_scope": "Llama Scope",
    "llama_scope_r1_distill": "Llama Scope R1",
    "dictionary_learning_1": "dictionary_learning",
    "sparsify": "sparsify",
    "qwen_scope": "Qwen-Scope",
    "goodfire": "Goodfire",
    "deepseek_r1": "Goodfire",
    "connor_rob_hook_z": "attn-saes",
}
"""The loader of ours that reads what each of SAELens' conversion functions reads."""

MODELS = {
    "gpt2-small": "openai-community/gpt2",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "pythia-70m-deduped": "EleutherAI/pythia-70m-deduped",
}
"""TransformerLens' names of models, as the hub has them; Gemma's lack their owner only."""

CORRECTED = {"google/gemma-scope-9b-it-res": "google/gemma-2-9b-it"}
"""Models of repositories for which the registry names another; SAELens' own loader names these."""

SHOWN = 8
"""How many names an error lists."""


@dataclass(frozen=True)
class Known:
    """A SAE that is known by name: where it is, and the fields of its SaeConfig that its files do not tell."""

    repository: str
    path: str
    published: dict[str, Any]
    source: str
    """Who says so."""
    unread: str = ""
    """What it is, where that is nothing that is read here; "" for what is."""


def by_release(text: str) -> Known | None:
    """A SAE by `release/sae_id`, None where no such release is known. Raises SaeError for an unknown id in one."""
    release, _, sae_id = text.strip("/").partition("/")
    own = next((p for p in presets.everyone() if p.release == release and p.sae_id == sae_id and sae_id), None)
    if own is not None:
        return by_place(own.repository, own.path)
    entry = saelens().get(release)
    if entry is None:
        return None
    found = next((sae for sae in entry["saes"] if str(sae["id"]) == sae_id), None)
    if found is None:
        ids = presets.closest_first(sae_id, [str(sae["id"]) for sae in entry["saes"]])
        more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
        what = f"no SAE {sae_id}" if sae_id else "more than one SAE" if len(ids) > 1 else "one SAE"
        raise SaeError(
            f"SAELens' release {release} has {what}.",
            f"Give --sae {release}/ID with one of: {', '.join(ids[:SHOWN])}{more}.",
        )
    return by_place(str(entry["repo_id"]), str(found["path"])) or from_saelens(entry, found)


def by_place(repository: str, path: str) -> Known | None:
    """A SAE by its place on the hub; None where nothing is published about it."""
    own = next((p for p in presets.everyone() if p.repository == repository and p.path == path and path), None)
    found: Known | None = None
    if mentioned(repository):
        same = [
            from_saelens(entry, sae)
            for entry in saelens().values()
            if entry["repo_id"] == repository
            for sae in entry["saes"]
            if str(sae["path"]).strip("/") == path
        ]
        for known in same:  # a release may list again what another has, with other figures left out
            found = known if found is None else Known(**{**vars(found), "published": known.published | found.published})
    if own is not None:
        return Known(repository, path, (found.published if found else {}) | from_preset(own), "saescope's presets")
    correction = next((r for r in presets.table().repository if r.name == repository), None)
    if found is None and correction is not None:
        fields = corrections(correction.normalisation, correction.centered, "SAELens' registry")
        return Known(repository, path, fields, "saescope's presets")
    return found


def from_preset(preset: presets.Preset) -> dict[str, Any]:
    """What a preset says about its SAE."""
    fields: dict[str, Any] = {
        "model": preset.model,
        "published_l0": preset.l0,
        "published_variance_explained": preset.variance_explained,
        "neuronpedia": preset.neuronpedia,
        **corrections(preset.normalisation, preset.centered, "SAELens' registry"),
    }
    return {name: value for name, value in fields.items() if value not in (None, "")}


def corrections(normalisation: str, centered: bool, source: str) -> dict[str, Any]:
    """What the files leave out or say wrongly, with a word for the user."""
    fields: dict[str, Any] = {}
    notes = []
    if normalisation:
        fields["normalisation"] = normalisation
        notes.append(f"normalisation {normalisation}: by {source}, not by the SAE's files")
    if centered:
        fields["centered"] = True
        notes.append(f"trained on a residual stream without its mean: by {source}, not by the SAE's files")
    return {**fields, "notes": tuple(notes)} if notes else {}


def hint(name: str) -> str:
    """What to say about a name that is no repository: which release it looks like, or how to have releases."""
    if registry_file() is None:
        return "SAELens' releases are known once the extra is installed: pip install 'saescope[saelens]'."
    near = difflib.get_close_matches(name.split("/")[0], list(saelens()), n=3, cutoff=0.75)
    return f"Or is it a release of SAELens: {', '.join(near)}?" if near else ""


# ---- SAELens' registry


def registry_file() -> Path | None:
    """The registry's data file; None where SAELens is not installed."""
    spec = importlib.util.find_spec("sae_lens")  # finds without importing
    for folder in spec.submodule_search_locations or [] if spec else []:
        if (Path(folder) / FILE).is_file():
            return Path(folder) / FILE
    return None


@cache
def text() -> str:
    """The registry as it is written; "" where there is none."""
    path = registry_file()
    return path.read_text("utf-8") if path else ""


def mentioned(repository: str) -> bool:
    """Whether the registry names a repository at all: reading it whole takes most of a second."""
    return f"repo_id: {repository}" in text()


@cache
def saelens() -> dict[str, dict[str, Any]]:
    """SAELens' releases; empty where it is not installed, or has changed its file's layout."""
    import yaml  # type: ignore[import-untyped]

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        found = yaml.load(text(), Loader=loader)  # a safe loader, whichever of the two
    except yaml.YAMLError:
        return {}
    return dict(valid(found))


def valid(found: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """The releases, and of each the SAEs, that look as they should: what is wrong in one says nothing of the others."""
    for name, entry in found.items() if isinstance(found, dict) else ():
        saes = entry.get("saes") if isinstance(entry, dict) else None
        if isinstance(saes, list) and isinstance(entry.get("repo_id"), str):
            whole = [sae for sae in saes if isinstance(sae, dict) and "id" in sae and "path" in sae]
            if whole:
                yield str(name), {**entry, "saes": whole}


def table(value: object) -> dict[str, Any]:
    """The value where it is a table, else an empty one."""
    return value if isinstance(value, dict) else {}


def from_saelens(entry: dict[str, Any], sae: dict[str, Any]) -> Known:
    """What the registry says about one SAE. An l0 or variance explained it does not give is not known."""
    overrides = table(entry.get("config_overrides"))
    kwargs = table(overrides.get("model_from_pretrained_kwargs"))
    conversion, path = entry.get("conversion_func"), str(sae["path"]).strip("/")
    fields: dict[str, Any] = {
        "model": CORRECTED.get(entry["repo_id"])
        or hub_name(str(overrides.get("model_name") or entry.get("model") or "")),
        "hook": words(overrides.get("hook_name")),
        "published_l0": number(sae.get("l0")),
        "published_variance_explained": number(sae.get("variance_explained")),
        "neuronpedia": words(sae.get("neuronpedia")),
        **corrections(
            words(overrides.get("normalize_activations")),
            bool(kwargs.get("center_writing_weights")),
            "SAELens' registry",
        ),
    }
    if conversion != "llama_scope":  # whose files give the factor, and its threshold goes with it
        fields["scale"] = number(sae.get("norm_scaling_factor"))
    published = {name: value for name, value in fields.items() if value not in (None, "")}
    return Known(str(entry["repo_id"]), path, published, "SAELens' registry", what_is_unread(conversion, path))


def what_is_unread(conversion: object, path: str) -> str:
    """What it is, where no loader of ours reads it; "" where one does."""
    named = f"{conversion} {path}"
    if "mntss_clt" in named or "clt" in path.split("/"):
        return "a cross-layer transcoder and no SAE"
    if "transcoder" in named:
        return "a transcoder and no SAE"
    if conversion == "temporal":
        return "a temporal SAE, whose activations depend on earlier tokens"
    if isinstance(conversion, str | None) and conversion in LOADERS:
        return ""
    return f"of the kind {conversion!r} (SAELens' name for it)"


def instead(unread: Known) -> str:
    """What to use in place of a SAE that is not read: releases of the same model."""
    model = unread.published.get("model", "")
    found = {
        release: None
        for release, entry in saelens().items()
        for sae in entry["saes"][:1]
        if not (known := from_saelens(entry, sae)).unread and known.published.get("model", "") == model
    }
    if model and found:
        return f"Use a SAE; SAELens' releases for {model} are: {', '.join([*found][:SHOWN])}."
    return f"Use a SAE; of {model or 'its model'} SAELens lists none."


def hub_name(model: str) -> str:
    """A model as the hub calls it; "" where that is not known."""
    if "/" in model:
        return model
    return MODELS.get(model, f"google/{model}" if model.startswith("gemma-") else "")


def words(value: object) -> str:
    """A string, or "" for anything else."""
    return value if isinstance(value, str) else ""


def number(value: object) -> float | None:
    """A positive number, or None."""
    return float(value) if isinstance(value, int | float) and value > 0 else None
