"""Text that is safe to show. Knows nothing of torch.

Prompts, sessions, notes, model output and file names come from anywhere, and a terminal obeys what is in them: it lets
a text set its title and clipboard, clear the screen, turn the order of letters, or hide. Whatever is shown goes through
`safe`: as rich_text's Text on a terminal and in the app, as a whole in csv and markdown. JSON loses nothing: `to_json`
escapes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import msgspec

CONTROL_PICTURES = {chr(code): chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"} | {"\x7f": "␡"}

UNKNOWN = "\N{REPLACEMENT CHARACTER}"

UNSHOWN = (
    "\x7f-\x9f"  # C1 holds one-byte escape sequences
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # bidi controls reorder the screen
    "\u2028\u2029"  # line separators break lines in some terminals
    "\u034f\u17b4\u17b5\u180b-\u180d\u180f\u115f\u1160\u3164\uffa0\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\u180e\u200b\u2060-\u2065\ufeff\ufff9-\ufffb"  # no terminal shows these, and a prompt with them is another one
    "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"  # tags spell out a hidden text
    "\ud800-\udfff"  # a lone surrogate can't be encoded at all
)
"""Characters of which nothing but a stand-in is shown.

Not among them are joiners, which Persian, Indic scripts and emoji are written with, and variation selectors. ZWNJ has
no width anywhere and stays. ZWJ and the request for the emoji form are measured together with their neighbours: they
stay inside an emoji alone.
"""

EMOJI = "\u2190-\u2bff\U0001f000-\U0001faff"

FLAG = "\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f"
"""A region's flag, such as Scotland's, is spelled in tags."""

STRAY_JOINER = rf"(?<![{EMOJI}\ufe0f])\u200d|\u200d(?![{EMOJI}])|(?<![#*0-9©®{EMOJI}\u3030\u303d\u3297\u3299])\ufe0f"

STRAY_VARIANT = "(?<![\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])[\U000e0100-\U000e01ef]"
"""These variation selectors belong to ideographs; elsewhere they hide a text as tags do."""

NOT_SAFE = re.compile(rf"(?P<flag>{FLAG})|(?P<joiner>{STRAY_JOINER})|{STRAY_VARIANT}|[\x00-\x08\x0b-\x1f{UNSHOWN}]")

NOT_PLAIN = re.compile(f"[{UNSHOWN}\u200d\ufe0f\U000e0100-\U000e01ef]")

IN_DOUBT = re.compile(f"[\x00-\x08\x0b-\x1f\u200d\ufe0f{UNSHOWN}\U000e0100-\U000e01ef]")
"""Most texts have none of these."""


def safe(text: str, joiner: str = "") -> str:
    """The text with a visible stand-in for every character that could steer a terminal; tabs and line breaks stay.

    A joiner that joins nothing goes, or is replaced: with UNKNOWN the text keeps its length.
    """
    if not IN_DOUBT.search(text):
        return text

    def stand_in(found: re.Match[str]) -> str:
        if found.lastgroup:
            return found[0] if found.lastgroup == "flag" else joiner
        return CONTROL_PICTURES.get(found[0], UNKNOWN)

    return NOT_SAFE.sub(stand_in, text)


def visible(text: str) -> str:
    """The text safe to show on one line, its line breaks and tabs visible."""
    return safe(text).replace("\n", "⏎").replace("\t", "⇥")


def to_json(value: Any) -> str:
    """A record as JSON that loses nothing and, printed on a terminal, does nothing."""
    try:
        return escaped(msgspec.json.encode(value).decode())
    except UnicodeEncodeError:  # msgspec refuses a lone surrogate
        return escaped(json.dumps(msgspec.to_builtins(value, str_keys=True), ensure_ascii=False))


def escaped(text: str) -> str:
    """JSON in which nothing that `safe` would replace stands as it is; control characters are escaped in any JSON."""
    return NOT_PLAIN.sub(lambda found: json.dumps(found[0])[1:-1], text)


def tokens_in_words(tokens: Sequence[str]) -> str:
    """Such as "gender · sex"."""
    return " · ".join(visible(t).strip() or repr(t) for t in tokens)


def feature_in_words(feature: int, label: str, tokens: Sequence[str]) -> str:
    """Such as "#4133 gender · sex"; the user's own label takes the tokens' place."""
    words = label or tokens_in_words(tokens)
    return f"#{feature} {words}" if words else f"#{feature}"
