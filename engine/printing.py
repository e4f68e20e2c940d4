"""What results look like on a terminal, and progress on standard error. With --json: one object, nothing else.

The activation colour is one hue from the background up, lightness carrying the value; the number stands beside it
wherever it matters, so nothing is lost without colour.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table
from rich.text import Text

from engine.export import edits_in_words
from engine.preset_table import preset_table
from engine.records import (
    ArmReplay,
    Check,
    Described,
    Diagnosis,
    Event,
    FedPrompt,
    Generated,
    Loaded,
    ProbeTable,
    Progress,
    Ranking,
    RankReplayed,
    Record,
    Replayed,
    Shown,
    TokenStep,
)
from engine.sources.presets import Preset

STEPS = 16
LOW, HIGH = (38, 38, 38), (255, 176, 0)
EVIDENCE = "associated: these features tell the two sets apart; only an edit shows whether they have influence"


class Printer:
    """Prints results to standard output as text or JSON, everything else to standard error."""

    def __init__(self, json: bool) -> None:
        self.json = json
        # a pipe or a file has no width: tables there are as wide as they need to be
        self.out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
        self.err = Console(stderr=True, highlight=False)

    def _record(self, record: Record) -> bool:
        """Prints the record if JSON was asked for."""
        if self.json:
            sys.stdout.write(msgspec.json.encode(record).decode() + "\n")
        return self.json

    def note(self, text: str) -> None:
        """A remark beside the result."""
        self.err.print(escape(text), style="dim", soft_wrap=True)

    def error(self, message: str, remedy: str) -> None:
        """What went wrong, and what to do."""
        self.err.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
        if remedy:
            self.err.print(Text(remedy), soft_wrap=True)

    def heading(self, text: str) -> None:
        """A step of the tour."""
        if not self.json:
            self.out.print(f"\n[bold]{escape(text)}[/bold]\n")

    @contextmanager
    def watching(self) -> Iterator[Callable[[Event], None]]:
        """A sink for events: a progress bar on a terminal, one line per stage elsewhere."""
        if not self.err.is_terminal:
            yield Stages(self.note)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
        )
        with ProgressBar(*columns, console=self.err, transient=True) as bar:
            task = bar.add_task("…", total=None, count="")

            def on_event(event: Event) -> None:
                if isinstance(event, Progress):
                    total = event.total or None
                    count = f"{event.done}/{event.total}" if total else ""
                    bar.update(task, description=event.stage, completed=event.done, total=total, count=count)
                elif isinstance(event, TokenStep):
                    bar.update(task, description="generating", completed=event.index + 1, count=f"{event.index + 1}")

            yield on_event

    # ---- results

    def loaded(self, loaded: Loaded) -> None:
        """One line on standard error: what is loaded."""
        self.note(
            f"{loaded.model} ({loaded.dtype}, {loaded.device}) · {loaded.hook} · SAE {loaded.sae}: "
            f"{loaded.d_sae:,} features, {loaded.encoder}"
        )

    def ranking(self, result: Ranking) -> None:
        """The leaderboard."""
        if self._record(result):
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        names = ("feature", "fires most on", "score", "diff", "auroc", "t", "g", "cover +/−", "density", "seed")
        for name in names:
            table.add_column(name, justify="left" if name == "fires most on" else "right", no_wrap=True)
        for row in result.features:
            table.add_row(
                str(row.feature),
                tokens_in_words(row.tokens),
                f"{row.score:.3f}",
                f"{row.diff:.3f}",
                f"{row.auroc:.2f}",
                f"{row.t:.2f}",
                "–" if row.g is None else f"{row.g:.2f}",
                f"{row.coverage_positive:.0%}/{row.coverage_negative:.0%}",
                f"{row.density:.2%}",
                f"{row.seed:.1f}",
            )
        self.out.print(table)
        weight = "on" if result.density_weight else "off"
        self.out.print(
            f"[dim]{result.n_positive} against {result.n_negative} prompts · {result.n_active_features:,} features "
            f"fire · by {result.by}, pooled by {result.pool} · density weight {weight} · "
            f"p floor {result.p_floor:.2g} ({result.labelings:,} labelings)[/dim]"
        )
        tokens = "every token counted" if result.include_masked else counted(result.prompts)
        self.out.print(f"[dim]{tokens} · {EVIDENCE}[/dim]")
        for warning in result.warnings:
            self.out.print(f"[yellow]{escape(warning)}[/yellow]")

    def shown(self, result: Shown, n_positive: int) -> None:
        """Coloured tokens, a line a prompt, with each prompt's strongest token."""
        if self._record(result):
            return
        for index, (fed, row) in enumerate(zip(result.prompts, result.activations, strict=True)):
            line = Text().append("+ " if index < n_positive else "− ", style="bold")
            best = max(range(len(row)), key=lambda t: row[t] if fed.rank_mask[t] else -1.0)
            for token, value, counts in zip(fed.tokens, row, fed.rank_mask, strict=True):
                line.append(visible(token), style=shade(value, result.maximum) if counts else "dim")
                if self.out.color_system is None and counts and value > 0:
                    line.append(f"⟨{value:.1f}⟩")
            if fed.rank_mask[best] and row[best] > 0:
                line.append(f"   {row[best]:.2f} on {fed.tokens[best]!r}", style="dim")
            self.out.print(line, soft_wrap=True)
        if self.out.color_system is None:
            self.out.print("⟨n⟩: activation of the token before it; masked tokens have none")
            return
        legend = Text("0 ")
        for step in range(STEPS + 1):
            legend.append(" ", style=shade(result.maximum * step / STEPS, result.maximum))
        self.out.print(legend.append(f" {result.maximum:.2f}   dim: masked, not counted", style="dim"))

    def described(self, result: Described) -> None:
        """A feature's card."""
        if self._record(result):
            return
        self.out.print(
            f"[bold]feature {result.feature}[/bold]  density {result.density:.3%} "
            f"(fires on {result.reference_count:,} of {result.reference_tokens:,} reference tokens, "
            f"maximum {result.reference_maximum:.2f})"
        )
        if not result.strongest:
            self.out.print("It fires nowhere in the prompts or the reference text.")
        for strong in result.strongest:
            line = Text(f"{strong.activation:7.2f}  {strong.source:9}  …{one_line(strong.before)}", style="dim")
            line.append(visible(strong.token), style="bold reverse").append(one_line(strong.after) + "…")
            self.out.print(line, soft_wrap=True, no_wrap=True)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("promotes", "logit", "suppresses", "logit"):
            table.add_column(name, justify="right" if name == "logit" else "left")
        for up, down in zip(result.promoted, result.suppressed, strict=True):
            table.add_row(escape(repr(up.token)), f"{up.logit:+.2f}", escape(repr(down.token)), f"{down.logit:+.2f}")
        self.out.print(table)

    def generated(self, result: Generated, compare: bool) -> None:
        """Both arms side by side with differing tokens marked, or the edited text alone."""
        if self._record(result):
            return
        if not compare:
            self.out.print(Text((result.edited if result.edits else result.baseline).text))
            return
        table = Table(expand=True)
        table.add_column("baseline", ratio=1)
        table.add_column(f"edited: {escape(short(edits_in_words(result.edits)))}", ratio=1)
        table.add_row(marked(result, edited=False), marked(result, edited=True))
        self.out.print(table)
        divergence = "none" if result.first_divergence is None else f"token {result.first_divergence + 1}"
        kl = f"{sum(result.kl) / len(result.kl):.4f}" if result.kl else "–"
        self.out.print(
            f"[dim]first difference: {divergence} · mean KL {kl} nats a token on the baseline's tokens · "
            f"edit inactive at {result.inactive_positions} of {result.positions} positions · "
            f"{result.tokens_per_second:.0f} tokens/s[/dim]"
        )
        untouched = [visible(t) for t, m in zip(result.prompt.tokens, result.prompt.edit_mask, strict=True) if not m]
        spared = escape(" ".join(untouched)) or "none"
        fed = f"prompt fed as {len(result.prompt.tokens)} tokens, never edited: {spared}"
        self.out.print(f"[dim]{fed} · ids and masks: --json[/dim]")
        if result.edits and result.positions and result.inactive_positions == result.positions:
            self.out.print("[yellow]The edited features were silent everywhere: the edit changed nothing.[/yellow]")

    def probe_table(self, result: ProbeTable) -> None:
        """Every probe × baseline/edited."""
        if self._record(result):
            return
        table = Table(show_lines=True)
        for name in ("probe", "baseline", "edited", "answer", "p baseline", "p edited"):
            table.add_column(name, justify="right" if name.startswith("p ") else "left")
        for row in result.rows:
            cells = [Text(row.probe.text), Text(row.generated.baseline.text), marked(row.generated, edited=True)]
            names = [a.name + (" (unclean split)" if row.flags else "") for a in row.answers]
            table.add_row(
                *cells,
                "\n".join(names),
                "\n".join(f"{a.baseline:.3f}" for a in row.answers),
                "\n".join(f"{a.edited:.3f}" for a in row.answers),
            )
        self.out.print(table)
        self.out.print(f"[dim]edits: {escape(edits_in_words(result.edits))} · answers scored after the prefill[/dim]")

    def diagnosis(self, result: Diagnosis) -> None:
        """The doctor's checks."""
        if self._record(result):
            return
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=1)
        grid.add_column(width=max((len(check.name) for check in result.checks), default=0), no_wrap=True)
        grid.add_column(overflow="fold")
        for check in result.checks:
            grid.add_row(check_mark(check), Text(check.name, "bold"), check_in_words(check))
        self.out.print(grid)

    def differences(self, recorded: Loaded, now: Loaded) -> None:
        """What is loaded now that is not what was recorded."""
        before, after = msgspec.to_builtins(recorded), msgspec.to_builtins(now)
        for name, value in before.items():
            if after[name] != value and value not in (None, "", (), []):  # what an older session does not say
                self.note(f"{name}: recorded {value}, now {after[name]}")

    def replayed(
        self,
        rankings: Sequence[tuple[Ranking, RankReplayed]],
        generations: Sequence[tuple[Generated, Replayed]],
    ) -> None:
        """What came out the same and where the rest first diverges."""
        if self.json:
            results = {"rankings": [r for _, r in rankings], "generations": [g for _, g in generations]}
            sys.stdout.write(msgspec.json.encode(results).decode() + "\n")
            return
        for ranking, again in rankings:
            what = f"ranking of {ranking.n_positive} against {ranking.n_negative} prompts"
            change = f"largest score change {again.largest_score_change:.2g}"
            row = (again.first_difference or 0) + 1
            where = "same features in the same order" if again.same else f"row {row} differs"
            self.out.print(f"{'same' if again.same else 'DIFFERS'}  {what}: {where}, {change}", soft_wrap=True)
        for result, replayed in generations:
            self.out.print(f"{'same' if replayed.same else 'DIFFERS'}  {escape(one_line(result.prompt.text))}")
            if not replayed.prompt_ids_same:
                self.out.print("    the prompt is fed as other token ids than recorded")
            for arm in replayed.arms:
                if not arm.same:
                    self.out.print(
                        f"    {arm.name} first diverges at token {(arm.first_divergence or 0) + 1}: recorded "
                        f"{escape(repr(arm.recorded_token))}, now {escape(repr(arm.replayed_token))}{gap(arm)}",
                        soft_wrap=True,
                    )
        if not rankings and not generations:
            self.out.print("The session holds no results to replay.")

    def presets(self, found: Sequence[Preset]) -> None:
        """The table of presets."""
        if self.json:
            rows = [{**msgspec.to_builtins(p), "bytes_needed": p.bytes_needed()} for p in found]
            sys.stdout.write(msgspec.json.encode({"presets": rows}).decode() + "\n")
            return
        self.out.print(preset_table(found, self.out.width))

    def tour_end(self) -> None:
        """Where to go from the tour."""
        if not self.json:
            self.out.print(
                "\nNext: [bold]saescope feature N[/bold], [bold]saescope generate PROMPT --ablate N --compare[/bold], "
                "[bold]saescope --help[/bold]"
            )


def check_mark(check: Check) -> Text:
    """✓, ✗, · for measured, ? for a doubt."""
    if check.ok is None:
        return Text("?", "bold yellow") if check.remedy else Text("·", "dim")
    return Text("✓", "green") if check.ok else Text("✗", "bold red")


def check_in_words(check: Check) -> Text:
    """What a check found, and what to do on lines of its own."""
    text = Text(check.detail)
    return text.append(f"\n→ {check.remedy}", "bold") if check.remedy else text


def gap(arm: ArmReplay) -> str:
    """How close the two likeliest tokens were where the runs part."""
    return "" if arm.margin is None else f"; the two likeliest tokens there are {arm.margin:.3g} nats apart"


def counted(prompts: Sequence[FedPrompt]) -> str:
    """How many of the prompts' tokens the rank mask let through."""
    total, kept = sum(len(p.tokens) for p in prompts), sum(sum(p.rank_mask) for p in prompts)
    return f"{kept} of {total} tokens counted (special and sink tokens are not)"


class Stages:
    """Prints a line for every new stage of the work: progress for logs and pipes."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._seen = write, set[str]()

    def __call__(self, event: Event) -> None:
        """Notes a stage the first time it is heard of."""
        if isinstance(event, Progress) and event.stage not in self._seen:
            self._seen.add(event.stage)
            self._write(event.stage)


def shade(value: float, maximum: float) -> str:
    """The background for an activation, in STEPS steps; "" where the feature is silent."""
    if value <= 0 or maximum <= 0:
        return ""
    share = max(1, round(min(1.0, value / maximum) * STEPS)) / STEPS
    rgb = [round(low + (high - low) * share) for low, high in zip(LOW, HIGH, strict=True)]
    return f"{'black' if share > 0.55 else 'white'} on rgb({rgb[0]},{rgb[1]},{rgb[2]})"


def marked(result: Generated, edited: bool) -> Text:
    """One arm's text, tokens that differ from the other arm's at the same index emphasised."""
    own, other = (result.edited, result.baseline) if edited else (result.baseline, result.edited)
    text = Text()
    for index, (token, theirs) in enumerate(zip_longest(own.tokens, other.tokens)):
        if token is None or (index == len(own.tokens) - 1 and token.strip() and token not in own.text):
            continue  # the end token is not part of the text
        text.append(token, style="" if token == theirs else "bold")
    return text


def tokens_in_words(tokens: Sequence[str]) -> Text:
    """Such as "gender · sex"."""
    return Text(" · ".join(visible(token).strip() or visible(token) for token in tokens))


def visible(token: str) -> str:
    """A token with its line breaks shown."""
    return token.replace("\r", "␍").replace("\n", "⏎").replace("\t", "⇥")


def one_line(text: str) -> str:
    """Text with its line breaks shown."""
    return visible(text)


def short(text: str, limit: int = 60) -> str:
    """Text cut to a length."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
