"""The doctor's checks and the table of presets on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group
from rich.table import Table

from engine.loading.presets import Preset
from engine.records import Check, Diagnosis
from engine.records.words.rich_text import Text


def diagnosis(out: Console, result: Diagnosis) -> None:
    """Print the doctor's checks."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column(width=max((len(check.name) for check in result.checks), default=0), no_wrap=True)
    grid.add_column(overflow="fold")
    for check in result.checks:
        grid.add_row(check_mark(check), Text(check.name, "bold"), check_in_words(check))
    out.print(grid)


def check_mark(check: Check) -> Text:
    """Return ✓ or ✗ for a verdict, · for a value that was only measured, ? for a doubt."""
    if check.ok is None:
        return Text("?", "bold yellow") if check.remedy else Text("·", "dim")
    return Text("✓", "green") if check.ok else Text("✗", "bold red")


def check_in_words(check: Check) -> Text:
    """Return what a check measured, followed by its remedy on a line of its own."""
    text = Text(check.detail)
    return text.append(f"\n→ {check.remedy}", "bold") if check.remedy else text


WIDE = 150

NUMBERS = ("L0", "VE", "memory")

LEGEND = (
    "L0 and VE (variance explained): as published, – where nothing is · memory: the weights of model and SAE in the "
    "dtype of their files · saescope --preset NAME"
)


def preset_table(presets: Sequence[Preset], width: int) -> Group:
    """Return a line per preset and a legend. A narrow terminal gets model and SAE below, on their own lines."""
    wide = width >= WIDE
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("name", *(("model", "SAE") if wide else ()), *NUMBERS, "what it is"):
        table.add_column(name, justify="right" if name in NUMBERS else "left", no_wrap=name in (*NUMBERS, "name"))
    rows = []
    for preset in presets:
        model, sae = preset.model or preset.model_name, preset.sae or preset.sae_name
        table.add_row(
            preset.name,
            *((model, sae) if wide else ()),
            "–" if preset.l0 is None else f"{preset.l0:.0f}",
            "–" if preset.variance_explained is None else f"{preset.variance_explained:.2f}",
            f"{preset.bytes_needed() / 1e9:.1f} GB",
            preset.title,
        )
        rows.append(Text(f"{preset.name}\n  {model}\n  {sae}", overflow="fold"))
    return Group(table, *(() if wide else (Text(), *rows, Text())), Text(LEGEND, style="dim"))
