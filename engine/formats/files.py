"""Reads the files SAEs come in: nothing in them is executed, and whatever is wrong with one is a SaeError."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from engine.errors import SaeError

AGAIN = "Download the file again."
MAX_CONFIG_BYTES = 16 << 20


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise SaeError(f"{path} is too large for a configuration file.", AGAIN)
        raw = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SaeError(f"{path} cannot be read: {error}.", AGAIN) from error
    if not isinstance(raw, dict):
        raise SaeError(f"{path} should hold a JSON object, not {type(raw).__name__}.", AGAIN)
    return raw


def read_safetensors(path: Path, device: torch.device) -> dict[str, torch.Tensor]:
    """All tensors, in their dtype, straight on the device; on the CPU they stay mapped to the file."""
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise SaeError(f"{path} cannot be read: {error}.", AGAIN) from error
    return checked(weights, path)


def read_npz(path: Path, device: torch.device) -> dict[str, torch.Tensor]:
    """All arrays of a numpy archive, in their dtype; arrays of objects, which would be pickles, are refused."""
    try:
        check_archive(path)
        with np.load(path, allow_pickle=False) as data:
            weights = {name: torch.from_numpy(data[name]).to(device) for name in data.files}
    except (OSError, ValueError, KeyError, TypeError, EOFError, MemoryError, SyntaxError, zipfile.BadZipFile) as error:
        raise SaeError(f"{path} cannot be read: {error}.", AGAIN) from error
    return checked(weights, path)


def check_archive(path: Path) -> None:
    """Raises ValueError where the archive claims to unpack to far more than it is: weights hardly compress."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > 10 * size + (1 << 20):
        raise ValueError(f"it claims to unpack to {unpacked:,} bytes from {size:,}")


def read_pickle(path: Path, device: torch.device) -> dict[str, torch.Tensor]:
    """The state dict in a torch file. Only tensors are unpickled: a file that holds code is refused."""
    try:
        check_archive(path)  # torch has written zip archives since 1.6
        weights = torch.load(path, map_location=device, weights_only=True, mmap=True)
    except Exception as error:  # what a broken pickle makes the unpickler raise has no common base
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SaeError(f"{path} cannot be read: {reason[:300]}", AGAIN) from error
    if not isinstance(weights, dict):
        raise SaeError(f"{path} holds a {type(weights).__name__}, not named tensors.", AGAIN)
    return checked({str(name): t for name, t in weights.items() if isinstance(t, torch.Tensor)}, path)


def checked(weights: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """The weights. Raises SaeError if any is NaN or infinite."""
    for name, tensor in weights.items():
        # the sum is NaN or infinite as soon as one number is; float64 so that it cannot overflow by itself
        if tensor.is_floating_point() and not torch.isfinite(tensor.sum(dtype=torch.float64)):
            raise SaeError(f"{path}: tensor {name} holds NaN or infinite numbers.", AGAIN)
    return weights


def pick(weights: dict[str, torch.Tensor], *names: str) -> torch.Tensor | None:
    """The first of these tensors that there is."""
    return next((weights[name] for name in names if name in weights), None)


def present(weights: dict[str, torch.Tensor | None]) -> dict[str, torch.Tensor]:
    """Without the tensors that are not there; what an encoder misses is said when it is built."""
    return {name: tensor for name, tensor in weights.items() if tensor is not None}


def transposed(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """A matrix the other way round, as a view: no copy."""
    return tensor.T if tensor is not None and tensor.ndim == 2 else tensor
