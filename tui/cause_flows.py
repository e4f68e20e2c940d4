"""Which features influence an answer, and the smallest set that carries it: asks, runs, shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.records import (
    NO_FEATURE,
    Answer,
    Attribute,
    Attribution,
    FindMinimalSet,
    Loaded,
    Measure,
    MinimalSet,
    Probe,
)
from engine.records import attribution as measures
from engine.records.attribution import candidates
from engine.records.errors import UsageError
from engine.records.measures import is_current, typed_answer, with_answers
from engine.records.words.attribution import measure_in_short
from tui.effects import strings_in_words
from tui.screens.causes import CausesScreen
from tui.screens.dialogs import Field
from tui.screens.minimal_set import MinimalSetScreen
from tui.screens.sheet import Sheet, Values
from tui.words import count_in_words, is_whole

if TYPE_CHECKING:
    from tui.main_screen import MainScreen

ALL, LISTED = "all features", "the leaderboard's"

EXACT = "those ablated one by one"

ESTIMATED = "estimated ones too"

UNMEASURED, MEASURED = "not measured", "1,000 tokens"

NEUTRAL_TOKENS = 1000

SHARE = 0.5
"""Proposed; a share is of 1."""


@dataclass(frozen=True)
class Choice:
    """What the user wants measured: two tracked answers, or strings typed in their place; among which features."""

    toward: str
    against: str
    typed_toward: str = ""
    typed_against: str = ""
    among: str = ALL


class CauseFlows:
    """One method a step: `ask_measure`, `show_last`, `ask_set`."""

    def __init__(self, screen: MainScreen) -> None:
        self.screen = screen
        self._choice: Choice | None = None
        """What was last measured: offered again."""

    # ---- attribution

    def ask_measure(self) -> None:
        """Proposes a measure; enter runs the attribution."""
        study = self.screen.study
        probes = study.work.prompts.probes
        if not probes:
            self.screen.report("There are no probes.", "Add a question that measures it: a under ? probes (1).")
            return
        names = answers_to_compare(probes)
        ranking = study.ranking()
        choice = self._choice if self._choice and self._fits(self._choice, names) else first_choice(names)
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
                self._choice = Choice(**values) if "toward" in values else Choice("", "", **values)
                self.attribute(measure_of(values, probes), values["among"] == LISTED)

        def summary(values: Values) -> str:
            return summary_of(measure_of(values, probes))

        def check(values: Values) -> str:
            try:
                measures.check_measure(measure_of(values, probes))
            except UsageError as error:
                return f"{error.message} {error.remedy}"
            return ""

        self.screen.app.push_screen(Sheet("Which features influence the answer?", fields, summary, check), run)

    def _fits(self, choice: Choice, names: tuple[str, ...]) -> bool:
        return {choice.toward, choice.against} <= {"", *names} and (len(names) < 2 or bool(choice.toward))

    def attribute(self, measure: Measure, listed: bool) -> None:
        """Runs it; the rows the leaderboard shows get one in any case."""
        work = self.screen.work
        if not work.may_ask():
            return
        ranking = self.screen.study.ranking()
        rows = tuple(row.feature for row in ranking.features) if ranking else ()
        edited = tuple(s.feature for s in self.screen.study.work.edits if s.feature != NO_FEATURE)
        request = Attribute(
            measure, candidates=rows if listed else (), also=() if listed else tuple(dict.fromkeys((*rows, *edited)))
        )

        async def task() -> None:
            found = await work.ask(request, Attribution)
            self.screen.keep_result(found)
            self.screen.show_ranking()
            if self.screen.is_undisturbed:
                self._show(found)
            else:
                self.screen.notify("The attribution is done: C shows it.")

        work.run("attribute", task)

    def show_last(self) -> None:
        """The last attribution again."""
        found = self.screen.study.attribution()
        if found is None:
            self.screen.notify("No attribution yet: A finds which features influence an answer.")
        else:
            self._show(found)

    def _show(self, found: Attribution) -> None:
        self.screen.app.push_screen(CausesScreen(self, found))

    def of_another(self, pair: Loaded | None) -> str:
        """Why effects that this pair has are none of the loaded one; "" where they are."""
        other = self.screen.study.other_than(pair)
        return f"These effects are of another {other}: A attributes again" if other else ""

    def stale(self, measure: Measure, pair: Loaded | None) -> str:
        """Why what was measured with this pair no longer holds; "" where it does."""
        current = is_current(measure, self.screen.study.work.prompts.probes)
        return self.of_another(pair) or ("" if current else "probes changed: A measures again")

    # ---- the smallest set

    def ask_set(self, found: Attribution, leave: CausesScreen) -> None:
        """How much it should carry, and at what cost; enter runs the search."""
        if self._refuses(leave.pair):
            return
        exact, estimated = candidates(found, False), candidates(found, True)
        if not estimated:
            self.screen.report("No feature here takes any of the measure away.", "A with another measure, or probes.")
            return
        probes = self.screen.study.work.prompts.probes
        facts = measures.facts(probes)
        choices = tuple(words for words, some in ((EXACT, exact), (ESTIMATED, len(estimated) > len(exact))) if some)
        # those that were ablated come first, unless even all of them together are too little
        among = choices[0 if share_of(found, exact) >= SHARE else -1]
        fields = (
            Field("share", "share wanted, %", f"{SHARE:.0%}".rstrip("%")),
            Field("most", "most features", "32"),
            Field("among", "candidates", among, choices=choices),
            Field("penalty", "penalty for harm", "0", "0: harm is only reported"),
            Field("neutral", "neutral text", UNMEASURED, choices=(UNMEASURED, MEASURED)),
        )

        def wanted(values: Values) -> FindMinimalSet:
            return FindMinimalSet(
                found.request.measure,
                estimated if values["among"] == ESTIMATED else exact,
                float(values["share"]) / 100,
                int(values["most"]),
                facts,
                NEUTRAL_TOKENS if values["neutral"] == MEASURED else 0,
                float(values["penalty"]),
            )

        def summary(values: Values) -> str:
            request = wanted(values)
            kept = f"{count_in_words(len(facts), 'question')} of fact to be kept" if facts else "no questions of fact"
            count = count_in_words(len(request.candidates), "candidate")
            lines = [measure_in_short(request.measure), f"{count}: those that take some of it away", kept]
            if self.stale(request.measure, leave.pair):
                lines.append("⚠ the probes have changed since: A measures effects again")
            return "\n".join(lines)

        def run(values: Values | None) -> None:
            if values is not None:
                leave.action_leave()  # the main screen's header shows how far the search is
                self.find_set(wanted(values), leave.pair)

        self.screen.app.push_screen(Sheet("The smallest set that carries it", fields, summary, check_set), run)

    def _refuses(self, pair: Loaded | None) -> bool:
        """Says why these features' set cannot be searched for, if it cannot."""
        why = self.of_another(pair)
        if why:
            self.screen.report(f"{why}.", "Then m searches among the loaded one's.")
        return bool(why)

    def find_set(self, request: FindMinimalSet, pair: Loaded | None) -> None:
        """Runs the search among features of this pair."""
        work = self.screen.work
        if not work.may_ask():
            return

        async def task() -> None:
            await work.no_load_runs()  # it may end with another pair
            if self._refuses(pair):
                return
            found = await work.ask(request, MinimalSet)
            self.screen.keep_result(found)
            if self.screen.is_undisturbed:
                self._show_set(found)
            else:
                self.screen.notify("The search is done: C, then M shows it.")

        work.run("minimal set", task)

    def show_last_set(self) -> None:
        """The last set again."""
        sets = self.screen.study.results.minimal_sets
        if sets:
            self._show_set(sets[-1])
        else:
            self.screen.notify("No set was searched for yet: m does, where the effects are (C).")

    def _show_set(self, found: MinimalSet) -> None:
        self.screen.app.push_screen(MinimalSetScreen(self, found))

    def ablate(self, features: list[int]) -> None:
        """Puts features into the list of edits, as ablations."""
        self.screen.study.add_edits(features)
        self.screen.edits_changed()
        count = count_in_words(len(features), "feature")
        self.screen.notify(f"{count} ablated: now g generates with it, v answers every probe; u takes it back.")


TYPED_EXAMPLE = "strings that count, | between; spaces count too"


def answers_to_compare(probes: tuple[Probe, ...]) -> tuple[str, ...]:
    """The names of answers a measure may be about."""
    return measures.answer_names([p for p in probes if not p.right])


def first_choice(names: tuple[str, ...]) -> Choice:
    """The first tracked answer against the second."""
    return Choice(names[0], names[1]) if len(names) > 1 else Choice("", "")


def typed_strings(text: str) -> tuple[str, ...]:
    """As typed: a space in front is part of the string."""
    return tuple(s for s in text.split("|") if s.strip())


def measure_of(values: Values, probes: tuple[Probe, ...]) -> Measure:
    """The measure the fields name. Raises UsageError where an answer is missing."""
    names = list(measures.answer_names(probes))
    sides, typed = [], []
    for side in ("toward", "against"):
        strings = typed_strings(values[f"typed_{side}"])
        if strings:
            typed.append(typed_answer(strings, names))
            sides.append(typed[-1].name)
        elif values.get(side):
            sides.append(values[side])
        else:
            raise UsageError(
                "The probes track fewer than two answers, so there is nothing to compare.",
                "Give a probe two answers (enter on it in pane 1), or type both here.",
            )
    known: dict[str, Answer] = {answer.name: answer for answer in typed}
    return Measure(with_answers(probes, tuple(known.values())), sides[0], sides[1])


def summary_of(measure: Measure) -> str:
    """What is measured, on what, and what is left out."""
    probes = measures.check_measure(measure)
    answers = {answer.name: answer.strings for answer in probes[0].answers}
    lines = [
        f"log p of {strings_in_words(answers[measure.toward])}",
        f"− log p of {strings_in_words(answers[measure.against])}",
        measure_in_short(measure),
    ]
    facts = len(measures.facts(measure.probes))
    others = len(measure.probes) - facts - len(probes)
    if others:
        lines.append(f"{count_in_words(others, 'probe')} left out: not both answers")
    if facts:
        lines.append(f"{count_in_words(facts, 'question')} of fact left out")
    return "\n".join(lines)


def share_of(found: Attribution, features: tuple[int, ...]) -> float:
    """What these features take away if each one's share counts by itself."""
    return sum(measures.share_of_baseline(found, row) or 0 for row in found.features if row.feature in features)


def check_set(values: Values) -> str:
    """What is wrong with the search's fields; "" if nothing is."""
    try:
        share, penalty = float(values["share"]), float(values["penalty"])
    except ValueError:
        return "Share and penalty are numbers."
    if not 0 < share <= 100:
        return "Share wanted: above 0, at most 100 %."
    if not 0 <= penalty < float("inf"):
        return "Penalty: 0 or more."
    if not is_whole(values["most"], 1, 1000):
        return "Most features: a whole number from 1 to 1,000."
    return ""
