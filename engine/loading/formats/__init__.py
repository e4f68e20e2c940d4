"""SAE file formats, one module each: which files are a SAE, and how to load it, whatever its format.

A format is recognised by the files that are there, never by the name of their folder. A *place* is a SAE's folder, or
its file where a SAE is one file: a path on this machine, or a path in a repository ("" is the repository itself).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePosixPath
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
from engine.loading.formats.files import Folder, OneFile
from engine.models.sae import SaeConfig, SparseAutoencoder
from engine.records.errors import SaeError


class Format(Protocol):
    """What a module of this package states and offers."""

    @property
    def NAME(self) -> str:
        """What users read as the format's name."""
        ...

    @property
    def FILES(self) -> Folder | OneFile:
        """The files that a SAE of this format consists of; they alone tell formats apart."""
        ...

    @property
    def CONVERSIONS(self) -> tuple[str | None, ...]:
        """SAELens' conversion functions (`conversion_func` of its registry) for such files; None where it names none.

        () where SAELens does not read the format.
        """
        ...

    def load(self, place: Path, name: str, device: torch.device) -> tuple[SaeConfig, dict[str, torch.Tensor]]:
        """Read the SAE's configuration and its weights by SAELens' names, in their dtype, on the device.

        `name` is OWNER/REPOSITORY/PATH where known, else the path: some formats say only there where a SAE belongs.
        Raises SaeError for broken files and for kinds of SAEs that are not read.
        """
        ...


FORMATS: tuple[Format, ...] = (
    saelens,
    gemma_scope,
    gemma_scope_2,
    llama_scope,
    llama_scope_r1,
    dictionary_learning,
    sparsify,
    qwen_scope,
    goodfire,
    attn_saes,
)
"""Every format, in the order in which they are tried and listed."""

IN_FOLDERS = tuple(format.FILES for format in FORMATS if isinstance(format.FILES, Folder))

PATHS = [PurePosixPath(file) for files in IN_FOLDERS for file in (*files.required, *files.optional)]

SUFFIXES = {path.suffix for path in PATHS}

DEEPER = {str(path.with_name(f"*{path.suffix}")) for path in PATHS if path.parent.name}
"""Patterns of files in a folder inside the SAE's: checkpoints/*.safetensors."""

SUBFOLDERS = {path.parent.name for path in PATHS if path.parent.name}

CPU = torch.device("cpu")

NO_SCALE = "the files do not say by which factor vectors are scaled; if none is published, they are not"

DEEPEST, MOST_FOLDERS, MOST_FILES = 6, 2000, 20_000
"""Bounds of the search for SAEs below a folder: levels, folders, files of a folder. The hub's cache needs 5 levels."""


def load_sae(
    place: Path, name: str | None = None, device: torch.device = CPU, published: Mapping[str, Any] | None = None
) -> SparseAutoencoder:
    """Load the SAE at a place, whatever its format. Raises SaeError, naming what is there instead.

    `published`: fields of SaeConfig that replace those of the files.
    """
    try:
        sae = on_disk(place)
        format = format_of(sae)
        if format is None:
            raise no_sae(place)
        config, weights = format.load(sae, name or str(sae), device)
    except OSError as error:  # no right to look into it, or a name the file system cannot have
        raise SaeError(
            f"{place} cannot be read: {error.strerror}.", "Give --sae a folder that you may read."
        ) from error
    config = replace(config, **(published or {}))
    if config.normalisation == "expected_average_only_in" and config.scale == 1:
        config = replace(config, notes=(*config.notes, NO_SCALE))
    return SparseAutoencoder(config, weights)


# ---- which files are a SAE


def known_files() -> str:
    """Return the files of every format, in words."""
    return "; ".join(f"{format.FILES.words} ({format.NAME})" for format in FORMATS)


def format_of(place: Path) -> Format | None:
    """Return the format of the SAE at a place on this machine; None where no SAE is. Raises OSError."""
    return next((format for format in FORMATS if format.FILES.at(place)), None)


def is_file_name(place: str) -> bool:
    """Return whether a path ends in a name that some format gives to a SAE that is one file."""
    name = PurePosixPath(place).name
    return any(isinstance(format.FILES, OneFile) and format.FILES.pattern.fullmatch(name) for format in FORMATS)


def on_disk(path: Path) -> Path:
    """Return a path on this machine, or the one file in that folder that is a SAE. Raises OSError."""
    if not path.is_dir():
        return path
    # pipes and links that lead nowhere are no files
    place = place_of_sae({inside.name for inside in path.iterdir() if inside.is_file()}, "")
    return path / place if place else path


def files_on_disk(place: Path) -> list[Path]:
    """Return the files at a SAE's place on this machine that belong to it, by their suffixes."""
    if not place.is_dir():
        return [place]
    files = [path for pattern in ("*", *DEEPER) for path in place.glob(pattern)]
    return [path for path in files if path.suffix in SUFFIXES]


def files_of_sae(files: Collection[str], place: str) -> list[str]:
    """Return the SAE's files at a place of a repository that has these files; [] where no SAE is."""
    return next((inside for format in FORMATS if (inside := format.FILES.inside(files, place))), [])


def saes_in(files: Collection[str]) -> list[str]:
    """Return the places of a repository that hold a SAE."""
    names = set(files)
    places = {folder_of_file(name) for name in names} | names
    return sorted(place for place in places if files_of_sae(names, place))


def place_of_sae(files: Collection[str], path: str) -> str:
    """Return the place of the SAE that a path in a repository means.

    The path may be the SAE's folder, a file in it, or a folder in which one file is a SAE. Where no SAE is, return the
    folder.
    """
    names = set(files)
    if files_of_sae(names, path):
        return path
    place = folder_of_file(path) if path in names else path
    if path in names or files_of_sae(names, place):
        return place
    alone = [name for name in names if folder_of_file(name) == place and files_of_sae(names, name)]
    return alone[0] if len(alone) == 1 else place


def folder_of_file(path: str) -> str:
    """Return the folder of the SAE that a file belongs to, "" for the repository itself."""
    folder = PurePosixPath(path).parent
    folder = folder.parent if folder.name in SUBFOLDERS else folder
    return "" if folder == PurePosixPath() else str(folder)


# ---- what is there instead


def no_sae(place: Path) -> SaeError:
    """Return the error that no SAE is at a place, with what to give instead. Raises OSError."""
    if place.is_dir():
        return SaeError(f"{place} holds no SAE of a known format (found: {listing(place)}).", hint(place))
    if place.is_file():
        folder = Path(folder_of_file(place.as_posix()))
        remedy = f"Give --sae the folder {folder}." if format_of(folder) else hint(place.parent)
        return SaeError(f"{place} is a file of no known format; most SAEs are the folder they come in.", remedy)
    if place.is_symlink():
        return SaeError(f"{place} is a link that leads nowhere.", "Give --sae the folder it should lead to.")
    return SaeError(f"There is no SAE folder {place}.", f"Give --sae a folder: {known_files()}.")


def listing(folder: Path) -> str:
    """Return the first few names in a folder, in words."""
    names = sorted(ascii_name(p) + ("/" if p.is_dir() else "") for p in folder.iterdir())
    return ", ".join(names[:8]) + (f", … {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"


def ascii_name(path: Path) -> str:
    """Return a file's name as it may be shown on a terminal."""
    return path.name if path.name.isprintable() else ascii(path.name)


def hint(folder: Path) -> str:
    """Return what to give in place of a folder that is no SAE: one near it, --model, or the missing files."""
    if format_of(folder.parent):
        return f"The SAE is the folder above: give --sae {folder.parent}."
    inside = list(saes_below(folder))
    if len(inside) == 1:
        return f"There is a SAE in {inside[0]}: give --sae that folder."
    if inside:
        what = "folder" if inside[0].is_dir() else "file"
        return f"There are {len(inside)} SAEs in it: give --sae the {what} of one, such as {inside[0]}."
    if [*folder.glob("model*.safetensors"), *folder.glob("pytorch_model*"), *folder.glob("*.gguf")]:
        return "This is a language model: give it with --model, and --sae a SAE trained on it."
    for files in IN_FOLDERS:
        here = [file for file in files.required if (folder / file).is_file()]
        if here and here != ["config.json"]:
            return f"With {here[0]} there should be {rest_of(here[0])}: is the download complete?"
    pickled = [p for kind in ("*.pt", "*.pth", "*.bin") for p in folder.glob(kind)]
    if pickled:
        return f"Pickled weights without a known configuration are not read. A SAE has {known_files()}."
    return f"A SAE has {known_files()}."


def rest_of(file: str) -> str:
    """Return the files that may belong to a SAE of which one file is there, in words."""
    return " or ".join(
        other for files in IN_FOLDERS if file in files.required for other in files.required if other != file
    )


def saes_below(folder: Path) -> Iterator[Path]:
    """Yield the places below a folder that hold a SAE, the nearest first; links are followed, within the depth."""
    waiting = deque([(folder, 0)])
    for _ in range(MOST_FOLDERS):
        if not waiting:
            return
        inner, depth = waiting.popleft()
        try:
            if depth > 0 and format_of(inner):
                yield inner
            elif depth < DEEPEST:
                with os.scandir(inner) as entries:
                    here = [(Path(entry.path), entry.is_dir()) for entry in islice(entries, MOST_FILES)]
                yield from sorted(path for path, is_folder in here if not is_folder and format_of(path))
                below = sorted(path for path, is_folder in here if is_folder)
                waiting += [(path, depth + 1) for path in below[:MOST_FOLDERS]]
        except OSError:  # folders that may not be looked into are left out
            continue
