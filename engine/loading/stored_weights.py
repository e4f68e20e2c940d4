"""Whether a model's weights are all there and are what they seem.

transformers leaves a tensor that the files lack random, and reads one that is quantised in a way it does not know as if
its numbers were the weights. It reports both only as warnings.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from engine.loading.find_model import weight_files
from engine.loading.formats.read_files import LFS_POINTER
from engine.records.errors import ModelError
from engine.records.words.numbers import count

ADAPTER = "adapter_config.json"
"""What peft keeps beside an adapter's weights."""

QUANTISED = ("F8", "F4", "F6", "I8", "U8", "I4", "U4")
"""How the dtypes begin, as safetensors names them, that a weight matrix has only where it is quantised."""

SHOWN = 3
"""How many tensors a message names."""

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
    """Return whether config.json names a way of quantising that transformers knows; it names none where this is False.

    Raises ModelError for one that transformers does not know: it would read the weights as if they were not quantised.
    """
    method = quantisation(folder)
    if method is None:
        return False
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING as METHODS

    if not any(known == method or known.startswith(f"{method}_") for known in METHODS):
        raise ModelError(f"{name} is quantised by {method!r}, which transformers cannot read.", ORIGINAL)
    return True


def quantisation(folder: Path) -> str | None:
    """The way of quantising that config.json names; None where it names none."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        method = config["quantization_config"]["quant_method"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None
    return str(method)


def check_file(path: Path, name: str, quantised: bool) -> None:
    """Raises ModelError where a safetensors file is damaged, or is quantised and config.json does not say how."""
    try:
        with path.open("rb") as start:
            pointer = start.read(len(LFS_POINTER)) == LFS_POINTER
        if pointer:
            raise ModelError(
                f"{name}: {path.name} is the pointer of git-lfs to the weights.", "Run `git lfs pull` in its folder."
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
    """Check what transformers reports of a loading (`output_loading_info`); return notes for the user.

    Raises ModelError where a tensor was not in the files, or there in another size: it would be random.
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
            f"{name}: {tensor} has the shape {tuple(stored)} in its files, by config.json it is {tuple(wanted)}.",
            "config.json belongs to other weights: download the model again.",
        )
    if problems := report["error_msgs"]:
        raise ModelError(f"{name} was not loaded whole: {next(iter(problems))}", "Download the model again.")
    if unused := report["unexpected_keys"]:
        return (f"the model's files hold {listed(unused)}, which this model does not use",)
    return ()


def listed(names: Iterable[str]) -> str:
    """Tensors by number and the first names."""
    ordered = sorted(names)
    more = ", …" if len(ordered) > SHOWN else ""
    return f"{count(len(ordered), 'tensor')} ({', '.join(ordered[:SHOWN])}{more})"
