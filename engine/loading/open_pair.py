"""Opens a model and its SAE as one Explorer: the packaged demo, or whatever the request names."""

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
from engine.doctor import limits as health
from engine.files import paths
from engine.loading import find_model as models
from engine.loading import memory
from engine.loading.demo import model as demo_model
from engine.loading.find_model import ModelSource, fetch_model
from engine.loading.find_sae import Located, locate
from engine.loading.formats import load_sae
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

SAE_FILES = (".json", ".safetensors", ".npz", ".pt", ".pth")

MOST_THREADS = 1024
"""The system may end a process that asks for more."""

SENTENCE = "The sky is blue."
"""What a model is run on as soon as it is loaded: one that overflows even there cannot be used."""

LIBRARIES = ("torch", "transformers", "tokenizers", "nnsight", "safetensors")


def open_pair(request: Load, current: Pair | None = None) -> Generator[Progress, None, Pair]:
    """Loads everything the request names; a model that `current` holds already is used again.

    Raises ModelError, SaeError, HookError or UsageError.
    """
    check(request)
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    device = choose_device(request.device)
    dtype = choose_dtype(request.dtype, device)
    # the SAE first: it is small, and a wrong path should not cost the loading of a model
    located = yield from find_sae(request)
    source, dtype = yield from find_model(request, dtype)
    kept = current is not None and current.model.loaded_as == loaded_as(source.source, device, dtype)
    check_memory(request, located, source, device, dtype, current, kept)
    yield Progress("reading the SAE")
    sae = read_sae(located, device)
    if current is not None and kept:
        model = current.model
    else:
        yield from fetch_model(source)
        yield Progress(f"loading {source.name}")
        model = load_model(source.source, source.name, device, dtype, source.revision)
    # a copy: the current pair keeps its own way to feed prompts, should this load fail
    tokens = model.tokens.feeding(request.bos, sae.config.prepend_bos)
    model = model if tokens is model.tokens else replace(model, tokens=tokens)
    if not kept:
        ids = model.tokens.feed(Prompt(SENTENCE)).ids
        model.check_logits(ids, len(ids))
    hook = match(model, sae, request.hook)
    reference = yield from find_reference(request, model, sae, hook, located.place)
    loaded = describe(request, model, sae, hook, reference, located.place)
    return Pair(model, [Site(sae, hook, hook, reference)], loaded)


def check(request: Load) -> None:
    """Raises UsageError for what nothing can be loaded by."""
    for name in (request.model, request.sae, request.reference):
        if name is not None:
            paths.typed(name)  # a hub name is looked for among the folders too
    if request.threads is not None and not 1 <= request.threads <= MOST_THREADS:
        raise UsageError(f"--threads must be between 1 and {MOST_THREADS:,}.")


def find_sae(request: Load) -> Generator[Progress, None, Located]:
    """Where the SAE is; the demo's where the request names neither model nor SAE. Raises SaeError or UsageError."""
    if request.sae is not None:
        located = yield from locate(request.sae)
        return located
    if request.model is not None:
        raise UsageError(
            "Which SAE? --model names a model, and a SAE belongs to one model and one layer.",
            "Give --sae: a folder, OWNER/REPOSITORY/PATH on the hub, or SAELens' RELEASE/ID; or --preset for both.",
        )
    return Located(DEMO_SAE, "demo")


def find_model(
    request: Load, dtype: torch.dtype | str
) -> Generator[Progress, None, tuple[ModelSource, torch.dtype | str]]:
    """Where the model is, and the dtype to load it in. Raises ModelError."""
    if request.model is not None:
        source = yield from models.find_model(request.model)
        return source, dtype
    dtype = dtype if isinstance(dtype, torch.dtype) else torch.bfloat16
    folder = yield from demo_model.prepare(dtype)
    return ModelSource(demo_model.NAME, str(folder)), dtype


def check_memory(
    request: Load,
    located: Located,
    source: ModelSource,
    device: torch.device,
    dtype: torch.dtype | str,
    current: Pair | None,
    kept: bool,
) -> None:
    """Raises ModelError where model and SAE cannot fit; a model that is loaded already needs nothing more."""
    needed = memory.sae_bytes(located.place) + (0 if kept else source.bytes_needed(dtype, device))
    held = 0 if current is None or kept or current.model.device.type != device.type else current.model.bytes
    what = f"The SAE {located.name}" if kept else f"{source.name} and its SAE"
    memory.check(what, needed, device, held)


def read_sae(located: Located, device: torch.device) -> SparseAutoencoder:
    """The SAE, with what is published about it. Raises SaeError, or ModelError where the memory is full."""
    try:
        return load_sae(located.place, located.name, device, located.published)
    except torch.OutOfMemoryError as error:
        raise memory.too_big(f"The SAE {located.name}", device) from error


def match(model: LanguageModel, sae: SparseAutoencoder, hook_name: str | None) -> HookPoint:
    """The hook point, once SAE and model are seen to fit each other. Raises MismatchError or HookError."""
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
    """Reference statistics: shipped beside the SAE, or cached, or computed now and cached."""
    shipped = sae_place / SHIPPED_REFERENCE
    fed_as_shipped = model.tokens.raw_bos == sae.config.prepend_bos
    if request.reference is None and request.model is None and fed_as_shipped and shipped.exists():
        try:
            return checked(references.load(shipped), sae, shipped)
        except references.OutdatedError as error:
            log.warning("%s They are measured anew.", error.message)
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
    except OSError as error:  # it only costs the time to measure again
        log.warning("the reference statistics cannot be kept in %s: %s", cached.parent, error)
    return computed


def checked(reference: Reference, sae: SparseAutoencoder, path: Path) -> Reference:
    """The reference, if it belongs to a SAE of this size. Raises SaeError."""
    if len(reference.count_F) != sae.d_sae:
        raise SaeError(
            f"{path} describes {len(reference.count_F)} features, the SAE has {sae.d_sae}.", "Delete the file."
        )
    return reference


def sae_fingerprint(place: Path) -> str:
    """sha256 over the ends of the SAE's files, config included, whatever their format."""
    files = [*place.iterdir(), *place.glob("checkpoints/*.safetensors")] if place.is_dir() else [place]
    of_sae = sorted(p for p in files if p.suffix in SAE_FILES and p.name != SHIPPED_REFERENCE)
    return references.cache_key([ends_of_file(path).hex() for path in of_sae])


def describe(
    request: Load,
    model: LanguageModel,
    sae: SparseAutoencoder,
    hook: HookPoint,
    reference: Reference,
    sae_place: Path,
) -> Loaded:
    """The record of what was loaded."""
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
        raw_bos=model.tokens.raw_bos,
        chat_bos=model.tokens.chat_bos,
        notes=(*sae.config.notes, *model.notes),
        l0=reference.l0,
        # NaN where all vectors are the same; JSON, and so a session, has none
        variance_explained=reference.variance_explained if isfinite(reference.variance_explained) else None,
        doubts=doubts(model, sae, hook, reference),
    )


def doubts(model: LanguageModel, sae: SparseAutoencoder, hook: HookPoint, reference: Reference) -> tuple[str, ...]:
    """What is known against the wiring once the reference text was read; the doctor looks further."""
    config = sae.config
    found = []
    if reference.unfinite:
        dtype = short_name(model.dtype)
        found.append(f"{reference.unfinite:,} vectors are NaN or infinite in {dtype}: {if_not_finite(model.dtype)}")
    if config.model and not health.same_model(config.model, model.name) and not health.is_any_folder(model.name):
        found.append(f"the SAE's model is {config.model}")
    if config.hook and not same_place(model.module, config.hook, hook.name):
        found.append(f"the SAE's hook is {config.hook}")
    published = config.published_variance_explained, config.published_l0
    found += health.short_doubts(reference.variance_explained, reference.l0, *published, config.k, sae.d_in)
    return tuple(found)
