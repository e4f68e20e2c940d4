"""What counts as healthy: the rules by which the doctor and the loader judge a SAE's wiring, from numbers and names.

The limits are wide on purpose: text, context length and precision move variance explained (VE) by a few hundredths
and L0 by tens of per cent, a wrong wiring by far more (measured on the demo pair in tests/doctor).
"""

from __future__ import annotations

import re
from pathlib import Path

MIN_VARIANCE_EXPLAINED = 0.5
"""The lowest healthy VE where none is published. Below it a SAE hardly reads its vectors; usable ones reach 0.6 to
0.95."""

SHORTFALL = 0.1
"""How far VE may lie below the published value, which was measured on other text."""

L0_FACTOR = 2.0
"""L0 may lie between published / 2 and published * 2. A wrong normalisation, bias or encoder misses it by more."""

SPARSE = 4
"""Where no L0 is published, it must be below d_in / 4: a code of more active features than that is not sparse.
The densest Gemma Scope and Llama Scope SAEs stay below it; a TopK SAE read as ReLU does not."""

MANY_DEAD, MAX_DEAD = 0.3, 0.9
"""Above the first share of features that never fire a SAE does not pass: they are dead, or rarer than the text shows (a
third of a wide SAE does not fire in 100,000 tokens). Above the second the encoder cannot be getting the vectors that it
was trained on."""

DEAD_TOKENS = 10_000
"""On fewer tokens than this, the number of features that never fire says nothing."""

VARIANTS = ("base", "it", "instruct", "chat", "sft", "dpo", "bnb", "4bit", "8bit", "awq", "gptq", "fp8", "int4", "int8")
"""Parts of a model's name that tell a family's base, tuned and quantised models apart."""

ALIASES = {
    "gpt2-small": "gpt2",
    "mistral-7b": "mistral-7b-v0.1",
    "mistral-7b-instruct": "mistral-7b-instruct-v0.1",
}
"""TransformerLens' names of models whose hub names differ by more than their owner."""


def variance_ok(measured: float, published: float | None) -> bool:
    """Whether this variance explained is healthy; NaN is not."""
    return measured >= (MIN_VARIANCE_EXPLAINED if published is None else published - SHORTFALL)


def l0_limits(published: float | None, k: int | None, d_in: int) -> tuple[float, float]:
    """Return the smallest and the largest healthy L0 (mean number of active features per token)."""
    if published is not None:
        return max(1.0, published / L0_FACTOR), published * L0_FACTOR
    return 1.0, float(k) if k is not None else d_in / SPARSE


def l0_ok(measured: float, published: float | None, k: int | None, d_in: int) -> bool:
    """Whether this L0 is healthy; a topk encoder's is at most k where none is published."""
    low, high = l0_limits(published, k, d_in)
    return low <= measured <= high


def short_doubts(
    variance_explained: float,
    l0: float,
    published_variance_explained: float | None,
    published_l0: float | None,
    k: int | None,
    d_in: int,
) -> list[str]:
    """Return what VE and L0 say against the wiring, in a few words each; an empty list where both are healthy."""
    doubts = []
    if not variance_ok(variance_explained, published_variance_explained):
        other = "" if published_variance_explained is None else f", published {published_variance_explained:.2f}"
        doubts.append(f"VE {variance_explained:.2f}{other}: wrong layer, model or normalisation?")
    if not l0_ok(l0, published_l0, k, d_in):
        other = f", published {published_l0:.0f}" if published_l0 is not None else f" of at most {k or d_in // SPARSE}"
        doubts.append(f"L0 {l0:.2g}{other}" if l0 < 1 else f"L0 {l0:.0f}{other}")
    return doubts


# ---- model names


def same_model(trained_on: str, name: str) -> bool | None:
    """Whether two names mean the same model, with or without its owner, as TransformerLens or the hub spells it.

    None for two variants of one model, base, tuned or quantised, and where one name ends with the other, as those of
    fine-tunes and distilled models do: what a SAE of one is worth on the other only measuring tells.
    """
    one, other = canonical(trained_on), canonical(name)
    if one == other:
        return True
    trained, used = family(one), family(other)
    return None if f"-{used}".endswith(f"-{trained}") or f"-{trained}".endswith(f"-{used}") else False


def is_any_folder(name: str) -> bool:
    """Whether a model's name is a folder of any name; folders of the hub's cache, named after their model, are not."""
    return Path(name).expanduser().exists() and "models--" not in name


def canonical(name: str) -> str:
    """Return a model's name without its owner, hub cache folders and differences of spelling."""
    if match := re.search(r"models--[^/]+?--([^/]+)", name):
        name = match[1]
    name = name.rstrip("/").split("/")[-1].lower().replace("_", "-")
    name = name.removeprefix("meta-").removesuffix("-hf")
    parts = [part for part in name.split("-") if part != "pt"]  # Gemma 3's word for its base models
    name = "-".join(parts)
    return ALIASES.get(name, name)


def family(canonical_name: str) -> str:
    """Return the name without the parts that tell a family's models apart."""
    return "-".join(p for p in canonical_name.split("-") if p not in VARIANTS)
