"""The in-process carrier: every request ends in one last event, and a failure is data."""

import pytest
import torch

from engine.records import (
    Cancelled,
    Edit,
    Failed,
    Finished,
    Generate,
    Generated,
    Load,
    Loaded,
    Progress,
    Prompt,
    Rank,
    Ranking,
    Sampling,
    Show,
    Shown,
    TokenStep,
)
from engine.records.errors import EditError, ModelError, UsageError
from engine.serving.client import RequestCancelled, ask
from engine.serving.local import LocalClient

ENDS = (Finished, Failed, Cancelled)

LONG = Generate(Prompt("The nurse fed"), (), Sampling(max_tokens=200, temperature=1.0))


def test_a_request_that_works_ends_in_one_finished_event(client):
    events = list(client.stream(Generate(Prompt("The nurse fed"), (), Sampling(max_tokens=3))))
    assert [isinstance(e, ENDS) for e in events] == [False] * (len(events) - 1) + [True]
    assert any(isinstance(e, Progress) for e in events)
    steps = [e for e in events if isinstance(e, TokenStep)]
    assert "".join(s.baseline for s in steps if s.baseline) == "".join(events[-1].value.baseline.tokens)


def test_a_request_that_fails_ends_in_one_failed_event_and_raises_its_own_class(client):
    events = list(client.stream(Show(10**6, (Prompt("x"),))))
    assert isinstance(events[-1], Failed)
    assert sum(isinstance(e, ENDS) for e in events) == 1
    with pytest.raises(EditError) as caught:
        ask(client, Show(10**6, (Prompt("x"),)), Shown)
    assert caught.value.remedy
    assert caught.value.exit_code == 2


def test_cancelling_stops_within_one_token(client):
    seen = []
    for event in client.stream(LONG):
        seen.append(event)
        if isinstance(event, TokenStep):
            client.cancel()
    assert sum(isinstance(e, TokenStep) for e in seen) == 1
    assert isinstance(seen[-1], Cancelled)
    with pytest.raises(RequestCancelled):
        ask(client, LONG, Generated, on_event=lambda event: client.cancel())
    assert ask(client, Show(1, (Prompt("abc"),)), Shown).feature == 1


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "EngineFault", "memory is full"),
        (MemoryError(), "EngineFault", "memory is full"),
        (RuntimeError("boom"), "EngineFault", "boom"),
    ],
)
def test_an_exception_in_a_verb_is_an_event_and_the_engine_goes_on(client, pair, monkeypatch, error, kind, words):
    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(type(pair.model), "capture_batch", fail)
        failed = list(client.stream(Show(1, (Prompt("never read before"),))))[-1]
    assert isinstance(failed, Failed)
    assert failed.kind == kind
    assert words in failed.message
    assert failed.remedy
    assert ask(client, Show(1, (Prompt("abc"),)), Shown).feature == 1


def test_without_a_model_a_verb_says_so():
    with pytest.raises(UsageError, match="No model is loaded"):
        ask(LocalClient(), LONG, Generated)


def test_a_failed_load_keeps_what_was_loaded(load, tmp_path):
    import msgspec

    engine = LocalClient()
    ask(engine, load, Loaded)
    with pytest.raises(ModelError, match="Cannot load the model"):
        ask(engine, msgspec.structs.replace(load, model=str(tmp_path / "nothing")), Loaded)
    assert ask(engine, Show(1, (Prompt("abc"),)), Shown).feature == 1


def test_loading_says_what_it_does_and_records_what_it_loaded(load):
    events = list(LocalClient().stream(load))
    stages = [e.stage for e in events if isinstance(e, Progress)]
    assert any("SAE" in s for s in stages)
    assert any("loading" in s for s in stages)
    loaded = events[-1].value
    assert loaded.dtype == "float32"
    assert loaded.hook_module == "input of model.layers.1"
    assert set(loaded.versions) == {"python", "torch", "transformers", "tokenizers", "nnsight", "safetensors"}
    assert len(loaded.model_fingerprint) == len(loaded.sae_fingerprint) == 64


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sae": None}, "Which SAE"),
        ({"device": "tpu9"}, "Unknown device"),
        ({"dtype": "int3"}, "Unknown dtype"),
        ({"threads": 0}, "between 1 and 1,024"),
        ({"hook": "blocks.9.hook_resid_pre"}, "blocks 0 to 2"),
        ({"reference": "/nowhere/text.txt"}, "cannot be read"),
    ],
)
def test_a_load_that_makes_no_sense_says_why(load, changes, words):
    import msgspec

    with pytest.raises(UsageError, match=words):
        ask(LocalClient(), msgspec.structs.replace(load, **changes), Loaded)


def test_a_sae_of_another_width_names_its_model(load, tmp_path):
    import msgspec
    from tiny import write_sae

    from engine.records.errors import MismatchError

    wide = {"W_enc": torch.zeros(24, 8), "W_dec": torch.zeros(8, 24), "b_enc": torch.zeros(8), "b_dec": torch.zeros(24)}
    folder = write_sae(tmp_path / "wide", encoder="standard", weights=wide, model_name="other-model")
    with pytest.raises(MismatchError, match=r"24.*16.*other-model"):
        ask(LocalClient(), msgspec.structs.replace(load, sae=str(folder)), Loaded)


def test_requests_and_events_survive_the_wire(client):
    import msgspec

    from engine.records import Event, PromptSet, Request

    rank = Rank(PromptSet("x", (Prompt("The nurse"),), (Prompt("Seven ferries"),)), top=3)
    requests = [rank, LONG, Generate(Prompt("a"), (Edit(1, 0.5),)), Load()]
    for request in requests:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=Request) == request
    for event in client.stream(rank):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=Event) == event
    assert isinstance(ask(client, rank, Ranking), Ranking)
