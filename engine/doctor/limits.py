"""What counts as healthy: the rules by which the doctor, and loading, judge a SAE's wiring. Numbers and names only.

The limits are wide on purpose: text, context length and precision move variance explained (VE) by a few hundredths
and L0 by tens of per cent, a wrong wiring by far more (measured on the demo pair in tests/test_doctor.py).
"""

from __future__ import annotations

import re
from pathlib import Path

MIN_VARIANCE_EXPLAINED = 0.5
"""Where nothing is published. Below it a SAE hardly reads the vectors it is given; usable ones reach 0.6 to 0.95."""

SHORTFALL = 0.1
"""How far VE may lie below the published value, which was measured on other text."""

L0_FACTOR = 2.0
"""L0 may lie between published / 2 and published * 2. A wrong normalisation, bias or encoder misses it by more."""

SPARSE = 4
"""Where nothing is published L0 must be below d_in / 4: a vector told by more numbers than that is not told sparsely.
The densest Gemma Scope and Llama Scope SAEs stay below it; a TopK SAE read as ReLU does not."""

MAX_DEAD = 0.9
"""Share of features that never fire. Rare features stay unseen in 100,000 tokens (a third and more of a wide SAE), but
where nine in ten do, the encoder does not get the vectors it was trained on."""

DEAD_TOKENS = 10_000
"""On less text than this silent features say nothing."""

TUNED = ("it", "instruct", "chat", "sft", "dpo")

ALIASES = {
    "gpt2-small": "gpt2",
    "mistral-7b": "mistral-7b-v0.1",
    "mistral-7b-instruct": "mistral-7b-instruct-v0.1",
}
"""TransformerLens' names of models whose hub names differ by more than their owner."""


def variance_ok(measured: float, published: float | None) -> bool:
    """Whether this much of the variance explained is what to expect. NaN is not."""
    return measured >= (MIN_VARIANCE_EXPLAINED if published is None else published - SHORTFALL)


def l0_limits(published: float | None, k: int | None, d_in: int) -> tuple[float, float]:
    """The smallest and the largest healthy mean number of active features."""
    if published is not None:
        return published / L0_FACTOR, published * L0_FACTOR
    return 0.0, float(k) if k is not None else d_in / SPARSE


def l0_ok(measured: float, published: float | None, k: int | None, d_in: int) -> bool:
    """Whether as many features fire as are to be expected; a topk encoder's at most k."""
    low, high = l0_limits(published, k, d_in)
    return measured > 0 and low <= measured <= high


def short_doubts(
    variance_explained: float,
    l0: float,
    published_variance_explained: float | None,
    published_l0: float | None,
    k: int | None,
    d_in: int,
) -> list[str]:
    """What the two measured numbers say against the wiring, in a few words each; nothing where they are healthy."""
    found = []
    if not variance_ok(variance_explained, published_variance_explained):
        other = "" if published_variance_explained is None else f", published {published_variance_explained:.2f}"
        found.append(f"VE {variance_explained:.2f}{other}: wrong layer, model or normalisation?")
    if not l0_ok(l0, published_l0, k, d_in):
        other = f", published {published_l0:.0f}" if published_l0 is not None else f" of at most {k or d_in // SPARSE}"
        found.append(f"L0 {l0:.0f}{other}")
    return found


# ---- model names


def same_model(trained_on: str, name: str) -> bool | None:
    """Whether two names are of the same model: spelt by owner or not, in TransformerLens' way or the hub's.

    None where they are the base and the instruction-tuned model of one family: a SAE often carries over.
    """
    one, other = canonical(trained_on), canonical(name)
    if one == other:
        return True
    return None if family(one) == family(other) else False


def is_any_folder(name: str) -> bool:
    """Whether a model's name is a folder's, which may be called anything; the hub's cache names its folders well."""
    return Path(name).expanduser().exists() and "models--" not in name


def canonical(name: str) -> str:
    """A model's name without its owner, hub cache folders and differences of spelling."""
    if match := re.search(r"models--[^/]+?--([^/]+)", name):
        name = match[1]
    name = name.rstrip("/").split("/")[-1].lower().replace("_", "-")
    name = name.removeprefix("meta-").removesuffix("-hf")
    parts = [part for part in name.split("-") if part != "pt"]  # Gemma 3's word for its base models
    name = "-".join(parts)
    return ALIASES.get(name, name)


def family(canonical_name: str) -> str:
    """The name with what tells base and tuned models apart taken out."""
    return "-".join(p for p in canonical_name.split("-") if p not in (*TUNED, "base"))
