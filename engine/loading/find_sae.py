"""Where a SAE is: a folder, a file in one, a place on the hub, or a name SAELens gave it; fetched if need be.

Of a repository only the files of the one SAE are downloaded. Knows nothing of what is in the files.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.loading import hub, registry
from engine.loading.presets import closest_first
from engine.loading.sae_files import files_of_sae, known_files, on_disk, one_file_format, place_of_sae, saes_in
from engine.records import Progress
from engine.records.errors import SaeError

URL = re.compile(r"https?://[^/]+/([^/]+/[^/]+)(?:/(?:tree|blob|resolve)/[^/]+)?/?(.*)")

NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")

SHOWN = 8


@dataclass(frozen=True)
class Located:
    """A SAE on this machine, what it is called, and what is published about it."""

    place: Path
    """Its folder, or the one file that it is."""
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
    """A SAE's folder, a file in it, or a file that is one."""
    place = path
    if not path.is_dir() and not one_file(path):
        place = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    with suppress(OSError):  # of what may not be looked into, whoever reads it says so
        place = on_disk(place)
    known = known_by_path(place)
    if known is None:
        return Located(place, str(place))
    refuse_unread(known)
    return Located(place, f"{known.repository}/{known.path}".rstrip("/"), known.published)


def one_file(path: Path) -> bool:
    """Whether a file is a SAE by itself."""
    return bool(one_file_format(path.name, {beside.name for beside in path.parent.glob("*_cfg.json")}))


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


def refuse_unread(known: registry.Known) -> None:
    """Raises SaeError for what the registry says is no SAE that saescope reads."""
    if known.unread:
        name = f"{known.repository}/{known.path}".rstrip("/")
        raise SaeError(f"{name} is {known.unread}, which saescope does not read.", registry.instead(known))


# ---- on the hub


def from_hub(known: registry.Known) -> Generator[Progress, None, Located]:
    """Fetches a SAE's files. Raises SaeError for one of a format that is not read, or that is not there."""
    refuse_unread(known)
    yield Progress(f"looking up {known.repository}")
    wanted = hub.Wanted(known.repository, "SAE", known.path)
    try:
        repo = hub.look_up(wanted)
    except SaeError as error:  # perhaps it was meant as the name of a release
        raise SaeError(error.message, f"{error.remedy} {registry.hint(known.repository)}".rstrip()) from error
    place = place_of_sae(repo.sizes, known.path)
    names = files_of_sae(repo.sizes, place)
    if not names:
        raise not_there(repo, place)
    snapshot = yield from hub.fetch(repo, names, wanted)
    if place != known.path:  # a file in its folder was named, or the folder of its file: the SAE is what is published
        known = registry.by_place(known.repository, place) or registry.Known(known.repository, place, {}, "")
        refuse_unread(known)
    return Located(snapshot / place if place else snapshot, f"{repo.name}/{place}".rstrip("/"), known.published)


def not_there(repo: hub.Repo, place: str) -> SaeError:
    """Return the error that there is no SAE at that place; it names what there is instead, closest first."""
    what = f"{repo.name} has no SAE in {place}" if place else f"{repo.name} is no SAE itself"
    if repo.cached_only:
        what += ", as far as the cache of this machine has it, and the hub cannot be reached"
    below = [inner for inner in saes_in(repo.sizes) if inner.startswith(f"{place}/")]
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
    return SaeError(f"{what}.", f"Files there: {listed}. A SAE has {known_files()}.")
