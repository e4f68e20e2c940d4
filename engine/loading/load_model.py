"""Load a language model from a folder or the hub, on a device and in a dtype."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from nnsight import NNsight

from engine.loading import hub, memory
from engine.models.language_model import LanguageModel
from engine.models.tokens import Tokens
from engine.records.errors import ModelError, SaescopeError, UsageError


def choose_dtype(name: str | None, device: torch.device) -> torch.dtype | str:
    """Return the named dtype, else on a GPU the file's own ("auto"), else bfloat16 where native, else float32."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name is not None:
        if name not in known:
            raise UsageError(f"Unknown dtype {name!r}.", f"Use one of {', '.join(known)}.")
        return known[name]
    if device.type != "cpu":
        return "auto"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def choose_device(name: str | None) -> torch.device:
    """Return the named device, else the first GPU, else the CPU. Raises UsageError."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"Unknown device {name!r}.", "Use cpu, cuda or cuda:N.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("There is no CUDA GPU that torch can see.", "Use --device cpu.")
    return device


def loaded_as(source: str, device: torch.device, dtype: torch.dtype | str) -> tuple[str, ...]:
    """Return what tells one loaded model from another: where it came from, device and dtype."""
    return source, str(device), str(dtype)


def load_model(
    source: str, display_name: str, device: torch.device, dtype: torch.dtype | str, revision: str | None = None
) -> LanguageModel:
    """Load a model from a folder or a hub name. Raises ModelError with the reason.

    `revision`: the commit of a hub model that is in the hub's cache already; without one the model may be fetched.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    hub.quiet_transformers()
    if source.startswith(("/", "~", ".")):
        source = str(Path(source).expanduser())
        if not Path(source).is_dir():
            raise ModelError(
                f"Cannot load the model {display_name!r}: there is no such folder.",
                "Give --model a folder with config.json and safetensors files.",
            )
    where = {} if revision is None else {"revision": revision, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **where)
        module = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype,
            trust_remote_code=False,
            device_map=None if device.type == "cpu" else device,
            **where,
        )
    except torch.OutOfMemoryError as error:
        raise memory.too_big(display_name, device) from error
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise not_loaded(error, source, display_name) from error
    module.eval()
    module.requires_grad_(False)
    return LanguageModel(
        name=display_name,
        fingerprint=fingerprint(source, module),
        module=module,
        tokens=Tokens(tokenizer),
        envoy=NNsight(module),
        loaded_as=loaded_as(source, device, dtype),
    )


def not_loaded(error: Exception, source: str, display_name: str) -> SaescopeError:
    """Return why a model did not load: trouble with the hub, code of its own, else the library's first line."""
    if not Path(source).is_dir():
        hub_error = hub.explained(error, hub.Wanted(source, "model"))
        if hub_error is not None:
            return hub_error
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "trust_remote_code" in str(error):
        return ModelError(
            f"{display_name} brings program code of its own, which saescope never runs.",
            "Use a model that transformers knows by itself.",
        )
    return ModelError(
        f"Cannot load the model {display_name!r}: {reason}",
        "Give --model a folder with config.json and safetensors files, or the name of a hub model you can reach.",
    )


def fingerprint(source: str, module: Any) -> str:
    """Return a sha256 that tells one set of weights from another without reading gigabytes.

    For a local folder: over each weight file's size, first and last MiB. For a hub model: over its name and commit.
    """
    digest = sha256()
    folder = Path(source)
    if folder.is_dir():
        for path in sorted(folder.glob("*.safetensors")):
            digest.update(ends_of_file(path))
    else:
        digest.update(f"{source}@{getattr(module.config, '_commit_hash', None)}".encode())
    return digest.hexdigest()


def ends_of_file(path: Path) -> bytes:
    """Return a file's size, first and last MiB: enough to tell versions of a weight file apart."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(1 << 20)
        file.seek(max(0, size - (1 << 20)))
        return str(size).encode() + head + file.read()
