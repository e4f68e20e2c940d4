"""Open a model and its SAE as a pair: the steps of loading, in their order, with the progress that each reports.

Files are found, downloaded and read by find_sae, find_model, formats, load_model and hub.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Generator
from dataclasses import replace
from importlib.metadata import version
from math import isfinite
from pathlib import Path

import platformdirs
import torch

import prompts
from engine.doctor import limits
from engine.files import paths
from engine.loading import memory
from engine.loading.demo import model as demo_model
from engine.loading.find_model import ModelSource, fetch_model, find_model
from engine.loading.find_sae import Located, locate
from engine.loading.formats import files_on_disk, load_sae
from engine.loading.load_model import choose_device, choose_dtype, ends_of_file, load_model, loaded_as
from engine.models import reference as references
from engine.models.hooks import HookPoint, resolve_hook, same_place
from engine.models.language_model import LanguageModel, if_not_finite, short_name
from engine.models.pair import Pair, Site
from engine.models.reference import Reference
from engine.models.sae import SparseAutoencoder
from engine.records import Load, Loaded, Progress, Prompt
from engine.records.errors import HookError, MismatchError, SaeError, UsageError

log = logging.getLogger("saescope")

DEMO_SAE = Path(__file__).parent / "demo" / "sae"

SHIPPED_REFERENCE = "reference.safetensors"

MOST_THREADS = 1024
"""The system may end a process that starts more."""

SENTENCE = "The sky is blue."
"""A model that has just been loaded is run on this: if its numbers overflow even here, it cannot be used."""

LIBRARIES = ("torch", "transformers", "tokenizers", "nnsight", "safetensors")


def open_pair(request: Load, current: Pair | None = None) -> Generator[Progress, None, Pair]:
    """Load the model and the SAE that a request names, or the packaged demo, and return them as a pair.

    The model of the `current` pair is used again if the request names the same one. Raises ModelError, SaeError,
    MismatchError, HookError or UsageError.
    """
    check_request(request)
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    device = choose_device(request.device)
    dtype = choose_dtype(request.dtype, device)
    # the SAE first, as it is small: the user learns of a wrong path before a model is downloaded
    located = yield from requested_sae(request)
    source, dtype = yield from requested_model(request, dtype)
    reused = current is not None and current.model.loaded_as == loaded_as(source.source, device, dtype)
    check_memory(located, source, device, dtype, current, reused)
    yield Progress("reading the SAE")
    sae = read_sae(located, device)
    if current is not None and reused:
        model = current.model
    else:
        yield from fetch_model(source)
        yield Progress(f"loading {source.name}")
        model = load_model(source.source, source.name, device, dtype, source.revision)
    # a copy: the current pair keeps its own way to feed prompts, should this load fail
    tokens = model.tokens.feeding(request.bos, sae.config.prepend_bos)
    model = model if tokens is model.tokens else replace(model, tokens=tokens)
    if not reused:
        ids = model.tokens.feed(Prompt(SENTENCE)).ids
        model.check_logits(ids, len(ids))
    hook = hook_of(model, sae, request.hook)
    reference = yield from find_reference(request, model, sae, hook, located.place)
    loaded = describe(request, model, sae, hook, reference, located.place)
    return Pair(model, [Site(sae, hook, hook, reference)], loaded)


def check_request(request: Load) -> None:
    """Raise UsageError where a name cannot be a path, or the number of threads is out of range."""
    for name in (request.model, request.sae, request.reference):
        if name is not None:
            paths.typed(name)  # hub names too: each is first looked up as a path
    if request.threads is not None and not 1 <= request.threads <= MOST_THREADS:
        raise UsageError(f"--threads must be between 1 and {MOST_THREADS:,}.")


def requested_sae(request: Load) -> Generator[Progress, None, Located]:
    """Find the SAE; the demo's where the request names neither model nor SAE. Raises SaeError or UsageError."""
    if request.sae is not None:
        located = yield from locate(request.sae)
        return located
    if request.model is not None:
        raise UsageError(
            "Which SAE? --model names a model, and a SAE belongs to one model and one layer.",
            "Give --sae: a folder, OWNER/REPOSITORY/PATH on the hub, or SAELens' RELEASE/ID; or --preset for both.",
        )
    return Located(DEMO_SAE, "demo")


def requested_model(
    request: Load, dtype: torch.dtype | str
) -> Generator[Progress, None, tuple[ModelSource, torch.dtype | str]]:
    """Find the model, or the demo's where the request names none, and the dtype to load it in. Raises ModelError."""
    if request.model is not None:
        source = yield from find_model(request.model)
        return source, dtype
    dtype = dtype if isinstance(dtype, torch.dtype) else torch.bfloat16
    folder = yield from demo_model.prepare(dtype)
    return ModelSource(demo_model.NAME, str(folder)), dtype


def check_memory(
    located: Located,
    source: ModelSource,
    device: torch.device,
    dtype: torch.dtype | str,
    current: Pair | None,
    reused: bool,
) -> None:
    """Raise ModelError where model and SAE do not fit into the device's free memory.

    `reused`: whether the current pair's model is used again; it needs no more memory.
    """
    needed = memory.sae_bytes(located.place) + (0 if reused else source.bytes_needed(dtype, device))
    held = 0 if current is None or reused or current.model.device.type != device.type else current.model.bytes
    what = f"The SAE {located.name}" if reused else f"{source.name} and its SAE"
    memory.check(what, needed, device, held)


def read_sae(located: Located, device: torch.device) -> SparseAutoencoder:
    """Load the SAE, with what is published about it. Raises SaeError, or ModelError where the memory is full."""
    try:
        return load_sae(located.place, located.name, device, located.published)
    except torch.OutOfMemoryError as error:
        raise memory.too_big(f"The SAE {located.name}", device) from error


def hook_of(model: LanguageModel, sae: SparseAutoencoder, hook_name: str | None) -> HookPoint:
    """Return the hook point of this name, else of the SAE's files.

    Raises HookError where no name is given or the model has no such hook point, and MismatchError where SAE and hook
    point have different widths.
    """
    name = hook_name or sae.config.hook
    if not name:
        raise HookError("The SAE's files do not say where it reads.", "Give --hook, e.g. blocks.15.hook_resid_pre.")
    hook = resolve_hook(model.module, name)
    width = model.width(hook)
    if sae.d_in == width:
        return hook
    if hook_name and sae.d_in == model.d_model:
        raise HookError(
            f"{hook.name} has width {width}, the SAE reads vectors of width {sae.d_in}.",
            "Give --hook the hook point that the SAE was trained at.",
        )
    trained_on = f" It was trained on {sae.config.model}." if sae.config.model else ""
    place = f"has width {width}" if width == model.d_model else f"has width {model.d_model}, its {hook.name} {width}"
    raise MismatchError(
        f"The SAE reads vectors of width {sae.d_in}, the residual stream of {model.name} {place}.{trained_on}",
        "Give the SAE's own model with --model.",
    )


def find_reference(
    request: Load, model: LanguageModel, sae: SparseAutoencoder, hook: HookPoint, sae_place: Path
) -> Generator[Progress, None, Reference]:
    """Return the SAE's reference statistics: shipped beside it, else cached, else computed now and cached.

    Raises SaeError where stored statistics belong to a SAE of another size.
    """
    shipped = sae_place / SHIPPED_REFERENCE
    fed_as_shipped = model.tokens.raw_bos == sae.config.prepend_bos
    if request.reference is None and request.model is None and fed_as_shipped and shipped.exists():
        try:
            return checked(references.load(shipped), sae, shipped)
        except references.OutdatedError as error:
            log.warning("%s They are measured again.", error.message)
    path = Path(request.reference) if request.reference else prompts.NEUTRAL_TEXT
    texts = references.read_text(path)
    of_sae = [sae_fingerprint(sae_place), sae.config.equations()]
    fed = repr((model.tokens.raw_bos, sorted(model.tokens.special)))
    of_model = [model.fingerprint, hook.name, str(model.dtype), fed]
    key = references.cache_key([references.VERSION, *of_sae, *of_model, *texts])
    cached = Path(platformdirs.user_cache_dir("saescope")) / "reference" / f"{key}.safetensors"
    if cached.exists():
        return checked(references.load(cached), sae, cached)
    computed = yield from references.compute(model, sae, hook, texts, path.name)
    try:
        references.save(computed, cached)
    except OSError as error:  # the next start has to measure them again
        log.warning("the reference statistics cannot be stored in %s: %s", cached.parent, error)
    return computed


def checked(reference: Reference, sae: SparseAutoencoder, path: Path) -> Reference:
    """Return the statistics read from `path`. Raises SaeError where the SAE has another number of features."""
    if len(reference.count_F) != sae.d_sae:
        raise SaeError(
            f"{path} describes {len(reference.count_F)} features, the SAE has {sae.d_sae}.", "Delete the file."
        )
    return reference


def sae_fingerprint(place: Path) -> str:
    """Return a sha256 over the first and last MiB of the SAE's files, configuration included."""
    files = sorted(path for path in files_on_disk(place) if path.name != SHIPPED_REFERENCE)
    return references.cache_key([ends_of_file(path).hex() for path in files])


def describe(
    request: Load,
    model: LanguageModel,
    sae: SparseAutoencoder,
    hook: HookPoint,
    reference: Reference,
    sae_place: Path,
) -> Loaded:
    """Return the record of what was loaded, for the header, the session and the report."""
    return Loaded(
        model=model.name,
        model_fingerprint=model.fingerprint,
        sae="demo" if request.sae is None else request.sae,
        sae_fingerprint=sae_fingerprint(sae_place),
        hook=hook.name,
        hook_module=f"{hook.side} of {hook.path}",
        d_model=model.d_model,
        d_sae=sae.d_sae,
        encoder=sae.config.encoder,
        normalisation=sae.config.normalisation,
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        versions={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        reference=reference.text,
        reference_tokens=reference.n_tokens,
        reference_fingerprint=reference.fingerprint(),
        sae_format=sae.config.format,
        published_l0=sae.config.published_l0,
        published_variance_explained=sae.config.published_variance_explained,
        neuronpedia=sae.config.neuronpedia,
        centered=sae.config.centered,
        rescaled=sae.config.rescale_acts_by_decoder_norm,
        # without a BOS there is no choice: such pairs never differ in it
        raw_bos=model.tokens.raw_bos or model.tokens.bos is None,
        chat_bos=model.tokens.chat_bos or model.tokens.bos is None,
        notes=(*sae.config.notes, *model.notes),
        l0=reference.l0,
        # NaN where all vectors are equal, which JSON, and so a session, cannot hold
        variance_explained=reference.variance_explained if isfinite(reference.variance_explained) else None,
        doubts=doubts(model, sae, hook, reference),
    )


def doubts(model: LanguageModel, sae: SparseAutoencoder, hook: HookPoint, reference: Reference) -> tuple[str, ...]:
    """Return the signs of a wrongly wired SAE that need no measurement but the reference; the doctor takes others."""
    config = sae.config
    reasons = []
    if reference.unfinite:
        dtype = short_name(model.dtype)
        reasons.append(f"{reference.unfinite:,} vectors are NaN or infinite in {dtype}: {if_not_finite(model.dtype)}")
    if config.model and not limits.same_model(config.model, model.name) and not limits.is_any_folder(model.name):
        reasons.append(f"the SAE's model is {config.model}")
    if config.hook and not same_place(model.module, config.hook, hook.name):
        reasons.append(f"the SAE's hook is {config.hook}")
    published = config.published_variance_explained, config.published_l0
    reasons += limits.short_doubts(reference.variance_explained, reference.l0, *published, config.k, sae.d_in)
    return tuple(reasons)
