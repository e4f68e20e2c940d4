"""Prints a report of the bench, as a table on a terminal or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.bench.run import Report
from engine.bench.timing import Row
from engine.records.words.rich_text import Text
from engine.records.words.safe_text import escaped

NOT_COMPARABLE = "--quick: smaller shapes, not comparable with the goals; no mark is given."


def show(report: Report, out: Console) -> None:
    """Print the machine, then one line for each row."""
    for line in machine_in_words(report.machine):
        out.print(Text(line, style="dim"), soft_wrap=True)
    if report.quick:
        out.print(NOT_COMPARABLE, style="yellow")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("row", "what", "ours", "contender", "ratio", "goal", "met"):
        table.add_column(name, justify="right" if name in ("row", "ratio", "goal") else "left")
    for row in report.rows:
        table.add_row(*cells(row, report.quick))
    out.print(table)


def cells(row: Row, quick: bool) -> list[Text]:
    """Return the cells of one line of the table."""
    unit = "" if row.unit == "×" else f" {row.unit}"
    ratio = "–" if row.ratio is None else f"{row.ratio:.3g}{unit}"
    goal = "" if row.goal is None else f"{'≥' if row.at_least else '≤'} {row.goal:g}{unit}"
    mark = Text() if row.met is None or quick else Text("✓", "green") if row.met else Text("✗", "bold red")
    words = (str(row.number), row.what, row.ours, row.note or row.contender, ratio, goal)
    return [*map(Text, words), mark]


def machine_in_words(machine: dict[str, Any]) -> list[str]:
    """Say in three lines what the hardware is, what runs on it, and how times are taken."""
    native = "native" if machine["bfloat16_native"] else "not native"
    hardware = f"{machine['cpu']}, {machine['cores']} cores ({' '.join(machine['flags'])}), bfloat16 {native}"
    if machine["gpu"]:
        hardware += f", {machine['gpu']}"
    versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in machine["versions"].items())
    threads = f"{machine['threads']} thread on {machine['device']}, load average {machine['load_average']}"
    clocks = "times: median (fastest–slowest); on a CPU those of one thread, but rows 10 and 11 by the clock"
    return [hardware, f"{threads} · {versions}", clocks]


def to_json(report: Report) -> str:
    """Return one JSON object with every raw number."""
    rows = [{**asdict(row), "met": None if report.quick else row.met} for row in report.rows]
    return escaped(json.dumps({"machine": report.machine, "quick": report.quick, "rows": rows}, ensure_ascii=False))
