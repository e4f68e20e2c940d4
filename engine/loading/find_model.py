"""Find a language model's files in a folder or on the hub, estimate its memory, download it. Loads nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.loading import hub, memory, presets
from engine.records import Progress
from engine.records.errors import ModelError

TEXTS = (".json", ".txt", ".model", ".jinja", ".tiktoken")
"""Suffixes of configuration and tokenizer files."""

INDEX = "model.safetensors.index.json"

FOLDER = "Give --model a folder with config.json and safetensors files, or the name of a hub model you can reach."


@dataclass(frozen=True)
class ModelSource:
    """The place of a model: a folder, or a repository of the hub with the names of the files to load."""

    name: str
    source: str
    """What transformers loads: a folder, or a name on the hub."""
    repo: hub.Repo | None = None
    """None for a folder."""
    files: tuple[str, ...] = ()

    @property
    def revision(self) -> str | None:
        """The commit to load; None for a folder."""
        return self.repo.commit if self.repo else None

    def bytes_needed(self, dtype: torch.dtype | str, device: torch.device) -> int:
        """Return the memory of the weights in a dtype on a device, in bytes; 0 where it is unknown."""
        folder = Path(self.source)
        if self.repo is not None:
            if self.repo.missing(self.files):
                return self._bytes_on_hub(dtype, device)
            folder = self.repo.snapshot
        weights = weight_files(path.name for path in folder.glob("*"))
        parameters = memory.parameters_of(folder / name for name in weights)
        if not parameters:
            return sum((folder / name).stat().st_size for name in weights)
        return memory.bytes_of(parameters, memory.saved_dtype(folder) if dtype == "auto" else dtype, device)

    def _bytes_on_hub(self, dtype: torch.dtype | str, device: torch.device) -> int:
        assert self.repo is not None
        preset = presets.of_model(self.name)
        if preset is not None:
            return memory.bytes_of({preset.dtype: preset.parameters}, dtype, device)
        if self.repo.parameters:
            return memory.bytes_of(self.repo.parameters, dtype, device)
        return sum(self.repo.sizes.get(name, 0) for name in weight_files(self.files))


def find_model(name: str) -> Generator[Progress, None, ModelSource]:
    """Find a model by its folder or its name on the hub. Raises ModelError."""
    path = Path(name).expanduser()
    if path.is_dir():
        return ModelSource(name, str(hub.cached_snapshot(path) or path))  # a repository's folder in the hub's cache
    if name.startswith(("/", "~", ".")):
        raise ModelError(
            f"Cannot load the model {name!r}: there is no such folder.",
            "Give --model a folder with config.json and safetensors files.",
        )
    yield Progress(f"looking up {name}")
    wanted = hub.Wanted(name, "model")
    repo = hub.look_up(wanted)
    files = files_of_model(repo)
    weights = weight_files(files)
    if "config.json" not in repo.sizes or not weights:
        lacks = "weights" if "config.json" in repo.sizes else "config.json"
        if repo.cached_only:
            raise hub.not_cached(wanted, [f"its {lacks}" if lacks == "weights" else lacks])
        raise ModelError(f"{name} holds no model that transformers loads: it has no {lacks}.", FOLDER)
    return ModelSource(name, name, repo, files)


def fetch_model(source: ModelSource) -> Generator[Progress, None, None]:
    """Download the model's files that are not cached yet. Raises ModelError."""
    if source.repo is not None:
        yield from hub.fetch(source.repo, source.files, hub.Wanted(source.name, "model"))


def files_of_model(repo: hub.Repo) -> tuple[str, ...]:
    """Return the names of configuration, tokenizer and weights, of several sets of weights only one."""
    top = [name for name in repo.sizes if "/" not in name or name.startswith("additional_chat_templates/")]
    texts = {name for name in top if name.endswith(TEXTS)}
    return tuple(sorted(texts | set(weight_files(top)) | set(shards(repo))))


def weight_files(names: Iterable[str]) -> list[str]:
    """Return the weight files among these: transformers' safetensors, else other safetensors, else pickled ones."""
    listed = sorted(names)
    for pattern in (r"model(-\d+-of-\d+)?\.safetensors", r"(?!consolidated).*\.safetensors", r"pytorch_model.*\.bin"):
        matching = [name for name in listed if re.fullmatch(pattern, name)]
        if matching:
            return matching
    return []


def shards(repo: hub.Repo) -> list[str]:
    """Return the weight files that the cached index lists, some of which may not be cached."""
    try:
        index = json.loads((repo.snapshot / INDEX).read_text("utf-8"))
        return sorted(set(map(str, index["weight_map"].values())))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return []
