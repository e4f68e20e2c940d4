"""SAE file formats: one loader per format, chosen by the files in a folder, never by the folder's name.

A loader offers `recognises(folder) -> bool` and `load(folder, name, device)`, which returns a SaeConfig and the weights
by SAELens' names; `name` is what the SAE is called: its path, or repository and folder on the hub. Some formats tell
model and hook point in the name only.
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

from engine.loading.formats import dictionary_learning, gemma_scope, gemma_scope_2, llama_scope, saelens, sparsify
from engine.models.sae import SaeConfig, SparseAutoencoder
from engine.records.errors import SaeError


class Format(Protocol):
    """What a module of this package offers."""

    def recognises(self, folder: Path) -> bool:
        """Return whether the files in the folder look like this format."""
        ...

    def load(self, folder: Path, name: str, device: torch.device) -> tuple[SaeConfig, dict[str, torch.Tensor]]:
        """Read the SAE in its file's dtype, straight to the device, without copies. Raises SaeError."""
        ...


FORMATS: dict[str, Format] = {
    "SAELens": saelens,
    "Gemma Scope": gemma_scope,
    "Gemma Scope 2": gemma_scope_2,
    "Llama Scope": llama_scope,
    "dictionary_learning": dictionary_learning,
    "sparsify": sparsify,
}

FILES = {
    "SAELens": ("cfg.json", "sae_weights.safetensors"),
    "Gemma Scope": ("params.npz",),
    "Gemma Scope 2": ("params.safetensors",),
    "Llama Scope": ("hyperparams.json", "checkpoints/final.safetensors"),
    "dictionary_learning": ("config.json", "ae.pt"),
    "sparsify": ("cfg.json", "sae.safetensors"),
}

CPU = torch.device("cpu")

NO_SCALE = "the files do not say by which factor vectors are scaled; if none is published, they are not"

DEEPEST, MOST_FOLDERS = 6, 2000
"""How far down, and in how many folders, SAEs are looked for to be named in an error: the hub's cache has 5 levels."""


def load_sae(
    folder: Path, name: str | None = None, device: torch.device = CPU, published: Mapping[str, Any] | None = None
) -> SparseAutoencoder:
    """Load the SAE in a folder, whatever its format. Raises SaeError saying what was found instead.

    `published`: fields of its SaeConfig that a registry knows better than the files.
    """
    try:
        if not folder.is_dir():
            raise no_folder(folder)
        for format in FORMATS.values():
            if format.recognises(folder):
                config, weights = format.load(folder, name or str(folder), device)
                config = replace(config, **(published or {}))
                if config.normalisation == "expected_average_only_in" and config.scale == 1:
                    config = replace(config, notes=(*config.notes, NO_SCALE))
                return SparseAutoencoder(config, weights)
        raise SaeError(f"{folder} holds no SAE of a known format (found: {listing(folder)}).", hint(folder))
    except OSError as error:  # no permission to read it, or a name the file system does not allow
        raise SaeError(
            f"{folder} cannot be read: {error.strerror}.", "Give --sae a folder that you may read."
        ) from error


def no_folder(folder: Path) -> SaeError:
    """Return the error for a path that is not a folder."""
    if folder.is_file():
        # Llama Scope's weights are one folder down
        inside = recognised(folder.parent) or recognised(folder.parent.parent)
        remedy = f"Give --sae the folder {inside}." if inside else hint(folder.parent)
        return SaeError(f"{folder} is a file; a SAE is the folder it comes in.", remedy)
    if folder.is_symlink():
        return SaeError(f"{folder} is a link that leads nowhere.", "Give --sae the folder it should lead to.")
    return SaeError(f"There is no SAE folder {folder}.", f"Give --sae a folder: {known_files()}.")


def recognised(folder: Path) -> Path | None:
    """Return the folder if it holds a SAE, else None."""
    return folder if any(format.recognises(folder) for format in FORMATS.values()) else None


def known_files() -> str:
    """Return the files of every format, in words."""
    return "; ".join(f"{' and '.join(files)} ({name})" for name, files in FILES.items())


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
        return f"There are {len(inside)} SAEs in it: give --sae the folder of one, such as {inside[0]}."
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
    """Yield folders with SAEs, the nearest first. Links are followed as far as the depth allows."""
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
                    below = islice((Path(entry.path) for entry in entries if entry.is_dir()), MOST_FOLDERS)
                    waiting += [(path, depth + 1) for path in sorted(below)]
        except OSError:  # folders that may not be read are left out
            continue
