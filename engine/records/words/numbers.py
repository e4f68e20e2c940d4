"""Numbers in words."""

from __future__ import annotations


def count(number: int, what: str) -> str:
    """Return a count with its noun, such as "1 probe" or "2 probes"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


LETTERS = ("no", "one", "two", "three", "four", "five", "six")


def in_letters(number: int) -> str:
    """Return a small number in letters, such as "four"."""
    return LETTERS[number] if number < len(LETTERS) else str(number)


def percent(share: float | None) -> str:
    """Return a share as a percentage, such as 12%; a dash for None."""
    return "–" if share is None else f"{share:.0%}".replace("-0%", "0%")


def size_in_words(size: int) -> str:
    """Return a number of bytes as "3.2 GB" or "12 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
