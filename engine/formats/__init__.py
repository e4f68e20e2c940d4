"""SAE file formats: one loader a file, chosen by looking at the files, never at their names.

A loader is a function `load(folder) -> SparseAutoencoder` with a `recognises(folder) -> bool` beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from engine.errors import SaeError
from engine.formats import saelens
from engine.sae import SparseAutoencoder


class Format(Protocol):
    """What a module of this package offers."""

    def recognises(self, folder: Path) -> bool:
        """Do the files in the folder look like this format?"""
        ...

    def load(self, folder: Path) -> SparseAutoencoder:
        """Reads the SAE on the CPU in its file's dtype. Raises SaeError."""
        ...


FORMATS: dict[str, Format] = {"saelens": saelens}


def load_sae(folder: Path) -> SparseAutoencoder:
    """Loads the SAE in a folder, whatever its format. Raises SaeError saying what was found instead."""
    if not folder.is_dir():
        raise SaeError(
            f"There is no SAE folder {folder}.", "Give --sae a folder that holds cfg.json and sae_weights.safetensors."
        )
    for format in FORMATS.values():
        if format.recognises(folder):
            return format.load(folder)
    found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
    raise SaeError(
        f"{folder} holds no SAE of a known format (found: {found}).",
        f"Known formats: {', '.join(FORMATS)}. A SAELens folder holds cfg.json and sae_weights.safetensors.",
    )
