"""SAE file formats: one loader a module, chosen by the files that are there, never by the name of their folder.

A loader offers `recognises(place) -> bool` and `load(place, name, device)`, which gives a SaeConfig and the weights by
the names SAELens gave them. `place` is a folder, or the file of a format whose SAEs are one file each; `name` is what
the SAE is called: its path, or its place on the hub. Some formats say in it where their SAEs belong.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch

from engine.loading.formats import (
    attn_saes,
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    goodfire,
    llama_scope,
    llama_scope_r1,
    qwen_scope,
    saelens,
    sparsify,
)
from engine.loading.sae_files import FILES, known_files, on_disk
from engine.models.sae import SaeConfig, SparseAutoencoder
from engine.records.errors import SaeError


class Format(Protocol):
    """What a module of this package offers."""

    def recognises(self, place: Path) -> bool:
        """Does the folder, or the file, look like this format?"""
        ...

    def load(self, place: Path, name: str, device: torch.device) -> tuple[SaeConfig, dict[str, torch.Tensor]]:
        """Reads the SAE in its file's dtype, straight to the device, without copies. Raises SaeError."""
        ...


FORMATS: dict[str, Format] = {
    "SAELens": saelens,
    "Gemma Scope": gemma_scope,
    "Gemma Scope 2": gemma_scope_2,
    "Llama Scope": llama_scope,
    "Llama Scope R1": llama_scope_r1,
    "dictionary_learning": dictionary_learning,
    "sparsify": sparsify,
    "Qwen-Scope": qwen_scope,
    "Goodfire": goodfire,
    "attn-saes": attn_saes,
}

CPU = torch.device("cpu")

NO_SCALE = "the files do not say by which factor vectors are scaled; if none is published, they are not"

DEEPEST, MOST_FOLDERS, MOST_FILES = 6, 2000, 20_000
"""How far below a folder SAEs are looked for, to be named in an error: the hub's cache has them 5 folders down."""


def load_sae(
    place: Path, name: str | None = None, device: torch.device = CPU, published: Mapping[str, Any] | None = None
) -> SparseAutoencoder:
    """Loads the SAE at a place, whatever its format. Raises SaeError saying what was found instead.

    `published`: fields of its SaeConfig that a registry knows better than the files.
    """
    try:
        found = on_disk(place)
        for format in FORMATS.values():
            if format.recognises(found):
                config, weights = format.load(found, name or str(found), device)
                config = replace(config, **(published or {}))
                if config.normalisation == "expected_average_only_in" and config.scale == 1:
                    config = replace(config, notes=(*config.notes, NO_SCALE))
                return SparseAutoencoder(config, weights)
        if not place.is_dir():
            raise no_folder(place)
        raise SaeError(f"{place} holds no SAE of a known format (found: {listing(place)}).", hint(place))
    except OSError as error:  # no right to look into it, or a name the file system cannot have
        raise SaeError(
            f"{place} cannot be read: {error.strerror}.", "Give --sae a folder that you may read."
        ) from error


def no_folder(folder: Path) -> SaeError:
    """The error for a path that is neither a folder nor a SAE."""
    if folder.is_file():
        # Llama Scope's weights are one folder down
        inside = recognised(folder.parent) or recognised(folder.parent.parent)
        remedy = f"Give --sae the folder {inside}." if inside else hint(folder.parent)
        return SaeError(f"{folder} is a file of no known format; most SAEs are the folder they come in.", remedy)
    if folder.is_symlink():
        return SaeError(f"{folder} is a link that leads nowhere.", "Give --sae the folder it should lead to.")
    return SaeError(f"There is no SAE folder {folder}.", f"Give --sae a folder: {known_files()}.")


def recognised(place: Path) -> Path | None:
    """The folder or file, if it is a SAE."""
    return place if any(format.recognises(place) for format in FORMATS.values()) else None


def listing(folder: Path) -> str:
    """Return the first few names in a folder, in words."""
    names = sorted(ascii_name(p) + ("/" if p.is_dir() else "") for p in folder.iterdir())
    return ", ".join(names[:8]) + (f", … {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"


def ascii_name(path: Path) -> str:
    """Return a file's name as it may be shown on a terminal."""
    return path.name if path.name.isprintable() else ascii(path.name)


def hint(folder: Path) -> str:
    """Return what to give instead: a SAE further down, if there is one, else which files are missing."""
    if recognised(folder.parent):
        return f"The SAE is the folder above: give --sae {folder.parent}."
    inside = list(saes_below(folder))
    if len(inside) == 1:
        return f"There is a SAE in {inside[0]}: give --sae that folder."
    if inside:
        what = "folder" if inside[0].is_dir() else "file"
        return f"There are {len(inside)} SAEs in it: give --sae the {what} of one, such as {inside[0]}."
    if [*folder.glob("model*.safetensors"), *folder.glob("pytorch_model*"), *folder.glob("*.gguf")]:
        return "This is a language model: give it with --model, and --sae a SAE trained on it."
    for files in FILES.values():
        here = [file for file in files if (folder / file).is_file()]
        if here and here != ["config.json"]:
            return f"With {here[0]} there should be {rest_of(here[0])}: is the download complete?"
    pickled = [p for kind in ("*.pt", "*.pth", "*.bin") for p in folder.glob(kind)]
    if pickled:
        return f"Pickled weights without a known configuration are not read. A SAE has {known_files()}."
    return f"A SAE has {known_files()}."


def rest_of(file: str) -> str:
    """Return the files that may belong to one that is there, in words."""
    return " or ".join(other for files in FILES.values() if file in files for other in files if other != file)


def saes_below(folder: Path) -> Iterator[Path]:
    """Folders with SAEs, and files that are one, the nearest first. Links are followed as far as the depth allows."""
    waiting = deque([(folder, 0)])
    for _ in range(MOST_FOLDERS):
        if not waiting:
            return
        inner, depth = waiting.popleft()
        try:
            if depth > 0 and recognised(inner):
                yield inner
            elif depth < DEEPEST:
                with os.scandir(inner) as entries:
                    here = [(Path(entry.path), entry.is_dir()) for entry in islice(entries, MOST_FILES)]
                yield from sorted(path for path, is_folder in here if not is_folder and recognised(path))
                below = sorted(path for path, is_folder in here if is_folder)
                waiting += [(path, depth + 1) for path in below[:MOST_FOLDERS]]
        except OSError:  # of what may not be looked at, nothing is said
            continue
