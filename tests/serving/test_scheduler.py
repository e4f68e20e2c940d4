"""Whose turn it is, on fake requests: no process, no model, a clock of our own."""

from typing import get_args

import pytest

from engine.records import (
    Cancelled,
    Describe,
    Doctor,
    Edit,
    Failed,
    FeaturesAt,
    Finished,
    Generate,
    Load,
    MemoryLeft,
    Progress,
    Prompt,
    PromptSet,
    Rank,
    Replay,
    Request,
    RunProbes,
    ScoreAnswers,
    Show,
    Shown,
    TokenStep,
)
from engine.serving.scheduler import PATIENCE_SECONDS, Scheduler
from engine.serving.wire import Ask, Cancel, SetEdits

DONE = Finished(Shown(1, (), (), 0.0))

RANK, PROBES, DOCTOR, LOAD = Rank(PromptSet("x")), RunProbes(()), Doctor(), Load()

GENERATE = Generate(Prompt("a"))


class Bench:
    """A scheduler whose requests yield the events listed for their kind, then DONE; records what comes out."""

    def __init__(self, **steps):
        self.steps, self.seen, self.sent, self.closed, self.now = steps, [], [], [], 0.0
        self.scheduler = Scheduler(self.run, lambda i, e: self.seen.append((i, e)), self.memory, lambda: self.now)
        self.left = None
        self.ids = 0

    def memory(self):
        return self.left

    def run(self, request):
        kind = type(request).__name__
        try:
            for event in self.steps.get(kind, [Progress(kind, 0), Progress(kind, 1)]):
                if isinstance(event, Exception):
                    raise event
                self.sent.append((kind, (yield event)))
            yield DONE
        finally:
            self.closed.append(kind)

    def ask(self, *requests):
        for request in requests:
            self.ids += 1
            self.scheduler.receive(Ask(self.ids, request))
        return self.ids

    def step(self, count=1):
        for _ in range(count):
            self.scheduler.step()

    def finish(self):
        for _ in range(1000):
            if self.scheduler.idle:
                return
            self.scheduler.step()
        raise AssertionError("never idle")

    def of(self, request_id):
        return [event for i, event in self.seen if i == request_id]

    def ends(self):
        return [(i, type(e)) for i, e in self.seen if isinstance(e, Finished | Failed | Cancelled)]


def test_long_requests_run_in_order_of_arrival_and_say_once_what_they_wait_for():
    bench = Bench()
    bench.ask(RANK)
    bench.step()
    bench.ask(PROBES, DOCTOR)
    bench.finish()
    assert bench.ends() == [(1, Finished), (2, Finished), (3, Finished)]
    assert bench.of(2)[0] == bench.of(3)[0] == Progress("waiting for the ranking")
    assert sum("waiting" in e.stage for _, e in bench.seen if isinstance(e, Progress)) == 2
    assert [i for i, e in bench.seen if "waiting" not in getattr(e, "stage", "")] == [1] * 3 + [2] * 3 + [3] * 3


@pytest.mark.parametrize("quick", [Show(1, ()), Describe(1), FeaturesAt(Prompt("a"), 0), ScoreAnswers(None)])
def test_a_quick_request_runs_between_two_events_of_a_long_one(quick):
    bench = Bench()
    bench.ask(RANK)
    bench.step()
    bench.ask(quick)
    bench.finish()
    assert [i for i, _ in bench.seen] == [1, 2, 2, 2, 1, 1]
    assert bench.of(2)[0] == Progress(type(quick).__name__, 0), "it does not wait"


def test_quick_requests_never_starve_a_long_one():
    bench = Bench(Show=[Progress("s")] * 100, Rank=[Progress("r")] * 3)
    bench.ask(RANK, Show(1, ()))
    for _ in range(8):
        bench.now += PATIENCE_SECONDS / 2
        bench.step()
    assert [i for i, _ in bench.seen] == [2, 1, 2, 1, 2, 1, 2, 1]


@pytest.mark.parametrize("request_", [RANK, PROBES, DOCTOR, GENERATE, Show(1, ()), Describe(1)])
def test_a_newer_request_of_a_kind_cancels_older_ones_running_or_queued(request_):
    bench = Bench()
    bench.ask(request_)
    bench.step()
    bench.ask(request_)
    assert bench.closed == [type(request_).__name__]
    assert bench.ends() == [(1, Cancelled)]
    assert bench.of(2) == [], "nothing is left to wait for"
    bench.ask(request_)
    bench.finish()
    assert bench.ends() == [(1, Cancelled), (2, Cancelled), (3, Finished)]


def test_requests_of_other_kinds_and_replays_stay():
    bench = Bench()
    bench.ask(RANK, GENERATE, Replay(None), Replay(None), Show(1, ()), Describe(1))
    bench.finish()
    assert sorted(bench.ends()) == [(i, Finished) for i in range(1, 7)]


def test_a_load_cancels_everything_and_what_follows_waits_for_it():
    bench = Bench()
    bench.ask(RANK)
    bench.step()
    bench.ask(GENERATE, Replay(None), Show(1, ()), LOAD, Show(2, ()), RANK)
    assert bench.ends() == [(i, Cancelled) for i in (1, 2, 3, 4)]
    bench.finish()
    assert bench.ends()[4:] == [(5, Finished), (6, Finished), (7, Finished)]
    assert bench.of(5)[0] == Progress("Load", 0)
    assert bench.of(6)[0] == bench.of(7)[0] == Progress("waiting for the model to load")


def test_cancelling_a_running_a_queued_and_an_ended_request():
    bench = Bench()
    bench.ask(RANK, PROBES, Show(1, ()))
    bench.step(4)
    for i in (1, 2, 3, 99):
        bench.scheduler.receive(Cancel(i))
        bench.scheduler.receive(Cancel(i))
    assert bench.scheduler.idle
    assert bench.ends() == [(3, Finished), (1, Cancelled), (2, Cancelled)]
    assert bench.closed == ["Show", "Rank"], "the queued one never began"
    bench.step()


def test_edits_go_to_the_generation_in_answer_to_a_token_the_latest_only():
    token = TokenStep(0, "a", "b")
    bench = Bench(Generate=[Progress("reading"), token, token, token], RunProbes=[token, token])
    edits = [(Edit(i),) for i in range(4)]
    bench.ask(PROBES, GENERATE)
    bench.scheduler.receive(SetEdits(1, edits[0]))  # probes keep their edits
    bench.scheduler.receive(SetEdits(2, edits[0]))
    bench.scheduler.receive(SetEdits(2, edits[1]))
    bench.step(5)
    assert bench.sent == [("RunProbes", None)] * 2 + [("Generate", None)], "not before its first token"
    bench.step(2)
    bench.scheduler.receive(SetEdits(2, edits[2]))
    bench.scheduler.receive(SetEdits(2, ()))
    bench.finish()
    bench.scheduler.receive(SetEdits(2, edits[3]))
    assert bench.sent[3:] == [("Generate", edits[1]), ("Generate", None), ("Generate", ())]


def test_a_superseded_generation_leaves_no_edits_to_the_next():
    token = TokenStep(0, "a", "b")
    bench = Bench(Generate=[token, token])
    bench.ask(GENERATE)
    bench.step()
    bench.scheduler.receive(SetEdits(1, (Edit(1),)))
    bench.ask(GENERATE)
    bench.finish()
    assert {value for _, value in bench.sent} == {None}


def test_an_exception_or_a_missing_end_is_a_failure_and_work_goes_on():
    bench = Bench(Rank=[Progress("r"), RuntimeError("boom")])
    bench.ask(RANK, DOCTOR)
    bench.finish()
    assert bench.ends() == [(1, Failed), (2, Finished)]
    assert "boom" in bench.of(1)[-1].message
    ended = Scheduler(lambda request: (e for e in ()), lambda i, e: bench.seen.append((i, e)))
    ended.receive(Ask(7, RANK))
    ended.step()
    assert isinstance(bench.of(7)[-1], Failed)


def test_a_request_that_cannot_be_stopped_cleanly_is_cancelled_all_the_same():
    def run(request):
        try:
            yield Progress("a")
        finally:
            raise RuntimeError("hook")

    seen = []
    scheduler = Scheduler(run, lambda i, e: seen.append(e))
    scheduler.receive(Ask(1, RANK))
    scheduler.step()
    scheduler.receive(Cancel(1))
    assert seen[-1] == Cancelled()
    assert scheduler.idle


def test_a_used_id_and_a_message_without_sense_are_refused_under_an_id_that_has_no_end_yet():
    bench = Bench()
    bench.ask(RANK)
    bench.scheduler.receive(Ask(1, DOCTOR))
    bench.scheduler.refuse(1, Failed("EngineFault", "x"))
    assert [i for i, _ in bench.seen] == [0, 0]
    bench.scheduler.refuse(5, Failed("EngineFault", "x"))
    bench.scheduler.receive(Ask(5, DOCTOR))
    bench.finish()
    assert [i for i, e in bench.seen if isinstance(e, Failed)] == [0, 0, 5, 0]


def test_memory_is_told_after_each_long_request_and_every_two_seconds_of_one():
    bench = Bench(Rank=[Progress("r")] * 10)
    bench.left = left = MemoryLeft(1, 2)
    bench.ask(RANK)
    for _ in range(10):
        bench.now += 0.7
        bench.step()
    assert bench.seen.count((0, left)) == 3
    bench.ask(Show(1, ()))
    bench.finish()
    assert bench.seen[-1] == (0, left)
    assert bench.seen.count((0, left)) == 4
    bench.ask(Show(1, ()))
    bench.finish()
    assert bench.seen.count((0, left)) == 4


def test_every_request_says_what_others_wait_for_or_is_quick():
    words = {kind: kind.waited_for for kind in get_args(Request)}
    assert {kind for kind in words if not words[kind]} == {Show, Describe, FeaturesAt, ScoreAnswers}
    assert all(not said.endswith(".") and "waited_for" not in kind.__struct_fields__ for kind, said in words.items())
