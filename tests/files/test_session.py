"""The session file: what goes in comes out, and a bad file or a failed write loses nothing."""

import json
import shutil
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import samples

from engine.cli.run import main
from engine.files import session
from engine.files.autosave import AutosaveStore
from engine.files.export import formats as export
from engine.files.session import EditSlot, Session, Workspace
from engine.records import Attribution, Generated, MinimalSet, ProbeTable, Prompt, PromptSet, Ranking, Sampling
from engine.records.errors import SessionError

RESULTS = (samples.RANKING, samples.GENERATED, samples.PROBES, samples.ATTRIBUTION, samples.MINIMAL_SET)

VERSION_1 = Path(__file__).parents[1] / "golden" / "session_version_1.json"
VERSION_2 = VERSION_1.with_name("session_version_2.json")
VERSION_2 = VERSION_1.with_name("session_version_2.json")


@pytest.fixture
def full():
    """A session with everything in it."""
    found = session.new(samples.LOAD, samples.LOADED)
    for result in RESULTS:
        found = session.add(found, result, samples.PROMPT_SET)
    return found


@pytest.fixture
def path(full, tmp_path):
    path = tmp_path / "run.saescope.json"
    session.write(full, path)
    return path


def test_what_is_written_is_read_back_equal(full, path):
    assert session.read(path) == full
    session.write(session.read(path), path)
    assert session.read(path) == full


def test_results_are_kept_in_the_order_they_came_and_a_prompt_set_once(full):
    assert full.of(Ranking) == (samples.RANKING,)
    assert full.of(Generated) == (samples.GENERATED,)
    assert full.of(ProbeTable) == (samples.PROBES,)
    assert full.of(Attribution) == (samples.ATTRIBUTION,)
    assert full.of(MinimalSet) == (samples.MINIMAL_SET,)
    assert full.prompt_sets == (samples.PROMPT_SET,)
    twice = session.add(full, samples.RANKING)
    assert twice.of(Ranking) == (samples.RANKING,) * 2
    assert len(full.of(Ranking)) == 1


def test_only_its_owner_may_read_it(path):
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_version_is_the_first_thing_in_the_file(path):
    assert path.read_text("utf-8").splitlines()[1] == f'  "saescope_session": {session.VERSION},'


def test_missing_folders_are_made_and_nothing_is_left_beside_the_file(full, tmp_path):
    path = tmp_path / "a" / "b" / "run.saescope.json"
    session.write(full, path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_link_stays_one_and_what_it_leads_to_is_written(full, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "run.saescope.json"
    link.symlink_to(tmp_path / "elsewhere" / "real.json")
    for written in (session.new(samples.LOAD), full):
        session.write(written, link)
        assert link.is_symlink() and session.read(tmp_path / "elsewhere" / "real.json") == written


@pytest.mark.parametrize("broken", ["os.replace", "os.fdopen"])
def test_a_failing_write_leaves_the_old_file_and_no_litter(full, path, monkeypatch, broken):
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(broken, fail)
        with pytest.raises(SessionError, match="No space left on device") as caught:
            session.write(session.add(full, samples.RANKING), path)
    assert str(path) in caught.value.message
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_place_that_cannot_be_written_is_an_error(full, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SessionError, match="cannot be written"):
        session.write(full, tmp_path / "file" / "run.saescope.json")


def rewritten(path, change):
    raw = json.loads(path.read_text("utf-8"))
    change(raw)
    path.write_text(json.dumps(raw), "utf-8")


def test_a_newer_version_says_to_update(path):
    rewritten(path, lambda raw: raw.update(saescope_session=session.VERSION + 1, novelty=1))
    with pytest.raises(SessionError, match="newer saescope") as caught:
        session.read(path)
    assert caught.value.remedy == "Update saescope."


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda raw: raw["results"][0]["features"][0].update(t="high"), "results[0].features[0].t"),
        (lambda raw: raw["loaded"].pop("d_sae"), "d_sae"),
        (lambda raw: raw.update(extra=1), "extra"),
        (lambda raw: raw.update(results={}), "results"),
        (lambda raw: raw["load"].update(type="Rank"), "load"),
    ],
)
def test_a_damaged_field_is_named(path, change, field):
    rewritten(path, change)
    with pytest.raises(SessionError, match="is damaged") as caught:
        session.read(path)
    assert str(path) in caught.value.message
    assert field in caught.value.message


def test_a_truncated_file_says_so(path):
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SessionError, match="not a session file") as caught:
        session.read(path)
    assert "cut off" in caught.value.remedy


@pytest.mark.parametrize("content", [b"", b"hello", b"[]", b"{}", b'{"saescope_session": "1"}', b"\xff\xfe\x00", b"3"])
def test_a_file_of_another_kind_is_not_a_session(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(SessionError, match="is not a session file"):
        session.read(path)


def test_a_missing_file_and_a_folder_cannot_be_read(tmp_path):
    for place in (tmp_path / "none.json", tmp_path):
        with pytest.raises(SessionError, match="cannot be read"):
            session.read(place)


def test_number_lists_stay_on_one_line_and_items_have_their_own():
    text = session.layout({"ids": [1, 2, 3], "none": [], "items": [{"a": 1.5}, {"a": None}], "names": ["x", "é"]})
    assert text.splitlines() == [
        "{",
        '  "ids": [1, 2, 3],',
        '  "none": [],',
        '  "items": [',
        "    {",
        '      "a": 1.5',
        "    },",
        "    {",
        '      "a": null',
        "    }",
        "  ],",
        '  "names": ["x", "é"]',
        "}",
    ]


def test_the_layout_is_json_whatever_is_in_it(full):
    builtins = msgspec.to_builtins(full)
    assert msgspec.convert(json.loads(session.layout(builtins)), Session) == full
    odd = {"a": {"b": [[1, 2], []], "c": {}}, 'quo"te': "line\nbreak", "d": [{"x": [1]}, [{"y": 2}]]}
    assert json.loads(session.layout(odd)) == odd


def test_one_changed_number_changes_one_line(full):
    before = session.layout(msgspec.to_builtins(full)).splitlines()
    ranking = msgspec.structs.replace(samples.RANKING, n_active_features=9)
    changed = msgspec.structs.replace(full, results=(ranking, *full.results[1:]))
    after = session.layout(msgspec.to_builtins(changed)).splitlines()
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1


def test_a_new_session_knows_when_it_was_made():
    created = datetime.fromisoformat(session.new(samples.LOAD, samples.LOADED).created)
    assert abs(datetime.now(UTC) - created) < timedelta(minutes=1)


def test_one_changed_effect_changes_one_line(full):
    before = session.layout(msgspec.to_builtins(full)).splitlines()
    found = samples.ATTRIBUTION
    row = msgspec.structs.replace(found.features[1], exact=0.5)
    found = msgspec.structs.replace(found, features=(found.features[0], row, *found.features[2:]))
    after = session.layout(msgspec.to_builtins(samples.instead(full, found))).splitlines()
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert [b.strip() for _, b in changed] == ['"exact": 0.5,']


def test_a_file_from_before_attribution_is_still_read(full, tmp_path):
    path = copy_of_version_2(tmp_path)

    def as_it_was(raw):
        del raw["attributions"], raw["minimal_sets"]
        for ranking in raw["rankings"]:
            del ranking["permutations"]
            for row in ranking["features"]:
                del row["p"], row["loo"]
        probes = [p for s in raw["prompt_sets"] for p in s["probes"]]
        for probe in [*probes, *(row["probe"] for t in raw["probe_tables"] for row in t["rows"])]:
            del probe["covariate"], probe["right"]

    rewritten(path, as_it_was)
    found = session.read(path)
    assert (found.of(Attribution), found.of(MinimalSet)) == ((), ())
    assert found.prompt_sets == full.prompt_sets
    assert found.of(ProbeTable) == full.of(ProbeTable)
    assert [row.p for row in found.of(Ranking)[0].features] == [None, None]
    assert found.of(Ranking)[0].permutations == 0


def copy_of_version_2(folder):
    return Path(shutil.copy(VERSION_2, folder / "version_2.saescope.json"))


def test_a_file_of_version_2_has_one_list_of_results_now(tmp_path):
    assert json.loads(VERSION_2.read_text("utf-8"))["saescope_session"] == 2
    found = session.read(VERSION_2)
    load = msgspec.structs.replace(found.load, bos="always")  # there was no choice
    assert found == msgspec.structs.replace(samples.whole_session(), created=found.created, load=load)
    session.write(found, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text("utf-8"))["saescope_session"] == session.VERSION
    assert session.read(tmp_path / "x.json") == found


@pytest.mark.parametrize("lists", [{"rankings": {}}, {"generations": [1]}, {"probe_tables": None}])
def test_a_file_of_version_2_with_a_damaged_list_is_refused(tmp_path, lists):
    path = copy_of_version_2(tmp_path)
    rewritten(path, lambda raw: raw.update(lists))
    with pytest.raises(SessionError, match=f"{next(iter(lists))} is not a list"):
        session.read(path)


def test_a_file_of_version_2_whose_result_is_in_another_kinds_list_is_refused(tmp_path):
    path = copy_of_version_2(tmp_path)
    rewritten(path, lambda raw: raw["rankings"].append(raw["generations"][0]))
    with pytest.raises(SessionError, match="rankings"):
        session.read(path)


def test_a_file_of_version_1_is_read_as_what_it_meant_and_written_as_todays(full, tmp_path):
    found = session.read(VERSION_1)
    assert json.loads(VERSION_1.read_text("utf-8"))["saescope_session"] == 1
    assert found.workspace.edits == (EditSlot(3), EditSlot(4, -0.5, on=False))
    assert found.workspace.prompts.settings == {"scale": 0.125, "positions": "all"}  # a study's scale, not an edit's
    assert found.workspace.labels == {4133: "women", 7: ""}
    load = msgspec.structs.replace(full.load, bos="always")  # there was no choice
    assert found == msgspec.structs.replace(full, created=found.created, workspace=found.workspace, load=load)
    session.write(found, tmp_path / "x.json")
    assert session.read(tmp_path / "x.json") == found
    assert json.loads((tmp_path / "x.json").read_text("utf-8"))["saescope_session"] == session.VERSION


def test_version_1_is_exported_and_opened_from_the_autosave(tmp_path, capsys):
    assert main(["export", str(VERSION_1), "--format", "md"]) == 0
    assert "4133 ablated, 574 x 0.125" in capsys.readouterr().out
    store = AutosaveStore(tmp_path / "sessions.sqlite3")
    found = session.read(VERSION_1)
    store.save("old", "mine", found)
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE sessions SET body = ?", (VERSION_1.read_bytes(),))
    assert store.load("old") == found
    assert not store.notice


def test_a_version_above_1_does_not_know_an_edits_scale(path):
    rewritten(path, lambda raw: raw["results"][1]["edits"][0].update(scale=0.5))
    with pytest.raises(SessionError, match="scale"):
        session.read(path)


def test_texts_with_all_there_can_be_to_them_are_read_back_equal(full, tmp_path):
    found = session.add(full, samples.ARMS)
    session.write(found, tmp_path / "x.json")
    assert session.read(tmp_path / "x.json") == found
    assert session.decode(msgspec.json.encode(found), "it") == found


# ---- the app's workspace


WORKSPACE = Workspace(
    prompts=PromptSet(
        "mine", (Prompt("a", "chat", "b"),), description="c", settings={"scale": 0.125, "positions": "all"}
    ),
    question="Who?\n\u2028",
    raw=True,
    edits=(
        EditSlot(3),
        EditSlot(4, -0.5, on=False),
        EditSlot(5, 2.0, "set", "last", absolute=7.25, on=False),
        EditSlot(kind="reconstruct", at="first-step"),
    ),
    pinned=(4133, 7),
    labels={4133: "women", 7: ""},
    feature=7,
    sampling=Sampling(8, 0.5, 2**63 - 1, 40, 0.9, 0.05, (".", "\n")),
    prefill="It is",
    samples=3,
    restart=True,
)


def test_a_workspace_is_read_back_equal_with_and_without_results(full, tmp_path):
    for found in (full, session.new(samples.LOAD)):
        found = msgspec.structs.replace(found, workspace=WORKSPACE)
        session.write(found, tmp_path / "x.json")
        assert session.read(tmp_path / "x.json") == found
        assert session.decode(msgspec.json.encode(found), "x") == found


def test_a_file_from_before_the_workspace_is_still_read(full, tmp_path):
    path = copy_of_version_2(tmp_path)

    def as_it_was(raw):
        del raw["workspace"]
        for prompt_set in raw["prompt_sets"]:
            del prompt_set["description"], prompt_set["settings"]
            for prompt in (*prompt_set["positive"], *prompt_set["negative"]):
                del prompt["breaks"]
        for generated in raw["generations"]:
            del generated["baseline"]["margins"], generated["edited"]["margins"]
        del raw["loaded"]["reference_fingerprint"]

    rewritten(path, as_it_was)
    found = session.read(path)
    assert found.workspace is None
    assert found.prompt_sets == full.prompt_sets
    assert found.of(Generated)[0] == samples.GENERATED
    assert found.loaded == msgspec.structs.replace(samples.LOADED, reference_fingerprint="")


def test_a_session_saved_before_anything_was_loaded(tmp_path, capsys):
    path = tmp_path / "x.json"
    session.write(session.new(samples.LOAD), path)
    found = session.read(path)
    assert found.loaded is None
    assert main(["replay", str(path)]) == 1
    assert "holds no results to replay" in capsys.readouterr().err
    assert "- nothing was loaded" in export.to_markdown(found)
    assert msgspec.json.decode(export.to_jsonl(found), type=type(samples.LOAD)) == samples.LOAD
    assert main(["export", str(path), "--format", "csv"]) == 2


def test_a_text_that_cannot_be_utf8_is_written_and_read_again(path):
    odd = msgspec.structs.replace(session.read(path), created="caf\udce9 \ud800")
    session.write(odd, path)
    assert session.read(path) == odd
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SessionError, match="not a session file"):
        session.read(path)


def test_deep_nesting_is_not_a_session():
    with pytest.raises(SessionError, match="not a session file"):
        session.decode(b"[" * 100_000 + b"]" * 100_000, "this")
