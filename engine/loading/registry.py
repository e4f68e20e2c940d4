"""What is published about SAEs: our own presets, then SAELens' registry where that package is installed.

The registry is read as a data file, because importing sae_lens takes seconds. Knows nothing of SAE files or of torch.
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

READ = (None, "sae_lens", "gemma_2", "gemma_3", "llama_scope", "dictionary_learning_1", "sparsify")
"""SAELens' conversion functions for the formats that our loaders read."""

MODELS = {
    "gpt2-small": "openai-community/gpt2",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "pythia-70m-deduped": "EleutherAI/pythia-70m-deduped",
}
"""Hub names of models by their TransformerLens names; for Gemma's only the owner has to be added."""

SHOWN = 8
"""How many names an error lists."""


@dataclass(frozen=True)
class Known:
    """A SAE known by name: where it is, and those fields of its SaeConfig that its files do not tell."""

    repository: str
    path: str
    published: dict[str, Any]
    source: str
    """Who publishes these fields, in words."""
    unread: str = ""
    """SAELens' name of its format where that is not read here; "" otherwise."""


def by_release(text: str) -> Known | None:
    """Return a SAE by `release/sae_id`; None for an unknown release. Raises SaeError for an unknown id."""
    release, _, sae_id = text.strip("/").partition("/")
    own = next((p for p in presets.everyone() if p.release == release and p.sae_id == sae_id and sae_id), None)
    if own is not None:
        return by_place(own.repository, own.path)
    entry = saelens().get(release)
    if entry is None:
        return None
    listed = next((sae for sae in entry["saes"] if sae["id"] == sae_id), None)
    if listed is None:
        ids = presets.closest_first(sae_id, [str(sae["id"]) for sae in entry["saes"]])
        more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
        what = f"no SAE {sae_id}" if sae_id else "more than one SAE" if len(ids) > 1 else "one SAE"
        raise SaeError(
            f"SAELens' release {release} has {what}.",
            f"Give --sae {release}/ID with one of: {', '.join(ids[:SHOWN])}{more}.",
        )
    return by_place(str(entry["repo_id"]), str(listed["path"])) or from_saelens(entry, listed)


def by_place(repository: str, path: str) -> Known | None:
    """Return a SAE by its place on the hub; None where nothing is published about it."""
    own = next((p for p in presets.everyone() if p.repository == repository and p.path == path and path), None)
    listed: Known | None = None
    if mentioned(repository):
        same = [
            from_saelens(entry, sae)
            for entry in saelens().values()
            if entry["repo_id"] == repository
            for sae in entry["saes"]
            if str(sae["path"]).strip("/") == path
        ]
        for known in same:  # releases may list the same SAE, each with other figures missing
            listed = (
                known if listed is None else Known(**{**vars(listed), "published": known.published | listed.published})
            )
    if own is not None:
        return Known(repository, path, (listed.published if listed else {}) | from_preset(own), "saescope's presets")
    correction = next((r for r in presets.table().repository if r.name == repository), None)
    if listed is None and correction is not None:
        fields = corrections(correction.normalisation, correction.centered, "SAELens' registry")
        return Known(repository, path, fields, "saescope's presets")
    return listed


def from_preset(preset: presets.Preset) -> dict[str, Any]:
    """Return the fields that a preset gives."""
    fields: dict[str, Any] = {
        "model": preset.model,
        "published_l0": preset.l0,
        "published_variance_explained": preset.variance_explained,
        "neuronpedia": preset.neuronpedia,
        **corrections(preset.normalisation, preset.centered, "SAELens' registry"),
    }
    return {name: value for name, value in fields.items() if value not in (None, "")}


def corrections(normalisation: str, centered: bool, source: str) -> dict[str, Any]:
    """Return the fields that the files omit or get wrong, with notes for the user."""
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
    """Return a hint for a name that is not a repository: which release it resembles, or how to get releases."""
    if registry_file() is None:
        return "SAELens' releases are known once the extra is installed: pip install 'saescope[saelens]'."
    near = difflib.get_close_matches(name.split("/")[0], list(saelens()), n=3, cutoff=0.75)
    return f"Or is it a release of SAELens: {', '.join(near)}?" if near else ""


# ---- SAELens' registry


def registry_file() -> Path | None:
    """Return the path of the registry's data file; None where SAELens is not installed."""
    spec = importlib.util.find_spec("sae_lens")  # finds without importing
    for folder in spec.submodule_search_locations or [] if spec else []:
        if (Path(folder) / FILE).is_file():
            return Path(folder) / FILE
    return None


@cache
def text() -> str:
    """Return the text of the registry's file; "" where there is none."""
    path = registry_file()
    return path.read_text("utf-8") if path else ""


def mentioned(repository: str) -> bool:
    """Return whether the registry's text names a repository: parsing the file takes most of a second."""
    return f"repo_id: {repository}" in text()


@cache
def saelens() -> dict[str, dict[str, Any]]:
    """Return SAELens' releases; empty where it is not installed, or has changed its file's layout."""
    import yaml  # type: ignore[import-untyped]

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        document = yaml.load(text(), Loader=loader)  # either loader is safe
    except yaml.YAMLError:
        return {}
    return dict(valid(document))


def valid(document: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the releases that look as they should."""
    for name, entry in document.items() if isinstance(document, dict) else ():
        saes = entry.get("saes") if isinstance(entry, dict) else None
        if isinstance(saes, list) and "repo_id" in entry and all("id" in sae and "path" in sae for sae in saes):
            yield str(name), entry


def from_saelens(entry: dict[str, Any], sae: dict[str, Any]) -> Known:
    """Return what the registry says about one SAE. An l0 or variance explained that it does not give is unknown."""
    overrides = entry.get("config_overrides") or {}
    kwargs = overrides.get("model_from_pretrained_kwargs") or {}
    conversion, path = entry.get("conversion_func"), str(sae["path"]).strip("/")
    fields: dict[str, Any] = {
        "model": hub_name(str(overrides.get("model_name") or entry.get("model") or "")),
        "hook": overrides.get("hook_name"),
        "published_l0": number(sae.get("l0")),
        "published_variance_explained": number(sae.get("variance_explained")),
        "neuronpedia": sae.get("neuronpedia"),
        **corrections(
            overrides.get("normalize_activations") or "",
            bool(kwargs.get("center_writing_weights")),
            "SAELens' registry",
        ),
    }
    if conversion != "llama_scope":  # its files give the factor, and the threshold goes with it
        fields["scale"] = number(sae.get("norm_scaling_factor"))
    unread = "transcoder" if "transcoder" in path or "clt" in path.split("/") else ""
    if conversion not in READ:
        unread = str(conversion)
    published = {name: value for name, value in fields.items() if value not in (None, "")}
    return Known(str(entry["repo_id"]), path, published, "SAELens' registry", unread)


def hub_name(model: str) -> str:
    """Return a model's name on the hub; "" where unknown."""
    if "/" in model:
        return model
    return MODELS.get(model, f"google/{model}" if model.startswith("gemma-") else "")


def number(value: object) -> float | None:
    """Return the value if it is a positive number, else None."""
    return float(value) if isinstance(value, int | float) and value > 0 else None
