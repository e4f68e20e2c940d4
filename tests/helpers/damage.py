"""Damage to a file's bytes, text or values: the same random numbers always do the same."""

import json
import random

DEEP = 50_000
"""Brackets inside each other: more than any decoder follows."""

WRONG = (
    None, True, 0, -1, 1, 3, 10**6, 2**31, 2**63 - 1, 2**63, 10**30, -(10**30), 0.5, -1.5, 1e300, -1e-320, "", "none",
    "x\x00y", "generated", [], [[]], {}, {"type": "Ranking"},
)  # fmt: skip
"""Values that hardly ever belong where they are put."""

ODD_BYTES = (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf0\x28\x8c\x28", b"\x00", b"\\ud800", b"\xef\xbb\xbf", b"\x1b[2J")

ODD_NUMBERS = (b"9" * 30, b"9" * 5000, b"1e999", b"-1e999", b"NaN", b"Infinity", b"-0", b"1.", b"1e-999")


def damage(rng: random.Random, content: bytes) -> bytes:
    """Flips, cuts, doubles or overwrites a part of it."""
    data = bytearray(content)
    if not data:
        return bytes(data)
    # most of a file is numbers, which may be anything: its structure stands at the ends
    near = min(len(data), rng.choice((16, 64, 300, len(data))))
    start = rng.randrange(near)
    at = start if rng.random() < 0.6 else len(data) - 1 - start
    size = min(rng.choice((1, 2, 4, 8, 50, 1000)), len(data) - at)
    how = rng.randrange(7)
    if how <= 1:
        for _ in range(rng.choice((1, 1, 2, 8))):
            data[min(at + rng.randrange(8), len(data) - 1)] ^= 1 << rng.randrange(8)
    elif how == 2:
        del data[at : at + size]
    elif how == 3:
        data[at:at] = data[at : at + size] * rng.choice((1, 1, 3))
    elif how == 4:
        data[at : at + size] = rng.choice((b"\x00", b"\xff", b"9", b"{", b'"')) * size
    elif how == 5:
        data[at : at + size] = rng.randbytes(size)
    else:
        del data[at:]
    return bytes(data)


def damage_anywhere(rng: random.Random, content: bytes) -> bytes:
    """A byte or a few, wherever they are; what is no UTF-8, no number, or too deep put in; a line or more doubled."""
    at = rng.randrange(len(content) + 1)
    end = min(len(content), at + rng.choice((1, 1, 2, 8, 100)))
    how = rng.randrange(8)
    if how == 0 and content:
        at = min(at, len(content) - 1)
        return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]
    if how == 1:
        return content[:at] + content[end:]
    if how == 2:
        return content[:at] + rng.choice(ODD_BYTES) + content[rng.choice((at, end)) :]
    if how == 3:
        return content[:at] + rng.choice(ODD_NUMBERS) + content[rng.choice((at, end)) :]
    if how == 4:
        return content[:at] + rng.choice((b"[", b'{"a":', b"]", b"}")) * DEEP + content[end:]
    if how == 5:
        return content[:at]
    if how == 6:
        return content[:end] + content[at:]
    lines = content.split(b"\n")
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[first], lines[second] = lines[second], rng.choice((lines[first], lines[second]))
    return b"\n".join(lines)


def damage_values(rng: random.Random, content: bytes) -> bytes:
    """JSON whose values, however deep, are others, each other's, missing, doubled or too deep."""
    raw = json.loads(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        holder, key = rng.choice(list(places(raw)) or [([None], 0)])
        how = rng.randrange(6)
        if how == 0:
            other, place = rng.choice(list(places(raw)) or [([None], 0)])
            holder[key] = copy(other[place])
        elif how == 1:
            del holder[key]
        elif how == 2 and isinstance(holder, list):
            holder.insert(rng.randrange(len(holder) + 1), copy(holder[key]))
        elif how == 3 and isinstance(holder, list):
            rng.shuffle(holder)
        elif how == 4 and isinstance(holder[key], bool | int | float):
            holder[key] = rng.choice((holder[key] + 1, -holder[key], holder[key] * 10**6, 0, -1, 2**63, 1e308))
        else:
            holder[key] = copy(rng.choice(WRONG))
    return json.dumps(raw, ensure_ascii=False).encode("utf-8")


def copy(value):
    """A value of its own, so that none is in itself."""
    return json.loads(json.dumps(value))


def places(value):
    """(holder, key) of every value in JSON."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def damaged(number: int, content: bytes, *, json_values: bool = False) -> bytes:
    """The content with the damage of this number."""
    rng = random.Random(number)
    if json_values and rng.random() < 0.6:
        content = damage_values(rng, content)
        if rng.random() < 0.95:
            return content
    return rng.choice((damage, damage_anywhere, damage_anywhere))(rng, content)
