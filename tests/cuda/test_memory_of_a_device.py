"""Memory of a device: what loading takes against the estimate, a full memory, and what a killed engine gives back."""

import asyncio
import os
import signal
from pathlib import Path

import psutil
import pytest
import torch
from devices import full
from heard import Heard
from msgspec.structs import replace

from engine.generation.generate import KeptSteps
from engine.loading import memory as estimates
from engine.loading.demo.model import finish
from engine.loading.find_model import find_model
from engine.records import Edit, Finished, Generate, Generated, Loaded, Prompt, PromptSet, Rank, Ranking, Sampling
from engine.records.errors import EngineFault, ModelError
from engine.serving.client import ask
from engine.serving.local import LocalClient
from engine.serving.process import EngineProcess

TEXT = "The nurse fed the lab rats. " * 20

SET = PromptSet("x", tuple(Prompt(TEXT + str(n)) for n in range(6)), tuple(Prompt(str(n) + TEXT) for n in range(6)))

WORK = {
    "rank": (Rank(SET, top=3), Ranking),
    "generate": (Generate(Prompt(TEXT), (Edit(3),), Sampling(200)), Generated),
}


@pytest.fixture(scope="module")
def client(large):
    client = LocalClient()
    ask(client, large, Loaded)
    yield client
    client.close()


def test_loading_goes_straight_to_the_device_and_takes_what_was_estimated(large, device, memory):
    memory.reset()
    before, resident = memory.peak(), psutil.Process().memory_info().rss
    client = LocalClient()
    ask(client, large, Loaded)
    pair = client._pair
    assert {p.device for p in pair.model.module.parameters()} == {pair.model.device}
    estimate = finish(find_model(large.model)).bytes_needed(
        "auto" if device.type == "cuda" else pair.model.dtype, device
    )
    assert estimate == pytest.approx(pair.model.bytes, rel=0.01)
    if before is not None:
        estimate += estimates.sae_bytes(Path(large.sae))
        assert memory.peak() - before < 1.3 * estimate  # with what reading the reference text takes
        assert psutil.Process().memory_info().rss - resident < 2 * estimate
    client.close()


@pytest.mark.parametrize("verb", WORK)
def test_a_verb_that_finds_the_memory_full_fails_in_words_and_the_next_one_works(client, device, verb):
    request, kind = WORK[verb]
    client._pair.forget()
    client._pair.drop(KeptSteps)
    with full(device), pytest.raises(EngineFault, match="memory is full") as caught:
        ask(client, request, kind)
    assert "fewer or shorter prompts" in caught.value.remedy
    assert ask(client, request, kind)


def test_loading_that_finds_the_memory_full_fails_in_words_and_works_later(large, device, monkeypatch):
    client = LocalClient()
    if device.type == "cuda":
        with full(device), pytest.raises(ModelError, match=r"need \d.* has .* free"):
            ask(client, large, Loaded)
    monkeypatch.setattr(estimates, "free_bytes", lambda device: None)  # others took it after it was looked at
    with full(device), pytest.raises((ModelError, EngineFault), match="memory"):
        ask(client, large, Loaded)
    monkeypatch.undo()
    assert ask(client, large, Loaded).device == client._pair.loaded.device
    client.close()


def test_a_killed_engine_gives_its_memory_back(large, device, tmp_path):
    free = None if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]

    async def scenario():
        heard, engine = Heard(), EngineProcess(tmp_path / "engine.log")
        await engine.start(heard)
        end = await heard.end(engine.ask(replace(large, device=str(device))))
        assert isinstance(end, Finished), end
        if free is not None:
            assert free - torch.cuda.mem_get_info(device)[0] > estimates.sae_bytes(Path(large.sae))
        pid = engine._running.process.pid
        os.kill(pid, signal.SIGKILL)
        await heard.until(lambda: heard.lost)
        assert "kill" in heard.lost[0].message.lower()
        await engine.close()

    asyncio.run(scenario())
    if free is not None:
        # the driver takes the memory back with the process, which has ended; contexts of ours may come and go
        assert torch.cuda.mem_get_info(device)[0] > free - (64 << 20)
