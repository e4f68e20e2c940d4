"""Commands of attribution: which features influence an answer, and the smallest set of features that carries it."""

from __future__ import annotations

from engine.records import NO_FEATURE, Attribute, Attribution, FindMinimalSet, Loaded, Measure, MinimalSet
from engine.records import attribution as measures
from engine.records.attribution import candidates
from engine.records.errors import UsageError
from engine.records.measures import is_current
from engine.records.words.attribution import measure_in_short
from engine.records.words.numbers import count
from tui.commands import features
from tui.screens.effects_page import CausesScreen
from tui.screens.measure_forms import (
    ESTIMATED,
    EXACT,
    MEASURED,
    NEUTRAL_TOKENS,
    SHARE,
    TYPED_EXAMPLE,
    UNMEASURED,
    answers_to_compare,
    check_set,
    first_choice,
    measure_of,
    share_of,
    summary_of,
)
from tui.screens.minimal_set_page import MinimalSetScreen
from tui.services.context import Context
from tui.state.effects import ALL, LISTED, Choice
from tui.widgets.forms import Field, SummaryForm, Values

# ---- attribution


def ask_measure(context: Context) -> None:
    """Open the form of a measure, filled in with a proposal; enter runs the attribution."""
    study = context.study
    probes = study.work.prompts.probes
    if not probes:
        context.desk.report("There are no probes.", "Add a question that measures it: a under ? probes (1).")
        return
    names = answers_to_compare(probes)
    ranking = study.ranking()
    before = context.choice
    choice = before if before and _fits(before, names) else first_choice(names)
    amongs = (ALL, LISTED) if ranking is not None else (ALL,)
    tracked = (
        Field("toward", "toward", choice.toward, choices=names),
        Field("against", "against", choice.against, choices=names),
    )
    fields = (
        *(tracked if len(names) > 1 else ()),
        Field("typed_toward", "or typed: toward", choice.typed_toward, TYPED_EXAMPLE),
        Field("typed_against", "or typed: against", choice.typed_against, TYPED_EXAMPLE),
        Field("among", "among", choice.among if choice.among in amongs else ALL, choices=amongs),
    )

    def run(values: Values | None) -> None:
        if values is not None:
            context.choice = Choice(**values) if "toward" in values else Choice("", "", **values)
            attribute(context, measure_of(values, probes), values["among"] == LISTED)

    def summary(values: Values) -> str:
        return summary_of(measure_of(values, probes))

    def check(values: Values) -> str:
        try:
            measures.check_measure(measure_of(values, probes))
        except UsageError as error:
            return f"{error.message} {error.remedy}"
        return ""

    context.desk.open(SummaryForm("Which features influence the answer?", fields, summary, check), run)


def _fits(choice: Choice, names: tuple[str, ...]) -> bool:
    return {choice.toward, choice.against} <= {"", *names} and (len(names) < 2 or bool(choice.toward))


def attribute(context: Context, measure: Measure, listed: bool) -> None:
    """Run an attribution, only among the leaderboard's features if `listed`.

    Otherwise the leaderboard's and the edited features get a row in any case.
    """
    work = context.tasks
    if not work.may_ask():
        return
    ranking = context.study.ranking()
    rows = tuple(row.feature for row in ranking.features) if ranking else ()
    edited = tuple(s.feature for s in context.study.work.edits if s.feature != NO_FEATURE)
    request = Attribute(
        measure, candidates=rows if listed else (), also=() if listed else tuple(dict.fromkeys((*rows, *edited)))
    )

    async def task() -> None:
        attribution = await work.ask(request, Attribution)
        context.autosave.keep_result(attribution)
        if context.desk.is_undisturbed:
            _show(context, attribution)
        else:
            context.desk.notify("The attribution is done: C shows it.")

    work.run("attribute", task)


def show_last(context: Context) -> None:
    """Show the last attribution again."""
    attribution = context.study.attribution()
    if attribution is None:
        context.desk.notify("No attribution yet: A finds which features influence an answer.")
    else:
        _show(context, attribution)


def _show(context: Context, attribution: Attribution) -> None:
    pair = context.study.results.loaded

    def read(feature: int) -> None:
        features.jump_to(context, feature)
        context.desk.action_pane("tokens")

    page = CausesScreen(
        attribution,
        pair,
        context,
        warning=stale(context, attribution.request.measure, pair),
        read=read,
        describe=lambda feature, order: features.describe(context, feature, order),
        find_set=lambda: ask_set(context, attribution, page),
        last_set=lambda: show_last_set(context),
    )
    context.desk.open(page)


def of_another(context: Context, pair: Loaded | None) -> str:
    """Say why effects measured with `pair` do not hold for the loaded pair; "" if they do."""
    other = context.study.differences_from(pair)
    return f"These effects are of another {other}: A attributes again" if other else ""


def stale(context: Context, measure: Measure, pair: Loaded | None) -> str:
    """Say why effects on `measure`, measured with `pair`, are out of date; "" if they are not."""
    current = is_current(measure, context.study.work.prompts.probes)
    return of_another(context, pair) or ("" if current else "probes changed: A measures again")


# ---- the smallest set


def ask_set(context: Context, attribution: Attribution, leave: CausesScreen) -> None:
    """Open the form of a search for the smallest set; enter leaves the page `leave` and runs the search."""
    if _refuses(context, leave.pair):
        return
    exact, estimated = candidates(attribution, False), candidates(attribution, True)
    if not estimated:
        context.desk.report("No feature here takes any of the measure away.", "A with another measure, or probes.")
        return
    probes = context.study.work.prompts.probes
    facts = measures.facts(probes)
    choices = tuple(words for words, some in ((EXACT, exact), (ESTIMATED, len(estimated) > len(exact))) if some)
    # propose exact effects, unless all of these together are too little
    among = choices[0 if share_of(attribution, exact) >= SHARE else -1]
    fields = (
        Field("share", "share wanted, %", f"{SHARE:.0%}".rstrip("%")),
        Field("most", "most features", "32"),
        Field("among", "candidates", among, choices=choices),
        Field("penalty", "penalty for harm", "0", "0: harm is only reported"),
        Field("neutral", "neutral text", UNMEASURED, choices=(UNMEASURED, MEASURED)),
    )

    def request_of(values: Values) -> FindMinimalSet:
        return FindMinimalSet(
            attribution.request.measure,
            estimated if values["among"] == ESTIMATED else exact,
            float(values["share"]) / 100,
            int(values["most"]),
            facts,
            NEUTRAL_TOKENS if values["neutral"] == MEASURED else 0,
            float(values["penalty"]),
        )

    def summary(values: Values) -> str:
        request = request_of(values)
        kept = f"{count(len(facts), 'question')} of fact to be kept" if facts else "no questions of fact"
        candidates = count(len(request.candidates), "candidate")
        lines = [measure_in_short(request.measure), f"{candidates}: those that take some of it away", kept]
        if stale(context, request.measure, leave.pair):
            lines.append("⚠ the probes have changed since: A measures effects again")
        return "\n".join(lines)

    def run(values: Values | None) -> None:
        if values is not None:
            leave.action_leave()  # the main screen's header shows how far the search is
            find_set(context, request_of(values), leave.pair)

    context.desk.open(SummaryForm("The smallest set that carries it", fields, summary, check_set), run)


def _refuses(context: Context, pair: Loaded | None) -> bool:
    """Return whether a search among features of `pair` is refused, because another pair is loaded; report why."""
    why = of_another(context, pair)
    if why:
        context.desk.report(f"{why}.", "Then m searches among the loaded one's.")
    return bool(why)


def find_set(context: Context, request: FindMinimalSet, pair: Loaded | None) -> None:
    """Run a search for the smallest set among features of `pair`."""
    work = context.tasks
    if not work.may_ask():
        return

    async def task() -> None:
        await work.no_load_runs()  # a running load may end with another pair
        if _refuses(context, pair):
            return
        minimal_set = await work.ask(request, MinimalSet)
        context.autosave.keep_result(minimal_set)
        if context.desk.is_undisturbed:
            _show_set(context, minimal_set)
        else:
            context.desk.notify("The search is done: C, then M shows it.")

    work.run("minimal set", task)


def show_last_set(context: Context) -> None:
    """Show the last smallest set again."""
    sets = context.study.results.of(MinimalSet)
    if sets:
        _show_set(context, sets[-1])
    else:
        context.desk.notify("No set was searched for yet: m does, where the effects are (C).")


def _show_set(context: Context, minimal_set: MinimalSet) -> None:
    page = MinimalSetScreen(
        minimal_set,
        context.name_of,
        describe=lambda feature, order: features.describe(context, feature, order),
        ablate=lambda members: ablate(context, members),
    )
    context.desk.open(page)


def ablate(context: Context, features: list[int]) -> None:
    """Put ablations of these features into the list of edits."""
    context.study.edits.ablate(features)
    ablated = count(len(features), "feature")
    context.desk.notify(f"{ablated} ablated: now g generates with it, v answers every probe; u takes it back.")
