"""Between app and engine: what is coalesced, what is not, and how requests end."""

import asyncio
import time

import pytest
from fake_engine import SMALL, FakeEngine

from engine.records import (
    Edit,
    Failed,
    Finished,
    Generate,
    Generated,
    Load,
    Loaded,
    MemoryLeft,
    Progress,
    Prompt,
    Rank,
    Ranking,
    Show,
    Shown,
    TokenStep,
)
from engine.records.errors import EngineFault, MismatchError, ModelError
from engine.serving.client import RequestCancelled
from tui.services.bridge import UPDATES_PER_SECOND, Bridge

RANK, SHOW, GENERATE = Rank(SMALL), Show(3, SMALL.positive), Generate(Prompt("q"))


class Target:
    """Whatever the bridge posts."""

    def __init__(self):
        self.messages = []

    def post_message(self, message):
        self.messages.append(message)

    def of(self, kind):
        return [m for m in self.messages if isinstance(m, kind)]


def bridged(test):
    """Runs an async test of (bridge, engine, target), the engine started and everything held."""

    def run():
        async def main():
            engine, target = FakeEngine(), Target()
            engine.held = {Rank, Show, Generate, Load}
            bridge = Bridge(lambda: engine, target)
            await bridge.start()
            async with asyncio.timeout(20):
                await test(bridge, engine, target)

        asyncio.run(main())

    return run


def start(bridge, request, kind, on_events=None, on_sent=None):
    return asyncio.create_task(bridge.run(request, kind, on_events, on_sent))


async def turn(times=3):
    """Lets tasks go on, less long than an update takes."""
    for _ in range(times):
        await asyncio.sleep(0)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


@bridged
async def test_a_result_is_handed_out(bridge, engine, target):
    sent = []
    task = start(bridge, RANK, Ranking, on_sent=sent.append)
    await turn()
    assert engine.requests == [RANK] and sent == [1] and not task.done()
    engine.release(Rank)
    ranking = await task
    assert ranking.n_positive == 2 and engine.cancelled == []


@bridged
async def test_progress_replaces_progress(bridge, engine, target):
    heard = []
    task = start(bridge, RANK, Ranking, lambda events: heard.append(list(events)))
    await turn()
    engine.progress(Rank, *(Progress("encoding", i, 9) for i in range(9)))
    assert heard == [] and target.of(Bridge.Working) == []
    await until(lambda: heard)
    assert heard == [[Progress("encoding", 8, 9)]]
    assert [m.progress for m in target.of(Bridge.Working)] == [Progress("encoding", 8, 9)]
    engine.release(Rank)
    await task
    assert [m.progress for m in target.of(Bridge.Working)][1:] == [None]


@bridged
async def test_no_token_is_dropped_nor_overtaken(bridge, engine, target):
    heard = []
    task = start(bridge, GENERATE, Generated, heard.extend)
    await turn()
    expected = []
    for i in range(200):
        events = [TokenStep(i, f"a{i}", f"b{i}")] + [Progress("x", i)] * (i % 3)
        engine.progress(Generate, *events)
        expected.append(events[0])
        if i % 50 == 0:
            await until(lambda: expected[-1] in heard)
    engine.release(Generate)  # the tokens that wait come before the end
    await task
    tokens = [e for e in heard if isinstance(e, TokenStep)]
    assert tokens[:200] == expected and len(tokens) == 200 + 11


@bridged
async def test_about_thirty_updates_a_second(bridge, engine, target):
    updates = []
    task = start(bridge, GENERATE, Generated, lambda events: updates.append(time.monotonic()))
    await turn()
    began, count = time.monotonic(), 0
    while time.monotonic() - began < 0.5:
        engine.progress(Generate, TokenStep(count, "a", "b"))
        count += 1
        await asyncio.sleep(0.002)
    took = time.monotonic() - began
    assert count > 2 * len(updates) > 0
    assert len(updates) <= took * UPDATES_PER_SECOND + 1
    task.cancel()
    await asyncio.wait([task])


@bridged
async def test_a_cancelled_task_cancels_its_request(bridge, engine, target):
    task, other = start(bridge, RANK, Ranking), start(bridge, SHOW, Shown)
    await turn()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.cancelled == [1]
    engine.release(Show)
    assert (await other).feature == 3


@bridged
async def test_a_cancelled_request_says_so(bridge, engine, target):
    first = start(bridge, RANK, Ranking)
    await turn()
    second = start(bridge, RANK, Ranking)  # a newer one of a kind ends the older
    with pytest.raises(RequestCancelled):
        await first
    assert not second.done()
    assert bridge.cancel_all()
    with pytest.raises(RequestCancelled):
        await second
    assert not bridge.cancel_all()


@bridged
async def test_a_failure_is_raised_as_what_it_is(bridge, engine, target):
    cases = (
        (Failed("MismatchError", "does not fit", "take another", 1), MismatchError),
        (Failed("ModelError", "no model"), ModelError),
        (Failed("NoSuchError", "odd"), EngineFault),
    )
    for failed, kind in cases:
        engine.failures = {Rank: failed}
        engine.held.discard(Rank)
        with pytest.raises(kind) as caught:
            await bridge.run(RANK, Ranking)
        assert type(caught.value) is kind
        assert (caught.value.message, caught.value.remedy) == (failed.message, failed.remedy)
    assert bridge.alive


@bridged
async def test_an_answer_of_another_kind_is_a_fault(bridge, engine, target):
    engine.held.discard(Rank)
    with pytest.raises(EngineFault, match="Rank with no Shown"):
        await bridge.run(RANK, Shown)


@bridged
async def test_a_lost_engine_ends_every_run_and_is_told_once(bridge, engine, target):
    heard = []
    tasks = [start(bridge, RANK, Ranking), start(bridge, GENERATE, Generated, heard.extend), start(bridge, SHOW, Shown)]
    await turn()
    engine.progress(Generate, TokenStep(0, "a", "b"))
    engine.kill("gone")
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(e) for e in done] == [EngineFault] * 3 and {e.message for e in done} == {"gone"}
    assert heard == [TokenStep(0, "a", "b")]  # what had come is not lost
    assert [m.error.message for m in target.of(Bridge.Lost)] == ["gone"]
    assert not bridge.alive and not bridge.cancel_all()
    with pytest.raises(EngineFault, match="not running"):
        await bridge.run(RANK, Ranking)
    await bridge.start()
    engine.held.clear()
    assert (await bridge.run(RANK, Ranking)).n_negative == 2
    assert engine.starts == 2 and len(target.of(Bridge.Lost)) == 1


@bridged
async def test_memory_belongs_to_no_request(bridge, engine, target):
    bridge.on_event(0, MemoryLeft(1, 2))
    assert [m.left for m in target.of(Bridge.Memory)] == [MemoryLeft(1, 2)]
    bridge.on_event(77, Finished(None))  # of a request that nobody waits for
    bridge.on_event(0, Failed("EngineFault", "odd"))
    assert len(target.messages) == 1


@bridged
async def test_edits_go_to_the_engine(bridge, engine, target):
    bridge.set_edits(5, (Edit(1),))
    assert engine.edits_set == [(5, (Edit(1),))]


@bridged
async def test_the_end_of_one_request_does_not_hide_anothers_progress(bridge, engine, target):
    rank, show = start(bridge, RANK, Ranking), start(bridge, SHOW, Shown)
    await turn()
    for kind in (Show, Rank):
        before = len(target.of(Bridge.Working))
        engine.progress(kind, Progress(kind.__name__))
        await until(lambda: len(target.of(Bridge.Working)) > before)  # noqa: B023
    engine.release(Show)
    await show
    assert target.of(Bridge.Working)[-1].progress == Progress("Rank")
    engine.release(Rank)
    await rank
    assert target.of(Bridge.Working)[-1].progress is None


def test_no_engine_is_made_before_it_is_needed():
    async def main():
        made, target = [], Target()

        def make():
            made.append(FakeEngine())
            return made[-1]

        bridge = Bridge(make, target)
        with pytest.raises(EngineFault):
            await bridge.run(Load(), Loaded)
        await bridge.close()
        assert made == []
        await bridge.start()
        await bridge.close()
        assert made[0].closes == 1 and not bridge.alive
        await bridge.start()
        assert len(made) == 1

    asyncio.run(main())


def test_an_engine_that_does_not_start_is_not_alive():
    async def main():
        engine = FakeEngine()
        engine.start_fails = EngineFault("no")
        bridge = Bridge(lambda: engine, Target())
        with pytest.raises(EngineFault):
            await bridge.start()
        assert not bridge.alive

    asyncio.run(main())


class Clock:
    """An event loop's clock that a test moves; keeps when what was to be called."""

    def __init__(self):
        self.now, self.planned = 100.0, []

    def time(self):
        return self.now

    def call_at(self, when, callback):
        self.planned.append(when)


def test_late_updates_do_not_add_up_to_fewer(monkeypatch):
    clock, period = Clock(), 1 / UPDATES_PER_SECOND
    monkeypatch.setattr("tui.services.bridge.asyncio.get_running_loop", lambda: clock)
    bridge = Bridge(FakeEngine, Target())
    for now in (100, 100 + 1.4 * period, 100 + 2.9 * period, 100 + 4.1 * period, 100 + 9 * period):
        clock.now = now
        bridge._plan_flush()
    # on the first one's beat; the fourth was later than that would have been, and a pause begins a new one
    expected = [1, 2, 3, 5.1, 10]
    assert [(when - 100) / period for when in clock.planned] == pytest.approx(expected)
