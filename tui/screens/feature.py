"""One feature's card: where it fires most, which tokens it promotes and suppresses, how often it fires."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from engine.records import Described
from tui.token_layout import safe
from tui.words import token_in_words

AROUND = 30
"""Characters of text shown on either side of a strong token."""


def card(found: Described) -> list[RenderableType]:
    """The card's parts: how often it fires, where most strongly, and the logit lens."""
    fires = Text(
        f"Fires on {found.reference_count:,} of {found.reference_tokens:,} tokens of neutral text "
        f"({found.density:.3%}), maximum there {found.reference_maximum:.2f}.\n"
    )
    if not found.strongest:
        fires.append("It fires nowhere in your prompts or the neutral text: a dead feature, or a very rare one.\n")
    strongest = Text("Strongest tokens\n" if found.strongest else "", "bold", no_wrap=True, overflow="ellipsis")
    for strong in found.strongest:
        strongest.append(f"{strong.activation:6.2f} {strong.source:9} ", "not bold dim")
        strongest.append(flat(strong.before)[-AROUND:].rjust(AROUND), "not bold dim")
        strongest.append(token_in_words(strong.token), "bold reverse")
        strongest.append(flat(strong.after)[:AROUND] + "\n", "not bold dim")
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left", title_style="bold")
    table.title = "Logit lens: what its direction does to the next token"
    for name in ("promotes", "", "suppresses", ""):
        table.add_column(name, justify="left" if name else "right", min_width=18 if name else 8)
    for up, down in zip(found.promoted, found.suppressed, strict=True):
        table.add_row(
            Text(f"“{token_in_words(up.token)}”"), f"{up.logit:+.2f}",
            Text(f"“{token_in_words(down.token)}”"), f"{down.logit:+.2f}",
        )  # fmt: skip
    return [fires, strongest, table]


def flat(text: str) -> str:
    """Text on one line."""
    return safe(text).replace("\n", "⏎").replace("\t", " ")
