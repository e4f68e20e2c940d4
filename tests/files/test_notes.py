"""Notes: one shared file, the newest line wins, nothing that cannot be read is lost."""

import json
import multiprocessing
import os
import stat
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from engine.files import notes as notes_module
from engine.files.notes import Note, Notes
from engine.records.errors import NotesError

SAE, OTHER = "ab" * 32, "cd" * 32


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "saescope" / "notes.jsonl"


@pytest.fixture
def notes(path):
    return Notes(path)


def line(feature, label="", notes="", at="2026-01-01T00:00:00Z", sae=SAE, **more):
    """A line as someone else's file may hold it."""
    found = {"sae": sae, "feature": feature, "label": label, "notes": notes, "changed": at, **more}
    return json.dumps(found).encode() + b"\n"


def write(path, *parts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(parts))


def labels(notes, sae=SAE):
    return {feature: note.label for feature, note in notes.of(sae).items()}


def test_what_was_put_comes_back_in_another_run(notes, path):
    assert notes.of(SAE) == {}
    notes.put(SAE, "demo", 7, label="women", notes="also “she”\nand names")
    notes.put(OTHER, "other", 7, label="cats")
    found = Notes(path).of(SAE)
    assert list(found) == [7]
    assert (found[7].label, found[7].notes, found[7].sae_name) == ("women", "also “she”\nand names", "demo")
    assert abs(found[7].changed - datetime.now(UTC)) < timedelta(minutes=1)
    assert labels(Notes(path), OTHER) == {7: "cats"}


def test_label_and_notes_change_independently(notes):
    notes.put(SAE, "demo", 7, label="women")
    notes.put(SAE, "demo", 7, notes="more")
    notes.put(SAE, "demo", 7, label="woman")
    assert (notes.of(SAE)[7].label, notes.of(SAE)[7].notes) == ("woman", "more")


def test_the_file_has_one_sorted_line_a_feature_and_only_its_owner_reads_it(notes, path):
    for feature in (12, 3, 100, 12):
        notes.put(SAE, "demo", feature, label=f"label {feature} again")
        notes.put(SAE, "demo", feature, label=f"label {feature}")
    lines = [json.loads(row) for row in path.read_text("utf-8").splitlines()]
    assert [row["feature"] for row in lines] == [3, 12, 100]
    assert set(lines[0]) == {"sae", "feature", "changed", "label", "notes", "sae_name"}
    assert datetime.fromisoformat(lines[0]["changed"]).tzinfo is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(p.name for p in path.parent.iterdir()) == [".notes.jsonl.lock", "notes.jsonl"]


def test_the_file_is_in_the_users_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert Notes().path == tmp_path / "saescope" / "notes.jsonl"


def test_concatenated_files_give_the_newest_line_of_each_feature_in_either_order(path, tmp_path):
    mine = line(1, "old", at="2026-01-01T00:00:00Z") + line(2, "mine", at="2026-03-01T00:00:00Z")
    theirs = line(1, "new", at="2026-02-01T01:00:00+02:00") + line(2, "theirs", at="2026-02-28T23:59:59Z")
    for number, parts in enumerate([(mine, theirs), (theirs, mine), (mine, b"\xef\xbb\xbf" + theirs)]):
        write(tmp_path / str(number), *parts)
        assert labels(Notes(tmp_path / str(number))) == {1: "new", 2: "mine"}


def test_lines_of_the_same_moment_give_the_same_whatever_the_order(tmp_path):
    a, b = line(1, "a"), line(1, "b")
    write(tmp_path / "1", a, b)
    write(tmp_path / "2", b, a)
    assert labels(Notes(tmp_path / "1")) == labels(Notes(tmp_path / "2"))


def test_merging_takes_what_is_newer_and_deletions_survive(notes, path, tmp_path):
    notes.put(SAE, "demo", 1, label="stays")
    notes.put(SAE, "demo", 2, label="goes")
    other = tmp_path / "other.jsonl"
    other.write_bytes(path.read_bytes())
    theirs = Notes(other)
    theirs.put(SAE, "demo", 2, label="", notes="")
    theirs.put(SAE, "demo", 3, label="comes")
    assert labels(theirs) == {1: "stays", 3: "comes"}
    assert notes.merge(other) == 2
    assert labels(notes) == {1: "stays", 3: "comes"}
    assert notes.merge(other) == 0
    # the other way round an old label must not come back
    write(tmp_path / "ancient", line(2, "goes"))
    assert notes.merge(tmp_path / "ancient") == 0
    assert 2 not in notes.of(SAE)


def test_emptying_what_never_was_writes_nothing(notes, path):
    notes.put(SAE, "demo", 2, label="")
    assert not path.exists()


def test_the_last_change_counts_even_where_another_clock_was_ahead(notes, path):
    write(path, line(1, "from the future", at="2199-01-01T00:00:00Z"))
    notes.put(SAE, "demo", 1, label="now")
    assert labels(Notes(path)) == {1: "now"}
    write(path, path.read_bytes(), line(1, "from the future", at="2199-01-01T00:00:00Z"))
    assert labels(Notes(path)) == {1: "now"}


BROKEN = [
    b"<<<<<<< mine",
    b'{"sae": "ab", "feature": 1, "label": "cut',
    b'{"sae": "ab", "feature": -1, "label": "", "notes": "", "changed": "2026-01-01T00:00:00Z"}',
    b'{"sae": "ab", "feature": 1, "label": 3, "notes": "", "changed": "2026-01-01T00:00:00Z"}',
    b'{"sae": "ab", "feature": 1, "label": "no time zone", "changed": "2026-01-01T00:00:00"}',
    b"\xff\xfe\x00",
    b"[" * 100_000,
]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_line_is_reported_and_kept(notes, path, broken):
    write(path, line(1, "one"), broken + b"\r\n", line(2, "two"))
    assert labels(notes) == {1: "one", 2: "two"}
    assert len(notes.problems) == 1
    assert notes.problems[0].startswith(f"Line 2 of {path} is no note: ")
    notes.put(SAE, "demo", 3, label="three")
    notes.put(SAE, "demo", 3, label="three again")
    assert path.read_bytes().split(b"\n")[3:] == [broken, b""]
    assert labels(Notes(path)) == {1: "one", 2: "two", 3: "three again"}


def test_a_merge_conflict_of_git_settles_itself(notes, path):
    parts = (b"<<<<<<< a\n", line(1, "a"), b"=======\n", line(1, "b", at="2026-05-01T00:00:00Z"), b">>>>>>> b\n")
    write(path, *parts)
    assert labels(notes) == {1: "b"}
    assert [problem.split(" of ")[0] for problem in notes.problems] == ["Line 1", "Line 3", "Line 5"]


def test_thousands_of_broken_lines_are_kept_and_some_are_named(notes, path):
    write(path, *(b"garbage %d\n" % i for i in range(30_000)))
    assert notes.of(SAE) == {}
    assert len(notes.problems) == notes_module.MAX_PROBLEMS
    notes.put(SAE, "demo", 1, label="one")
    assert path.read_bytes().count(b"garbage") == 30_000


def test_what_a_newer_version_added_stays_in_lines_that_do_not_change(notes, path):
    write(path, line(1, "one", colour="red"), line(2, "two"))
    notes.put(SAE, "demo", 2, label="changed")
    assert json.loads(path.read_bytes().split(b"\n")[0])["colour"] == "red"
    assert labels(notes) == {1: "one", 2: "changed"}


def test_a_label_of_a_foreign_file_is_one_line(notes, path):
    write(path, line(1, "a\x1b[31mb\nc", "x\n\ty"))
    note = notes.of(SAE)[1]
    assert (note.label, note.notes) == ("a␛[31mb⏎c", "x\n\ty")
    assert isinstance(note, Note)


def test_a_label_keeps_the_joiners_of_its_script(notes, path):
    write(path, line(1, "می\u200cخواهم 👩\u200d🔬"))
    assert labels(notes) == {1: "می\u200cخواهم 👩\u200d🔬"}


def test_what_utf8_cannot_hold_does_not_stop_a_note(notes):
    notes.put(SAE, "\udcff", 1, label="odd \udcff byte")
    assert labels(notes) == {1: "odd ? byte"}


def test_a_change_by_another_app_is_seen_and_not_overwritten(notes, path):
    notes.put(SAE, "demo", 1, label="mine")
    assert labels(notes) == {1: "mine"}
    Notes(path).put(SAE, "demo", 2, label="theirs")
    assert labels(notes) == {1: "mine", 2: "theirs"}
    Notes(path).put(SAE, "demo", 3, label="too")
    notes.put(SAE, "demo", 1, label="mine again")
    assert labels(Notes(path)) == {1: "mine again", 2: "theirs", 3: "too"}


def put_many(path, start):
    for feature in range(start, start + 25):
        Notes(path).put(SAE, "demo", feature, label=str(feature))


def test_processes_that_write_at_the_same_time_lose_nothing(notes, path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=put_many, args=(path, start)) for start in (0, 100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert labels(notes) == {f: str(f) for start in (0, 100) for f in range(start, start + 25)}


def test_a_link_stays_a_link(path, tmp_path):
    shared = tmp_path / "repository" / "notes.jsonl"
    write(shared, line(1, "one"))
    path.parent.mkdir(parents=True)
    path.symlink_to(shared)
    Notes(path).put(SAE, "demo", 2, label="two")
    assert path.is_symlink()
    assert labels(Notes(shared)) == {1: "one", 2: "two"}


def test_a_failed_write_leaves_the_old_file(notes, path, monkeypatch):
    notes.put(SAE, "demo", 1, label="one")
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(notes_module.os, "fsync", full)
    with pytest.raises(NotesError, match="No space left"):
        notes.put(SAE, "demo", 1, label="two")
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == [".notes.jsonl.lock", "notes.jsonl"]


def test_a_lock_that_is_never_let_go_is_an_error(notes, path, monkeypatch):
    notes.put(SAE, "demo", 1, label="one")
    monkeypatch.setattr(notes_module, "LOCK_SECONDS", 0.1)
    with notes_module.locked(path), pytest.raises(NotesError, match="Another program"):
        notes.put(SAE, "demo", 2, label="two")
    notes.put(SAE, "demo", 2, label="two")


@pytest.mark.skipif(os.name != "posix", reason="permissions are posix's")
@pytest.mark.parametrize("what", ["folder in its place", "file as folder", "too large"])
def test_a_file_that_cannot_be_used_says_why(tmp_path, what, monkeypatch):
    path = tmp_path / "notes.jsonl"
    if what == "folder in its place":
        path.mkdir()
    elif what == "too large":
        monkeypatch.setattr(notes_module, "MAX_FILE", 100)
        write(path, line(1, "long " * 50))
    else:
        path.write_text("")
        path /= "notes.jsonl"
    with pytest.raises(NotesError, match=r"notes.jsonl"):
        Notes(path).of(SAE)
    with pytest.raises(NotesError, match=r"notes.jsonl"):
        Notes(path).put(SAE, "demo", 1, label="one")


def test_merging_a_file_that_holds_no_notes_or_is_missing_is_an_error(notes, tmp_path):
    with pytest.raises(NotesError, match="no file"):
        notes.merge(tmp_path / "missing")
    (tmp_path / "text").write_text("Dear diary,\n")
    with pytest.raises(NotesError, match="holds no notes: Line 1"):
        notes.merge(tmp_path / "text")
    (tmp_path / "empty").write_text("")
    assert notes.merge(tmp_path / "empty") == 0


def test_a_note_that_is_too_long_is_refused_and_the_rest_stays(notes):
    notes.put(SAE, "demo", 1, label="one")
    with pytest.raises(NotesError, match="too long"):
        notes.put(SAE, "demo", 1, notes="x" * notes_module.MAX_LINE)
    assert labels(notes) == {1: "one"}


def test_a_note_is_a_plain_record(notes):
    notes.put(SAE, "demo", 1, label="one")
    assert msgspec.json.decode(msgspec.json.encode(notes.of(SAE)[1]), type=Note) == notes.of(SAE)[1]
