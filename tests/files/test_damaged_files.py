"""Thousands of damaged files of every kind that is read: each is used or refused in words, and nothing else is lost.

SAESCOPE_FUZZ=2000 tries more of each kind than the suite has time for.
"""

import json
import os
import random
import sqlite3
from contextlib import closing, suppress

import msgspec
import pytest
import samples
from damage import damaged
from fake_engine import generated_of
from textual.app import App
from textual.binding import BindingsMap

import prompts
from engine.cli.run import main
from engine.files import autosave, prompt_sets, replays
from engine.files import session as sessions
from engine.files.autosave import AutosaveStore
from engine.files.explanations import Explanations
from engine.files.export import formats as export
from engine.files.notes import Notes, parse
from engine.models.reference import read_text
from engine.records import Finished, Generate, Generated, Load, Replay, Replayed
from engine.records.errors import NotesError, SessionError, UsageError
from engine.records.texts import check_branch, check_sampling
from engine.serving import verbs
from prompts import PromptSetError, importer
from tui.app import read_keymap
from tui.commands import keys
from tui.services import state_folder
from tui.state.study import Study
from tui.state.texts import Rows, difference_in_words, differing, name_of, rewound, schedule_of, siblings, staleness

COUNT = int(os.environ.get("SAESCOPE_FUZZ", "300"))

WHOLE = samples.whole_session()

SESSION = sessions.layout(msgspec.to_builtins(WHOLE, str_keys=True)).encode()


def some(numbers, tried):
    """Runs `tried` on each; what is wrong with one names its number."""
    worked = 0
    for number in numbers:
        try:
            worked += bool(tried(number))
        except Exception as error:
            raise AssertionError(f"damage number {number}") from error
    return worked


# ---- sessions


def show(session):
    """All that the app, the exports and the replays make of a session, without a screen or a model."""
    for write in (export.to_jsonl, export.to_markdown):
        assert write(session)
    for table in export.TABLES:
        with suppress(UsageError):
            export.to_csv(session, table)
    for work in (session.workspace, None):
        study = Study.from_session(msgspec.structs.replace(session, workspace=work))
        assert study.name and study.session()
        study.effects(), study.ranking_is_stale(), study.recorded_edits()
        texts = study.results.of(Generated)
        for text in siblings(texts, study.question()) + list(texts):
            show_text(text, study)
    assert sessions.decode(msgspec.json.encode(session), "it") == session


def show_text(text, study):
    """One generation as the generation pane and the list of kept texts show it, and run again."""
    rows = Rows.of(text)
    for pair in rows.pairs:
        differing(rows.tokens[pair.baseline], rows.tokens[pair.edited])
        schedule_of(text, pair)
        asked = rewound(text, 1, study.edits.on(), 3, pair)
        Rows.at_start(asked, text, pair)
    assert name_of(text) + difference_in_words(text, None) + staleness(text, replays.text_again(text)) is not None
    with suppress(UsageError):
        run_out(verbs.replay(None, Replay(text)))


def without_a_model(pair, request):
    """Refuses what makes no sense, as generating does, and generates nothing."""
    check_sampling(request.sampling, request.samples)
    check_branch(request)
    return generated_of(request)
    yield


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    monkeypatch.setitem(verbs.VERBS, Generate, without_a_model)


def run_out(work):
    with suppress(StopIteration):
        while True:
            next(work)


def test_a_damaged_session_opens_or_is_refused():
    def tried(number):
        try:
            found = sessions.decode(damaged(number, SESSION, json_values=True), "The file")
        except SessionError as error:
            assert error.message.startswith("The file ") and error.remedy
            return False
        show(found)
        return True

    opened = some(range(COUNT), tried)
    assert 0.05 * COUNT < opened < 0.5 * COUNT  # or else the damage tests nothing


class Client:
    """Answers replays without a model."""

    def stream(self, request):
        answers = {
            Load: samples.LOADED,
            Replay: Replayed(True),
        }
        yield Finished(answers[type(request)])


def test_a_damaged_session_is_replayed_and_exported_or_refused(tmp_path, capsys):
    path = tmp_path / "x.saescope.json"

    def tried(number):
        path.write_bytes(damaged(number, SESSION, json_values=True))
        codes = [main([*argv, str(path)], connect=Client) for argv in (("replay",), ("export",))]
        out, err = capsys.readouterr()
        assert set(codes) <= {0, 1} and "Unexpected" not in err and "Traceback" not in err
        if codes == [1, 1]:
            assert out == "" and err.count("error: ") == 2 and str(path) in err
        return codes[1] == 0

    assert some(range(COUNT // 4), tried)


# ---- the store of sessions


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A database of three sessions, of which one is too long for a page."""
    store = AutosaveStore(tmp_path_factory.mktemp("store") / "s.sqlite3")
    for name in "abc":
        load = Load(model=name)
        store.save(name, name, msgspec.structs.replace(WHOLE, load=load) if name == "b" else sessions.new(load))
    return store.path.read_bytes()


def read_all(store):
    """The sessions that can be read, by the model they load."""
    found = {}
    for info in store.all():
        assert f"{info.name}{info.updated[:16]}{info.edits + info.rankings}" and isinstance(info.file, str | None)
        with suppress(SessionError):
            session = store.load(info.id)
            found[session.load.model] = session
    return found


def test_a_damaged_database_never_keeps_the_store_from_working(tmp_path, database, monkeypatch):
    monkeypatch.setattr(autosave, "BUSY_SECONDS", 0.1)
    path = tmp_path / "s.sqlite3"

    def tried(number):
        for old in tmp_path.iterdir():
            old.unlink()
        data = damaged(number, database)
        path.write_bytes(data)
        store = AutosaveStore(path)
        latest, found = store.latest(), read_all(store)
        # what is shorter than a header is nothing to SQLite, and there is nothing in it
        assert len(data) < 100 or len(found) == 3 or store.notice or latest is not None
        try:
            store.save("d", "d", WHOLE)
        except SessionError as error:  # its header says that it is newer, or not to be written
            assert str(path) in error.message and path.read_bytes()[100:] == data[100:]
            return False
        assert store.load("d") == WHOLE and store.all()[0].id == "d"
        return len(found) == 3

    some(range(COUNT // 10), tried)


def test_one_bad_byte_in_the_database_costs_one_session_at_most(tmp_path, database):
    path = tmp_path / "s.sqlite3"
    rng = random.Random(0)
    # a leaf's first bytes say where its rows are, and all three rows are in one leaf
    leaf = range(4096, 4120)

    def tried(number):
        for old in tmp_path.iterdir():
            old.unlink()
        data = bytearray(database)
        at = rng.choice(leaf) if number % 4 == 0 else rng.randrange(100, len(database))
        data[at] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        store = AutosaveStore(path)
        found = read_all(store)
        if at in leaf:
            assert len(store.all()) == 3 or kept_aside(store) == data
        else:
            assert len(found) >= 2 and AutosaveStore(path).latest() is not None
        return True

    some(range(COUNT // 10), tried)


def kept_aside(store):
    """The bytes of the database that the store says it has set aside."""
    (aside,) = store.path.parent.glob("*.broken-*")
    assert str(aside) in store.notice
    return aside.read_bytes()


def test_a_row_of_wrong_types_is_listed_and_the_others_are_read(tmp_path):
    store = AutosaveStore(tmp_path / "s.sqlite3")
    for name in "abcd":
        store.save(name, name, sessions.new(Load(model=name)), "file")
    with closing(sqlite3.connect(store.path)) as db:
        db.execute("UPDATE sessions SET id = CAST(x'ff61' AS TEXT), name = CAST(x'fffe' AS TEXT) WHERE id = 'b'")
        db.execute("UPDATE sessions SET updated = 3.5, file = x'ff', prompts = 'many', place = 'first' WHERE id = 'c'")
        db.execute("UPDATE sessions SET id = NULL, body = 'text' WHERE id = 'd'")
        db.commit()
    assert set(read_all(store)) == {"a", "b", "c"}
    assert not store.notice
    odd = next(info for info in store.all() if "\ufffd" in info.name)
    store.save(odd.id, "mended", sessions.new(Load(model="b")))
    assert [info.name for info in store.all()].count("mended") == 1 and len(store.all()) == 4
    store.delete(odd.id)
    assert set(read_all(store)) == {"a", "c"}


# ---- notes and explanations

NOTES = b"".join(
    json.dumps({"sae": sae * 32, "feature": feature, "changed": "2026-01-01T00:00:00Z", "label": "é", "notes": "n\n"})
    .encode() + b"\n"
    for sae in ("ab", "cd") for feature in range(4)
)  # fmt: skip


def test_damaged_notes_are_kept_and_the_others_are_read(tmp_path):
    path = tmp_path / "data" / "notes.jsonl"
    path.parent.mkdir()

    def tried(number):
        data = damaged(number, NOTES)
        path.write_bytes(data)
        notes = Notes(path)
        found = notes.of("ab" * 32)
        assert bool(notes.problems) == bool(parse(data, "it").broken)
        notes.put("ab" * 32, "sae", 99, label="new")
        before, after = parse(data, "it"), parse(path.read_bytes(), "it")
        assert before.lines.items() <= after.lines.items() and list(after.broken) == list(before.broken)
        assert notes.of("ab" * 32).keys() == found.keys() | {99}
        return len(found) == 4

    assert some(range(COUNT // 2), tried)


KEPT = json.dumps({"neuronpedia": "a/b", "explanations": {"3": "women", "7": "nurses"}}).encode()


def test_damaged_explanations_are_set_aside(tmp_path):
    kept = Explanations(tmp_path)
    path = tmp_path / f"{'ab' * 32}.json"

    def tried(number):
        data = damaged(number, KEPT, json_values=True)
        path.write_bytes(data)
        try:
            return bool(Explanations(tmp_path).of("ab" * 32))
        except NotesError as error:
            (aside,) = tmp_path.glob("*.broken-*")
            assert str(aside) in error.message and aside.read_bytes() == data
            aside.unlink()
            assert kept.of("ab" * 32) == {}

    assert some(range(COUNT), tried)


@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
def test_a_damaged_export_of_explanations_is_read_or_refused(tmp_path, name):
    records = [{"index": str(n), "description": "women", "modelId": "a", "layer": "b"} for n in range(5)]
    ends = (b"[", b",", b"]") if name == "x.json" else (b"", b"\n", b"")
    data = ends[0] + ends[1].join(json.dumps(record).encode() for record in records) + ends[2]
    export_file, kept = tmp_path / name, Explanations(tmp_path / "kept" / "explanations")

    def tried(number):
        export_file.write_bytes(damaged(number, data))
        try:
            return kept.add(samples.LOADED, export_file).count
        except NotesError as error:
            assert str(export_file) in error.message and error.remedy

    assert some(range(COUNT // 2), tried)
    assert kept.of(samples.LOADED.sae_fingerprint)


# ---- what the user writes: keys, prompt sets, reference texts; and preferences


KEYS = b'"run.rank" = "k"\n"prompts.add" = "j,f5"\n"app.help" = "ctrl+alt+shift+question_mark"\n'


def test_a_damaged_keymap_is_told_and_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "saescope" / "keys.toml"
    path.parent.mkdir()

    def tried(number):
        data = damaged(number, KEYS)
        path.write_bytes(data)
        keymap, problem = read_keymap()
        assert (str(path) in problem or not problem) and len(problem) < 1000
        BindingsMap(keys.MAIN).apply_keymap(App._normalize_keymap(keymap))
        assert path.read_bytes() == data
        return not problem

    assert some(range(COUNT), tried)


def test_damaged_preferences_are_set_aside(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    state_folder.remember_theme("saescope-light")
    path = next(tmp_path.rglob("preferences.json"))
    content = path.read_bytes()

    def tried(number):
        data = damaged(number, content, json_values=True)
        path.write_bytes(data)
        name, problem = state_folder.theme()
        asides = list(path.parent.glob("*.broken-*"))
        assert [aside.read_bytes() for aside in asides] == [data] * bool(problem)
        for aside in asides:
            assert str(aside) in problem
            aside.unlink()
        return name == "saescope-light"

    assert some(range(COUNT), tried)


def test_a_damaged_prompt_set_is_read_or_refused(tmp_path):
    path = tmp_path / "mine.toml"
    content = prompts.find("founding_5v2").read_bytes()

    def tried(number):
        path.write_bytes(damaged(number, content))
        try:
            found = prompt_sets.from_file(prompts.load(str(path)))
        except PromptSetError as error:
            assert str(path) in error.message and error.remedy
            return False
        session = sessions.decode(msgspec.json.encode(Study.from_session(with_prompts(found)).session()), "it")
        assert session.workspace.prompts == found
        return True

    assert some(range(COUNT), tried)


def with_prompts(found):
    return msgspec.structs.replace(sessions.new(samples.LOAD), prompt_sets=(found,))


LINES = {
    "x.jsonl": b'{"text": "Women lead", "set": "positive"}\n"Cats sleep"\n{"text": "Ferries leave", "breaks": "a"}\n',
    "x.txt": "Women lead\nCats sleep\n\nFerries leave at five é\n".encode(),
}


@pytest.mark.parametrize("name", LINES)
def test_a_damaged_list_of_prompts_is_read_or_refused(tmp_path, name):
    path = tmp_path / name

    def tried(number):
        path.write_bytes(damaged(number, LINES[name]))
        try:
            return importer.read_prompts(path)
        except PromptSetError as error:
            assert str(path) in error.message and error.remedy

    assert some(range(COUNT), tried)


def test_a_damaged_reference_text_is_read_or_refused(tmp_path):
    path = tmp_path / "reference.txt"

    def tried(number):
        path.write_bytes(damaged(number, LINES["x.txt"]))
        try:
            return read_text(path)
        except UsageError as error:
            assert str(path) in error.message and error.remedy

    assert some(range(COUNT), tried)
