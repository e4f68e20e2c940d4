"""Presets: pairs of model and SAE that belong together, with prompts, labelled features and published figures.

The table is presets.toml, which names its sources. No torch here.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal

import msgspec

from engine.records import Load, Record
from engine.records.base import Bos
from engine.records.errors import UsageError

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
"""Bytes of one number, by safetensors' names for dtypes; of any other dtype it is 1."""

CHOICES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""What --dtype may say, with safetensors' names for it."""


class Pinned(Record, frozen=True):
    """A feature with a published interpretation; the label names its source."""

    feature: int
    label: str


class Preset(Record, frozen=True):
    """One entry of the table. `model` and `sae` are None for the packaged demo."""

    name: str
    title: str
    hook: str
    parameters: int
    dtype: Literal["F32", "F16", "BF16"]
    """The dtype of the model's file, in which the model is loaded on a GPU."""
    d_in: int
    d_sae: int
    prompts: str
    model: str | None = None
    sae: str | None = None
    """OWNER/REPOSITORY/PATH on the hub."""
    model_name: str = ""
    """Name of the demo's model, which has no place on the hub."""
    sae_name: str = ""
    release: str = ""
    """SAELens' name of the release; `sae_id` is its name of the SAE in it."""
    sae_id: str = ""
    l0: float | None = None
    variance_explained: float | None = None
    neuronpedia: str = ""
    normalisation: str = ""
    """Given where the SAE's own files do not say it."""
    centered: bool = False
    bos: Bos = "auto"
    pinned: tuple[Pinned, ...] = ()

    @property
    def repository(self) -> str:
        """The hub repository of the SAE; "" for the demo."""
        return "/".join((self.sae or "").split("/")[:2])

    @property
    def path(self) -> str:
        """The SAE's folder in the repository."""
        return "/".join((self.sae or "").split("/")[2:])

    def model_bytes(self, dtype: str | None = None) -> int:
        """Return the memory of the model's weights in bytes, converted to a dtype or as they are in the file."""
        return self.parameters * BYTES[CHOICES.get(dtype or "", self.dtype)]

    def bytes_needed(self, dtype: str | None = None) -> int:
        """Return the memory of model and SAE in bytes; the SAE keeps its dtype, at most float32."""
        return self.model_bytes(dtype) + 2 * self.d_in * self.d_sae * BYTES["F32"]


class Repository(Record, frozen=True):
    """What holds for every SAE of a repository but is in none of its files."""

    name: str
    normalisation: str = ""
    centered: bool = False


class Table(Record, frozen=True):
    """The content of presets.toml."""

    preset: tuple[Preset, ...]
    repository: tuple[Repository, ...] = ()


@cache
def table() -> Table:
    """Read presets.toml, once."""
    return msgspec.toml.decode(files("engine.loading").joinpath("presets.toml").read_bytes(), type=Table)


def everyone() -> tuple[Preset, ...]:
    """Return all presets, in the table's order."""
    return table().preset


def find(name: str) -> Preset:
    """Return a preset by its name. Raises UsageError listing the names, the closest first."""
    by_name = {preset.name: preset for preset in everyone()}
    if name not in by_name:
        listed = ", ".join(closest_first(name, list(by_name)))
        raise UsageError(f"There is no preset {name!r}.", f"Presets: {listed}. `saescope presets` says what they are.")
    return by_name[name]


def of_sae(sae: str | None) -> Preset | None:
    """Return the preset with this SAE, named by its place on the hub or by SAELens; the demo's for None."""
    text = sae.strip().strip("/") if sae else None
    for preset in everyone():
        if text == preset.sae or (text and text == f"{preset.release}/{preset.sae_id}"):
            return preset
    return None


def of_model(model: str | None) -> Preset | None:
    """Return a preset with this model, for what is known about the model."""
    return next((preset for preset in everyone() if preset.model == model), None)


def applied(preset: Preset, load: Load) -> Load:
    """Return the request with its gaps filled from the preset; hook point and BOS go with the preset's own SAE only."""
    own_sae = not load.sae
    return msgspec.structs.replace(
        load,
        model=load.model or preset.model,
        sae=load.sae or preset.sae,
        hook=load.hook or (preset.hook if own_sae and preset.sae else None),
        bos=preset.bos if own_sae and load.bos == "auto" else load.bos,
    )


def closest_first(word: str, names: list[str]) -> list[str]:
    """Return the names, those that look like the word first."""
    import difflib  # imported here, for unknown words only: every start would wait for it

    similar = difflib.get_close_matches(word, names, n=5, cutoff=0.4)
    return similar + [name for name in names if name not in similar]
