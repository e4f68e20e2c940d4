"""The device that --device names: used where it is there, refused by name where it is not."""

import pytest
import torch

from engine.loading.load_model import choose_device
from engine.records.errors import UsageError


@pytest.mark.parametrize("name", ["cpu", "cpu:0", "cpu:3"])
def test_there_is_one_cpu(name):
    assert choose_device(name) == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("toaster", "Unknown device 'toaster'"),
        ("cuda:x", "Unknown device 'cuda:x'"),
        ("cuda:-1", "Unknown device 'cuda:-1'"),
        ("meta", "does not run on 'meta'"),
        ("xpu", "does not run on 'xpu'"),
    ],
)
def test_what_is_no_device_of_saescope_is_refused(name, words):
    with pytest.raises(UsageError, match=words) as caught:
        choose_device(name)
    assert caught.value.remedy == "Use cpu, cuda, cuda:N or, on a Mac, mps."


def test_gpus_are_counted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device(None) == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UsageError, match="There is no cuda:7: torch can see cuda:0 to cuda:1"):
        choose_device("cuda:7")


def test_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(None) == torch.device("cpu")
    with pytest.raises(UsageError, match="no CUDA GPU"):
        choose_device("cuda")


@pytest.mark.parametrize("there", [True, False])
def test_mps_where_torch_has_it(monkeypatch, there):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: there)
    if there:
        assert choose_device("mps:0") == torch.device("mps")
    else:
        with pytest.raises(UsageError, match="Apple"):
            choose_device("mps")
