"""The pair of model and SAE: loading it, and whether it is wired right."""

from __future__ import annotations

from engine.records.base import Record


class Load(Record, frozen=True, tag=True):
    """Loads a model and its SAE. None means the packaged demo's; `hook` None means the one the SAE names."""

    model: str | None = None
    sae: str | None = None
    hook: str | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    reference: str | None = None
    """Path of a text file that replaces the packaged neutral text."""


class Loaded(Record, frozen=True, tag=True):
    """What is loaded: everything a result depends on apart from the request itself."""

    model: str
    model_fingerprint: str
    """sha256 over names, sizes, first and last MiB of the weight files; the config's hash for hub models."""
    sae: str
    sae_fingerprint: str
    hook: str
    hook_module: str
    d_model: int
    d_sae: int
    encoder: str
    normalisation: str
    device: str
    dtype: str
    threads: int
    versions: dict[str, str]
    reference: str
    reference_tokens: int
    reference_fingerprint: str = ""
    """sha256 over the reference text's token ids and the statistics' counts."""
    sae_format: str = ""
    """Which loader read the SAE, such as "Gemma Scope"."""
    published_l0: float | None = None
    """Mean number of active features per token, as published; None where nothing is."""
    published_variance_explained: float | None = None
    neuronpedia: str = ""
    """The SAE's page there, such as gpt2-small/8-res-jb; "" where it has none that is known."""
    centered: bool = False
    """The SAE reads vectors whose mean is taken away first."""
    rescaled: bool = False
    """Its activations are multiplied by the norms of their decoder rows."""
    notes: tuple[str, ...] = ()
    """In words: what was decided about the SAE beyond or against its files, and what of the model's is not used."""
    l0: float | None = None
    """Mean number of features that fire per token of the reference text; None in sessions of before it was kept."""
    variance_explained: float | None = None
    """Of the hooked vectors on the reference text."""
    doubts: tuple[str, ...] = ()
    """What these numbers, hook and model say against the wiring, in a few words each; () where all is as it should."""


class Doctor(Record, frozen=True, tag=True):
    """Is the SAE wired right to this model?"""

    text_tokens: int = 4000
    """How many tokens of the reference text to measure on."""


class Check(Record, frozen=True):
    """One line of the doctor's report. `ok` None: measured, nothing to compare it with; with a remedy, a doubt."""

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""
    """What to do about it, where it failed or is in doubt."""


class Diagnosis(Record, frozen=True, tag=True):
    """The doctor's report."""

    checks: tuple[Check, ...]
    l0: float
    variance_explained: float
    tokens: int
