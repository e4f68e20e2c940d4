"""Text that is safe to show. Knows nothing of torch.

Prompts, sessions, notes, model output and file names come from anywhere, and a terminal obeys the control characters in
them: a text can set the terminal's title and clipboard, clear the screen, reverse the order of letters, or hide.
Everything shown goes through `safe`: on a terminal and in the app as rich_text's Text, in csv and markdown as a whole.
JSON must lose nothing, so `to_json` escapes instead.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

CONTROL_PICTURES = {chr(code): chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"} | {"\x7f": "␡"}

UNKNOWN = "\N{REPLACEMENT CHARACTER}"

UNSHOWN = (
    "\x7f-\x9f"  # C1 holds one-byte escape sequences
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # bidi controls reorder the screen
    "\u2028\u2029"  # line separators break lines in some terminals
    "\u034f\u17b4\u17b5\u180b-\u180d\u180f\u115f\u1160\u3164\uffa0\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\u180e\u200b\u2060-\u2065\ufeff\ufff9-\ufffb"  # no terminal shows these, yet a prompt with them has other tokens
    "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"  # tags spell out a hidden text
    "\ud800-\udfff"  # a lone surrogate can't be encoded at all
)
"""Characters that are always replaced by a stand-in.

Joiners, which Persian, Indic scripts and emoji need, and variation selectors are not among them. ZWNJ has no width
anywhere and stays. ZWJ and the request for the emoji form are measured together with their neighbours, so they stay
only inside an emoji."""

EMOJI = "\u2190-\u2bff\U0001f000-\U0001faff"

FLAG = "\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f"
"""The flag of a region, such as Scotland's, is spelled in tags."""

STRAY_JOINER = rf"(?<![{EMOJI}\ufe0f])\u200d|\u200d(?![{EMOJI}])|(?<![#*0-9©®{EMOJI}\u3030\u303d\u3297\u3299])\ufe0f"

STRAY_VARIANT = "(?<![\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])[\U000e0100-\U000e01ef]"
"""These variation selectors belong to ideographs; elsewhere they can hide a text, as tags can."""

NOT_SAFE = re.compile(rf"(?P<flag>{FLAG})|(?P<joiner>{STRAY_JOINER})|{STRAY_VARIANT}|[\x00-\x08\x0b-\x1f{UNSHOWN}]")

NOT_PLAIN = re.compile(f"[{UNSHOWN}\u200d\ufe0f\U000e0100-\U000e01ef]")

IN_DOUBT = re.compile(f"[\x00-\x08\x0b-\x1f\u200d\ufe0f{UNSHOWN}\U000e0100-\U000e01ef]")
"""Quick test for the characters above; most texts have none of them."""


def safe(text: str, joiner: str = "") -> str:
    """Return the text with a visible stand-in for every character that could steer a terminal.

    Tabs and line breaks stay. A joiner that joins nothing is replaced by `joiner`; UNKNOWN keeps the text's length.
    """
    if not IN_DOUBT.search(text):
        return text

    def stand_in(match: re.Match[str]) -> str:
        if match.lastgroup:
            return match[0] if match.lastgroup == "flag" else joiner
        return CONTROL_PICTURES.get(match[0], UNKNOWN)

    return NOT_SAFE.sub(stand_in, text)


def visible(text: str) -> str:
    """Return the text safe to show on one line, with visible signs for line breaks and tabs."""
    return safe(text).replace("\n", "⏎").replace("\t", "⇥")


def in_utf8(text: str) -> str:
    """Return the text with what UTF-8 cannot hold replaced, such as odd bytes of an old file name."""
    return text.encode("utf-8", "replace").decode()


def to_json(value: Any) -> str:
    """Return a record as JSON that loses nothing and is harmless when printed on a terminal."""
    try:
        return escaped(msgspec.json.encode(value).decode())
    except UnicodeEncodeError:  # msgspec refuses a lone surrogate
        return escaped(json.dumps(msgspec.to_builtins(value, str_keys=True), ensure_ascii=False))


def escaped(text: str) -> str:
    """Return the JSON with everything that `safe` would replace escaped; control characters are escaped in any JSON."""
    return NOT_PLAIN.sub(lambda match: json.dumps(match[0])[1:-1], text)
