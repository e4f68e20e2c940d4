"""Which files make a SAE, by format: what a folder must hold, and what a SAE that is one file is called.

Knows nothing of what is in the files.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

FILES = {
    "SAELens": ("cfg.json", "sae_weights.safetensors"),
    "Gemma Scope": ("params.npz",),
    "Gemma Scope 2": ("params.safetensors",),
    "Llama Scope": ("hyperparams.json", "checkpoints/final.safetensors"),
    "Llama Scope R1": ("config.json", "sae_weights.safetensors"),
    "dictionary_learning": ("config.json", "ae.pt"),
    "sparsify": ("cfg.json", "sae.safetensors"),
}
"""The files that make a folder a SAE."""

ALSO = ("config.json", "activation_scaler.json")
"""What some formats read where it is there."""

QWEN = re.compile(r"layer(\d{1,4})\.sae\.pt")

GOODFIRE = re.compile(r"(.+)-SAE-l(\d{1,4})\.pth?")

ONE_FILE = {
    "Qwen-Scope": "layerN.sae.pt",
    "Goodfire": "MODEL-SAE-lN.pt or .pth",
    "attn-saes": "NAME.pt with NAME_cfg.json beside it",
}
"""The files that are a SAE each, in words."""


def one_file_format(name: str, others: Collection[str]) -> str:
    """The format of a file that is a SAE by itself, by its path and those of other files; "" for any other."""
    last = PurePosixPath(name).name
    if QWEN.fullmatch(last):
        return "Qwen-Scope"
    if GOODFIRE.fullmatch(last):
        return "Goodfire"
    return "attn-saes" if name.endswith(".pt") and configuration_of(name) in others else ""


def configuration_of(name: str) -> str:
    """The configuration that lies beside a SAE of attn-saes."""
    return f"{name.removesuffix('.pt')}_cfg.json"


def known_files() -> str:
    """The files of every format, in words."""
    in_folder = (f"{' and '.join(files)} ({name})" for name, files in FILES.items())
    return "; ".join([*in_folder, *(f"{words} ({name})" for name, words in ONE_FILE.items())])


# ---- the SAEs of a repository


def folder_of_file(path: str) -> str:
    """The SAE's folder, by a file in it."""
    parts = PurePosixPath(path).parent.parts
    return "/".join(parts[:-1] if parts[-1:] == ("checkpoints",) else parts)


def files_of_sae(files: Iterable[str], place: str) -> list[str]:
    """The files of the SAE at a place of a repository, a folder or one file; none where there is no SAE."""
    names = set(files)
    if place in names:
        beside = configuration_of(place)
        return [place, *({beside} & names)] if one_file_format(place, names) else []
    prefix = f"{place}/" if place else ""
    inside = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    for needed in FILES.values():
        if inside.issuperset(needed):
            return [prefix + name for name in (*needed, *(n for n in ALSO if n in inside and n not in needed))]
    return []


def saes_in(files: Iterable[str]) -> list[str]:
    """The places of a repository that hold a SAE: folders, and files that are one each."""
    names = set(files)
    places = {folder_of_file(name) for name in names} | names
    return sorted(place for place in places if files_of_sae(names, place))


def place_of_sae(files: Iterable[str], path: str) -> str:
    """Where the SAE is that somebody names by its folder, a file in it, or a folder that holds one file that is one."""
    names = set(files)
    if files_of_sae(names, path):
        return path
    place = folder_of_file(path) if path in names else path
    if files_of_sae(names, place):
        return place
    alone = [name for name in names if folder_of_file(name) == place and one_file_format(name, names)]
    return alone[0] if len(alone) == 1 and path not in names else place


def on_disk(path: Path) -> Path:
    """The SAE at a path of this machine: itself, or the one file in that folder that is a SAE. Raises OSError."""
    if not path.is_dir():
        return path
    # a file of any sort but a plain one is none
    names = {inside.name for inside in path.iterdir() if inside.is_file()}
    place = place_of_sae(names, "")
    return path / place if place else path
