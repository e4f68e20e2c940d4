"""Explanations out of exports: what is read, what is refused, what is kept."""

import gzip
import json
import random
import stat

import msgspec
import pytest
import samples

from engine.files import explanations as module
from engine.files.explanations import Explanations, address
from engine.records.errors import NotesError

LOADED = msgspec.structs.replace(
    samples.LOADED, neuronpedia="gpt2-small/8-res-jb", sae_fingerprint="ab" * 32, d_sae=100
)

OTHER = msgspec.structs.replace(LOADED, sae_fingerprint="cd" * 32)


def record(index, description, **more):
    """One explanation with the fields that exports have."""
    fields = {
        "id": "cl1",
        "modelId": "gpt2-small",
        "layer": "8-res-jb",
        "index": index,
        "description": description,
        "embedding": [0.1, 0.2],
        "typeName": "oai_token-act-pair",
        "explanationModelName": "gpt-4o-mini",
    }
    return {name: value for name, value in (fields | more).items() if value is not None}


def lines(*records):
    return b"".join(json.dumps(r).encode() + b"\n" for r in records)


RECORDS = [record("3", "references to women"), record(7, "the word “nurse”"), record("99", "ends of lists")]

EXPECTED = {3: "references to women", 7: "the word “nurse”", 99: "ends of lists"}


@pytest.fixture
def kept(tmp_path):
    return Explanations(tmp_path / "data" / "saescope" / "explanations")


@pytest.mark.parametrize("name", ["batch-0.jsonl", "batch-0.jsonl.gz", "export.json"])
def test_every_kind_of_file_is_read_and_shows_up_again(kept, tmp_path, name):
    data = json.dumps(RECORDS).encode() if name.endswith(".json") else lines(*RECORDS)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    added = kept.add(LOADED, tmp_path / name)
    assert (added.count, added.skipped) == (3, 0)
    assert Explanations(kept.path).of(LOADED.sae_fingerprint) == EXPECTED
    assert kept.of(OTHER.sae_fingerprint) == {}


def test_a_folder_of_batches_is_read_whole_and_a_later_import_replaces(kept, tmp_path):
    folder = tmp_path / "explanations"
    folder.mkdir()
    for number, one in enumerate(RECORDS):
        (folder / f"batch-{number}.jsonl.gz").write_bytes(gzip.compress(lines(one)))
    (folder / "README.txt").write_text("no export")
    assert kept.add(LOADED, folder).count == 3
    (tmp_path / "new.jsonl").write_bytes(lines(record("7", "nurses"), record("8", "doctors")))
    kept.add(LOADED, tmp_path / "new.jsonl")
    assert kept.of(LOADED.sae_fingerprint) == EXPECTED | {7: "nurses", 8: "doctors"}


def test_of_several_explanations_of_a_feature_the_first_counts(kept, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines(record("3", "first"), record(3, "second")))
    assert kept.add(LOADED, tmp_path / "a.jsonl").count == 1
    assert kept.of(LOADED.sae_fingerprint) == {3: "first"}


def test_what_is_kept_is_its_owners_and_nothing_lies_beside_it(kept, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines(*RECORDS))
    kept.add(LOADED, tmp_path / "a.jsonl")
    file = kept.path / f"{LOADED.sae_fingerprint}.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o700
    assert {path.name for path in kept.path.iterdir()} == {file.name, f".{file.name}.lock"}


def test_they_are_kept_in_the_users_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert Explanations().path == tmp_path / "saescope" / "explanations"


def test_a_fingerprint_never_leaves_the_folder(kept, tmp_path):
    odd = msgspec.structs.replace(LOADED, sae_fingerprint="../../escaped")
    (tmp_path / "a.jsonl").write_bytes(lines(*RECORDS))
    kept.add(odd, tmp_path / "a.jsonl")
    assert kept.of("../../escaped") == EXPECTED
    assert all("escaped" not in path.name or path.parent == kept.path for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("other", [{"modelId": "gemma-2-2b"}, {"layer": "9-res-jb"}])
def test_an_export_of_another_sae_is_refused_and_nothing_is_kept(kept, tmp_path, other):
    (tmp_path / "a.jsonl").write_bytes(lines(*RECORDS, record(4, "other", **other)))
    with pytest.raises(NotesError, match="not of gpt2-small/8-res-jb"):
        kept.add(LOADED, tmp_path / "a.jsonl")
    assert kept.of(LOADED.sae_fingerprint) == {}


def test_a_feature_the_sae_does_not_have_shows_another_sae(kept, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines(record(100, "beyond", modelId=None)))
    with pytest.raises(NotesError, match="features 0 to 99"):
        kept.add(LOADED, tmp_path / "a.jsonl")


def test_where_the_sae_has_no_page_one_export_must_at_least_agree_with_itself(kept, tmp_path):
    nameless = msgspec.structs.replace(LOADED, neuronpedia="")
    (tmp_path / "a.jsonl").write_bytes(lines(*RECORDS))
    assert kept.add(nameless, tmp_path / "a.jsonl").count == 3
    (tmp_path / "b.jsonl").write_bytes(lines(*RECORDS, record(4, "other", layer="9-res-jb")))
    with pytest.raises(NotesError, match="not of gpt2-small/8-res-jb"):
        kept.add(nameless, tmp_path / "b.jsonl")


def test_records_without_names_are_taken_and_case_does_not_matter(kept, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(
        lines(record(1, "one", modelId=None, layer=None), record(2, "two", modelId="GPT2-small"))
    )
    assert kept.add(LOADED, tmp_path / "a.jsonl").count == 2


NO_EXPLANATION = [
    b"not json",
    b"[" * 50_000,
    b"\xff\xfe",
    b"null",
    b"[]",
    b'"text"',
    b'{"index": 5}',
    b'{"description": "d"}',
    b'{"index": -1, "description": "d"}',
    b'{"index": "-1", "description": "d"}',
    b'{"index": true, "description": "d"}',
    b'{"index": 1.5, "description": "d"}',
    b'{"index": "999999999999999999999", "description": "d"}',
    b'{"index": 5, "description": null}',
    b'{"index": 5, "description": " \\t "}',
    b'{"index": 5, "description": "' + b"x" * 2**20 + b'"}',
]


@pytest.mark.parametrize("garbage", NO_EXPLANATION, ids=range(len(NO_EXPLANATION)))
def test_a_line_that_is_no_explanation_is_counted_and_left_out(kept, tmp_path, garbage):
    (tmp_path / "a.jsonl").write_bytes(lines(RECORDS[0]) + garbage + b"\n\n" + lines(*RECORDS[1:]))
    added = kept.add(LOADED, tmp_path / "a.jsonl")
    assert (added.count, added.skipped) == (3, 1)
    (tmp_path / "only.jsonl").write_bytes(garbage)
    with pytest.raises(NotesError, match="holds no explanations"):
        kept.add(LOADED, tmp_path / "only.jsonl")
    assert kept.of(LOADED.sae_fingerprint) == EXPECTED


@pytest.mark.parametrize("damage", ["cut", "not gzip", "flipped", "missing", "kind", "empty folder", "no list"])
def test_files_that_cannot_be_read_say_why(kept, tmp_path, damage):
    packed = gzip.compress(lines(*(record(i, f"about {i} {i * i}") for i in range(90))))
    path = tmp_path / "a.jsonl.gz"
    if damage == "cut":
        path.write_bytes(packed[:-40])
    elif damage == "not gzip":
        path.write_bytes(lines(*RECORDS))
    elif damage == "flipped":
        path.write_bytes(packed[:60] + bytes(b ^ 255 for b in packed[60:120]) + packed[120:])
    elif damage == "kind":
        path = tmp_path / "a.csv"
        path.write_text("3,women")
    elif damage == "empty folder":
        path = tmp_path / "folder"
        path.mkdir()
    elif damage == "no list":
        path = tmp_path / "a.json"
        path.write_bytes(json.dumps({"explanations": RECORDS}).encode())
    with pytest.raises(NotesError, match=path.name) as caught:
        kept.add(LOADED, path)
    assert caught.value.remedy
    assert kept.of(LOADED.sae_fingerprint) == {}


def test_no_damage_at_random_gets_past_the_errors(kept, tmp_path):
    draw = random.Random(0)
    for name, data in {"a.jsonl": lines(*RECORDS), "a.jsonl.gz": gzip.compress(lines(*RECORDS))}.items():
        for _ in range(100):
            damaged = bytearray(data)
            for _ in range(draw.randrange(1, 4)):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            (tmp_path / name).write_bytes(damaged)
            try:
                kept.add(LOADED, tmp_path / name)
            except NotesError as error:
                assert error.message
            assert all(isinstance(text, str) for text in kept.of(LOADED.sae_fingerprint).values())


@pytest.mark.parametrize("limit", ["MAX_FILE", "MAX_RECORDS"])
def test_a_small_file_that_unpacks_without_end_is_stopped(kept, tmp_path, monkeypatch, limit):
    monkeypatch.setattr(module, limit, 2**16)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"\n" * 2**17 + lines(*RECORDS)))
    with pytest.raises(NotesError, match="longer than"):
        kept.add(LOADED, tmp_path / "a.jsonl.gz")


def test_texts_are_cut_and_hold_nothing_that_a_terminal_obeys(kept, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines(record(1, "a\x1b[2J\n b\t c"), record(2, "x" * 5000)))
    kept.add(LOADED, tmp_path / "a.jsonl")
    found = kept.of(LOADED.sae_fingerprint)
    assert found[1] == "a␛[2J b c"
    assert found[2] == "x" * 999 + "…"


def test_what_is_kept_and_damaged_is_an_error_that_names_the_file(kept, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines(*RECORDS))
    kept.add(LOADED, tmp_path / "a.jsonl")
    file = kept.path / f"{LOADED.sae_fingerprint}.json"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(NotesError, match=file.name):
        kept.of(LOADED.sae_fingerprint)


def test_an_import_by_another_app_is_seen(kept, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines(RECORDS[0]))
    kept.add(LOADED, tmp_path / "a.jsonl")
    assert len(kept.of(LOADED.sae_fingerprint)) == 1
    (tmp_path / "b.jsonl").write_bytes(lines(*RECORDS))
    Explanations(kept.path).add(LOADED, tmp_path / "b.jsonl")
    assert kept.of(LOADED.sae_fingerprint) == EXPECTED


def test_a_folder_that_may_not_be_listed_is_an_error_in_words(kept, tmp_path, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module.Path, "iterdir", refused)
    with pytest.raises(NotesError, match=r"cannot be read: Permission denied\."):
        kept.add(LOADED, tmp_path)


def test_the_address_of_a_feature():
    assert address(LOADED, 7) == "https://www.neuronpedia.org/gpt2-small/8-res-jb/7"
    assert address(msgspec.structs.replace(LOADED, neuronpedia=""), 7) is None
