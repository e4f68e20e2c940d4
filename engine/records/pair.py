"""The pair of model and SAE: loading it, and checking that it is wired right."""

from __future__ import annotations

from typing import ClassVar

from engine.records.base import Bos, Record, VerbRequest


class Load(VerbRequest, frozen=True, tag=True):
    """Load a model and its SAE. None means the packaged demo's; `hook` None means the hook point that the SAE names."""

    waited_for: ClassVar[str] = "the model to load"
    model: str | None = None
    sae: str | None = None
    hook: str | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    reference: str | None = None
    """Path of a text file that replaces the packaged neutral text."""
    bos: Bos = "auto"


class Loaded(Record, frozen=True, tag=True):
    """What is loaded: everything a result depends on apart from the request itself."""

    model: str
    model_fingerprint: str
    """sha256 over names, sizes, first and last MiB of the weight files; for hub models the config's hash."""
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
    """Mean number of active features per token, as published; None if nothing is published."""
    published_variance_explained: float | None = None
    neuronpedia: str = ""
    """The SAE's page on Neuronpedia, such as gpt2-small/8-res-jb; "" if none is known."""
    centered: bool = False
    """Whether the SAE reads vectors whose mean is subtracted first."""
    rescaled: bool = False
    """Whether its activations are multiplied by the norms of their decoder rows."""
    raw_bos: bool = True
    """Whether a BOS, if the tokenizer has one, is put before raw prompts; always before it could be chosen."""
    chat_bos: bool = True
    """Whether a BOS, if the tokenizer has one, is put before chat prompts whose template begins with none."""
    notes: tuple[str, ...] = ()
    """What the loader decided about the SAE beyond or against its files, and which tensors the model leaves unused."""
    l0: float | None = None
    """Mean number of features that fire per token of the reference text; None in older session files."""
    variance_explained: float | None = None
    """Share of the hooked vectors' variance on the reference text that the SAE reconstructs."""
    doubts: tuple[str, ...] = ()
    """Signs in these numbers, the hook point or the model that the wiring is wrong, in few words; () if none."""


class Doctor(VerbRequest, frozen=True, tag=True):
    """Is the SAE wired right to this model?"""

    waited_for: ClassVar[str] = "the doctor"
    text_tokens: int = 4000
    """On how many tokens of the reference text to measure."""


class Check(Record, frozen=True):
    """One line of the doctor's report.

    `ok` None means that the value was measured but there is nothing to compare it with; with a remedy it is a doubt.
    """

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""
    """What to do about a check that failed or is in doubt."""


class Diagnosis(Record, frozen=True, tag=True):
    """The doctor's report."""

    checks: tuple[Check, ...]
    l0: float
    variance_explained: float
    tokens: int
