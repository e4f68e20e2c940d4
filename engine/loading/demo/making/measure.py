"""Measure the demo SAE on the neutral text, in float32, and write the statistics beside its weights.

python -m engine.loading.demo.making.measure
"""

from __future__ import annotations

import torch

import prompts
from engine.loading.demo import model as demo_model
from engine.loading.formats import load_sae
from engine.loading.load_model import load_model
from engine.loading.open_pair import DEMO_SAE, SHIPPED_REFERENCE, hook_of
from engine.models import reference as references


def main() -> None:
    """Overwrite the packaged reference statistics."""
    folder = demo_model.demo_model_folder(torch.float32)
    model = load_model(str(folder), demo_model.NAME, torch.device("cpu"), torch.float32)
    sae = load_sae(DEMO_SAE)
    texts = references.read_text(prompts.NEUTRAL_TEXT)
    work = references.compute(model, sae, hook_of(model, sae, None), texts, prompts.NEUTRAL_TEXT.name)
    stats = demo_model.finish(work)
    references.save(stats, DEMO_SAE / SHIPPED_REFERENCE)
    print(f"{stats.n_tokens:,} tokens, L0 {stats.l0:.1f}, variance explained {stats.variance_explained:.4f}")
    print(f"features that fire on fewer than 10 tokens: {int((stats.count_F < references.MIN_COUNT).sum())}")


if __name__ == "__main__":
    main()
