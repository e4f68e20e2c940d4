"""Where a SAE is: a folder, a file in one, a place on the hub, or a name SAELens gave it; fetched if need be.

Of a repository only the files of the one SAE are downloaded. Knows nothing of what is in the files.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from engine.loading import hub, registry
from engine.loading.presets import closest_first
from engine.records import Progress
from engine.records.errors import SaeError

SETS = (
    ("cfg.json", "sae_weights.safetensors"),
    ("params.npz",),
    ("params.safetensors",),
    ("hyperparams.json", "checkpoints/final.safetensors"),
    ("config.json", "ae.pt"),
    ("cfg.json", "sae.safetensors"),
)
"""The files that make a folder a SAE, by format; loading/formats reads them."""

ALSO = ("config.json", "activation_scaler.json")
"""Files that some formats read where they exist."""

URL = re.compile(r"https?://[^/]+/([^/]+/[^/]+)(?:/(?:tree|blob|resolve)/[^/]+)?/?(.*)")

NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")

SHOWN = 8


@dataclass(frozen=True)
class Located:
    """A SAE's folder on this machine, what the SAE is called, and what is published about it."""

    folder: Path
    name: str
    """OWNER/REPOSITORY/PATH where known; some formats say there which model and hook point a SAE belongs to."""
    published: dict[str, Any] = field(default_factory=dict)


def locate(text: str) -> Generator[Progress, None, Located]:
    """Find a SAE by anything that --sae may say, and fetch it. Raises SaeError saying what there is instead.

    What exists on this machine takes precedence over SAELens' releases, and these over the hub.
    """
    path = Path(text).expanduser()
    if path.exists():
        return local(path)
    address = URL.fullmatch(text)
    name = f"{address[1]}/{address[2]}" if address else text
    repository, place = "/".join(name.split("/")[:2]), "/".join(name.strip("/").split("/")[2:])
    if text.startswith(("/", "~", ".")):
        raise SaeError(f"There is no SAE folder {path}.", "Check the path, or give OWNER/REPOSITORY/PATH on the hub.")
    known = registry.by_release(name) or registry.by_place(repository, place)
    if known is None and not NAME.fullmatch(repository):
        raise SaeError(
            f"There is no SAE folder {text}.",
            "Give --sae a folder, OWNER/REPOSITORY/PATH on the hub, or RELEASE/ID of SAELens. "
            f"{registry.hint(name)}".rstrip(),
        )
    located = yield from from_hub(known or registry.Known(repository, place, {}, ""))
    return located


# ---- on this machine


def local(path: Path) -> Located:
    """Return the SAE of a folder, or of a file in it."""
    folder = path if path.is_dir() else path.parent
    if folder.name == "checkpoints" and folder != path:
        folder = folder.parent
    known = known_by_path(folder)
    if known is None:
        return Located(folder, str(folder))
    return Located(folder, f"{known.repository}/{known.path}".rstrip("/"), known.published)


def known_by_path(folder: Path) -> registry.Known | None:
    """Return what is published about a folder that ends in OWNER/REPOSITORY/PATH or lies in the hub's cache."""
    parts = list(folder.absolute().parts)
    for i, part in enumerate(parts):
        if part.startswith("models--") and parts[i + 1 : i + 2] == ["snapshots"]:
            repository, place = part.removeprefix("models--").replace("--", "/", 1), "/".join(parts[i + 3 :])
            return registry.by_place(repository, place) or registry.Known(repository, place, {}, "")
    for i in range(len(parts) - 2):
        known = registry.by_place(f"{parts[i]}/{parts[i + 1]}", "/".join(parts[i + 2 :]))
        if known is not None:
            return known
    return None


# ---- on the hub


def from_hub(known: registry.Known) -> Generator[Progress, None, Located]:
    """Fetch a SAE's files. Raises SaeError where its format is not read, or where there is no SAE."""
    name = f"{known.repository}/{known.path}".rstrip("/")
    if known.unread:
        raise SaeError(
            f"{name} is of the kind {known.unread!r} (SAELens' name for it), which saescope does not read.",
            "saescope reads SAEs of SAELens, Gemma Scope 1 and 2, Llama Scope, dictionary_learning and sparsify.",
        )
    yield Progress(f"looking up {known.repository}")
    wanted = hub.Wanted(known.repository, "SAE", known.path)
    try:
        repo = hub.look_up(wanted)
    except SaeError as error:  # perhaps it was meant as the name of a release
        raise SaeError(error.message, f"{error.remedy} {registry.hint(known.repository)}".rstrip()) from error
    place = known.path if known.path not in repo.sizes else folder_of_file(known.path)
    names = files_of_sae(repo.sizes, place)
    if not names:
        raise not_there(repo, place)
    snapshot = yield from hub.fetch(repo, names, wanted)
    if place != known.path:  # a file was named: what is published is about its folder
        known = registry.by_place(known.repository, place) or registry.Known(known.repository, place, {}, "")
    return Located(snapshot / place if place else snapshot, f"{repo.name}/{place}".rstrip("/"), known.published)


def folder_of_file(path: str) -> str:
    """Return the SAE's folder, from the path of a file in it."""
    parts = PurePosixPath(path).parent.parts
    return "/".join(parts[:-1] if parts[-1:] == ("checkpoints",) else parts)


def files_of_sae(files: Iterable[str], place: str) -> list[str]:
    """Return the files of the SAE in one folder of a repository, no others; none where it holds no SAE."""
    prefix = f"{place}/" if place else ""
    inside = {name.removeprefix(prefix) for name in files if name.startswith(prefix)}
    for needed in SETS:
        if inside.issuperset(needed):
            return [prefix + name for name in (*needed, *(n for n in ALSO if n in inside and n not in needed))]
    return []


def saes_in(files: Iterable[str]) -> list[str]:
    """Return the folders of a repository that hold a SAE."""
    names = set(files)
    folders = {folder_of_file(name) for name in names}
    return sorted(folder for folder in folders if files_of_sae(names, folder))


def not_there(repo: hub.Repo, place: str) -> SaeError:
    """Return the error that there is no SAE at that place; it names what there is instead, closest first."""
    what = f"{repo.name} has no SAE in {place}" if place else f"{repo.name} is no SAE itself"
    if repo.cached_only:
        what += ", as far as the cache of this machine has it, and the hub cannot be reached"
    below = [folder for folder in saes_in(repo.sizes) if folder.startswith(f"{place}/")]
    folders = below or closest_first(place, saes_in(repo.sizes))
    by_hand = f"With a network, here or elsewhere: {hub.by_hand(hub.Wanted(repo.name, 'SAE', place))}"
    if folders:
        more = f" and {len(folders) - SHOWN} more" if len(folders) > SHOWN else ""
        listed = f"It has: {', '.join(f or '(its top)' for f in folders[:SHOWN])}{more}."
        return SaeError(f"{what}.", f"{listed} {by_hand}" if repo.cached_only else listed)
    if repo.cached_only:
        return SaeError(f"{what}.", by_hand)
    inside = sorted(name for name in repo.sizes if not place or name.startswith(f"{place}/"))
    listed = ", ".join(inside[:SHOWN]) or ", ".join(sorted(repo.sizes)[:SHOWN]) or "nothing"
    if "config.json" in repo.sizes and any(n.endswith(".safetensors") and "/" not in n for n in repo.sizes):
        return SaeError(f"{what}.", "It looks like a language model: give it with --model.")
    return SaeError(f"{what}.", f"Files there: {listed}. A SAE has {' or '.join(' and '.join(s) for s in SETS)}.")
