"""What is published about SAEs: saescope's presets, then SAELens' registry where SAELens is installed.

The registry is read from its data file, since importing sae_lens takes seconds. Knows nothing of local files.
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
from engine.loading.formats import FORMATS, llama_scope
from engine.records.errors import SaeError

FILE = "pretrained_saes.yaml"

READ = {conversion: format.NAME for format in FORMATS for conversion in format.CONVERSIONS}
"""The formats that saescope reads, by SAELens' conversion functions."""

MODELS = {
    "gpt2-small": "openai-community/gpt2",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "pythia-70m-deduped": "EleutherAI/pythia-70m-deduped",
}
"""Names on the hub of models that TransformerLens names otherwise; Gemma's names lack their owner only."""

CORRECTED = {"google/gemma-scope-9b-it-res": "google/gemma-2-9b-it"}
"""Models of repositories for which the registry names another; SAELens' own loader names these."""

SHOWN = 8
"""How many names an error lists."""

REGISTRY = "SAELens' registry"


@dataclass(frozen=True)
class Known:
    """A published SAE: its place on the hub, and fields of its SaeConfig that its files lack or have wrong."""

    repository: str
    path: str
    published: dict[str, Any]
    unread: str = ""
    """Where saescope does not read it: what it is, such as "a transcoder and no SAE"."""


def by_release(text: str) -> Known | None:
    """Return the SAE named RELEASE/ID; None for an unknown release. Raises SaeError where a release lacks the id."""
    release, _, sae_id = text.strip("/").partition("/")
    own = next((p for p in presets.everyone() if p.release == release and p.sae_id == sae_id and sae_id), None)
    if own is not None:
        return by_place(own.repository, own.path)
    entry = saelens().get(release)
    if entry is None:
        return None
    listed = next((sae for sae in entry["saes"] if str(sae["id"]) == sae_id), None)
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
    """Return the SAE at a path of a repository on the hub; None where nothing is published about it."""
    own = next((p for p in presets.everyone() if p.repository == repository and p.path == path and path), None)
    listed = from_releases(repository, path) if mentioned(repository) else None
    if own is not None:
        fields = (listed.published if listed else {}) | from_preset(own)
        return Known(repository, path, fields)
    correction = next((r for r in presets.table().repository if r.name == repository), None)
    if listed is None and correction is not None:
        fields = corrections(correction.normalisation, correction.centered)
        return Known(repository, path, fields)
    return listed


def from_releases(repository: str, path: str) -> Known | None:
    """Return what SAELens' releases say about a SAE; None where none has it.

    Several releases may have the same SAE, each with other figures: the first release that gives a figure counts.
    """
    same = [
        from_saelens(entry, sae)
        for entry in saelens().values()
        if entry["repo_id"] == repository
        for sae in entry["saes"]
        if str(sae["path"]).strip("/") == path
    ]
    if not same:
        return None
    fields: dict[str, Any] = {}
    for known in same:
        fields = known.published | fields
    return Known(repository, path, fields, same[0].unread)


def from_preset(preset: presets.Preset) -> dict[str, Any]:
    """Return the fields of SaeConfig that a preset gives."""
    fields: dict[str, Any] = {
        "model": preset.model,
        "published_l0": preset.l0,
        "published_variance_explained": preset.variance_explained,
        "neuronpedia": preset.neuronpedia,
        **corrections(preset.normalisation, preset.centered),
    }
    return {name: value for name, value in fields.items() if value not in (None, "")}


def corrections(normalisation: str, centered: bool) -> dict[str, Any]:
    """Return the fields of SaeConfig that the SAE's files lack or have wrong, with notes for the user."""
    fields: dict[str, Any] = {}
    notes = []
    if normalisation:
        fields["normalisation"] = normalisation
        notes.append(f"normalisation {normalisation}: by {REGISTRY}, not by the SAE's files")
    if centered:
        fields["centered"] = True
        notes.append(f"trained on a residual stream without its mean: by {REGISTRY}, not by the SAE's files")
    return {**fields, "notes": tuple(notes)} if notes else {}


def hint(name: str) -> str:
    """Return what to say about an unknown name: the releases with similar names, or how to have releases at all."""
    if registry_file() is None:
        return "SAELens' releases are known once the extra is installed: pip install 'saescope[saelens]'."
    near = difflib.get_close_matches(name.split("/")[0], list(saelens()), n=3, cutoff=0.75)
    return f"Or is it a release of SAELens: {', '.join(near)}?" if near else ""


# ---- SAELens' registry


def registry_file() -> Path | None:
    """Return the registry's data file; None where SAELens is not installed."""
    spec = importlib.util.find_spec("sae_lens")  # finds the package without importing it
    for folder in spec.submodule_search_locations or [] if spec else []:
        if (Path(folder) / FILE).is_file():
            return Path(folder) / FILE
    return None


@cache
def text() -> str:
    """Return the registry's text; "" where there is none."""
    path = registry_file()
    return path.read_text("utf-8") if path else ""


def mentioned(repository: str) -> bool:
    """Return whether the registry's text names a repository; parsing the text would take most of a second."""
    return f"repo_id: {repository}" in text()


@cache
def saelens() -> dict[str, dict[str, Any]]:
    """Return SAELens' releases by name; {} where SAELens is not installed or its registry has an unknown layout."""
    import yaml  # type: ignore[import-untyped]

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # both are safe, the first is faster
    try:
        releases = yaml.load(text(), Loader=loader)
    except yaml.YAMLError:
        return {}
    return dict(valid(releases))


def valid(releases: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the releases, and in each the SAEs, of the expected layout; leave out the others."""
    for name, entry in releases.items() if isinstance(releases, dict) else ():
        saes = entry.get("saes") if isinstance(entry, dict) else None
        if isinstance(saes, list) and isinstance(entry.get("repo_id"), str):
            whole = [sae for sae in saes if isinstance(sae, dict) and "id" in sae and "path" in sae]
            if whole:
                yield str(name), {**entry, "saes": whole}


def table(value: object) -> dict[str, Any]:
    """Return the value if it is a table, else {}."""
    return value if isinstance(value, dict) else {}


def from_saelens(entry: dict[str, Any], sae: dict[str, Any]) -> Known:
    """Return what a release says about one of its SAEs. Absent figures stay absent: they are unknown, not 0."""
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
        **corrections(words(overrides.get("normalize_activations")), bool(kwargs.get("center_writing_weights"))),
    }
    if conversion not in llama_scope.CONVERSIONS:  # Llama Scope's files give the scale, and the threshold belongs to it
        fields["scale"] = number(sae.get("norm_scaling_factor"))
    published = {name: value for name, value in fields.items() if value not in (None, "")}
    return Known(str(entry["repo_id"]), path, published, what_is_unread(conversion, path))


def what_is_unread(conversion: object, path: str) -> str:
    """Return what a listed SAE is, where no format of saescope's reads it, else ""."""
    named = f"{conversion} {path}"
    if "mntss_clt" in named or "clt" in path.split("/"):
        return "a cross-layer transcoder and no SAE"
    if "transcoder" in named:
        return "a transcoder and no SAE"
    if conversion == "temporal":
        return "a temporal SAE, whose activations depend on earlier tokens"
    if isinstance(conversion, str | None) and conversion in READ:
        return ""
    return f"of the kind {conversion!r} (SAELens' name for it)"


def instead(unread: Known) -> str:
    """Return what to use in place of a SAE that is not read: the releases of SAEs of the same model."""
    model = unread.published.get("model", "")
    releases = {
        release: None
        for release, entry in saelens().items()
        for sae in entry["saes"][:1]
        if not (known := from_saelens(entry, sae)).unread and known.published.get("model", "") == model
    }
    if model and releases:
        return f"Use a SAE; SAELens' releases for {model} are: {', '.join([*releases][:SHOWN])}."
    return f"Use a SAE; of {model or 'its model'} SAELens lists none."


def hub_name(model: str) -> str:
    """Return a model's name on the hub, "" where that is unknown."""
    if "/" in model:
        return model
    return MODELS.get(model, f"google/{model}" if model.startswith("gemma-") else "")


def words(value: object) -> str:
    """Return the value if it is a string, else ""."""
    return value if isinstance(value, str) else ""


def number(value: object) -> float | None:
    """Return the value if it is a positive number, else None."""
    return float(value) if isinstance(value, int | float) and value > 0 else None
