"""The engine process on the tiny pair: one process for most tests, which prints rubbish all the while."""

import asyncio
import os
import signal
import stat
from pathlib import Path

import pytest
from heard import ENDS, Heard
from msgspec.structs import replace
from tiny import write_sae

from engine.records import (
    Answer,
    AnswersScored,
    Cancelled,
    Describe,
    Described,
    Edit,
    Failed,
    FeaturesAt,
    Finished,
    Generate,
    Loaded,
    MemoryLeft,
    Probe,
    Progress,
    Prompt,
    PromptSet,
    Rank,
    Ranking,
    Sampling,
    ScoreAnswers,
    Show,
    Shown,
    TokenFeatures,
    TokenStep,
)
from engine.records.errors import EngineFault
from engine.serving import process
from engine.serving.client import ask
from engine.serving.process import EngineProcess
from engine.serving.wire import HEADER, MAX_FRAME

LONG = Generate(Prompt("The nurse fed"), (), Sampling(max_tokens=900))

SHORT = Generate(Prompt("The nurse fed"), (), Sampling(max_tokens=3))

RANK = Rank(PromptSet("x", (Prompt("The nurse"),), (Prompt("Seven ferries"),)), top=3)

CHATTER = """
import sys, threading, time
def chat():
    while True:
        print("a stray print")
        time.sleep(0.02)
if "engine.serving.worker" in sys.orig_argv:
    threading.Thread(target=chat, daemon=True).start()
"""


@pytest.fixture(scope="module")
def runner():
    """One event loop for the whole file: the shared engine lives in it."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def bench(runner, tmp_path_factory, load):
    """The shared engine, its listener and a run function; the tiny pair is loaded."""
    folder = tmp_path_factory.mktemp("engine")
    (folder / "sitecustomize.py").write_text(CHATTER, "utf-8")

    class Bench:
        engine = EngineProcess(folder / "state" / "engine.log")
        heard = Heard()
        run = staticmethod(runner.run)

        async def start(self):
            type(self).heard = Heard()
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PYTHONPATH", str(folder))
                await self.engine.start(self.heard)
            return await self.heard.end(self.engine.ask(load))

        @property
        def pid(self):
            return self.engine._running.process.pid

    bench = Bench()
    bench.loaded = bench.run(bench.start())
    yield bench
    bench.run(bench.engine.close())


def is_there(pid):
    return Path(f"/proc/{pid}").exists()


def test_load_says_what_it_does_and_tells_memory(bench):
    (request_id,) = {i for i, _ in bench.heard.events} - {0}
    assert bench.heard.of(request_id)[0] == Progress("importing torch")
    assert isinstance(bench.loaded.value, Loaded)
    bench.run(bench.heard.until(lambda: bench.heard.of(0)))
    left = bench.heard.of(0)[-1]
    assert isinstance(left, MemoryLeft)
    assert 0 < left.free < left.total


def test_results_are_those_of_the_engine_in_this_process(bench, client):
    async def work():
        ranked = await bench.heard.end(bench.engine.ask(RANK))
        shown = await bench.heard.end(bench.engine.ask(Show(1, (Prompt("abc"),))))
        asked = bench.engine.ask(SHORT)
        return ranked.value, shown.value, (await bench.heard.end(asked)).value, bench.heard.of(asked)

    ranked, shown, generated, events = bench.run(work())
    assert [r.feature for r in ranked.features] == [r.feature for r in ask(client, RANK, Ranking).features]
    assert shown.activations[0] == pytest.approx(ask(client, Show(1, (Prompt("abc"),)), Shown).activations[0])
    steps = [e for e in events if isinstance(e, TokenStep)]
    assert "".join(s.baseline for s in steps) == "".join(generated.baseline.tokens)


def test_quick_questions_of_every_kind_are_answered(bench):
    questions = {
        Describe(1): Described,
        FeaturesAt(Prompt("abc"), 1): TokenFeatures,
        ScoreAnswers(Probe("Who?", answers=(Answer("a", (" a",)),))): AnswersScored,
    }
    for question, kind in questions.items():
        assert isinstance(bench.run(bench.heard.end(send_in_loop(bench, question))).value, kind)


def test_a_show_is_answered_during_a_generation(bench, client):
    show = Show(2, (Prompt("Felt hats"),))

    async def work():
        generation = bench.engine.ask(Generate(LONG.prompt, (Edit(2, 5.0),), LONG.sampling))
        await bench.heard.token(generation)
        shown = await bench.heard.end(bench.engine.ask(show))
        assert not any(isinstance(e, ENDS) for e in bench.heard.of(generation))
        waiting = bench.engine.ask(RANK)
        await bench.heard.until(lambda: bench.heard.of(waiting))
        bench.engine.cancel(generation)
        await bench.heard.end(waiting)
        return shown, await bench.heard.end(generation), bench.heard.of(waiting)[0]

    shown, end, first = bench.run(work())
    assert shown.value.activations[0] == pytest.approx(ask(client, show, Shown).activations[0]), "not under the edits"
    assert end == Cancelled()
    assert first == Progress("waiting for the generation")


def test_cancelling_a_generation_stops_within_a_token_or_two(bench):
    async def work():
        generation = bench.engine.ask(LONG)
        await bench.heard.token(generation)
        seen = len(bench.heard.of(generation))
        bench.engine.cancel(generation)
        assert await bench.heard.end(generation) == Cancelled()
        return len(bench.heard.of(generation)) - seen

    assert bench.run(work()) < 20, "of 900"


def test_new_edits_reach_the_running_generation(bench):
    edits = (Edit(3, 0.0),)

    async def work():
        generation = bench.engine.ask(Generate(LONG.prompt, (), Sampling(max_tokens=100)))
        await bench.heard.token(generation)
        bench.engine.set_edits(generation, edits)
        return (await bench.heard.end(generation)).value

    generated = bench.run(work())
    assert [s.edits for s in generated.schedule] == [(), edits]
    assert 0 < generated.schedule[1].token_index < 50


def test_a_message_that_makes_no_sense_gets_an_error_and_the_engine_lives(bench):
    async def work():
        write = bench.engine._running.writer.write
        for body in (b"\xc1", b"", b"\xa5hello", b"\x81\xa4type\xa3Ask", b"\x82\xa4type\xa9SetEdits\xa2id\x01"):
            before = len([e for e in bench.heard.of(0) if isinstance(e, Failed)])
            write(HEADER.pack(len(body)) + body)
            await bench.heard.until(lambda n=before: len([e for e in bench.heard.of(0) if isinstance(e, Failed)]) > n)
        bench.engine._last_id += 1
        body = b"\x83\xa4type\xa3Ask\xa2id" + bytes([bench.engine._last_id]) + b"\xa7request\x01"
        write(HEADER.pack(len(body)) + body)
        failed = await bench.heard.end(bench.engine._last_id)
        return failed, await bench.heard.end(bench.engine.ask(SHORT))

    failed, finished = bench.run(work())
    assert isinstance(failed, Failed)
    assert "cannot read" in failed.message
    assert isinstance(finished, Finished)


def test_a_broken_sae_is_an_error_and_what_was_loaded_stays(bench, load, tmp_path):
    weights = write_sae(tmp_path) / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])

    async def work():
        failed = await bench.heard.end(bench.engine.ask(replace(load, sae=str(tmp_path))))
        return failed, await bench.heard.end(bench.engine.ask(SHORT))

    failed, finished = bench.run(work())
    assert isinstance(failed, Failed)
    assert "sae_weights.safetensors cannot be read" in failed.message
    assert failed.remedy
    assert isinstance(finished, Finished)


def test_a_large_request_and_a_large_result_travel(bench):
    text = "Seven ferries left at dawn. " * 30
    show = Show(1, tuple(Prompt(f"{i} {text}") for i in range(60)))
    shown = bench.run(bench.heard.end(bench.engine.ask(show))).value
    assert len(shown.activations) == 60
    assert all(len(p.tokens) > 400 for p in shown.prompts)


def test_a_request_too_long_for_a_frame_fails_alone(bench, monkeypatch):
    monkeypatch.setattr("engine.serving.wire.MAX_FRAME", 1000)
    failed = bench.run(bench.heard.end(send_in_loop(bench, Show(1, (Prompt("x" * 2000),)))))
    assert "too long" in failed.message
    monkeypatch.undo()
    assert isinstance(bench.run(bench.heard.end(send_in_loop(bench, SHORT))), Finished)


def test_a_request_that_is_not_utf8_fails_alone(bench):
    failed = bench.run(bench.heard.end(send_in_loop(bench, Show(1, (Prompt("caf\udce9"),)))))
    assert "not UTF-8: 'caf\\udce9'" in failed.message
    assert isinstance(bench.run(bench.heard.end(send_in_loop(bench, SHORT))), Finished)


def send_in_loop(bench, request):
    async def send():
        return bench.engine.ask(request)

    return bench.run(send())


def test_stray_prints_land_in_the_log_which_only_its_owner_reads(bench):
    path = bench.engine.log_path
    assert "a stray print" in path.read_text("utf-8")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_killed_engine_is_noticed_once_and_can_be_started_again(bench):
    old = bench.heard

    async def work():
        generation = bench.engine.ask(LONG)
        await old.token(generation)
        pid = bench.pid
        os.kill(pid, signal.SIGKILL)
        await old.until(lambda: old.lost)
        assert not is_there(pid)
        last = bench.engine.ask(SHORT)
        bench.engine.cancel(last)
        bench.engine.set_edits(last, ())
        loaded = await bench.start()
        assert bench.engine.ask(SHORT) == last + 2, "ids go on"
        return loaded, await bench.heard.end(last + 2)

    loaded, generated = bench.run(work())
    (lost,) = old.lost
    assert isinstance(lost, EngineFault)
    assert lost.message.startswith("The engine was killed (SIGKILL)")
    assert "out-of-memory" in lost.message
    assert lost.remedy.endswith("Restart it.")
    assert isinstance(loaded.value, Loaded)
    assert isinstance(generated, Finished)
    assert "a stray print" in bench.engine.log_path.with_name("engine.log.1").read_text("utf-8")


def test_closing_ends_a_generating_engine_and_says_nothing(bench, monkeypatch):
    monkeypatch.setattr(process, "CLOSE_SECONDS", 60.0)  # for a busy machine

    async def work():
        generation = bench.engine.ask(LONG)
        await bench.heard.token(generation)
        pid, child = bench.pid, bench.engine._running.process
        await bench.engine.close()
        await bench.engine.close()
        return pid, child.returncode

    pid, code = bench.run(work())
    assert code == 0, "it went by itself, in the middle of its text"
    assert not is_there(pid)
    assert bench.heard.lost == []


# ---- short-lived engines, which never import torch


def start_and(path, work):
    """Starts an engine of its own, awaits work(engine, heard), closes; returns what work returned."""

    async def run():
        engine, heard = EngineProcess(path / "engine.log"), Heard()
        await engine.start(heard)
        try:
            return await work(engine, heard)
        finally:
            await engine.close()

    return asyncio.run(run())


def test_it_says_hello_before_it_imports_torch(tmp_path):
    async def work(engine, heard):
        maps = Path(f"/proc/{engine._running.process.pid}/maps").read_text("utf-8")
        assert "libtorch" not in maps
        assert engine.log_path == tmp_path / "engine.log"

    start_and(tmp_path, work)


def test_a_frame_that_is_too_long_ends_the_engine_with_an_error(tmp_path):
    async def work(engine, heard):
        engine._running.writer.write(HEADER.pack(MAX_FRAME + 1) + b"x" * 100_000)
        await heard.until(lambda: heard.lost)
        return heard

    heard = start_and(tmp_path, work)
    ((request_id, failed),) = heard.events
    assert request_id == 0
    assert "no message" in failed.message
    assert "exit code 1" in heard.lost[0].message


def test_a_reply_that_makes_no_sense_is_a_loss(tmp_path):
    async def work(engine, heard):
        pid = engine._running.process.pid
        engine._running.reader.feed_data(HEADER.pack(1) + b"\xc1")
        await heard.until(lambda: heard.lost)
        assert not is_there(pid)
        return heard

    (lost,) = start_and(tmp_path, work).lost
    assert "makes no sense" in lost.message
    assert lost.remedy.endswith("Restart it.")


def test_a_crash_quotes_the_logs_last_line(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "def end(*_):\n    print('out of luck', flush=True); os._exit(3)\n"
        "if 'engine.serving.worker' in sys.orig_argv: signal.signal(signal.SIGUSR1, end)\n",
        "utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async def work(engine, heard):
        os.kill(engine._running.process.pid, signal.SIGUSR1)
        await heard.until(lambda: heard.lost)
        return heard

    (lost,) = start_and(tmp_path, work).lost
    assert lost.message == "The engine ended with exit code 3. Its last words: out of luck"


@pytest.mark.parametrize("content", ["a copy", "a package", "a folder", "a file", "other records"])
def test_another_engine_folder_on_the_path_is_a_clear_error(tmp_path, monkeypatch, content):
    foreign = tmp_path / "engine"
    if content == "a file":
        foreign.with_suffix(".py").write_text("", "utf-8")
    else:
        foreign.mkdir()
    if content in ("a package", "other records"):
        (foreign / "__init__.py").write_text("", "utf-8")
    if content == "other records":
        (foreign / "records.py").write_text("", "utf-8")
    elif content == "a copy":
        for file in Path(process.__file__).parent.glob("*.py"):
            (foreign / file.name).write_text(file.read_text("utf-8"), "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EngineFault, match="engine") as caught:
        start_and(tmp_path, None)
    assert "PYTHONPATH" in caught.value.remedy


def test_a_python_that_does_not_run_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(process.sys, "executable", "/bin/false")
    with pytest.raises(EngineFault, match="did not start: The engine ended with exit code 1") as caught:
        start_and(tmp_path, None)
    assert "engine.log" in caught.value.remedy
    monkeypatch.setattr(process.sys, "executable", "/no/python")
    with pytest.raises(EngineFault, match="cannot be started"):
        start_and(tmp_path, None)


def test_another_version_is_a_clear_error(tmp_path, monkeypatch):
    hello = process.own_hello()
    monkeypatch.setattr(process, "own_hello", lambda: type(hello)("0.0.0", hello.package, 1))
    with pytest.raises(EngineFault, match=r"of version .*, the app of version 0\.0\.0"):
        start_and(tmp_path, None)


def test_an_engine_that_says_nothing_is_ended(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\nif 'engine.serving.worker' in sys.orig_argv: time.sleep(60)\n", "utf-8"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(process, "HELLO_SECONDS", 0.2)
    with pytest.raises(EngineFault, match="said nothing") as caught:
        start_and(tmp_path, None)
    assert "engine.log" in caught.value.remedy


def test_a_start_given_up_leaves_no_process(tmp_path):
    async def run():
        engine = EngineProcess(tmp_path / "engine.log")
        starting = asyncio.create_task(engine.start(Heard()))
        while engine._running is None:
            await asyncio.sleep(0)
        pid = engine._running.process.pid
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not is_there(pid)
        assert engine.ask(SHORT) == 1

    asyncio.run(run())


def test_without_a_place_for_the_log_it_works_all_the_same(tmp_path):
    (tmp_path / "file").write_text("", "utf-8")

    async def work(engine, heard):
        assert engine._running is not None

    start_and(tmp_path / "file", work)
