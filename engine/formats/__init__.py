"""SAE file formats: one loader a file, chosen by looking at the files, never at their names.

A loader offers `recognises(folder) -> bool` and `load(folder, name, device) -> SparseAutoencoder`; `name` is what the
SAE is called: its path, or repository and folder on the hub. Some formats say in it where their SAEs belong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from engine.errors import SaeError
from engine.formats import dictionary_learning, gemma_scope, gemma_scope_2, llama_scope, saelens, sparsify
from engine.sae import SparseAutoencoder


class Format(Protocol):
    """What a module of this package offers."""

    def recognises(self, folder: Path) -> bool:
        """Do the files in the folder look like this format?"""
        ...

    def load(self, folder: Path, name: str, device: torch.device) -> SparseAutoencoder:
        """Reads the SAE in its file's dtype, straight to the device. Raises SaeError."""
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
    "SAELens": "cfg.json and sae_weights.safetensors",
    "Gemma Scope": "params.npz",
    "Gemma Scope 2": "params.safetensors",
    "Llama Scope": "hyperparams.json and checkpoints/final.safetensors",
    "dictionary_learning": "config.json and ae.pt",
    "sparsify": "cfg.json and sae.safetensors",
}
CPU = torch.device("cpu")


def load_sae(
    folder: Path, name: str | None = None, device: torch.device = CPU, published: Mapping[str, Any] | None = None
) -> SparseAutoencoder:
    """Loads the SAE in a folder, whatever its format. Raises SaeError saying what was found instead.

    `published`: fields of its SaeConfig that a registry knows better than the files.
    """
    if not folder.is_dir():
        raise SaeError(f"There is no SAE folder {folder}.", f"Give --sae a folder: {known_files()}.")
    for format in FORMATS.values():
        if format.recognises(folder):
            sae = format.load(folder, name or str(folder), device)
            sae.config = replace(sae.config, **(published or {}))
            return sae
    raise SaeError(f"{folder} holds no SAE of a known format (found: {listing(folder)}).", hint(folder))


def known_files() -> str:
    """The files of every format, in words."""
    return "; ".join(f"{FILES[name]} ({name})" for name in FORMATS)


def listing(folder: Path) -> str:
    """The first few names in a folder."""
    names = sorted(p.name + ("/" if p.is_dir() else "") for p in folder.iterdir())
    return ", ".join(names[:8]) + (f", … {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"


def hint(folder: Path) -> str:
    """What to give instead: a SAE further down, if there is one, else which files a SAE has."""
    for depth in ("*", "*/*", "*/*/*"):
        for inner in sorted(folder.glob(depth)):
            if inner.is_dir() and any(format.recognises(inner) for format in FORMATS.values()):
                return f"There is a SAE in {inner}: give --sae that folder."
    if (folder / "config.json").is_file() and list(folder.glob("model*.safetensors")):
        return "This is a language model: give it with --model, and --sae a SAE trained on it."
    if list(folder.glob("*.pt")) + list(folder.glob("*.pth")) + list(folder.glob("*.bin")):
        return f"Pickled weights without a known configuration are not read. A SAE has {known_files()}."
    return f"A SAE has {known_files()}."
