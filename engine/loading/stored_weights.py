"""Check that a model's files have all its weights, in a form that transformers reads correctly.

Where a tensor is missing, transformers fills it with random numbers; where it does not know the kind of quantisation,
it takes the quantised numbers for weights. It only warns of either.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from engine.loading.find_model import weight_files
from engine.loading.formats.files import LFS_POINTER
from engine.records.errors import ModelError
from engine.records.words.numbers import count

ADAPTER = "adapter_config.json"
"""peft's configuration beside an adapter's weights."""

QUANTISED = ("F8", "F4", "F6", "I8", "U8", "I4", "U4")
"""Starts of safetensors' dtype names that a weight matrix has only if it is quantised."""

SHOWN = 3
"""How many tensors an error names."""

ORIGINAL = "Give the model's original weights, which are not quantised."


def check_files(folder: Path, name: str) -> None:
    """Check a model's folder before it is loaded.

    Raises ModelError where it holds an adapter, a damaged file, or weights that transformers would misread.
    """
    if (folder / ADAPTER).exists():
        raise ModelError(
            f"{name} holds an adapter, which saescope does not apply.",
            "Merge it into its base model (peft: merge_and_unload, then save_pretrained), and give that folder.",
        )
    names = [path.name for path in folder.glob("*")]
    weights = weight_files(names)
    if not weights and any(file.endswith(".gguf") for file in names):
        raise ModelError(
            f"{name} holds its weights as GGUF, which saescope does not read.",
            "Give the model's safetensors files; transformers converts with from_pretrained(…, gguf_file=…) and "
            "save_pretrained.",
        )
    known = check_method(folder, name)
    for path in (folder / file for file in weights):
        if path.suffix == ".safetensors" and path.exists():
            check_file(path, name, known)


def check_method(folder: Path, name: str) -> bool:
    """Return whether config.json names a quantisation. Raises ModelError for one that transformers does not know."""
    method = quantisation(folder)
    if method is None:
        return False
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING as METHODS

    if not any(known == method or known.startswith(f"{method}_") for known in METHODS):
        raise ModelError(f"{name} is quantised by {method!r}, which transformers cannot read.", ORIGINAL)
    return True


def quantisation(folder: Path) -> str | None:
    """Return the quantisation method that config.json names; None where it names none."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        method = config["quantization_config"]["quant_method"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None
    return str(method)


def check_file(path: Path, name: str, quantised: bool) -> None:
    """Raise ModelError where a safetensors file is damaged, or holds quantised weights and `quantised` is False."""
    try:
        with path.open("rb") as start:
            pointer = start.read(len(LFS_POINTER)) == LFS_POINTER
        if pointer:
            raise ModelError(
                f"{name}: {path.name} is only a git-lfs pointer to the weights.", "Run `git lfs pull` in its folder."
            )
        with safe_open(path, "pt") as file:
            tensors = {tensor: file.get_slice(tensor) for tensor in file.keys()}  # noqa: SIM118
            kinds = {tensor: part.get_dtype() for tensor, part in tensors.items() if len(part.get_shape()) >= 2}
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{name}: {path.name} cannot be read: {error}.", "It may be cut off: download the file again."
        ) from error
    matrices = [tensor for tensor, dtype in kinds.items() if tensor.endswith("weight") and dtype.startswith(QUANTISED)]
    if matrices and not quantised:
        raise ModelError(
            f"{name} holds quantised weights ({kinds[matrices[0]]}, such as {matrices[0]}), and its config.json does "
            "not say how to read them.",
            ORIGINAL,
        )


def check_loaded(report: Mapping[str, Collection[Any]], name: str) -> tuple[str, ...]:
    """Check transformers' report on a loaded model (`output_loading_info`); return notes for the user.

    Raises ModelError where the files lack a tensor or have it in another shape: transformers made it random.
    """
    if missing := report["missing_keys"]:
        raise ModelError(
            f"{name} is not whole: its files lack {listed(missing)}.",
            "Download the model again. If an adapter was merged into it, its tensors may have other names; "
            "config.json may ask for more layers than there are.",
        )
    if mismatched := report["mismatched_keys"]:
        tensor, stored, wanted = min(mismatched)
        raise ModelError(
            f"{name}: {tensor} has the shape {tuple(stored)} in its files, but {tuple(wanted)} by config.json.",
            "config.json belongs to other weights: download the model again.",
        )
    if problems := report["error_msgs"]:
        raise ModelError(f"{name} was not loaded whole: {next(iter(problems))}", "Download the model again.")
    if unused := report["unexpected_keys"]:
        return (f"the model's files hold {listed(unused)}, which this model does not use",)
    return ()


def listed(names: Iterable[str]) -> str:
    """Return the number of tensors and their first names, in words."""
    ordered = sorted(names)
    more = ", …" if len(ordered) > SHOWN else ""
    return f"{count(len(ordered), 'tensor')} ({', '.join(ordered[:SHOWN])}{more})"
