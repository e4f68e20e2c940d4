"""Numbers in words."""

from __future__ import annotations


def count(number: int, what: str) -> str:
    """Such as "1 probe" and "2 probes"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def percent(share: float | None) -> str:
    """A share, such as 12%; a dash for none."""
    return "–" if share is None else f"{share:.0%}".replace("-0%", "0%")
