"""The model hub: list a repository's files, download them into the hub's own cache, and explain the hub's errors.

A cached repository needs no network. Knows nothing of what is in the files, nor of torch.
"""

from __future__ import annotations

import errno
import glob
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from logging import getLogger
from pathlib import Path
from typing import Any, Literal

from engine.records import Progress
from engine.records.errors import ModelError, SaeError, SaescopeError

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".npz")
"""Suffixes of files with a model's or a SAE's weights; a snapshot that has one is preferred."""

TIMEOUT_SECONDS = 20.0

POLL_SECONDS = 0.25

Kind = Literal["model", "SAE"]

ERRORS: dict[Kind, type[SaescopeError]] = {"model": ModelError, "SAE": SaeError}

TOKEN = "log in with `hf auth login` or set HF_TOKEN"

TRANSPORT = ("TransportError", "ConnectionError", "TimeoutError")
"""Class names of network errors, because the hub's client has changed its HTTP library before."""


@dataclass(frozen=True)
class Wanted:
    """The repository that is looked up, and the SAE in it, as errors name them."""

    name: str
    """OWNER/NAME of the repository."""
    kind: Kind
    place: str = ""
    """For a SAE: its folder or file in the repository."""
    one_file: bool = False
    """Whether `place` is a file."""
    size: int = 0
    """Bytes to download; 0 where unknown."""

    def error(self, message: str, remedy: str) -> SaescopeError:
        """Return a ModelError or a SaeError, by `kind`."""
        return ERRORS[self.kind](message, remedy)


@dataclass(frozen=True)
class Repo:
    """A repository's commit and files, as the hub or its cache has them."""

    name: str
    commit: str
    sizes: Mapping[str, int]
    """Its files' sizes in bytes; 0 where the hub does not say."""
    cached_only: bool = False
    """Whether the hub could not be reached, so that these are the cached files only."""
    parameters: Mapping[str, int] = field(default_factory=dict)
    """For a model in safetensors: the number of parameters by dtype, such as {"BF16": 7241732096}."""

    @property
    def snapshot(self) -> Path:
        """The folder of the cache that its files are downloaded into."""
        return cache_folder(self.name) / "snapshots" / self.commit

    def missing(self, files: Iterable[str]) -> list[str]:
        """Return those of the files that are not in the cache."""
        return [name for name in files if not (self.snapshot / name).exists()]


def quiet_transformers() -> None:
    """Turn off transformers' progress bars and all its messages but errors."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    log_by_us("transformers")


def log_by_us(library: str) -> None:
    """Pass a library's messages to saescope's log handler: its own would show text from files unfiltered."""
    logger = getLogger(library)
    logger.handlers.clear()
    logger.propagate = True


def cache_folder(name: str) -> Path:
    """Return the folder in which the hub's library keeps a repository."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser() / f"models--{name.replace('/', '--')}"


def look_up(wanted: Wanted) -> Repo:
    """List a repository's files, from the hub or else its cache. Raises ModelError or SaeError where neither has it."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    log_by_us("huggingface_hub")
    try:
        info = HfApi().model_info(wanted.name, timeout=TIMEOUT_SECONDS, files_metadata=True)
    except Exception as error:  # network errors have no common base; the cache may do
        cached = cached_repo(wanted.name)
        if cached is None:
            raise explained(error, wanted) or unexplained(error, wanted) from error
        return cached
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    parameters = info.safetensors.parameters if info.safetensors else {}
    return Repo(wanted.name, str(info.sha), sizes, parameters=dict(parameters))


def cached_repo(name: str) -> Repo | None:
    """Return the cached files of a repository; None where none is cached."""
    snapshot = cached_snapshot(cache_folder(name))
    if snapshot is None:
        return None
    sizes = {path.relative_to(snapshot).as_posix(): path.stat().st_size for path in files_in(snapshot)}
    return Repo(name, snapshot.name, sizes, cached_only=True)


def cached_snapshot(folder: Path) -> Path | None:
    """Return the snapshot to use in a repository's folder of the cache; None where no snapshot has a file.

    This is the snapshot that `refs/main` names if it has weights, else the newest that has weights, else the newest: a
    cache that was copied or filled by commit may lack `refs/main`.
    """
    try:
        main = (folder / "refs" / "main").read_text("utf-8").strip()
    except (OSError, ValueError):
        main = ""
    snapshots = [path for path in folder.glob("snapshots/*") if files_in(path)]
    newest_first = sorted(snapshots, key=lambda path: (path.name != main, -path.stat().st_mtime))
    with_weights = [path for path in newest_first if any(f.suffix in WEIGHTS for f in files_in(path))]
    return next(iter([*with_weights, *newest_first]), None)


def files_in(snapshot: Path) -> list[Path]:
    """Return the files of a snapshot, without links that lead nowhere."""
    return [path for path in snapshot.rglob("*") if path.is_file()]


# ---- fetching


class Download(threading.Thread):
    """A thread that downloads files of a repository; a cancelled request sets `stop` and does not wait for the end."""

    def __init__(self, repo: Repo, files: Sequence[str]) -> None:
        super().__init__(name="download", daemon=True)
        self.repo, self.files = repo, files
        self.error: BaseException | None = None
        self.stop = threading.Event()

    def run(self) -> None:
        """Download the files, without a progress bar."""
        from huggingface_hub import snapshot_download

        patterns = [glob.escape(name) for name in self.files]
        try:
            snapshot_download(self.repo.name, allow_patterns=patterns, tqdm_class=quiet_bar(self.stop))
        except BaseException as error:  # raised again in the thread that waits for it
            self.error = error


def quiet_bar(stop: threading.Event) -> Any:
    """Return a progress bar class that shows nothing, and that ends its download once `stop` is set."""
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            if stop.is_set():
                raise InterruptedError("the download was stopped")
            super().update(n)

    return Bar


def fetch(repo: Repo, files: Sequence[str], wanted: Wanted) -> Generator[Progress, None, Path]:
    """Download the files that are not cached yet, with progress in MB; return the repository's folder in the cache.

    Raises ModelError or SaeError. Closing the generator stops the download.
    """
    missing = repo.missing(files)
    if not missing:
        return repo.snapshot
    if repo.cached_only:
        raise not_cached(wanted, missing)
    total = sum(repo.sizes.get(name, 0) for name in missing)
    stage = f"downloading {repo.name} (MB)"
    yield Progress(stage, 0, total // 10**6)
    download = Download(repo, files)
    before = bytes_on_disk(repo)
    download.start()
    try:
        while download.is_alive():
            download.join(POLL_SECONDS)
            done = max(0, bytes_on_disk(repo) - before)
            yield Progress(stage, min(done, total) // 10**6, total // 10**6)
    finally:
        download.stop.set()
    if download.error is not None:
        wanted = replace(wanted, size=total)
        raise explained(download.error, wanted) or unexplained(download.error, wanted) from download.error
    if missing := repo.missing(files):
        raise wanted.error(
            f"{repo.name} was changed on the hub while it was downloaded: {missing[0]} is not there.", "Load it again."
        )
    return repo.snapshot


def bytes_on_disk(repo: Repo) -> int:
    """Return how many bytes of a repository are cached, incomplete files included."""
    total = 0
    for path in (cache_folder(repo.name) / "blobs").glob("*"):
        try:
            total += path.stat().st_blocks * 512  # a file may be set to its full length before it is filled
        except OSError:  # the file was renamed after it was listed
            continue
    return total


def gigabytes(size: float) -> str:
    """Return a number of bytes as text, such as "3.2 GB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{max(size, 1e5) / 1e6:.1f} MB"


# ---- errors in words


def explained(error: BaseException, wanted: Wanted) -> SaescopeError | None:
    """Return what went wrong with a repository and what to do; None where the error is not the hub's.

    Libraries wrap each other's errors, so every error of the chain is tried, with the most specific explanation first.
    """
    chain = list(causes(error))
    for explain in (disk, access, existence, reach):
        for cause in chain:
            words = explain(cause, wanted)
            if words is not None:
                return wanted.error(*words)
    return None


def unexplained(error: BaseException, wanted: Wanted) -> SaescopeError:
    """Return an error that no explanation fits, by the first line of its message."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return wanted.error(
        f"{wanted.name} cannot be fetched from the hub: {lines[0][:300]}", f"Fetch it by hand: {by_hand(wanted)}"
    )


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


Words = tuple[str, str] | None


def disk(error: BaseException, wanted: Wanted) -> Words:
    """Explain a cache that cannot be written."""
    number, folder = getattr(error, "errno", None), cache_folder(wanted.name).parent
    if number in (errno.ENOSPC, errno.EDQUOT):
        need = f" needs {gigabytes(wanted.size)} there" if wanted.size else " does not fit"
        return (
            f"The disk of {folder} is full: {wanted.name}{need}.",
            "Make room, or set HF_HOME to a folder on another disk.",
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"The hub's cache in {folder} cannot be written.", "Set HF_HOME to a folder that you may write to."
    return None


def access(error: BaseException, wanted: Wanted) -> Words:
    """Explain a gated repository, or one that is switched off."""
    from huggingface_hub.errors import DisabledRepoError, GatedRepoError

    if isinstance(error, GatedRepoError) or "trying to access a gated repo" in str(error):  # transformers' words
        return (
            f"{wanted.name} is gated: its licence has to be accepted before it can be downloaded.",
            f"Accept it on the page huggingface.co/{wanted.name}, then {TOKEN}.",
        )
    if isinstance(error, DisabledRepoError):
        return f"The hub has switched off {wanted.name}.", "Use another one."
    return None


def existence(error: BaseException, wanted: Wanted) -> Words:
    """Explain a wrong name."""
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, RepositoryNotFoundError):
        return (
            f"The hub has no repository {wanted.name}, or it is private.",
            f"Check the spelling; for a private one {TOKEN}.",
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{wanted.name} has no revision `main` on the hub.", "Download the one you want and give its folder."
    if isinstance(error, HFValidationError):
        return f"{wanted.name!r} is not the name of a repository on the hub.", "Give OWNER/NAME, or a folder."
    return None


def reach(error: BaseException, wanted: Wanted) -> Words:
    """Explain a hub that refuses access, fails, or cannot be reached."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, OfflineModeIsEnabled

    status = getattr(getattr(error, "response", None), "status_code", None) or 0
    if status in (401, 403):
        return f"The hub refuses access to {wanted.name} (HTTP {status}).", f"Check your token: {TOKEN}."
    if status == 429:
        return "The hub asks for a pause: too many requests.", f"Wait some minutes, or {TOKEN}."
    if status >= 500:
        return f"The hub has trouble (HTTP {status}).", f"Try again in some minutes, or fetch it: {by_hand(wanted)}"
    is_network = any(parent.__name__ in TRANSPORT for parent in type(error).__mro__)
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled) or is_network:
        words = not_cached(wanted, [])
        return words.message, words.remedy
    if isinstance(error, EntryNotFoundError):
        return (
            f"A file is missing in {wanted.name} on the hub.",
            f"Its files are listed on huggingface.co/{wanted.name}/tree/main.",
        )
    return None


def not_cached(wanted: Wanted, missing: Sequence[str]) -> SaescopeError:
    """Return the error that the hub cannot be reached and the cache lacks the files, or the whole repository."""
    from huggingface_hub import constants

    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
    what = f"Of {wanted.name}, {missing[0]} is" if missing else f"{wanted.name} is"
    return wanted.error(
        f"{what} not in the cache of this machine, and {why}.",
        f"With a network, here or elsewhere: {by_hand(wanted)}",
    )


def by_hand(wanted: Wanted) -> str:
    """Return how to download without saescope, into a folder named like the repository, as `published` needs it."""
    name, place = wanted.name, wanted.place
    if wanted.kind == "model":
        return f"`hf download {name} --local-dir {name}`, then give --model that folder."
    # of a file also those beside it that start with its name, such as its configuration
    include = f" --include '{place.rpartition('.')[0]}*'" if wanted.one_file else f" --include '{place}/*'"
    return (
        f"`hf download {name}{include if place else ''} --local-dir {name}`, then give --sae "
        f"{'' if wanted.one_file else 'the folder '}{f'{name}/{place}'.rstrip('/')} "
        "(keep the folder's name: saescope recognises a published SAE by it)."
    )
