"""Find a SAE by what --sae says: a folder, a file, a place on the hub, or a name of SAELens'; download it if need be.

Of a repository only the files of the one SAE are downloaded. Knows nothing of what is in the files.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.loading import hub, published
from engine.loading.formats import (
    files_of_sae,
    folder_of_file,
    format_of,
    is_file_name,
    known_files,
    on_disk,
    place_of_sae,
    saes_in,
)
from engine.loading.presets import closest_first
from engine.loading.published import Known
from engine.records import Progress
from engine.records.errors import SaeError

URL = re.compile(r"https?://[^/]+/([^/]+/[^/]+)(?:/(?:tree|blob|resolve)/[^/]+)?/?(.*)")

REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")

SHOWN = 8
"""How many names an error lists."""


@dataclass(frozen=True)
class Located:
    """A SAE on this machine, with its name and what is published about it."""

    place: Path
    """Its folder, or its file where the SAE is one file."""
    name: str
    """OWNER/REPOSITORY/PATH where known; some formats say only there which model and hook point a SAE belongs to."""
    published: dict[str, Any] = field(default_factory=dict)
    """Fields of SaeConfig that replace those of the files."""


def locate(text: str) -> Generator[Progress, None, Located]:
    """Find a SAE by a value of --sae, and download it if need be.

    What exists on this machine takes precedence over SAELens' releases, and these over the hub. Raises SaeError, naming
    what there is instead.
    """
    path = Path(text).expanduser()
    if path.exists():
        return local(path)
    address = URL.fullmatch(text)
    name = f"{address[1]}/{address[2]}" if address else text
    repository, place = "/".join(name.split("/")[:2]), "/".join(name.strip("/").split("/")[2:])
    if text.startswith(("/", "~", ".")):
        raise SaeError(f"There is no SAE folder {path}.", "Check the path, or give OWNER/REPOSITORY/PATH on the hub.")
    known = published.by_release(name) or published.by_place(repository, place)
    if known is None and not REPOSITORY.fullmatch(repository):
        raise SaeError(
            f"There is no SAE folder {text}.",
            "Give --sae a folder, OWNER/REPOSITORY/PATH on the hub, or RELEASE/ID of SAELens. "
            f"{published.hint(name)}".rstrip(),
        )
    located = yield from from_hub(known or Known(repository, place, {}))
    return located


# ---- on this machine


def local(path: Path) -> Located:
    """Return the SAE at an existing path: its folder, a file in it, or a file that is a SAE. Raises SaeError."""
    place = path
    with suppress(OSError):  # load_sae reports a path that may not be read
        if not path.is_dir() and not format_of(path):
            place = Path(folder_of_file(path.as_posix()))
        place = on_disk(place)
    known = known_by_path(place)
    if known is None:
        return Located(place, str(place))
    refuse_unread(known)
    return Located(place, name_of(known), known.published)


def known_by_path(folder: Path) -> Known | None:
    """Return what is published about a folder that ends in OWNER/REPOSITORY/PATH or lies in the hub's cache."""
    parts = list(folder.absolute().parts)
    for i, part in enumerate(parts):
        if part.startswith("models--") and parts[i + 1 : i + 2] == ["snapshots"]:
            repository, place = part.removeprefix("models--").replace("--", "/", 1), "/".join(parts[i + 3 :])
            return published.by_place(repository, place) or Known(repository, place, {})
    for i in range(len(parts) - 2):
        known = published.by_place(f"{parts[i]}/{parts[i + 1]}", "/".join(parts[i + 2 :]))
        if known is not None:
            return known
    return None


def name_of(known: Known) -> str:
    """Return OWNER/REPOSITORY/PATH."""
    return f"{known.repository}/{known.path}".rstrip("/")


def refuse_unread(known: Known) -> None:
    """Raise SaeError where a published SAE is of a kind that saescope does not read."""
    if known.unread:
        raise SaeError(f"{name_of(known)} is {known.unread}, which saescope does not read.", published.instead(known))


# ---- on the hub


def from_hub(known: Known) -> Generator[Progress, None, Located]:
    """Download the SAE's files that are not cached. Raises SaeError for a kind that is not read, or where no SAE is."""
    refuse_unread(known)
    yield Progress(f"looking up {known.repository}")
    wanted = hub.Wanted(known.repository, "SAE", known.path, is_file_name(known.path))
    try:
        repo = hub.look_up(wanted)
    except SaeError as error:  # the name may be a misspelt release
        raise SaeError(error.message, f"{error.remedy} {published.hint(known.repository)}".rstrip()) from error
    place = place_of_sae(repo.sizes, known.path)
    names = files_of_sae(repo.sizes, place)
    if not names:
        raise not_there(repo, place)
    snapshot = yield from hub.fetch(repo, names, wanted)
    if place != known.path:  # the path was a file in the SAE's folder, or the folder of its file
        known = published.by_place(known.repository, place) or Known(known.repository, place, {})
        refuse_unread(known)
    return Located(snapshot / place if place else snapshot, f"{repo.name}/{place}".rstrip("/"), known.published)


def not_there(repo: hub.Repo, place: str) -> SaeError:
    """Return the error that no SAE is at a place of a repository; it names what is there instead, closest first."""
    what = f"{repo.name} has no SAE in {place}" if place else f"{repo.name} is no SAE itself"
    if repo.cached_only:
        what += ", as far as the cache of this machine has it, and the hub cannot be reached"
    saes = saes_in(repo.sizes)
    folders = [sae for sae in saes if sae.startswith(f"{place}/")] or closest_first(place, saes)
    wanted = hub.Wanted(repo.name, "SAE", place, is_file_name(place))
    by_hand = f"With a network, here or elsewhere: {hub.by_hand(wanted)}"
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
