"""Load a language model from a folder or the hub, on a device and in a dtype.

Loading reports no progress from here: open_pair.py yields the steps of loading, hub.py those of a download.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from nnsight import NNsight

from engine.loading import hub, memory, stored_weights
from engine.models.language_model import LanguageModel
from engine.models.tokens import Tokens
from engine.records.errors import ModelError, SaescopeError, UsageError

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
"""Files of tokenizers; a model has one of them."""

USABLE = "Use cpu, cuda, cuda:N or, on a Mac, mps."


def choose_dtype(name: str | None, device: torch.device) -> torch.dtype | str:
    """Return the named dtype, else on a GPU "auto" (the file's own), else bfloat16 where the CPU has it, else float32.

    Raises UsageError for an unknown name.
    """
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
    """Return the named device, else the first CUDA GPU, else the CPU. Raises UsageError for one that is not usable."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"Unknown device {name!r}.", USABLE) from None
    match device.type:
        case "cpu":
            return torch.device("cpu")  # not cpu:0, which some libraries refuse
        case "cuda":
            count = torch.cuda.device_count() if torch.cuda.is_available() else 0
            if not count:
                raise UsageError("There is no CUDA GPU that torch can see.", "Use --device cpu.")
            if device.index is not None and device.index >= count:
                last = "cuda:0 alone" if count == 1 else f"cuda:0 to cuda:{count - 1}"
                raise UsageError(f"There is no {name}: torch can see {last}.", USABLE)
            return device
        case "mps":
            if not torch.backends.mps.is_available():
                raise UsageError("torch has no access to an Apple GPU here.", "Use --device cpu.")
            return torch.device("mps")
    raise UsageError(f"saescope does not run on {name!r}.", USABLE)


def loaded_as(source: str, device: torch.device, dtype: torch.dtype | str) -> tuple[str, ...]:
    """Return a key of a loaded model: its source, device and dtype."""
    return source, str(device), str(dtype)


def load_model(
    source: str, display_name: str, device: torch.device, dtype: torch.dtype | str, revision: str | None = None
) -> LanguageModel:
    """Load a model from a folder or by its name on the hub. Raises ModelError.

    `display_name`: what messages call the model. `revision`: the commit of a hub model that is cached already; without
    one, transformers may download the model. `open_pair` shows the progress of loading; this function reports none.
    """
    hub.quiet_transformers()
    if source.startswith(("/", "~", ".")):
        source = str(Path(source).expanduser())
        if not Path(source).is_dir():
            raise ModelError(
                f"Cannot load the model {display_name!r}: there is no such folder.",
                "Give --model a folder with config.json and safetensors files.",
            )
    files = ModelFiles(source, display_name, revision)
    if files.folder is not None:
        stored_weights.check_files(files.folder, display_name)
    tokenizer = read_tokenizer(files)
    module, notes = read_module(files, device, dtype)
    return LanguageModel(
        name=display_name,
        fingerprint=fingerprint(source, module),
        module=module,
        tokens=Tokens(tokenizer, len(module.get_input_embeddings().weight)),
        envoy=NNsight(module),
        loaded_as=loaded_as(source, device, dtype),
        notes=notes,
    )


@dataclass(frozen=True)
class ModelFiles:
    """Where transformers finds a model's files."""

    source: str
    """A folder, or a name on the hub."""
    name: str
    """What messages call the model."""
    revision: str | None

    @property
    def folder(self) -> Path | None:
        """The folder of the files; None for a hub model that may not be in the cache yet."""
        if Path(self.source).is_dir():
            return Path(self.source)
        return None if self.revision is None else hub.cache_folder(self.source) / "snapshots" / self.revision

    @property
    def options(self) -> dict[str, Any]:
        """The options of `from_pretrained`. Program code that comes with a model is never run."""
        cached = {} if self.revision is None else {"revision": self.revision, "local_files_only": True}
        return {"trust_remote_code": False, **cached}


def read_tokenizer(files: ModelFiles) -> Any:
    """Load the model's tokenizer. Raises ModelError."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(files.source, **files.options)
    except Exception as error:  # libraries raise anything on damaged files
        if files.folder is not None and not any((files.folder / name).exists() for name in TOKENIZERS):
            raise ModelError(
                f"{files.name} has no tokenizer: none of {', '.join(TOKENIZERS)} is there.",
                "Copy the tokenizer's files of the model it was made from into its folder.",
            ) from error
        raise not_loaded(error, files) from error


def read_module(files: ModelFiles, device: torch.device, dtype: torch.dtype | str) -> tuple[Any, tuple[str, ...]]:
    """Load the model as a torch module without gradients; return it with notes on its files. Raises ModelError."""
    from transformers import AutoModelForCausalLM

    try:
        module, report = AutoModelForCausalLM.from_pretrained(
            files.source,
            dtype=dtype,
            device_map=None if device.type == "cpu" else device,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # check_loaded raises an error that names them
            **files.options,
        )
    except torch.OutOfMemoryError as error:
        raise memory.too_big(files.name, device) from error
    except Exception as error:  # libraries raise anything on damaged files
        raise not_loaded(error, files) from error
    notes = stored_weights.check_loaded(report, files.name)
    quantised = files.folder is not None and stored_weights.quantisation(files.folder) is not None
    if quantised and getattr(module, "hf_quantizer", None) is None:
        module.to(module.config.dtype)  # dequantised by transformers, which leaves the other weights as they are stored
    module.eval()
    module.requires_grad_(False)
    return module, notes


def not_loaded(error: Exception, files: ModelFiles) -> SaescopeError:
    """Return why a model did not load: the hub, program code, quantisation, else the first line of the error."""
    if not Path(files.source).is_dir():
        of_hub = hub.explained(error, hub.Wanted(files.source, "model"))
        if of_hub is not None:
            return of_hub
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(":")
    if "trust_remote_code" in str(error):
        return ModelError(
            f"{files.name} brings program code of its own, which saescope never runs.",
            "Use a model that transformers knows by itself.",
        )
    method = None if files.folder is None else stored_weights.quantisation(files.folder)
    if isinstance(error, ImportError) and method is not None:
        return ModelError(
            f"{files.name} is quantised by {method!r}: {reason}",
            f"Install that package beside saescope. Or: {stored_weights.ORIGINAL}",
        )
    return ModelError(
        f"Cannot load the model {files.name!r}: {reason}",
        "Give --model a folder with config.json and safetensors files, or the name of a hub model you can reach.",
    )


def fingerprint(source: str, module: Any) -> str:
    """Return a sha256 that identifies a model's weights without reading them whole.

    It covers size, first and last MiB of each weight file of a folder, or name and commit of a hub model.
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
    """Return a file's size, first and last MiB as bytes, which differ between versions of a weight file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(1 << 20)
        file.seek(max(0, size - (1 << 20)))
        return str(size).encode() + head + file.read()
