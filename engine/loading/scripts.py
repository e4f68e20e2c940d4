"""What generated nnsight scripts import: names and signatures here must not change."""

from __future__ import annotations

from pathlib import Path

import torch

from engine.loading import open_pair
from engine.loading.demo.model import demo_model_folder, finish
from engine.loading.find_sae import locate
from engine.models.sae import SparseAutoencoder


def read_sae(name: str, device: str) -> SparseAutoencoder:
    """Load the SAE that --sae NAME means, on a device. Raises SaeError."""
    return open_pair.read_sae(finish(locate(name)), torch.device(device))


def demo_model(dtype: torch.dtype) -> Path:
    """Return the folder of the packaged demo model in this dtype."""
    return demo_model_folder(dtype)


def demo_sae() -> Path:
    """Return the folder of the packaged demo's SAE."""
    return open_pair.DEMO_SAE
