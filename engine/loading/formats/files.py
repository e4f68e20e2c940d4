"""The files of a SAE: which names make one (`Folder`, `OneFile`), and how each kind of file is read.

Nothing in a file is executed, and anything wrong with one is a SaeError.
"""

from __future__ import annotations

import json
import math
import pickle
import re
import warnings
import zipfile
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from engine.records.errors import SaeError

AGAIN = "Download the file again."

LFS_POINTER = b"version https://git-lfs"

MAX_CONFIG_BYTES = 16 << 20

MAX_NAME = 200
"""Longest name or text of a file that is shown, in characters."""


@dataclass(frozen=True)
class Folder:
    """The files of a SAE that is a folder: those that make it one, by their paths in it, and optional ones."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What messages call the files."""
        return " and ".join(self.required)

    def at(self, place: Path) -> bool:
        """Return whether a folder on this machine has the required files."""
        return all((place / name).is_file() for name in self.required)

    def inside(self, names: Container[str], place: str) -> list[str]:
        """Return the paths of the SAE's files among a repository's, by its folder there; [] where it has none."""
        prefix = f"{place}/" if place else ""
        if not all(prefix + name in names for name in self.required):
            return []
        return [prefix + name for name in (*self.required, *self.optional) if prefix + name in names]


@dataclass(frozen=True)
class OneFile:
    """The names of a SAE that is one file."""

    pattern: re.Pattern[str]
    words: str
    """What messages call the file."""
    config_suffix: str = ""
    """Where a configuration has to be beside it: what this file is called instead of the weights' suffix."""

    def config_of(self, name: str) -> str:
        """Return the name or path of the configuration, from that of the weights."""
        return name.removesuffix(PurePosixPath(name).suffix) + self.config_suffix

    def at(self, place: Path) -> bool:
        """Return whether a path on this machine is such a file, with its configuration if it needs one."""
        if self.pattern.fullmatch(place.name) is None or not place.is_file():
            return False
        return not self.config_suffix or place.with_name(self.config_of(place.name)).is_file()

    def inside(self, names: Container[str], place: str) -> list[str]:
        """Return the paths of the SAE's files among a repository's, by its path there; [] where it has none."""
        paths = [place, self.config_of(place)] if self.config_suffix else [place]
        matches = self.pattern.fullmatch(PurePosixPath(place).name) is not None
        return paths if matches and all(path in names for path in paths) else []


def read_config(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises SaeError."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise SaeError(f"{path} is too large for a configuration file.", AGAIN)
        raw = json.loads(path.read_text("utf-8"))
        json.dumps(raw, ensure_ascii=False).encode("utf-8")  # half a surrogate pair can be neither shown nor sent
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, error) from error
    if not isinstance(raw, dict):
        raise SaeError(f"{path} should hold a JSON object, not {type(raw).__name__}.", AGAIN)
    return raw


def read_safetensors(path: Path, device: torch.device) -> dict[str, torch.Tensor]:
    """Return all tensors, in their dtype, straight on the device; on the CPU they stay mapped to the file."""
    try:
        path.open("rb").close()  # safe_open would report a forbidden file as missing
        with safe_open(path, "pt", device=str(device)) as file:
            return {name: file.get_tensor(name) for name in file.keys() if is_name(name)}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise unreadable(path, error) from error


def read_npz(path: Path, device: torch.device) -> dict[str, torch.Tensor]:
    """Return all arrays of a numpy archive, in their dtype; arrays of objects, which would be pickles, are refused."""
    try:
        check_archive(path)
        weights = {}
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if is_name(name) and name != member.filename:
                    weights[name] = torch.from_numpy(read_array(archive, member)).to(device)
        return weights
    # the errors that zipfile, zlib and numpy's parser of headers raise for a damaged archive have no common base
    except Exception as error:
        raise unreadable(path, error) from error


def read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray[Any, Any]:
    """Return one array. Raises ValueError, before taking memory, where it claims to be larger than its file."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{member.filename} is of version {version}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize > member.file_size:
            raise ValueError(f"{member.filename} claims shape {shape}, which its size does not allow")
        file.seek(0)
        array: np.ndarray[Any, Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def check_archive(path: Path) -> None:
    """Raise ValueError where the archive claims to unpack to far more than its size: weights hardly compress."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > 10 * size + (1 << 20):
        raise ValueError(f"it claims to unpack to {unpacked:,} bytes from {size:,}")


def read_pickle(path: Path, device: torch.device) -> dict[str, torch.Tensor]:
    """Return the state dict in a torch file. Only tensors are unpickled: a file that holds code is refused."""
    try:
        check_archive(path)  # torch has written zip archives since 1.6
        with warnings.catch_warnings(action="ignore"):  # torch mistakes damaged files for others, and warns
            raw = torch.load(path, map_location=device, weights_only=True, mmap=True)
        if not isinstance(raw, dict):
            raise SaeError(f"{path} holds a {type(raw).__name__}, not named tensors.", AGAIN)
        tensors = {str(name): tensor for name, tensor in raw.items() if isinstance(tensor, torch.Tensor)}
        # detached, because autograd records what is computed with a parameter
        return {name: tensor.detach() for name, tensor in tensors.items() if is_name(name) and is_plain(tensor)}
    except pickle.UnpicklingError as error:
        raise SaeError(
            f"{path} was not opened: it is damaged, or holds more than tensors, which could run code.",
            "Download it again from where it was published; a SAE's state dict holds only tensors.",
        ) from error
    except SaeError:
        raise
    except Exception as error:  # the errors that a broken pickle raises have no common base
        raise unreadable(path, error) from error


def is_plain(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is dense and no larger than its storage: a small file can describe a huge repetition."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def is_name(name: str) -> bool:
    """Return whether a string can be a tensor's name; others may not be shown on a terminal."""
    return len(name) <= MAX_NAME and name.isprintable()


def unreadable(path: Path, error: BaseException) -> SaeError:
    """Return the error that a file cannot be read, with the reason on one line.

    Raises OutOfMemoryError again, which is no fault of the file.
    """
    if isinstance(error, torch.OutOfMemoryError):
        raise error
    if isinstance(error, PermissionError):
        return SaeError(f"{path} cannot be read: permission denied.", "Ask for the right to read it, or copy it.")
    lines = str(error).strip().splitlines() or [type(error).__name__]
    try:
        with path.open("rb") as file:
            start = file.read(len(LFS_POINTER))
    except OSError:
        start = b""
    if start == LFS_POINTER:
        return SaeError(
            f"{path} cannot be read: it is only a git-lfs pointer to the file.", "Run `git lfs pull` there."
        )
    return SaeError(f"{path} cannot be read: {lines[0][:300].rstrip('.')}.", AGAIN)


def number(raw: dict[str, Any], key: str, source: str) -> float:
    """Return a finite number of a configuration. Raises SaeError where there is none."""
    value = raw.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
        raise SaeError(f"{source}: its configuration gives {brief(value)} for {key}, not a number.", AGAIN)
    return float(value)


def whole_number(value: object) -> int | None:
    """Return the value if it is a whole number, else None, also for true and false."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53 else None


def length(value: object) -> int | None:
    """Return the value if it can be a number of tokens, else None."""
    tokens = whole_number(value)
    return tokens if tokens is not None and tokens > 0 else None


def flag(raw: dict[str, Any], key: str, default: bool, source: str) -> bool:
    """Return a boolean of a configuration. Raises SaeError for other types: the text "false" would count as true."""
    value = raw.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise SaeError(f"{source}: its configuration gives {brief(value)} for {key}, not true or false.", AGAIN)
    return value


def text(value: object) -> str:
    """Return a string of a configuration as it may be shown on a terminal, one short line; "" for anything else."""
    if not isinstance(value, str):
        return ""
    return "".join(c if c.isprintable() else "�" for c in value[:MAX_NAME])


def brief(value: object) -> str:
    """Return a value of a configuration as a message shows it."""
    shown = ascii(value) if not isinstance(value, str) else repr(value[:MAX_NAME])
    return shown if len(shown) <= MAX_NAME else f"{shown[:MAX_NAME]}…"


def pick(weights: dict[str, torch.Tensor], *names: str) -> torch.Tensor | None:
    """Return the first tensor that has one of the names, else None."""
    return next((weights[name] for name in names if name in weights), None)


def present(weights: dict[str, torch.Tensor | None]) -> dict[str, torch.Tensor]:
    """Return the weights without those that are None. SparseAutoencoder raises an error that names what it lacks."""
    return {name: tensor for name, tensor in weights.items() if tensor is not None}


def transposed(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """Return a matrix transposed, as a view; anything else as it is."""
    return tensor.T if tensor is not None and tensor.ndim == 2 else tensor


def is_matrix(tensor: torch.Tensor | None) -> bool:
    """Return whether a tensor is a floating-point matrix. SparseAutoencoder raises an error that names any other."""
    return tensor is not None and tensor.ndim == 2 and tensor.is_floating_point()
