"""The store of sessions: what goes in comes out, whatever happened to the database in between."""

import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import samples

from engine.files import autosave, autosave_table, session
from engine.files.autosave import AutosaveStore
from engine.files.session import EditSlot, Workspace
from engine.records import Prompt, PromptSet
from engine.records.errors import SessionError

WORKSPACE = Workspace(
    PromptSet("mine", (Prompt("a"), Prompt("b")), (Prompt("c"),)),
    edits=(EditSlot(3), EditSlot(4, 2.0)),
    labels={3: "x"},
)

EMPTY = session.new(samples.LOAD)


@pytest.fixture
def full():
    found = session.new(samples.LOAD, samples.LOADED)
    for result in (samples.RANKING, samples.GENERATED, samples.GENERATED, samples.PROBES):
        found = session.add(found, result, samples.PROMPT_SET)
    return msgspec.structs.replace(found, workspace=WORKSPACE)


@pytest.fixture
def store(tmp_path):
    return AutosaveStore(tmp_path / "state" / "sessions.sqlite3")


def named(count):
    """A session told apart by the feature shown."""
    return msgspec.structs.replace(EMPTY, workspace=msgspec.structs.replace(WORKSPACE, feature=count))


def test_what_is_saved_is_loaded_equal(store, full):
    assert store.latest() is None
    store.save("one", "größe", full, "/tmp/x.saescope.json")
    store.save("two", "", EMPTY)
    assert store.load("one") == full
    assert store.load("two") == EMPTY
    assert AutosaveStore(store.path).load("one") == full
    assert store.notice == ""


def test_the_list_is_newest_first_and_counts_without_decoding(store, full, monkeypatch):
    store.save("one", "a", full, "f")
    store.save("two", "b", EMPTY)
    store.save("one", "c", full, "g")
    monkeypatch.setattr(session, "decode", None)
    one, two = store.all()
    assert (one.id, one.name, one.file, two.id, two.file) == ("one", "c", "g", "two", None)
    assert (one.prompts, one.edits, one.rankings, one.generations, one.probe_tables) == (3, 2, 1, 2, 1)
    assert (two.prompts, two.edits, two.rankings, two.generations, two.probe_tables) == (0, 0, 0, 0, 0)
    assert one.updated.endswith("+00:00")


def test_the_latest_is_the_one_saved_last(store, full):
    store.save("one", "a", EMPTY)
    store.save("two", "b", EMPTY)
    store.save("one", "a", full)
    latest = store.latest()
    assert (latest.info.id, latest.session) == ("one", full)


def test_deleted_ones_are_gone(store):
    store.save("one", "a", EMPTY)
    store.delete("one")
    store.delete("one")
    assert store.all() == []
    with pytest.raises(SessionError, match="no stored session one"):
        store.load("one")


def test_the_newest_hundred_are_kept(store):
    for number in range(autosave.KEPT + 5):
        store.save(f"s{number}", "", named(number))
    store.save("s7", "again", named(7))
    found = [info.id for info in store.all()]
    assert len(found) == autosave.KEPT
    assert found[:2] == ["s7", "s104"]
    assert found[-1] == "s5"
    store.save("new", "", EMPTY)
    assert [info.id for info in store.all()][-1] == "s6"


def test_only_its_owner_may_read_it(store):
    store.save("one", "a", EMPTY)
    store.path.chmod(0o644)
    store.save("one", "a", EMPTY)
    with closing(sqlite3.connect(store.path)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        db.execute("BEGIN")
        db.execute("SELECT 1 FROM sessions").fetchone()
        files = sorted(store.path.parent.iterdir())
        assert [f.name for f in files] == ["sessions.sqlite3", "sessions.sqlite3-shm", "sessions.sqlite3-wal"]
        assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


def test_the_default_place_is_made_private_and_a_folder_of_the_users_is_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "a" / "state"))
    folder = tmp_path / "a" / "state" / "saescope"
    folder.mkdir(parents=True, mode=0o755)
    own = AutosaveStore()
    own.save("one", "a", EMPTY)
    assert own.path == folder / "sessions.sqlite3"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (tmp_path / "theirs").mkdir(mode=0o755)
    AutosaveStore(tmp_path / "theirs" / "x.sqlite3").save("one", "a", EMPTY)
    assert stat.S_IMODE((tmp_path / "theirs").stat().st_mode) == 0o755


# ---- a database that cannot be used


def garbage(path):
    path.write_bytes(b"this is no database, by any means\n" * 100)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scrambled(path):
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [garbage, cut, scrambled])
@pytest.mark.parametrize("first", ["latest", "all", "save", "delete"])
def test_a_damaged_database_is_moved_aside_and_a_new_one_begun(store, full, damage, first):
    for number in range(20):
        store.save(f"s{number}", "a", full)
    damage(store.path)
    damaged = store.path.read_bytes()
    store = AutosaveStore(store.path)
    if first == "save":
        store.save("new", "b", EMPTY)
    elif first == "delete":
        store.delete("s1")
    else:
        assert bool(getattr(store, first)()) == (damage is cut)  # of half the file some can still be read
    (aside,) = store.path.parent.glob("sessions.sqlite3.broken-*")
    assert aside.read_bytes() == damaged
    assert str(aside) in store.notice
    store.save("new", "b", EMPTY)
    assert store.load("new") == EMPTY
    assert len(list(store.path.parent.glob("*.broken-*"))) == 1


def beheaded(path):
    path.write_bytes(bytes(4096) + path.read_bytes()[4096:])


@pytest.mark.parametrize("damage", [beheaded, cut])
def test_what_can_be_read_of_a_damaged_database_is_taken_over(store, full, damage):
    for number in range(20):
        store.save(f"s{number}", f"name {number}", full, f"/x/{number}")
    before = store.all()
    damage(store.path)
    store = AutosaveStore(store.path)
    store.save("new", "b", EMPTY)
    first, *others = store.all()
    assert first.id == "new" and others == [info for info in before if info in others]
    assert len(others) == 20 if damage is beheaded else 0 < len(others) < 20
    assert all(store.load(info.id) == full for info in others)
    assert f"The {len(others)} that could be read are in a new one." in store.notice


def test_what_was_moved_aside_is_never_overwritten(store):
    for content in (b"first" * 500, b"second" * 500, b"third" * 500):
        store.save("one", "a", EMPTY)
        store.path.write_bytes(content)
        assert store.latest() is None
    kept = {f.read_bytes()[:5] for f in store.path.parent.glob("*.broken-*")}
    assert kept == {b"first", b"secon", b"third"}


def set_body(store, id, body):
    with closing(sqlite3.connect(store.path)) as db:
        db.execute("UPDATE sessions SET body = ? WHERE id = ?", (body, id))
        db.commit()


@pytest.mark.parametrize("body", [b"{", b"", b"{}", b'{"saescope_session": 99}', b'{"saescope_session": 1, "load": 3}'])
def test_a_damaged_session_is_named_and_the_one_before_it_is_the_latest(store, full, body):
    store.save("one", "a", full)
    store.save("two", "my run", EMPTY)
    set_body(store, "two", body)
    with pytest.raises(SessionError, match="'my run'"):
        store.load("two")
    assert store.latest().info.id == "one"
    assert "'my run'" in store.notice
    assert [info.id for info in store.all()] == ["two", "one"]


def test_a_place_that_cannot_be_written_stops_saving_only(tmp_path):
    (tmp_path / "file").write_text("")
    store = AutosaveStore(tmp_path / "file" / "sessions.sqlite3")
    assert store.latest() is None
    assert store.all() == []
    assert "cannot be stored" in store.notice
    with pytest.raises(SessionError, match="cannot be stored") as caught:
        store.save("one", "a", EMPTY)
    assert str(store.path) in caught.value.message
    assert "save to a session file" in caught.value.remedy


def test_a_folder_in_its_place_is_an_error(tmp_path):
    with pytest.raises(SessionError, match="cannot be stored"):
        AutosaveStore(tmp_path).save("one", "a", EMPTY)
    assert AutosaveStore(tmp_path).latest() is None


def test_a_full_disk_keeps_what_was_there(store, full, monkeypatch):
    store.save("one", "a", EMPTY)
    prepare = AutosaveStore._prepare

    def small(self, db):
        prepare(self, db)
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages}")

    with monkeypatch.context() as patch:
        patch.setattr(AutosaveStore, "_prepare", small)
        with pytest.raises(SessionError, match="full"):
            store.save("one", "b", session.add(full, samples.RANKING))
    assert store.load("one") == EMPTY


def test_a_newer_layout_is_left_alone(store):
    store.save("one", "a", EMPTY)
    with closing(sqlite3.connect(store.path)) as db:
        db.execute(f"PRAGMA user_version = {autosave_table.LAYOUT + 1}")
    assert store.latest() is None
    assert "newer saescope" in store.notice
    with pytest.raises(SessionError, match="newer saescope"):
        store.save("one", "a", EMPTY)
    assert [f.name for f in store.path.parent.glob("*broken*")] == []


def test_a_database_held_by_another_for_long_is_an_error(store, monkeypatch):
    monkeypatch.setattr(autosave, "BUSY_SECONDS", 0.1)
    store.save("one", "a", EMPTY)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(SessionError, match="locked"):
            store.save("two", "b", EMPTY)
        assert store.load("one") == EMPTY  # readers need not wait


def test_texts_that_cannot_be_utf8(store):
    store.save("one", "a\ud800", EMPTY, "/x/\udcff")
    assert (store.all()[0].name, store.all()[0].file) == ("a?", "/x/?")
    odd = msgspec.structs.replace(EMPTY, created="\ud800")
    store.save("two", "b", odd)
    assert store.load("two") == odd


# ---- several at once

SAVES = """
import sys
sys.path.insert(0, {tests!r})
import samples
from pathlib import Path
from engine.files import session
from engine.files.autosave import AutosaveStore
store = AutosaveStore(Path({path!r}))
for number in range(25):
    store.save(f"{who}-{{number}}", "", session.new(samples.LOAD))
    assert store.latest() is not None or store.notice
print(store.notice)
"""


@pytest.mark.parametrize("damaged", [False, True])
def test_processes_and_threads_save_at_once(store, damaged):
    if damaged:
        store.path.parent.mkdir()
        garbage(store.path)
    code = [SAVES.format(tests=str(Path(samples.__file__).parent), path=str(store.path), who=who) for who in "abc"]
    running = [
        subprocess.Popen([sys.executable, "-c", c], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for c in code
    ]
    threads = [
        threading.Thread(target=lambda who=who: [store.save(f"{who}-{n}", "", EMPTY) for n in range(10)])
        for who in "de"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outs = [process.communicate(timeout=120) for process in running]
    assert [err for _, err in outs] == ["", "", ""]
    wanted = {f"{who}-{n}" for who, many in zip("abcde", (25, 25, 25, 10, 10), strict=True) for n in range(many)}
    assert {info.id for info in store.all()} == wanted
    assert len(list(store.path.parent.glob("*.broken-*"))) == damaged
