"""One function that makes any text safe to show; rich's texts and console on it; JSON that loses nothing."""

import io
import json
import sys
import unicodedata

import pytest
from hostile import HOSTILE, unsafe
from rich.cells import cell_len
from rich.table import Table

from engine.records.words.rich_text import Terminal, Text
from engine.records.words.safe_text import UNKNOWN, escaped, safe, to_json, visible

ORDINARY = [
    "plain",
    "two\nlines\tand a tab",
    "Größe · naïve – “quotes” …",
    "漢字かな交じり文 한국어 ไทย",
    "देवनागरी עברית العربية",
    "می\u200cخواهم",  # ZWNJ, as Persian is written
    "e\u0301 Z\u0351\u0358algo a\u00adb",
    "👍🏽 👨\u200d👩\u200d👧 ❤\ufe0f 1\ufe0f\u20e3 🏳\ufe0f\u200d🌈",
    "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",  # Scotland's flag, spelled in tags
    "葛\U000e0100城",  # a variant of an ideograph
    "␛ ⏎ ⇥ �",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays(text):
    assert safe(text) is text or safe(text) == text
    assert to_json(text) == json.dumps(text, ensure_ascii=False) or json.loads(to_json(text)) == text


def test_every_character_that_steers_or_hides_has_a_stand_in():
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if unicodedata.category(character) not in ("Cc", "Zl", "Zp", "Cs") and not 0xE0000 <= code < 0xE0FFF:
            continue
        if character in "\n\t":
            continue
        found = safe(f"a{character}b")
        assert len(found) == 3 and (found[0], found[2]) == ("a", "b") and unsafe(found) == [], hex(code)
        assert cell_len(found) == 3


@pytest.mark.parametrize("hidden", "\u200b\u2060\u2061\ufeff\u202e\u2066\u2069\u200e\u200f\u061c\u180e\ufffb")
def test_what_turns_or_hides_text_is_seen(hidden):
    assert safe(f"ad{hidden}min") == f"ad{UNKNOWN}min"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u200db", "ab"),
        ("👨\u200d ", "👨 "),
        ("\u200d👩", "👩"),
        ("a\ufe0f", "a"),
        ("x\U000e0067\U000e007f", f"x{UNKNOWN * 2}"),
        ("a\U000e0101", f"a{UNKNOWN}"),
        ("\x1b[2J\x07\x7f\r", "␛[2J␇␡␍"),
    ],
)
def test_stand_ins(text, shown):
    assert safe(text) == shown
    assert len(safe(text, joiner=UNKNOWN)) == len(text)


def test_safe_text_is_as_wide_as_it_is_measured_and_stays_when_made_safe_again():
    for text in (HOSTILE, *ORDINARY):
        assert safe(safe(text)) == safe(text)
    assert cell_len(safe("a\u200db\x1b\x9b")) == 4


def test_one_line():
    assert visible("a\tb\r\nc\x1b") == "a⇥b␍⏎c␛"


def test_json_loses_nothing_and_does_nothing():
    for value in (HOSTILE, [HOSTILE, 1.5, None], {HOSTILE: [HOSTILE]}):
        assert json.loads(to_json(value)) == value
        assert unsafe(to_json(value)) == []
    assert to_json({"a": "é漢\x1b\x9b\u202e"}) == '{"a":"é漢\\u001b\\u009b\\u202e"}'
    assert escaped('"\U000e0041"') == '"\\udb40\\udc41"'


def test_rich_texts_are_safe_however_they_are_made():
    made = [
        Text(HOSTILE, "bold"),
        Text("a").append(HOSTILE, "bold"),
        Text.assemble(HOSTILE, (HOSTILE, "bold"), Text(HOSTILE), style="dim"),
        Text("a").copy().append(HOSTILE),
    ]
    for text in made:
        assert unsafe(text.plain) == [] and "[/b]␛" in text.plain
    copied = Text("ab", "dim", no_wrap=True, end="")
    copied.stylize("bold", 1)
    assert (copied.copy(), copied.copy().spans, copied.copy().no_wrap, copied.copy().end) == (
        *(copied, copied.spans, True, ""),
    )


def test_a_terminal_prints_no_markup_and_nothing_unsafe_and_tables_stay_straight():
    out = io.StringIO()
    terminal = Terminal(file=out, width=60, force_terminal=True, color_system="truecolor")
    table = Table(HOSTILE, "b")
    table.add_row(Text("x\x1b\u200b" * 4), HOSTILE)
    table.add_row("x\x1b", "[bold]:smile:[/bold]")
    terminal.print(table)
    terminal.print(HOSTILE)
    terminal.print(Text("red", "red"))
    printed = out.getvalue()
    assert unsafe(printed) == [] and "[/b]" in printed and "[bold]:smile:[/bold]" in printed.replace("\n", "")
    assert "\x1b[31mred\x1b[0m" in printed
    lines = [line for line in printed.splitlines() if line.startswith(("│", "┃"))]
    assert lines and {cell_len(line.replace("\x1b[1m", "").replace("\x1b[0m", "")) for line in lines} == {60}
