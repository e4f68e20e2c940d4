"""One byte that is no UTF-8, where a session, keys or a theme is read: the app starts, says so, and loses nothing."""

import asyncio
import sqlite3
from contextlib import closing, suppress

import msgspec
import pytest
import samples
from damage import damaged
from fake_engine import opened, small_study
from on_screen import dialog, running, save_as, stored
from textual.widgets import Input, OptionList

import saescope
from engine.cli.run import main
from engine.files import session as sessions
from engine.files.autosave import AutosaveStore
from engine.records import Load
from engine.records.errors import SessionError
from tui.commands import attribution
from tui.commands.sessions import exchange
from tui.state.study import Study
from tui.widgets.dialogs import AskText, Choose


def spoiled(data):
    """With a byte that is no UTF-8 inside a string."""
    at = data.index(b"lead")
    return data[:at] + b"\xff" + data[at + 1 :]


def spoil_stored(store, id):
    """Spoils a stored session; returns its bytes."""
    with closing(sqlite3.connect(store.path)) as db:
        (body,) = db.execute("SELECT body FROM sessions WHERE id = ?", (id,)).fetchone()
        db.execute("UPDATE sessions SET body = ? WHERE id = ?", (spoiled(body), id))
        db.commit()
    return spoiled(body)


@pytest.fixture
def store(tmp_path):
    """A store whose newest session is spoiled; the one before is whole."""
    store = AutosaveStore(tmp_path / "sessions.sqlite3")
    store.save("whole", "whole", samples.whole_session())
    store.save("bad", "mine", samples.whole_session())
    return store


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "bad.saescope.json"
    sessions.write(samples.whole_session(), path)
    path.write_bytes(spoiled(path.read_bytes()))
    return path


# ---- in the store


def test_plain_saescope_starts_and_offers_the_session_before(tmp_path, store):
    body = spoil_stored(store, "bad")

    async def start(key):
        async with opened(tmp_path, store=store, offer_last=True) as b:
            await dialog(b, Choose, "Welcome back")
            (said,) = b.errors()
            (copy,) = tmp_path.glob("damaged-*")
            assert "The stored session 'mine' is not a session file: byte" in said and str(copy) in said
            assert copy.read_bytes() == body and copy.stat().st_mode & 0o777 == 0o600
            await b.press(key)
            await b.until(lambda: b.top is b.main and (b.study.id == "whole") == (key == "enter"))

    asyncio.run(start("escape"))
    asyncio.run(start("enter"))  # again, with one copy
    assert {info.id for info in store.all()} == {"whole", "bad"}


def test_it_starts_where_no_other_session_is(tmp_path, store):
    store.delete("whole")
    spoil_stored(store, "bad")

    async def start():
        async with opened(tmp_path, store=store, offer_last=True) as b:
            assert b.top is b.main and "'mine' is not a session file" in b.errors()[0]
            await b.press("d")
            await stored(b)

    asyncio.run(start())
    assert [info.id for info in store.all()][1:] == ["bad"]


def test_choosing_it_is_told_and_the_app_goes_on(tmp_path, store):
    spoil_stored(store, "bad")

    async def choose():
        async with opened(tmp_path, store=store) as b:
            before = b.study
            await b.press("ctrl+o")
            await dialog(b, Choose, "Open a session")
            assert b.top.query_one(OptionList).option_count == 3
            await b.press("down", "enter")
            await b.until(lambda: b.errors() and "'mine' is not a session file" in b.errors()[-1])
            assert b.top is b.main and b.study is before
            await b.press("ctrl+o")
            await dialog(b, Choose, "Open a session")
            await b.press("down", "down", "enter")
            await b.until(lambda: b.study.id == "whole")

    asyncio.run(choose())


def test_a_copy_that_cannot_be_made_leaves_it_where_it_is(tmp_path, store, monkeypatch):
    spoil_stored(store, "bad")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.files.autosave.open", full, raising=False)
    with pytest.raises(SessionError, match="No space left on device") as caught:
        store.load("bad")
    assert f"It stays in {store.path}" in caught.value.message


def test_no_copy_is_made_of_what_a_newer_saescope_wrote(tmp_path, store):
    with closing(sqlite3.connect(store.path)) as db:
        db.execute("UPDATE sessions SET body = ? WHERE id = 'bad'", (b'{"saescope_session": 99}',))
        db.commit()
    assert store.latest().info.id == "whole"
    assert "Update" not in store.notice and "newer saescope" in store.notice
    assert not list(tmp_path.glob("damaged-*"))


# ---- in a file


@running
async def test_opening_and_saving_over_it_in_the_app(tmp_path):
    path = tmp_path / "bad.saescope.json"
    sessions.write(samples.whole_session(), path)
    content = spoiled(path.read_bytes())
    path.write_bytes(content)
    async with opened(tmp_path) as b:
        await b.press("ctrl+o")
        await dialog(b, Choose, "Open a session")
        await b.press("enter")
        await dialog(b, AskText, "Open a session file")
        b.top.query_one(Input).value = str(path)
        await b.press("enter")
        await b.until(lambda: "is no UTF-8 text" in b.words(".problem"))
        await b.press("escape")
        await b.until(lambda: b.top is b.main)
        await b.press("S")
        await dialog(b, AskText, "Save the session")
        b.top.query_one(Input).value = str(path)
        for _ in range(2):
            await b.press("enter")
            await b.until(lambda: "It is not replaced." in b.words(".problem"))
        await b.press("escape")
        await b.until(lambda: b.top is b.main)
        assert path.read_bytes() == content and b.study.file is None


@running
async def test_saving_again_to_a_file_that_was_damaged_meanwhile(tmp_path):
    async with opened(tmp_path) as b:
        await save_as(b, tmp_path / "mine")
        await b.until(lambda: b.study.file)
        content = spoiled(b.study.file.read_bytes().replace(b"Women care", b"Women lead"))
        b.study.file.write_bytes(content)
        await b.press("d", "s")
        await b.until(lambda: b.errors() and "It is not replaced." in b.errors()[-1])
        assert "S saves it elsewhere" in b.errors()[-1]
        assert b.study.file.read_bytes() == content
        await save_as(b, tmp_path / "other")
        await b.until(lambda: b.study.file.name == "other.saescope.json")


@pytest.mark.parametrize(
    "argv",
    [
        ("replay",),
        *(("export", "--format", format) for format in ("md", "jsonl", "csv")),
        *((verb, "--session") for verb in ("rank", "probes", "attribute")),
        ("generate", "Who?", "--session"),
    ],
)
def test_every_verb_says_so_in_a_sentence(file, argv, capsys):
    before = file.read_bytes()
    assert main([*argv, str(file)], connect=None) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") <= 3 and "Traceback" not in err
    assert f"{file} is not a session file: byte" in err and "Mend that byte, or use a copy." in err
    assert file.read_bytes() == before


def test_saescope_with_it_says_so_before_anything_opens(file, capsys):
    assert saescope.open_app(Load(), None, str(file)) == 1
    assert "is no UTF-8 text" in capsys.readouterr().err


# ---- and whatever else may be wrong with one


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw["results"][2]["more"].pop(), "results[2] has in `more` other texts"),
        (lambda raw: raw["results"][2]["more"].reverse(), "results[2] has in `more` other texts"),
        (lambda raw: raw["results"][2]["more"][0].update(variant=7), "other texts than its samples and variants"),
        (lambda raw: raw["results"][2]["more"][0].update(sample=10**9), "other texts than its samples"),
        (lambda raw: raw["results"][1]["edited"]["tokens"].pop(), "results[1].edited has 3 token_ids and 2"),
        (lambda raw: raw["results"][1]["edited"]["logprobs"].append(0), "results[1].edited has"),
        (lambda raw: raw["results"][2]["more"][0]["arm"]["margins"].append(1), "more[0].arm has 1 token_ids"),
        (lambda raw: raw["results"][1]["kl"].pop(), "results[1] has 3 kl for a baseline of 4 tokens"),
        (lambda raw: raw["results"][1].update(first_divergence=9), "first_divergence at 9"),
        (lambda raw: raw["results"][1].update(branched_at=0), "branched_at 0"),
        (lambda raw: raw["results"][2]["schedule"].reverse(), "schedule"),
        (lambda raw: raw["results"][1]["prompt"]["edit_mask"].pop(), "results[1].prompt has 4 token_ids"),
        (lambda raw: raw["results"][0]["prompts"][1]["tokens"].pop(), "results[0].prompts[1] has"),
        (lambda raw: raw["results"][4]["features"].append(raw["results"][4]["features"][0]), "4133 twice"),
        (lambda raw: raw["results"][5]["members"][1].update(feature=4133), "results[5] has feature 4133"),
        (lambda raw: raw["workspace"]["edits"][1].update(feature=3), "workspace has feature 3 twice in edits"),
        (lambda raw: raw["workspace"].update(samples=2**62), "workspace has 4611686018427387904 samples"),
        (lambda raw: raw["workspace"].update(feature=10**30), "workspace.feature has a whole number"),
        (lambda raw: raw["workspace"]["pinned"].append(-(10**30)), "workspace.pinned has a whole number"),
        (lambda raw: raw["workspace"].update(labels={str(10**30): "x"}), "workspace.labels: a key has a whole number"),
    ],
)
def test_parts_that_disagree_are_named(change, words):
    raw = msgspec.to_builtins(samples.whole_session(), str_keys=True)
    raw = msgspec.json.decode(sessions.layout(raw))
    change(raw)
    with pytest.raises(SessionError, match="it is damaged: ") as caught:
        sessions.decode(sessions.layout(raw).encode(), "it")
    assert words in caught.value.message and caught.value.remedy


@running
async def test_damaged_sessions_that_open_are_shown_page_by_page(tmp_path):
    content = sessions.layout(msgspec.to_builtins(samples.whole_session(), str_keys=True)).encode()
    found = []
    for number in range(100):
        with suppress(SessionError):
            found.append(sessions.decode(damaged(number, content, json_values=True), "it"))
    async with opened(tmp_path) as b:
        for session in found[:2]:
            exchange(b.main.context, Study.from_session(session))
            await b.press("C", "escape", "V", "escape", "4", "right_square_bracket", "e", "w")
            attribution.show_last_set(b.main.context)
            await b.press("escape")
            await b.until(lambda: b.top is b.main)
            assert not any("defect" in said for said in b.errors())


# ---- keys and preferences


def test_the_app_starts_with_its_own_keys_where_keys_toml_nests_too_deep(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "saescope" / "keys.toml"
    path.parent.mkdir()
    path.write_bytes(b"x = " + b"[" * 50_000)

    async def start():
        async with opened(tmp_path, small_study()) as b:
            assert f"{path} cannot be read" in b.errors()[0] and "Those keys keep their defaults." in b.errors()[0]

    asyncio.run(start())


def test_the_app_starts_with_damaged_preferences_and_sets_them_aside(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = tmp_path / "saescope" / "preferences.json"
    path.parent.mkdir()
    path.write_bytes(b"[" * 50_000)

    async def start():
        async with opened(tmp_path, small_study()) as b:
            (said,) = b.errors()
            (aside,) = path.parent.glob("preferences.json.broken-*")
            assert str(aside) in said and aside.read_bytes() == b"[" * 50_000
            b.app.switch_theme()
            await b.until(path.exists)

    asyncio.run(start())
