"""Files that are no files, links, numbers beyond reason, and what libraries say of hostile files."""

import json
import logging
import os
import stat
from io import StringIO

import msgspec
import pytest
import samples
from hostile import SEQUENCES
from textual.app import App

from engine.cli.run import SafeFormatter, main
from engine.files import session
from engine.files.autosave import AutosaveStore
from engine.files.notes import Notes
from engine.models.hooks import BLOCK_HOOK
from engine.records.errors import NotesError, SessionError
from engine.records.words.safe_text import safe, to_json
from tui.app import read_keymap
from tui.services import state_folder
from tui.services.safe_lines import SafeLines
from tui.widgets.fields import LineField

SESSION = session.add(session.new(samples.LOAD, samples.LOADED), samples.RANKING, None)


def with_changes(**changes):
    return json.dumps(json.loads(to_json(SESSION)) | changes).encode()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"\ud800ated": 1, "more": 2}, "damaged"),
        ({"created": "\ud800", "note": float("nan")}, "NaN is not a number"),
        ({"created": "\ud800", "note": float("-inf")}, "-Infinity is not a number"),
        ({"saescope_session": True}, "not a session file"),
        ({"saescope_session": 0}, "not a session file"),
    ],
)
def test_a_session_that_is_none_is_refused(changes, said):
    with pytest.raises(SessionError, match=said):
        session.decode(with_changes(**changes), "It")


def test_a_number_beyond_floats_is_refused_beside_half_a_surrogate_pair():
    data = with_changes(created="\ud800", note=12345.5).replace(b"12345.5", b"1e999")
    with pytest.raises(SessionError, match="1e999 is not a number"):
        session.decode(data, "It")


@pytest.fixture
def pipe(tmp_path):
    """Makes a pipe that nobody writes to."""

    def make(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)
        return path

    return make


def test_a_pipe_in_place_of_a_file_is_refused_at_once(pipe, tmp_path, monkeypatch):
    pipe(state_folder._file(state_folder.PREFERENCES_FILE))
    assert "not a file" in state_folder.theme()[1]
    monkeypatch.setattr("platformdirs.user_config_dir", lambda name: str(tmp_path / name))
    pipe(tmp_path / "saescope" / "keys.toml")
    assert "not a file" in read_keymap()[1]
    with pytest.raises(SessionError, match="not a file"):
        session.read(pipe(tmp_path / "a.saescope.json"))
    with pytest.raises(NotesError, match="not a file"):
        Notes(pipe(tmp_path / "notes.jsonl")).of("ab")


def test_the_store_leaves_what_a_link_leads_to_alone(tmp_path):
    target = tmp_path / "target"
    target.touch()
    target.chmod(0o644)
    link = tmp_path / "state" / "sessions.sqlite3"
    link.parent.mkdir()
    link.symlink_to(target)
    AutosaveStore(link).save("a", "a", SESSION)
    assert stat.S_IMODE(target.stat().st_mode) == 0o644


def test_a_number_of_thousands_of_digits_is_refused_in_words(capsys):
    assert main(["bench", "--rows", "1" * 5000]) == 2
    assert "there are rows" in capsys.readouterr().err
    assert BLOCK_HOOK.fullmatch(f"blocks.{'9' * 5000}.hook_resid_pre") is None
    assert BLOCK_HOOK.fullmatch("blocks.16.hook_resid_pre")


def test_an_export_does_not_replace_its_session(tmp_path, capsys):
    path = tmp_path / "a.saescope.json"
    session.write(SESSION, path)
    before = path.read_bytes()
    assert main(["export", str(path), "--output", str(path)]) == 2
    assert "is the session itself" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_what_transformers_reports_goes_the_way_of_all_messages(files, tmp_path):
    """A config's value is quoted in its warnings; its own handler would show it as it is."""
    from engine.loading.hub import quiet_transformers

    quiet_transformers()
    out = StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(SafeFormatter("%(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        logging.getLogger("transformers.modeling_utils").error("value %s", SEQUENCES)
    finally:
        logging.getLogger().removeHandler(handler)
    assert not logging.getLogger("transformers").handlers
    assert "\x1b" not in out.getvalue() and "␛" in out.getvalue()


class Line(App):
    def compose(self):
        yield LineField("a\nb\tc\x07d\x1be")


async def drawn():
    async with Line().run_test(size=(40, 4)) as pilot:
        field = pilot.app.query_one(LineField)
        return field._value.plain, "".join(field.render_line(y).text for y in range(3)), field.value


def test_a_line_shows_a_sign_for_every_character():
    import asyncio

    plain, line, value = asyncio.run(drawn())
    assert plain == "a⏎b⇥c␇d␛e" and plain in line
    assert value == "a\nb\tc\x07d\x1be"


def test_no_line_break_passes_in_a_line():
    from rich.segment import Segment

    (segment,) = SafeLines().apply([Segment("a\nb")], None)
    assert "\n" not in segment.text


@pytest.mark.parametrize("char", ["\u034f", "\u115f", "\u3164", "\uffa0", "\U0001d173"])
def test_what_pads_or_hides_without_a_sign_gets_one(char):
    assert char not in safe(f"a{char}b")
    assert char not in to_json([f"a{char}b"]) and msgspec.json.decode(to_json([f"a{char}b"])) == [f"a{char}b"]


@pytest.mark.parametrize("char", ["\u200d", "\ufe0f"])
def test_json_escapes_joiners(char):
    assert char not in to_json([f"a{char}b"]) and msgspec.json.decode(to_json([f"a{char}b"])) == [f"a{char}b"]
