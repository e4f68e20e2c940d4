"""Attribution, the smallest set, features' pages, labels across sessions: by keys, on an engine made of records."""

import json

import pytest
from fake_engine import (
    ATTRIBUTED,
    CONTROLS,
    FEATURES,
    QUESTION,
    SMALL,
    attribution_of,
    loaded_of,
    minimal_set_of,
    on_app,
    opened,
    replace,
    small_study,
)
from on_screen import asked, column, headings, sorted_by
from textual.widgets import Input, TextArea

from engine.files.explanations import Explanations
from engine.files.notes import Notes
from engine.records import (
    Answer,
    Attribute,
    Attribution,
    Describe,
    Edit,
    Failed,
    FindMinimalSet,
    Generated,
    Load,
    Measure,
    MinimalSet,
    Probe,
    Progress,
    Prompt,
    PromptSet,
    Rank,
    Ranking,
    Replay,
)
from engine.records.attribution import candidates
from engine.records.measures import again, is_current
from tui.commands import attribution, features, pair
from tui.screens.effects_page import CausesScreen
from tui.screens.feature_page import FeaturePage
from tui.screens.measure_forms import ESTIMATED, EXACT, MEASURED, share_of
from tui.screens.minimal_set_page import MinimalSetScreen
from tui.state.effects import LISTED, percent
from tui.widgets.dialogs import AskNote
from tui.widgets.forms import SummaryForm
from tui.widgets.page import Report

FACT = Probe("Is the queen a woman?", "chat", "", (Answer("yes", (" yes",)), Answer("no", (" no",))), right="yes")


def with_probes(*probes):
    return small_study(replace(SMALL, probes=probes))


def labelled(b):
    """The SAE's fingerprint in the app."""
    return b.study.loaded.sae_fingerprint


async def sheet(b):
    await b.until(lambda: isinstance(b.top, SummaryForm))
    await b.handled()


async def attributed(b):
    """With an attribution, its page on top."""
    await b.press("A")
    await sheet(b)
    await b.press("enter")
    await b.until(lambda: isinstance(b.top, CausesScreen))
    await b.handled()


def cells(b, key):
    table = b.top.table
    return [str(table.get_cell(row.key, key)).strip() for row in table.ordered_rows]


# ---- the whole way


@on_app()
async def test_from_prompts_to_a_set_by_keys_alone(b):
    await b.press("r")
    await b.until(b.rows)
    await b.press("A")
    await sheet(b)
    await b.press("enter")
    await b.until(lambda: isinstance(b.top, CausesScreen))
    await b.press("m")
    await sheet(b)
    await b.press("enter")
    await b.until(lambda: isinstance(b.top, MinimalSetScreen))
    await b.press("enter")
    await b.until(lambda: b.top is b.main)
    assert b.study.edits.on() == (Edit(101), Edit(4321))
    await b.hears("now g generates with it")
    await b.generated()
    assert b.study.results.of(Generated)[-1].edits == (Edit(101), Edit(4321))
    assert len(b.study.results.of(Attribution)) == len(b.study.results.of(MinimalSet)) == 1
    await b.press("u")
    assert b.study.edits.on() == ()


# ---- the measure


@on_app()
async def test_the_proposed_measure(b):
    await b.ranked()
    await b.press("space")  # an edited feature gets a row
    await b.press("A")
    await sheet(b)
    words = b.words(".summary")
    assert "“ woman”" in words and "“ man” “ boy”" in words and "female against male · mean over 1 probe" in words
    assert "1 probe left out: not both answers" in words
    await b.press("enter")
    await b.until(lambda: b.engine.of(Attribute))
    (request,) = b.engine.of(Attribute)
    assert request.measure == Measure(SMALL.probes, "female", "male")
    assert request.candidates == () and request.also == FEATURES


@on_app(study=with_probes(QUESTION, FACT))
async def test_questions_of_fact_are_left_out_and_offer_no_answers(b):
    await b.press("A")
    await sheet(b)
    assert "1 question of fact left out" in b.words(".summary")
    await b.press("right", "right")  # two answers: back to the first
    assert b.top.values()["toward"] == "female"


@on_app(study=with_probes(*(replace(QUESTION, text=f"{n}?", covariate=n) for n in (0.5, 1.5))))
async def test_a_slope_is_called_one(b):
    await b.press("A")
    await sheet(b)
    assert "slope on the covariate over 2 probes" in b.words(".summary")


@on_app()
async def test_another_measure_among_the_leaderboards_and_it_is_offered_again(b):
    await b.ranked()
    await b.press("A")
    await sheet(b)
    await b.press("right")
    await b.until(lambda: "'male' cannot be measured against itself" in b.words(".problem"))
    await b.press("enter")  # not while something is wrong
    assert isinstance(b.top, SummaryForm)
    await b.press("down", "left", "up", "up", "left")
    await b.until(lambda: not b.top.query_one(".problem").display)
    assert b.top.values() == {
        "toward": "male", "against": "female", "typed_toward": "", "typed_against": "", "among": LISTED,
    }  # fmt: skip
    await b.press("enter")
    await b.until(lambda: isinstance(b.top, CausesScreen))
    request = b.engine.of(Attribute)[-1]
    assert (request.measure.toward, request.measure.against) == ("male", "female")
    assert request.candidates == FEATURES and request.also == ()
    await b.press("escape", "A")
    await sheet(b)
    assert (b.top.values()["toward"], b.top.values()["among"]) == ("male", LISTED)


@on_app()
async def test_typed_answers(b):
    await b.press("A")
    await sheet(b)
    await b.press("down", "down")
    await b.type(" I don't know| It depends")
    await b.until(lambda: "log p of “ I don't know” “ It depends”" in b.words(".summary"))
    await b.press("enter")
    await b.until(lambda: b.engine.of(Attribute))
    measure = b.engine.of(Attribute)[-1].measure
    assert (measure.toward, measure.against) == (" I don't know| It depends", "male")
    assert measure.probes[0].answers[-1].strings == (" I don't know", " It depends")
    assert b.study.work.prompts.probes == SMALL.probes
    await b.until(lambda: isinstance(b.top, CausesScreen))
    assert b.study.effects() is not None  # it counts for the probes as they are


@on_app(study=with_probes(Probe("Who is a pilot?")))
async def test_without_tracked_answers_both_are_typed(b):
    await b.press("A")
    await sheet(b)
    assert "Give a probe two answers" in b.words(".problem")
    await b.type("yes")
    await b.press("enter")
    assert isinstance(b.top, SummaryForm)
    await b.press("down")
    await b.type("no")
    await b.press("enter")
    await b.until(lambda: b.engine.of(Attribute))
    assert [a.name for a in b.engine.of(Attribute)[-1].measure.probes[0].answers] == ["yes", "no"]


@on_app(study=with_probes())
async def test_without_probes(b):
    await b.press("A")
    await b.hears("There are no probes.")
    assert b.top is b.main
    await b.press("C")
    await b.hears("No attribution yet: A")


@on_app()
async def test_progress_and_stopping(b):
    b.engine.held = {Attribute}
    await b.press("A")
    await sheet(b)
    await b.press("enter")
    await b.until(lambda: b.engine.of(Attribute))
    b.engine.progress(Attribute, Progress("ablating one by one", 3, 12))
    await b.shows("ablating one by one")
    await b.press("x")
    await b.shows("● ready")
    assert b.study.attribution() is None and b.top is b.main and b.errors() == []


@on_app()
async def test_who_types_is_not_interrupted(b):
    b.engine.held = {Attribute}
    await b.press("A")
    await sheet(b)
    await b.press("enter")
    await b.until(lambda: b.engine.of(Attribute))
    await b.press("1", "a")
    await b.type("Girls")
    b.engine.release(Attribute)
    await b.hears("The attribution is done: C shows it.")
    assert b.top is b.main
    await b.press("escape", "C")
    await b.until(lambda: isinstance(b.top, CausesScreen))


@on_app()
async def test_a_failed_attribution_is_reported(b):
    b.engine.failures = {Attribute: Failed("ModelError", "No memory.", "Fewer probes.")}
    await b.press("A")
    await sheet(b)
    await b.press("enter")
    await b.hears("No memory.")
    assert b.top is b.main


# ---- its page


@on_app(size=(160, 50))
async def test_the_causes(b):
    await b.ranked()
    await attributed(b)
    assert b.top.features() == [*ATTRIBUTED, *(f for f in FEATURES if f not in ATTRIBUTED), *CONTROLS]
    # BASE is 2 nats: 101 takes 0.72 of them
    assert cells(b, "share")[:5] == ["−36%", "−18%", "−12%", "+9.0%", "≈−8.0%"]
    assert cells(b, "exact")[0] == "−0.7200" and cells(b, "exact")[4] == "–"
    assert cells(b, "evidence")[:5] == ["influences", "influences", "associated", "associated", "estimated"]
    assert cells(b, "evidence")[-1] == "control"
    await b.shows("female against male · mean over 1 probe")
    text = b.screen_text()
    assert "Baseline +2.000 nats" in text and "0.75" in text and "estimate +0.93, activation +0.12" in text
    assert "24 controls" in text
    await b.press("p")
    await b.until(lambda: isinstance(b.top, Report))
    await b.shows("Who is a nurse?A nurse is a")


@on_app()
async def test_acting_on_causes(b):
    await attributed(b)
    await b.press("down", "space")
    await b.until(lambda: b.study.edits.on() == (Edit(4321),))
    assert cells(b, "mark")[:2] == ["", "▣"]
    await b.press("f")
    await b.until(lambda: isinstance(b.top, FeaturePage) and b.top.feature == 4321)
    await b.press("right")
    assert b.top.feature == 103  # the next one of these
    await b.press("left", "space", "escape")
    await b.until(lambda: isinstance(b.top, CausesScreen))
    await b.until(lambda: cells(b, "mark")[1] == "▢")
    await b.press("enter")
    await b.until(lambda: b.top is b.main)
    assert b.study.work.feature == 4321 and b.main.focused_pane() is b.main.tokens


@on_app()
async def test_a_feature_without_a_row_gets_one_when_it_is_read(b):
    await b.ranked()
    await attributed(b)
    await b.press("down", "enter")
    await b.until(lambda: 4321 in b.rows())
    assert b.engine.of(Rank)[-1].also == (4321,)


@on_app()
async def test_changed_probes_make_it_stale(b):
    await b.ranked()
    await attributed(b)
    await b.press("escape")
    await b.until(lambda: "effect" in headings(b))
    b.study.prompts.put_probe(0, replace(QUESTION, prefill="A nurse is always a"))
    await b.until(lambda: "effect" not in headings(b))
    assert str(b.main.features.border_subtitle) == "probes changed: A measures effects again"
    await b.press("C")
    await b.shows("⚠ probes changed: A measures again")
    await b.press("escape", "u")
    await b.until(lambda: "effect" in headings(b))
    assert str(b.main.features.border_subtitle) == "2 vs 2"


@on_app()
async def test_no_set_is_searched_among_another_saes_features(b):
    await b.ranked()
    await attributed(b)
    await b.press("escape")
    await b.until(lambda: "effect" in headings(b))
    pair.load(b.main.context, Load(sae="another"))  # as where a session is opened elsewhere: the results stay
    await b.until(lambda: b.study.differences == ["SAE"])
    await b.until(lambda: "effect" not in headings(b))
    assert str(b.main.features.border_subtitle) == "effects of another pair: A measures again"
    await b.press("C")
    await b.shows("These effects are of another SAE: A attributes again")
    await b.press("m")
    await b.until(lambda: any("effects are of another SAE" in error for error in b.errors()))
    assert isinstance(b.top, CausesScreen)
    attribution.find_set(b.main.context, FindMinimalSet(b.top.found.request.measure, (100,)), b.top.pair)
    await b.settle()
    assert not b.engine.of(FindMinimalSet)


def test_what_makes_a_measure_stale():
    measure = Measure(SMALL.probes, "female", "male")
    assert is_current(measure, SMALL.probes)
    assert is_current(measure, (*SMALL.probes, FACT))
    more = replace(QUESTION, answers=(*QUESTION.answers, Answer("neither", (" no",))))
    assert is_current(measure, (more,))
    assert not is_current(measure, (*SMALL.probes, replace(QUESTION, text="And a doctor?")))
    assert not is_current(measure, (replace(QUESTION, answers=QUESTION.answers[:1]),))
    assert not is_current(measure, (replace(QUESTION, covariate=1.0),))
    assert not is_current(measure, ())
    typed = Measure((replace(QUESTION, answers=(*QUESTION.answers, Answer("?", ("?",)))),), "?", "male")
    assert is_current(typed, (QUESTION,)) and again(typed, (QUESTION,)) == typed


def test_shares_in_words():
    assert [percent(s) for s in (-0.12, 0.5, -0.0994, -0.0996, 0.0, -0.0004)] == [
        "−12%", "+50%", "−9.9%", "−10%", "0%", "0%",
    ]  # fmt: skip


# ---- the leaderboard


@on_app(size=(200, 50))
async def test_the_leaderboards_columns(b):
    await b.ranked()
    assert not {"effect", "evidence"} & set(headings(b))
    assert headings(b)[-1] == "p" and column(b, "p")[0] == "–"  # two against two have none
    assert column(b, "loo")[:2] == ["1", "3"]
    assert "associated, no more" in b.words("#features-note")
    await attributed(b)
    await b.press("escape")
    await b.until(lambda: "effect" in headings(b))
    assert headings(b)[3:6] == ["score▾", "effect", "evidence"]
    effects = dict(zip(b.rows(), column(b, "effect"), strict=True))
    assert (effects[101], effects[105], effects[104]) == ("−36%", "≈−8.0%", "+9.0%")
    assert column(b, "evidence")[:3] == ["associated", "influences", "associated"]
    assert "1 of 30 shown to influence the answer" in b.words("#features-note")
    assert "associated, no more" not in b.words("#features-note")


EIGHT = PromptSet("eight", tuple(Prompt(f"a {n}") for n in range(8)), tuple(Prompt(f"b {n}") for n in range(8)))


@on_app(size=(200, 50), study=small_study(EIGHT))
async def test_p_where_there_are_labelings_enough(b):
    await b.ranked()
    assert headings(b)[3:5] == ["score▾", "p"] and column(b, "p")[0] == "0.0002"
    assert "p: 2,000 labelings, 0.0005 at least" in b.words("#features-note")


@on_app(size=(200, 50))
async def test_sorting_by_effect_asks_nothing(b):
    await b.ranked()
    await attributed(b)
    await b.press("escape", "o")
    await b.until(lambda: sorted_by(b) == "effect")
    assert b.rows()[:4] == [101, 103, 104, 105]  # by size, either way
    assert len(b.engine.of(Rank)) == 1
    await b.press("p")  # pinned ones stay on top
    await b.press("O")
    await b.until(lambda: sorted_by(b) == "score")
    assert len(b.engine.of(Rank)) == 1
    await b.press("o", "o")
    await b.until(lambda: sorted_by(b) == "t")
    assert len(b.engine.of(Rank)) == 2


@on_app()
async def test_the_density_weight(b):
    await b.press("3", "w")
    await b.hears("Nothing is ranked yet: r")
    await b.ranked()
    assert b.engine.of(Rank)[-1].density_weight
    await b.press("w")
    await b.until(lambda: "density weight off: w" in b.words("#features-note"))
    assert not b.study.ranking().density_weight
    await b.press("r")
    await b.until(lambda: len(b.engine.of(Rank)) == 3)
    assert not b.engine.of(Rank)[-1].density_weight  # as it was
    await b.until(lambda: len(b.study.results.of(Ranking)) == 1)
    await b.press("w")
    await b.until(lambda: b.study.ranking().density_weight)


# ---- the smallest set


def fields(b):
    return b.top.values()


@on_app(study=with_probes(QUESTION, FACT))
async def test_what_is_asked_for(b):
    await attributed(b)
    await b.press("m")
    await sheet(b)
    assert fields(b) == {"share": "50", "most": "32", "among": EXACT, "penalty": "0", "neutral": "not measured"}
    await b.press("down", "down", "right", "down")
    await b.type("0.5")
    await b.press("down", "right")
    assert fields(b)["among"] == ESTIMATED and fields(b)["neutral"] == MEASURED
    for wrong in ("x", "0", "101", ""):
        b.top.query_one("#f-share", Input).value = wrong
        await b.until(lambda: b.top.query_one(".problem").display)
    b.top.query_one("#f-share", Input).value = "80"
    await b.press("enter")
    await b.until(lambda: b.engine.of(FindMinimalSet))
    (request,) = b.engine.of(FindMinimalSet)
    assert request.candidates == (101, 4321, 103, 105) and request.share == 0.8 and request.most == 32
    assert request.facts == (FACT,) and request.neutral_tokens == 1000 and request.penalty == 0.5
    await b.until(lambda: isinstance(b.top, MinimalSetScreen))
    await b.shows("2 features: 60% of the measure taken away (80% wanted: not reached)")
    text = b.screen_text()
    assert "facts kept 97%" in text and "KL 0.012" in text and "-2% to 8%" in text
    assert "associated" in text  # three random sets are too few
    assert cells(b, "with") == ["30.0%", "60.0%"] and cells(b, "carries") == ["30.0%", "30.0%"]


def test_candidates_take_some_of_it_away():
    found = attribution_of(Attribute(Measure(SMALL.probes, "female", "male")))
    assert candidates(found, False) == (101, 4321, 103)  # 104 adds to it, 105 was not ablated
    assert candidates(found, True) == (101, 4321, 103, 105)
    none = replace(found, features=tuple(replace(row, exact=None) for row in found.features))
    assert share_of(found, (101, 103)) == pytest.approx(0.48)
    assert candidates(none, False) == () and candidates(none, True) == (101, 4321, 103, 105)


@on_app()
async def test_where_the_ablated_ones_are_too_little_the_others_are_proposed_too(b):
    b.engine.instead[Attribute] = lambda r: replace(found := attribution_of(r), baseline=2 * found.baseline)
    await attributed(b)
    await b.press("m")
    await sheet(b)
    assert fields(b)["among"] == ESTIMATED


@on_app()
async def test_nothing_to_choose_from(b):
    b.engine.instead[Attribute] = lambda r: replace(found := attribution_of(r), features=found.features[3:4])
    await attributed(b)
    await b.press("m")
    await b.hears("No feature here takes any of the measure away.")
    await b.press("M")
    await b.hears("No set was searched for yet")


@on_app()
async def test_a_search_stops_and_the_last_set_comes_again(b):
    b.engine.held = {FindMinimalSet}
    await attributed(b)
    await b.press("m")
    await sheet(b)
    await b.press("enter")
    await b.until(lambda: b.top is b.main and b.engine.of(FindMinimalSet))
    await b.press("x")
    await b.until(lambda: b.engine.cancelled)
    assert b.study.results.of(MinimalSet) == ()
    b.engine.held = set()
    await b.press("C", "m")
    await sheet(b)
    await b.press("enter")
    await b.until(lambda: isinstance(b.top, MinimalSetScreen))
    await b.press("escape", "C", "M")
    await b.until(lambda: isinstance(b.top, MinimalSetScreen))
    await b.press("f")
    await b.until(lambda: isinstance(b.top, FeaturePage) and b.top.feature == 101)
    assert b.study.edits.on() == ()


@on_app()
async def test_replay_runs_causes_too(b):
    await attributed(b)
    await b.press("m")
    await sheet(b)
    await b.press("enter")
    await b.until(lambda: isinstance(b.top, MinimalSetScreen))
    await b.press("escape", "R")
    await b.shows("2 results run again.")
    assert len(b.engine.of(Replay)) == 2
    await b.shows("minimal set of 'female' against 'male': same members")


@on_app()
async def test_the_same_attribution_replaces_itself(b):
    await attributed(b)
    await b.press("escape")
    await attributed(b)
    assert len(b.study.results.of(Attribution)) == 1


# ---- a feature's page


@on_app(size=(130, 60))
async def test_the_page(b):
    await b.ranked()
    await b.press("f")
    await b.until(lambda: isinstance(b.top, FeaturePage))
    await b.shows("fires with it (tokens)")
    text = b.screen_text()
    for words in ("Feature #100 word100", "on 91 tokens of your prompts", "██", "+0.80  #101 near1", "50% (7)  #105"):
        assert words in text, words
    assert "−0.75  #109 far" in text and "1 of 30" in text
    await b.press("right")
    await b.shows("Feature #101")
    await b.press("left")
    await b.shows("Feature #100")
    await b.settle()
    assert [d.feature for d in b.engine.of(Describe)] == [100, 101]  # the first is known already
    await b.press("left")  # none before
    assert b.top.feature == 100
    await b.press("space")
    await b.shows("▣ ablate")
    assert b.study.edits.on() == (Edit(100),)


@on_app()
async def test_what_is_known_is_there_before_the_engine_answers(b):
    await b.ranked()
    b.engine.held = {Describe}
    await b.press("f")
    await b.shows("the engine looks it up…")
    await b.shows("Score 3.00, place 1 of the 30 shown")
    await b.press("right", "right")
    await b.shows("Score 2.80, place 3")
    b.engine.release(Describe)
    await b.shows("Strongest tokens")
    assert "Feature #102" in b.screen_text()


@on_app()
async def test_the_effect_on_demand(b):
    await b.ranked()
    await b.press("f")
    await b.shows("e: ablates it for certain")
    assert b.engine.of(Describe)[-1].measure is None
    await b.press("e")
    await b.shows("Ablated: −10% of female against male, +2.000 → +1.800 nats")
    assert b.engine.of(Describe)[-1].measure == Measure(SMALL.probes, "female", "male")
    await b.press("e")
    await b.settle()
    assert len(b.engine.of(Describe)) == 2


@on_app()
async def test_what_is_known_is_forgotten_with_another_dtype_reference_or_wiring(b):
    await b.ranked()
    await b.press("f")
    await b.shows("e: ablates it for certain")
    await b.press("e")
    await b.shows("Ablated: −10%")
    page, loaded = b.main.context.known, b.study.loaded
    described, effect = page.described(100), page.effect(100)
    assert described is not None and effect is not None
    others = {"dtype": "float16", "reference_fingerprint": "other", "normalisation": "other", "rescaled": 2.0}
    for field, value in others.items():
        page._found, page._effects = {100: described}, {100: effect}
        b.study.loaded = replace(loaded, **{field: value})
        assert page.effect(100) is None and page.described(100) is None, field


@on_app()
async def test_an_exact_effect_is_there_at_once(b):
    await b.ranked()
    await attributed(b)
    await b.press("escape", "down", "f")
    await b.shows("Ablated: −36% of female against male, +2.000 → +1.280 nats")
    await b.shows("influences")
    await b.press("e")
    await b.settle()
    assert [d.measure for d in b.engine.of(Describe)] == [None]


@on_app(study=with_probes())
async def test_no_effect_without_probes(b):
    await b.ranked()
    await b.press("f")
    await b.until(lambda: isinstance(b.top, FeaturePage))
    await b.press("e")
    await b.hears("There is nothing to measure.")


@on_app(size=(80, 24))
async def test_the_page_scrolls(b):
    await b.ranked()
    await b.press("f")
    await b.shows("Fires on")
    assert "fires with it (tokens)" not in b.screen_text()
    await b.press("end")
    await b.shows("fires with it (tokens)")
    await b.press("home")
    await b.shows("Score 3.00")


@on_app()
async def test_the_address(b):
    await b.ranked()
    await b.press("f")
    await b.until(lambda: isinstance(b.top, FeaturePage))
    await b.press("y")
    assert b.app.clipboard == "100"
    b.study.loaded = replace(b.study.loaded, neuronpedia="gpt2-small/8-res-jb")
    await b.press("right")
    await b.shows("https://www.neuronpedia.org/gpt2-small/8-res-jb/101")
    await b.press("y")
    assert b.app.clipboard == "https://www.neuronpedia.org/gpt2-small/8-res-jb/101"


# ---- across sessions


@on_app()
async def test_labels_and_notes_are_kept_for_the_sae(b):
    await b.ranked()
    await b.press("f")
    await b.until(lambda: isinstance(b.top, FeaturePage))
    await b.press("l")
    await asked(b, "Label of feature 100", "nurses")
    await b.shows("Feature #100 nurses")
    await b.press("n")
    await b.until(lambda: isinstance(b.top, AskNote))
    await b.handled()
    b.top.query_one(TextArea).text = "Only in [b]sentences[/b]\nabout pay."
    await b.press("ctrl+s")
    await b.shows("Note: Only in [b]sentences[/b]")
    await b.main.context.notebook.finish()
    (note,) = Notes().of(labelled(b)).values()
    assert (note.label, note.notes) == ("nurses", "Only in [b]sentences[/b]\nabout pay.")
    assert b.study.work.labels == {100: "nurses"}
    await b.press("n")
    await b.until(lambda: isinstance(b.top, AskNote))
    await b.press("escape")
    await b.shows("Note: Only")


def test_labels_of_other_sessions_appear_and_the_sessions_own_win(tmp_path):
    import asyncio

    sae = loaded_of(Load()).sae_fingerprint
    Notes().put(sae, "demo", 101, "from before", "a note")
    Notes().put(sae, "demo", 102, "from before too")
    Notes().put("another", "x", 103, "not here")

    async def main():
        study = small_study()
        study.set_label(102, "mine")
        async with opened(tmp_path, study) as b:
            await b.ranked()
            await b.until(lambda: column(b, "tokens")[1] == "“from before”")
            assert column(b, "tokens")[2:4] == ["“mine”", "word103"]
            await b.press("down", "f")
            await b.shows("Feature #101 from before")
            await b.shows("Note: a note")
            assert 101 not in b.study.work.labels

    asyncio.run(main())


@on_app()
async def test_what_is_put_while_a_read_waits_is_not_overwritten(b):
    book, sae = b.main.context.notebook, labelled(b)
    for feature in (1, 2, 3):
        book.set_label(feature, "old")
        book.set_note(feature, "old")
    await book.finish()
    await b.settle()
    async with book._files:  # another app holds the lock
        book.read(b.study.loaded)
        await b.settle()
        book.set_note(1, "new")
        book.set_label(2, "")
    await book.finish()
    await b.until(lambda: Notes().of(sae)[2].label == "")
    await b.settle()
    assert book.note(1) == "new" and book.labels == {1: "old", 3: "old"}
    for feature in (1, 2, 3):  # deleted by another app
        Notes().put(sae, "demo", feature, "", "")
    book.read(b.study.loaded)
    await b.until(lambda: book.labels == {} and not book.note(1))


@on_app()
async def test_a_file_of_notes_that_cannot_be_written_is_reported(b):
    path = Notes().path
    path.parent.mkdir(parents=True)
    path.mkdir()  # a folder in its place
    await b.ranked()
    await b.press("l")
    await asked(b, "Label", "nurses")
    await b.until(lambda: any(str(path) in error for error in b.errors()))
    assert b.study.work.labels == {100: "nurses"}  # the session has it all the same


@on_app()
async def test_explanations(b):
    lines = [{"index": "100", "description": "talk of [b]nurses[/b]"}, {"no": "explanation"}]
    path = Notes().path.parent.parent / "export.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, lines)))
    await b.ranked()
    features.import_explanations(b.main.context)
    await asked(b, "Import explanations", "/nowhere")
    await b.until(lambda: "There is no such file or folder." in b.words(".problem"))
    await asked(b, "Import explanations", str(path))
    await b.hears("1 features explained, 1 lines left out")
    await b.press("f")
    await b.shows("Explanation: talk of [b]nurses[/b]")
    assert Explanations().of(labelled(b)) == {100: "talk of [b]nurses[/b]"}


@on_app()
async def test_explanations_of_nothing_are_reported(b):
    path = Notes().path.parent.parent / "export.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    features.import_explanations(b.main.context)
    await asked(b, "Import explanations", str(path))
    await b.until(lambda: any("unknown kind" in error for error in b.errors()))


# ---- probes


@on_app(study=with_probes(replace(QUESTION, covariate=-0.25), FACT))
async def test_the_probes_form_keeps_covariate_and_right_answer(b):
    await b.press("1", "end", "up", "enter")
    await b.until(lambda: b.top is not b.main)
    await b.handled()
    b.top.query_one("#f-text", Input).value = "Who nurses?"
    b.top.query_one("#f-covariate", Input).value = "x"
    await b.press("enter")
    await b.until(lambda: "covariate: a number" in b.words(".problem"))
    b.top.query_one("#f-covariate", Input).value = "0.5"
    b.top.query_one("#f-right", Input).value = "nobody"
    await b.press("enter")
    await b.until(lambda: "is no tracked answer" in b.words(".problem"))
    b.top.query_one("#f-right", Input).value = ""
    await b.press("enter")
    await b.until(lambda: b.study.work.prompts.probes[0].text == "Who nurses?")
    assert b.study.work.prompts.probes == (replace(QUESTION, text="Who nurses?", covariate=0.5), FACT)


def test_the_fake_set_is_what_it_says():
    request = FindMinimalSet(Measure(SMALL.probes, "female", "male"), (101, 103))
    assert minimal_set_of(request).reached
