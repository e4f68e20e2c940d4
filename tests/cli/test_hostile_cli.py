"""Text that would steer a terminal comes in through every door; the bytes that reach a pty hold none of it."""

import json
import logging
import warnings
from contextlib import suppress

import fake_engine
import msgspec
import pytest
import samples
import tomli_w
from hostile import FILE_NAME, HOSTILE, STAND_INS, hostile, on_a_pty, unsafe

import saescope
from engine.bench import run as bench
from engine.bench.timing import Row
from engine.cli.run import VERBS, main
from engine.files import session
from engine.files.export.formats import TABLES, to_jsonl
from engine.loading import presets
from engine.records import (
    ArmReplay,
    Failed,
    Finished,
    Generate,
    Generated,
    Progress,
    Ranking,
    Replay,
    Replayed,
)

ANSWERS = {
    **fake_engine.ANSWERS,
    Generate: fake_engine.generated_of,
    Replay: lambda request: Replayed(False, 1, 0.5, False, (ArmReplay("edited", False, 1, " a", " b", 0.1),)),
}

TEXT = HOSTILE.replace("\ud800", "")
"""What files of UTF-8, and a tokenizer, can be given."""

SET = {
    "name": "set",
    "description": TEXT,
    "positive": [{"text": f"{TEXT}{n}", "breaks": TEXT} for n in range(4)],
    "negative": [{"text": f"{TEXT}{n}", "breaks": TEXT} for n in range(4, 8)],
    "probe": [
        {"text": f"{TEXT}?", "prefill": TEXT, "answers": {f"{TEXT}she": [f"{TEXT} she"], f"{TEXT}he": [" he"]}},
        {"text": f"{TEXT}!", "answers": {f"{TEXT}she": [" she"], f"{TEXT}he": [" he"]}, "right": f"{TEXT}he"},
    ],
}

FULL = session.Session(
    session.VERSION,
    "now",
    samples.LOAD,
    samples.LOADED,
    (samples.PROMPT_SET,),
    (samples.RANKING, samples.GENERATED, samples.ARMS, samples.PROBES, samples.ATTRIBUTION, samples.MINIMAL_SET),
)


class Engine:
    """Answers each request with hostile text."""

    def stream(self, request):
        yield hostile(Progress("stage", 1, 2))
        yield hostile(Finished(ANSWERS[type(request)](request)))


class Failing:
    def stream(self, request):
        yield Failed("ModelError", HOSTILE, HOSTILE)


@pytest.fixture
def printed(tmp_path, monkeypatch):
    """Runs a command in a folder with hostile files; returns what reached the terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")  # rich keeps a style as it wrote it first, for all tests after
    monkeypatch.setattr(presets, "everyone", lambda: tuple(map(hostile, PRESETS)))
    rows = [Row(1, HOSTILE, HOSTILE, HOSTILE, 2.0, 1.0), Row(2, HOSTILE, "", "", None, None, note=HOSTILE)]
    machine = dict.fromkeys(("cpu", "cores", "bfloat16_native", "gpu", "threads", "device"), HOSTILE)
    machine |= {"flags": [HOSTILE], "versions": {HOSTILE: HOSTILE}, "load_average": HOSTILE}
    monkeypatch.setattr(bench, "run", lambda *given: bench.Report(machine, False, rows))
    (tmp_path / "set.toml").write_text(tomli_w.dumps(SET), "utf-8")
    session.write(hostile(FULL), tmp_path / FILE_NAME)
    (tmp_path / f"{FILE_NAME}.toml").write_text("no = ")

    def run(*argv, engine=Engine):
        with on_a_pty() as seen:
            with suppress(SystemExit):
                main([HOSTILE if word == "{}" else word for word in argv], engine)
        return seen.text

    return run


PRESETS = presets.everyone()

WITH_SET = ("--prompts", "set.toml")

RUNS = {
    "rank": [WITH_SET],
    "show": [("7", *WITH_SET)],
    "feature": [("7", *WITH_SET, "--toward", "{}", "--against", " no")],
    "attribute": [WITH_SET, (*WITH_SET, "--share", "0.5"), (*WITH_SET, "--toward", "{}", "--against", " no")],
    "generate": [
        ("{}", "--ablate", "3"),
        ("{}", "--compare", "--prefill", "{}", "--stop", " x", "--variant", "ablate 3"),
    ],
    "probes": [WITH_SET],
    "doctor": [()],
    "replay": [(FILE_NAME,)],
    "export": [
        *((FILE_NAME, "--format", form) for form in ("md", "jsonl")),
        *((FILE_NAME, "--format", "csv", "--table", table) for table in TABLES),
    ],
    "tour": [()],
    "presets": [()],
    "bench": [("--rows", "1")],
}
"""Options by verb: every result, and what stands beside it."""

NO_JSON = ("tour", "export")

ONE_RUN = [(verb, *argv) for verb, runs in RUNS.items() for argv in runs]


def test_every_verb_is_run():
    assert set(RUNS) == set(VERBS)


@pytest.mark.parametrize("argv", ONE_RUN, ids=range(len(ONE_RUN)))
def test_what_a_verb_prints(printed, argv):
    ways = [()] if argv[0] in NO_JSON else [(), ("--json",)]
    for more in ways:
        seen = printed(*argv, *more)
        assert unsafe(seen) == []
        assert any(sign in seen for sign in STAND_INS), seen
        assert "Traceback" not in seen and "[/b]" in seen  # no markup either


@pytest.mark.parametrize(
    "argv",
    [
        ("{}",),
        ("rank", "{}"),
        ("rank", "--by", "{}"),
        ("rank", "--prompts", "{}"),
        ("rank", "--prompts", f"./{FILE_NAME}.toml"),
        ("rank", "--preset", "{}"),
        ("rank", *WITH_SET, "--session", "set.toml"),
        ("rank", *WITH_SET, "--session", f"{FILE_NAME}/x"),
        ("rank", *WITH_SET, "--session", FILE_NAME),
        ("rank", *WITH_SET, "--session", f"{FILE_NAME}.new"),
        ("attribute", *WITH_SET, "--toward", "{}"),
        ("generate", "x", "--ablate", "{}"),
        ("generate", "x", "--ablate", "@{}"),
        ("generate", "x", "--variant", "{}"),
        ("generate", "x", "--stop", "{}"),
        ("generate", "x", "--published", "{}"),
        ("replay", f"{FILE_NAME}.none"),
        ("export", FILE_NAME, "--output", f"{FILE_NAME}/x"),
        ("bench", "--rows", "{}"),
    ],
    ids=range(19),
)
def test_errors_and_remarks(printed, argv):
    seen = printed(*(word.replace("{}", HOSTILE) for word in argv))
    assert unsafe(seen) == []
    assert "Traceback" not in seen and seen


def test_what_the_engine_says_when_it_fails(printed):
    seen = printed("doctor", engine=Failing)
    assert unsafe(seen) == [] and seen.count("␛") >= 2 and "[/b]" in seen


def test_what_libraries_log_and_warn_of_and_a_traceback(printed, monkeypatch):
    class Loud:
        def stream(self, request):
            logging.getLogger(TEXT).error(HOSTILE)
            warnings.warn(HOSTILE, stacklevel=1)
            raise ValueError(HOSTILE)

    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(logging, "_warnings_showwarning", None)
    with on_a_pty() as seen:
        try:
            main(["doctor"], Loud)
        except ValueError as error:
            saescope.show_defect(type(error), error, error.__traceback__)
    assert unsafe(seen.text) == []
    assert seen.text.count("␛]0;t") >= 3 and "py.warnings" in seen.text


def test_jsonl_loses_nothing():
    _, ranking, generated, *_ = map(json.loads, to_jsonl(hostile(FULL)).splitlines())
    assert msgspec.convert(ranking, Ranking) == hostile(samples.RANKING)
    assert msgspec.convert(generated, Generated) == hostile(samples.GENERATED)


def test_a_session_file_holds_no_control_characters_and_loses_nothing(tmp_path):
    path = tmp_path / "a.json"
    written = hostile(FULL)
    session.write(written, path)
    assert unsafe(path.read_bytes()) == []
    assert session.read(path) == written
