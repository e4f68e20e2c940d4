"""One feature's card: where it fires most, which tokens it promotes and suppresses, how often it fires."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from engine.records import Described
from tui.token_layout import safe
from tui.words import token_in_words


def card(found: Described) -> tuple[Text, Table]:
    """The card as a text and the logit-lens table."""
    text = Text()
    text.append(
        f"Fires on {found.reference_count:,} of {found.reference_tokens:,} tokens of neutral text "
        f"({found.density:.3%}), maximum there {found.reference_maximum:.2f}.\n\n"
    )
    if not found.strongest:
        text.append("It fires nowhere in your prompts or the neutral text: a dead feature, or a very rare one.\n")
    else:
        text.append("Strongest tokens\n", "bold")
    for strong in found.strongest:
        text.append(f"{strong.activation:7.2f}  {strong.source:9}  ", "dim")
        text.append(flat(strong.before)[-38:].rjust(38), "dim")
        text.append(token_in_words(strong.token), "bold reverse")
        text.append(flat(strong.after)[:38] + "\n", "dim")
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left", title_style="bold")
    table.title = "Logit lens: what its direction does to the next token"
    for name in ("promotes", "", "suppresses", ""):
        table.add_column(name, justify="left" if name else "right", min_width=18 if name else 8)
    for up, down in zip(found.promoted, found.suppressed, strict=True):
        table.add_row(
            Text(f"“{token_in_words(up.token)}”"), f"{up.logit:+.2f}",
            Text(f"“{token_in_words(down.token)}”"), f"{down.logit:+.2f}",
        )  # fmt: skip
    return text, table


def flat(text: str) -> str:
    """Text on one line."""
    return safe(text).replace("\n", "⏎").replace("\t", " ")
