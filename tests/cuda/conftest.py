"""The same tests on a CPU and on a GPU: what only a GPU can show is skipped where there is none."""

from types import SimpleNamespace

import pytest
import torch
from devices import write_large
from tiny import write_reference

from engine.records import Load, Loaded
from engine.serving.client import ask
from engine.serving.local import LocalClient


@pytest.fixture(scope="session", params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    return torch.device(request.param)


@pytest.fixture(scope="session")
def on_device(load, device):
    """The request that loads the tiny pair on the device, in float32."""
    return Load(model=load.model, sae=load.sae, reference=load.reference, dtype="float32", device=str(device))


@pytest.fixture(scope="session")
def loaded(on_device):
    """A client with the tiny pair on the device."""
    client = LocalClient()
    ask(client, on_device, Loaded)
    yield client
    client.close()


@pytest.fixture(scope="session")
def pair(loaded):
    return loaded._pair


@pytest.fixture(scope="session")
def large(device, files, tmp_path_factory):
    """Files of a pair that fills some of a GPU's memory: 0.6 billion parameters in bfloat16. On a CPU the tiny one."""
    if device.type == "cpu":
        return Load(model=files.model, sae=files.sae, reference=files.reference, device="cpu")
    folder = tmp_path_factory.mktemp("large")
    write_large(folder, device)
    reference = str(write_reference(folder / "reference.txt"))
    return Load(model=str(folder / "model"), sae=str(folder / "sae"), reference=reference, device=str(device))


@pytest.fixture
def memory(device):
    """What the device's allocator tells, in bytes; on a CPU nothing."""
    if device.type == "cpu":
        return SimpleNamespace(peak=lambda: None, reset=lambda: None)

    def reset():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)

    return SimpleNamespace(peak=lambda: torch.cuda.max_memory_allocated(device), reset=reset)
