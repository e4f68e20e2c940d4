"""Text that would steer a terminal, put into every text of a record; and what of it reached a terminal."""

import os
import re
import sys
import threading
import tty
import unicodedata
from contextlib import contextmanager, suppress

import msgspec
from msgspec import inspect

CONTROL = "\x1b\x9b\x00\x07\x08\x0b\x0c\r\x7f\x80\x85\x90\x9c\x9d\x9f"

HIDDEN = "\u202a\u202e\u2066\u2069\u200e\u200f\u061c\u2028\u2029\u200b\u2060\ufeff\U000e0041"

SEQUENCES = "\x1b]0;t\x07\x1b]52;c;aGk=\x07\x1b[2J\x1bP1$q\x1b\\\x9b2J\x9d0;t\x9c"

MARKUP = "[/b][@click=app.quit]x["

HOSTILE = f"[/b]{CONTROL}{HIDDEN}\ud800{SEQUENCES}{MARKUP}"

STAND_INS = ("␛", "\\u001b", "\\x1b")
"""Any of them is to be seen where HOSTILE was shown: as it is, in JSON, in what repr makes of it."""

FILE_NAME = HOSTILE.translate({0: None, ord("/"): None, 0xD800: 0xDCE9})
"""As a file may be called: an odd byte of it is a lone surrogate."""


def hostile(value):
    """A record with HOSTILE before each of its texts, in whatever records, tuples and dicts they stand."""
    return _filled(value, inspect.type_info(type(value)))


def _filled(value, kind):
    match kind:
        case inspect.StrType():
            return value if value.startswith(HOSTILE) else HOSTILE + value
        case inspect.StructType(fields=fields):
            found = {f.name: _filled(getattr(value, f.name), f.type) for f in fields if not _has_none(value, f.name)}
            return msgspec.structs.replace(value, **found)
        case inspect.VarTupleType(item_type=item):
            return tuple(_filled(v, item) for v in value)
        case inspect.DictType(key_type=key, value_type=item):
            return {_filled(k, key): _filled(v, item) for k, v in value.items()}
        case inspect.UnionType(types=types):
            return _filled(value, next((t for t in types if _is_of(value, t)), None))
    return value


def _has_none(value, name):
    """A probe that has no right answer is none of fact; names of settings are the program's own."""
    return name in ("right", "settings") and not getattr(value, name)


def _is_of(value, kind):
    if isinstance(kind, inspect.StructType):
        return isinstance(value, kind.cls)
    if isinstance(kind, inspect.LiteralType):
        return value in kind.values
    return isinstance(value, {inspect.StrType: str, inspect.VarTupleType: tuple}.get(type(kind), ()))


OURS = re.compile(
    r"\x1b\[[0-9;:]*m"  # colours
    r"|\x1b\[[0-9]*;?[0-9]*[HABCDGK]"  # where the next text goes
    r"|\x1b\[\?[0-9]+[hl]"  # modes
    r"|\x1b\[<u|\x1b\[>[0-9]*u|\x1b\[\?2026\$p"  # questions about keys and modes
    r"|\x1b\]22;[a-z-]*\x07"  # the mouse's shape
    r"|\r(?=\x1b\[|\n)"  # before a progress bar is drawn anew
)
"""What Textual and rich send themselves."""


def unsafe(data):
    """Names of the characters among these bytes, or in this text, that could steer a terminal; none where all is safe.

    An independent judgement: by Unicode's categories, not by the list that the program keeps.
    """
    text = OURS.sub("", data if isinstance(data, str) else data.decode("utf-8"))
    found = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\t\u200c"}
    return sorted(f"U+{ord(c):04X}" for c in found)


class Seen:
    """What reached a terminal."""

    def __init__(self):
        self.data = b""

    @property
    def text(self):
        return self.data.decode("utf-8")


@contextmanager
def on_a_pty():
    """Standard output and error are a pseudo terminal; yields what reaches it, which is there once the block ends."""
    master, slave = os.openpty()
    tty.setraw(slave)
    seen = Seen()

    def read():
        with suppress(OSError):  # the end, once nobody has the other side open
            while part := os.read(master, 1 << 16):
                seen.data += part

    reader = threading.Thread(target=read)
    reader.start()
    before = sys.stdout, sys.stderr
    try:
        with open(slave, "w", encoding="utf-8") as terminal:
            sys.stdout = sys.stderr = terminal
            yield seen
    finally:
        sys.stdout, sys.stderr = before
        reader.join()
        os.close(master)
