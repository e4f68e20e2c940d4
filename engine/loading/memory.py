"""Whether model and SAE fit into the device's free memory, estimated from their files before anything is loaded."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from engine.loading.formats import files_on_disk
from engine.loading.hub import gigabytes
from engine.loading.presets import BYTES
from engine.models.device import free_bytes, name_of
from engine.records.errors import ModelError

NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}

HEADER_BYTES = 100 << 20
"""Largest header of a safetensors file that is read, in bytes."""

FLOATS = ("F64", "F32", "F16", "BF16")

FP8 = ("F8_E4M3", "F8_E5M2")


def parameters_of(files: Iterable[Path]) -> dict[str, int]:
    """Return the number of parameters by dtype, from safetensors files' headers; unreadable files count 0."""
    counts: dict[str, int] = {}
    for path in files:
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(length)) if length < HEADER_BYTES else {}
            for name, tensor in header.items():
                if name != "__metadata__":
                    start, end = tensor["data_offsets"]
                    dtype = tensor["dtype"]
                    counts[dtype] = counts.get(dtype, 0) + (end - start) // BYTES.get(dtype, 1)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, struct.error):
            continue  # loading the file reports what is wrong with it
    return counts


def bytes_of(parameters: Mapping[str, int], dtype: torch.dtype | str, device: torch.device) -> int:
    """Return the memory of these parameters on a device in bytes, floats converted to the dtype; "auto" keeps theirs.

    FP8 weights are held as the other floats, bfloat16 for "auto", where the device cannot compute with them.
    """
    to = NAMES.get(dtype) if isinstance(dtype, torch.dtype) else None
    held_as = dict.fromkeys(FLOATS, to) if to else {}
    if not computes_fp8(device):
        held_as |= dict.fromkeys(FP8, to or "BF16")
    return sum(count * BYTES.get(held_as.get(name) or name, 1) for name, count in parameters.items())


def computes_fp8(device: torch.device) -> bool:
    """Return whether transformers leaves FP8 weights as they are on this device: an NVIDIA GPU since Ada and Hopper."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def saved_dtype(folder: Path) -> torch.dtype | str:
    """Return the dtype that a model's configuration names, else "auto": the dtypes of its files."""
    try:
        raw = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return "auto"
    dtype = getattr(torch, str(raw.get("dtype") or raw.get("torch_dtype")).removeprefix("torch."), None)
    return dtype if isinstance(dtype, torch.dtype) else "auto"


def sae_bytes(place: Path) -> int:
    """Return the memory of the SAE at a place in bytes: the size of its weight files, whose dtype it keeps."""
    return sum(path.stat().st_size for path in files_on_disk(place) if path.suffix != ".json")


def check(what: str, needed: int, device: torch.device, held: int = 0) -> None:
    """Raise ModelError where `needed` bytes do not fit into the device's free memory.

    `what`: the subject of the message. `held`: bytes of the present pair, released only after the new one is loaded.
    """
    free = free_bytes(device)
    if free is not None and needed > free:
        raise too_big(what, device, needed, free, held)


def too_big(what: str, device: torch.device, needed: int = 0, free: int | None = None, held: int = 0) -> ModelError:
    """Return the error that `what` does not fit, with `needed`, `free` and `held` in bytes where known."""
    name = name_of(device)
    sizes = f"need {gigabytes(needed)}, {name} has " if needed else f"do not fit into the memory of {name}"
    if needed:
        sizes += f"{gigabytes(free)} free" if free is not None else "less free"
    if held:
        sizes += f" while {gigabytes(held)} are taken by what is loaded now"
    remedy = (
        "Use a smaller preset (saescope presets), --dtype bfloat16, or close what else uses the memory."
        if device.type == "cpu"
        else "Use another GPU (--device cuda:N), a smaller preset (saescope presets) or --device cpu, or close what "
        "else uses this GPU (nvidia-smi lists it)."
    )
    if held:
        remedy = "Quit and start again with it: then only the new pair has to fit. " + remedy
    return ModelError(f"{what} {sizes}.", remedy)
