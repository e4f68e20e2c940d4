"""A device's name, and its free memory."""

from __future__ import annotations

import psutil
import torch


def free_bytes(device: torch.device) -> int | None:
    """Return the device's free memory in bytes; None where it does not tell."""
    if device.type == "cpu":
        return int(psutil.virtual_memory().available)
    if device.type != "cuda":
        return None
    try:
        free, _ = torch.cuda.mem_get_info(device)
    except RuntimeError:  # loading will say what is wrong with it
        return None
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + reserved)


def name_of(device: torch.device) -> str:
    """Return the name of a device, such as "cuda:0" where the device only says cuda."""
    if device.type != "cuda" or device.index is not None:
        return str(device)
    return f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cuda:0"
