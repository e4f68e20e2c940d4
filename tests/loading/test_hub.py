"""The hub: downloads, its errors in words, models found by name, what fits into memory."""

import errno
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from hub_cache import COMMIT, files_in, serving, write_cached
from huggingface_hub import errors
from tiny import write_model, write_sae

from engine.loading import find_sae as sources
from engine.loading import hub, memory
from engine.loading.demo.model import finish
from engine.loading.find_model import files_of_model, find_model
from engine.loading.find_sae import locate
from engine.loading.load_model import load_model
from engine.loading.open_pair import read_sae
from engine.records import Load, Loaded
from engine.records.errors import ModelError, SaeError
from engine.serving.client import ask
from engine.serving.local import LocalClient

CPU = torch.device("cpu")

FOUNDING = "JoshEngels/Mistral-7B-Residual-Stream-SAEs"


def refused(text):
    with pytest.raises(SaeError) as found:
        finish(locate(text))
    return found.value


# ---- a hub that answers


FETCH = """
import sys
from engine.loading.find_sae import locate
for text in sys.argv[1:]:
    work, said = locate(text), []
    try:
        while True:
            said.append(next(work).stage)
    except StopIteration as done:
        print("found", done.value.name, *dict.fromkeys(said), sep="|")
    except Exception as error:
        print("refused", type(error).__name__, error.message, error.remedy, sep="|")
"""


def fetched(endpoint, home, *texts):
    env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home)}
    env.pop("HF_HUB_OFFLINE")
    out = subprocess.run([sys.executable, "-c", FETCH, *texts], env=env, capture_output=True, text=True, check=True)
    return [line.split("|") for line in out.stdout.splitlines()], out.stderr


def test_downloading_takes_one_sae_and_names_what_it_takes(tmp_path):
    files = {
        "a/cfg.json": b"{}",
        "a/sae_weights.safetensors": b"w" * 2_000_000,
        "a/pickle.pt": b"!",
        "b/config.json": b"{}",
        "b/ae.pt": b"!",
    }
    with serving(
        {"o/saes": files, "o/gated": files, "o/private": files}, gated=["o/gated"], private=["o/private"]
    ) as it:
        texts = ("o/saes/a", "o/saes/a", "o/saes/c", "o/gated/a", "o/private/a", "o/none/a")
        (first, again, wrong, gated, private, none), said = fetched(it.endpoint, tmp_path, *texts)
    assert first == ["found", "o/saes/a", "looking up o/saes", "downloading o/saes (MB)"]
    assert again == ["found", "o/saes/a", "looking up o/saes"]  # cached by then
    assert sorted(it.fetched) == ["o/saes/a/cfg.json", "o/saes/a/sae_weights.safetensors"]
    assert wrong[1:] == ["SaeError", "o/saes has no SAE in c.", "It has: a, b."]
    assert "o/gated is gated" in gated[2] and "`hf auth login` or set HF_TOKEN" in gated[3]
    assert "The hub has no repository o/private, or it is private." in private
    assert "The hub has no repository o/none, or it is private." in none
    assert said == ""
    (offline, other), _ = fetched("http://127.0.0.1:9", tmp_path, "o/saes/a", "o/other/a")
    assert offline[:2] == ["found", "o/saes/a"]
    assert "o/other is not in the cache of this machine, and the hub cannot be reached." in other


def test_a_download_that_is_cancelled_stops(cache, monkeypatch):
    repo = hub.Repo("o/r", COMMIT, {"f": 10})
    bars = []

    def download(name, tqdm_class, **_):
        bar = tqdm_class(total=10, name="x")
        bars.append(bar)
        while True:
            bar.update(1)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(hub, "POLL_SECONDS", 0.01)
    work = hub.fetch(repo, ["f"], hub.Wanted("o/r", "SAE"))
    next(work), next(work)
    threads = [t for t in hub.threading.enumerate() if t.name == "download"]
    work.close()
    threads[0].join(5)
    assert not threads[0].is_alive() and isinstance(threads[0].error, InterruptedError)


# ---- the hub's errors in words


def http_error(kind, status=404):
    response = SimpleNamespace(status_code=status, headers={}, request=None, url="x", text="", json=dict)
    error = kind.__new__(kind)
    OSError.__init__(error, f"{status} Client Error")
    error.response = response
    return error


def os_error(number):
    return OSError(number, os.strerror(number), "x")


TROUBLES = [
    (http_error(errors.GatedRepoError, 403), "o/r is gated", "Accept it on the page huggingface.co/o/r"),
    (http_error(errors.RepositoryNotFoundError, 401), "no repository o/r, or it is private", "Check the spelling"),
    (http_error(errors.RevisionNotFoundError), "no revision `main`", "Download"),
    (http_error(errors.HfHubHTTPError, 401), "refuses access to o/r (HTTP 401)", "hf auth login"),
    (http_error(errors.HfHubHTTPError, 429), "too many requests", "Wait"),
    (http_error(errors.HfHubHTTPError, 503), "The hub has trouble (HTTP 503)", "Try again"),
    (http_error(errors.DisabledRepoError, 403), "switched off", "another"),
    (http_error(errors.RemoteEntryNotFoundError), "A file is missing in o/r", "tree/main"),
    (errors.LocalEntryNotFoundError("x"), "o/r is not in the cache", "hf download o/r"),
    (errors.OfflineModeIsEnabled("x"), "HF_HUB_OFFLINE is set", "hf download o/r"),
    (ConnectionResetError("x"), "o/r is not in the cache", "hf download o/r"),
    (TimeoutError("x"), "o/r is not in the cache", "hf download o/r"),
    (errors.HFValidationError("x"), "'o/r' is not the name of a repository", "OWNER/NAME"),
    (os_error(errno.ENOSPC), "is full: o/r", "Make room"),
    (os_error(errno.EACCES), "cannot be written", "HF_HOME"),
]


@pytest.mark.parametrize("kind", ["model", "SAE"])
@pytest.mark.parametrize(
    "error, message, remedy", TROUBLES, ids=lambda x: type(x).__name__ if isinstance(x, Exception) else ""
)
def test_every_trouble_of_the_hub_is_said_in_words(error, message, remedy, kind, cache):
    wrapped = OSError("We couldn't connect, or something\nover many lines")
    wrapped.__cause__ = error
    for raised in (error, wrapped):
        found = hub.explained(raised, hub.Wanted("o/r", kind))
        assert type(found) is (ModelError if kind == "model" else SaeError)
        assert message in found.message and remedy in found.remedy


@pytest.mark.parametrize(
    "error, message, remedy", TROUBLES, ids=lambda x: type(x).__name__ if isinstance(x, Exception) else ""
)
def test_looking_up_says_them_too(error, message, remedy, cache, monkeypatch):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fails)
    found = refused("o/r/x")
    assert message in found.message and remedy in found.remedy
    with pytest.raises(ModelError) as model:
        finish(find_model("o/r"))
    assert message in model.value.message and remedy in model.value.remedy


def test_an_error_of_nobodys_is_told_by_its_first_line(cache, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("odd\nand long")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fails)
    assert "o/r cannot be fetched from the hub: odd" in refused("o/r/x").message


def test_a_full_disk_says_how_much_is_needed(cache, monkeypatch):
    def fails(*_, **__):
        raise os_error(errno.ENOSPC)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    repo = hub.Repo("o/r", COMMIT, {"f": 2_100_000_000})
    with pytest.raises(SaeError, match=r"is full: o/r needs 2.1 GB there"):
        finish(hub.fetch(repo, ["f"], hub.Wanted("o/r", "SAE")))


# ---- models


def test_a_model_in_the_cache_loads_without_network(tmp_path, cache):
    write_cached(cache, "owner/tiny", files_in(write_model(tmp_path / "model")))
    found = finish(find_model("owner/tiny"))
    assert found.revision == COMMIT and "model.safetensors" in found.files
    parameters = sum(p.numel() for p in load_model(found.source, "x", CPU, torch.float32, COMMIT).module.parameters())
    assert found.bytes_needed("auto", CPU) == found.bytes_needed(torch.float32, CPU) == 4 * parameters
    assert found.bytes_needed(torch.bfloat16, CPU) == 2 * parameters


def test_a_model_cached_in_part_is_no_model(tmp_path, cache):
    model = write_model(tmp_path / "model")
    index = b'{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    files = {**files_in(model), "model.safetensors.index.json": index}
    files["model-00001-of-00002.safetensors"] = files.pop("model.safetensors")
    write_cached(cache, "owner/part", files)
    found = finish(find_model("owner/part"))
    assert found.repo.missing(found.files) == ["model-00002-of-00002.safetensors"]
    with pytest.raises(ModelError, match=r"Of owner/part, model-00002-of-00002.safetensors is not in the cache"):
        finish(hub.fetch(found.repo, found.files, hub.Wanted("owner/part", "model")))
    write_cached(cache, "owner/none", {"config.json": b"{}"})
    with pytest.raises(ModelError, match="Of owner/none, its weights is not in the cache"):
        finish(find_model("owner/none"))


def test_one_set_of_weights_is_downloaded():
    names = ["config.json", "tokenizer.model", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
             "consolidated.safetensors", "pytorch_model-00001-of-00002.bin", "onnx/model.safetensors", "model.gguf",
             "model.safetensors.index.json", "README.md"]  # fmt: skip
    repo = hub.Repo("o/r", COMMIT, dict.fromkeys(names, 1))
    assert set(files_of_model(repo)) == {n for n in names if not n.startswith(("consolidated", "pytorch", "onnx"))} - {
        "model.gguf",
        "README.md",
    }


def test_load_model_says_the_hubs_errors_in_words(cache):
    with pytest.raises(ModelError) as found:
        load_model("owner/never-there", "owner/never-there", CPU, torch.float32)
    assert found.value.message == "owner/never-there is not in the cache of this machine, and HF_HUB_OFFLINE is set."
    assert "hf download owner/never-there" in found.value.remedy


# ---- the whole way


@pytest.fixture
def pair(tmp_path, cache):
    """A model and a SAE in the cache."""
    write_cached(cache, "owner/tiny", files_in(write_model(tmp_path / "model")))
    write_cached(cache, FOUNDING, files_in(write_sae(tmp_path / "sae", normalisation="none"), "mistral_7b_layer_16/"))
    return Load(model="owner/tiny", sae=f"{FOUNDING}/mistral_7b_layer_16", dtype="float32", device="cpu")


def test_loading_by_names_on_the_hub(pair, files):
    loaded = ask(LocalClient(), Load(**{**vars_of(pair), "reference": files.reference}), Loaded)
    assert (loaded.model, loaded.sae, loaded.normalisation) == (pair.model, pair.sae, "constant_norm_rescale")
    assert (loaded.sae_format, loaded.published_l0, loaded.published_variance_explained) == ("SAELens", 74, 0.85)
    assert any("constant_norm_rescale" in note for note in loaded.notes)


def vars_of(record):
    return {name: getattr(record, name) for name in record.__struct_fields__}


def test_what_does_not_fit_is_not_loaded(pair, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    with pytest.raises(ModelError) as found:
        ask(LocalClient(), pair, Loaded)
    assert found.value.message.startswith("owner/tiny and its SAE need 0.1 MB, cpu has 0.1 MB free")
    assert "saescope presets" in found.value.remedy


def test_the_words_of_a_full_gpu(monkeypatch):
    error = memory.too_big("mistralai/Mistral-7B-v0.1 and its SAE", torch.device("cuda:0"), int(16.5e9), int(7.9e9))
    assert error.message == "mistralai/Mistral-7B-v0.1 and its SAE need 16.5 GB, cuda:0 has 7.9 GB free."
    for part in ("--device cuda:N", "smaller preset", "--device cpu", "close what else uses this GPU"):
        assert part in error.remedy

    def full(*_):
        raise torch.OutOfMemoryError("x")

    monkeypatch.setattr("engine.loading.open_pair.load_sae", full)
    with pytest.raises(ModelError, match="The SAE x do not fit"):
        read_sae(sources.Located(sources.Path("/x"), "x"), torch.device("cuda:0"))


def test_a_dtype_that_converts_counts_as_it_will_be(tmp_path):
    folder = write_model(tmp_path / "model")
    counts = memory.parameters_of(folder.glob("*.safetensors"))
    assert set(counts) == {"F32"} and memory.bytes_of(counts, torch.float16, CPU) * 2 == memory.bytes_of(
        counts, "auto", CPU
    )
    (folder / "model.safetensors").write_bytes(b"\x05\x00\x00\x00\x00\x00\x00\x00[1,2]")
    assert memory.parameters_of(folder.glob("*.safetensors")) == {}


@pytest.mark.parametrize(
    "header", [b"[1]", b'{"a": 3}', b'{"a": {"dtype": "F32"}}', b'{"a": {"dtype": 1, "data_offsets": 2}}']
)
def test_a_broken_header_counts_nothing(tmp_path, header):
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert memory.parameters_of([path]) == {}


# ---- caches that no download of the hub's library left


def cached_model(cache, files, *commits):
    """A cached model with a snapshot a commit and no refs; each has what `files` has for it."""
    folder = hub.cache_folder("me/tiny")
    for age, commit in enumerate(commits):
        snapshot = folder / "snapshots" / commit
        shutil.copytree(files.model, snapshot)
        os.utime(snapshot, (1_000_000 - age, 1_000_000 - age))
    return folder


def test_a_cache_without_refs_is_used(cache, files):
    cached_model(cache, files, "a" * 40)
    source = finish(find_model("me/tiny"))
    assert source.revision == "a" * 40 and not source.repo.missing(source.files)
    model = load_model(source.source, source.name, torch.device("cpu"), torch.float32, source.revision)
    assert model.tokens.tokenizer("a")["input_ids"]


def test_a_snapshot_without_weights_is_passed_over(cache, files):
    folder = cached_model(cache, files, "a" * 40, "b" * 40, "c" * 40)
    for commit in "ac":
        (folder / "snapshots" / (commit * 40) / "model.safetensors").unlink()
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("c" * 40)
    assert finish(find_model("me/tiny")).revision == "b" * 40


def test_main_is_preferred_to_what_is_newer(cache, files):
    folder = cached_model(cache, files, "a" * 40, "b" * 40)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("b" * 40 + "\n")
    assert finish(find_model("me/tiny")).revision == "b" * 40


def test_the_caches_own_folder_can_be_given(cache, files):
    folder = cached_model(cache, files, "a" * 40)
    assert finish(find_model(str(folder))).source == str(folder / "snapshots" / ("a" * 40))
