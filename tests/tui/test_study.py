"""The app's state alone: no widgets, no engine."""

import msgspec
import pytest
import samples

from engine.files import session as sessions
from engine.files.session import EditSlot
from engine.records import (
    NO_FEATURE,
    Edit,
    EditsFrom,
    Generated,
    Load,
    Probe,
    ProbeTable,
    Prompt,
    PromptSet,
    Ranking,
    Sampling,
)
from engine.records.edits import EDIT_KINDS
from engine.records.words.edits import POSITIONS
from tui.state.edits import variants
from tui.state.history import UNDO_STEPS
from tui.state.study import Study, start_workspace, workspace_of
from tui.state.topics import Topic

replace = msgspec.structs.replace

ONE, TWO, THREE = Prompt("one"), Prompt("two"), Prompt("three")

SET = PromptSet("s", (ONE, TWO), (THREE,), (samples.PROBE,))


@pytest.fixture
def study():
    return Study(samples.LOAD, start_workspace(SET))


def of_prompts(study):
    """A ranking of the study's prompts as they are."""
    now = study.work.prompts
    fed = tuple(replace(samples.POSITIVE, text=p.text, format=p.format) for p in (*now.positive, *now.negative))
    return replace(samples.RANKING, prompts=fed, n_positive=len(now.positive), n_negative=len(now.negative))


# ---- prompts


def test_a_prompt_set_is_what_one_starts_with():
    work = start_workspace(SET, (Edit(7, 2.0),))
    assert (work.prompts, work.question, work.raw) == (SET, "Which gender?", False)
    assert work.edits == (EditSlot(7, 2.0),)
    raw = start_workspace(PromptSet("r", probes=(Probe("q", "raw"),)))
    assert raw.raw and raw.question == "q"
    assert start_workspace(PromptSet("none")).question == ""


def test_prompts_are_typed_over_and_added_as_the_others_are_fed(study):
    assert study.prompts.put("positive", 1, "TWO") == 1
    assert study.work.prompts.positive == (ONE, Prompt("TWO"))
    study.prompts.switch_format()
    assert study.prompts.put("negative", None, "four") == 1
    assert study.work.prompts.negative == (Prompt("three", "chat"), Prompt("four", "chat"))
    assert study.prompts.put("positive", 0, "uno") == 0
    assert study.work.prompts.positive == (Prompt("uno", "chat"), Prompt("TWO", "chat"))


def test_typing_over_keeps_what_else_a_prompt_says():
    study = Study(Load(), start_workspace(PromptSet("s", (ONE,), (Prompt("x", "chat", breaks="men"),))))
    study.prompts.put("negative", 0, "y")
    assert study.work.prompts.negative == (Prompt("y", "chat", breaks="men"),)


def test_undo_takes_back_one_change_of_prompts_at_a_time(study):
    study.prompts.put("positive", None, "four")
    study.prompts.delete("negative", 0)
    study.prompts.put_probe(0, Probe("other"))
    assert study.work.prompts.negative == () and study.work.prompts.probes == (Probe("other"),)
    assert study.history.undo() and study.work.prompts.probes == (samples.PROBE,)
    assert study.history.undo() and study.work.prompts.negative == (THREE,)
    assert study.history.undo() and study.work.prompts == SET
    version = study.version
    assert not study.history.undo() and study.version == version


def test_undo_leaves_everything_else_alone(study):
    study.edits.toggle(7)
    study.prompts.put("positive", None, "four")
    study.set_question("new")
    assert study.history.undo()
    assert study.work.prompts == SET and study.edits.on() == (Edit(7),) and study.work.question == "new"


def test_no_change_is_no_step_of_undo(study):
    study.prompts.put("positive", 0, "one")
    assert study.version == 0 and not study.history.undo()


def test_undo_goes_back_at_least_a_hundred_steps(study):
    for number in range(UNDO_STEPS + 20):
        study.prompts.put("positive", 0, f"text {number}")
    steps = 0
    while study.history.undo():
        steps += 1
    assert steps in (UNDO_STEPS, UNDO_STEPS + 1)
    assert study.work.prompts.positive[0].text == f"text {UNDO_STEPS + 20 - 1 - steps}"


def test_a_prompt_moves_to_the_end_of_the_other_set_and_back(study):
    study.prompts.move("positive", 0)
    assert study.work.prompts.positive == (TWO,) and study.work.prompts.negative == (THREE, ONE)
    study.prompts.move("negative", 1)
    assert study.work.prompts.positive == (TWO, ONE) and study.work.prompts.negative == (THREE,)
    assert study.history.undo() and study.history.undo() and study.work.prompts == SET


def test_adding_prompts_leaves_out_what_is_there(study):
    probes = [Probe(" Which gender? "), Probe("Who?")]
    count = study.prompts.add([Prompt(" one "), Prompt("new")], [Prompt("two"), Prompt("other")], probes)
    now = study.work.prompts
    assert count == 3
    assert now.positive == (ONE, TWO, Prompt("new")) and now.negative == (THREE, Prompt("other"))
    assert now.probes == (samples.PROBE, Probe("Who?"))
    assert study.history.undo() and study.work.prompts == SET
    version = study.version
    assert study.prompts.add([ONE], [THREE], [samples.PROBE]) == 0 and study.version == version


def test_adding_leaves_out_what_the_file_has_twice(study):
    assert study.prompts.add([Prompt("new"), Prompt("new ")], [Prompt("new")], []) == 1
    assert study.work.prompts.positive == (ONE, TWO, Prompt("new"))


def test_the_format_of_all_prompts_is_switched_at_once(study):
    assert study.prompts.format() == "raw"
    assert study.prompts.switch_format() == "chat"
    now = study.work.prompts
    assert {p.format for p in (*now.positive, *now.negative)} == {"chat"}
    assert now.probes == SET.probes
    assert study.prompts.switch_format() == "raw" and study.work.prompts == SET
    assert Study(Load(), start_workspace(PromptSet("empty"))).prompts.format() == "raw"


# ---- the question


def test_the_probe_of_the_question(study):
    assert study.probe_of_question() == samples.PROBE
    study.set_question(" Which gender?\n")
    assert study.probe_of_question() == samples.PROBE
    study.set_question("Else?")
    assert study.probe_of_question() is None and study.question() == Prompt("Else?", "chat")
    study.ask_probe(Probe("Raw one", "raw"))
    assert study.question() == Prompt("Raw one", "raw")
    study.set_generation(False, Sampling(3, 0.5, 7), "So", 2, True)
    assert study.question() == Prompt("Raw one", "chat")
    assert (study.work.sampling, study.work.restart) == (Sampling(3, 0.5, 7), True)
    assert (study.work.prefill, study.work.samples) == ("So", 2)
    study.switch_restart()
    assert not study.work.restart and study.work.samples == 2


# ---- features and edits


def test_pins_and_labels(study):
    study.toggle_pin(5)
    study.toggle_pin(3)
    assert study.work.pinned == (5, 3)
    study.toggle_pin(5)
    assert study.work.pinned == (3,)
    study.set_label(3, "  nurse ")
    study.set_label(4, "x")
    assert study.work.labels == {3: "nurse", 4: "x"}
    study.set_label(4, "  ")
    assert study.work.labels == {3: "nurse"}


def test_an_edit_is_switched_and_keeps_its_strength_and_place(study):
    study.edits.toggle(7)
    study.edits.toggle(8)
    assert study.edits.on() == (Edit(7), Edit(8))
    study.edits.step(7, 1)
    assert study.edits.slot(7) == EditSlot(7, 0.125)
    study.edits.toggle(7)
    assert study.edits.on() == (Edit(8),) and study.edits.slot(7) == EditSlot(7, 0.125, on=False)
    study.edits.toggle(7)
    assert study.edits.on() == (Edit(7, 0.125), Edit(8))
    study.edits.remove(7)
    assert study.work.edits == (EditSlot(8),) and study.edits.slot(7) is None


@pytest.mark.parametrize("kind", ["scale", "set", "steer", "project"])
def test_strength_goes_along_the_steps_of_its_kind_to_both_ends(study, kind):
    steps = EDIT_KINDS[kind].steps
    study.edits.put((Edit(7, steps[-1], kind),))
    study.edits.step(7, 1)
    assert study.edits.slot(7).strength == steps[-1]
    seen = []
    while study.edits.slot(7).strength != steps[0]:
        study.edits.step(7, -1)
        seen.append(study.edits.slot(7).strength)
    assert seen == list(reversed(steps[:-1]))
    study.edits.step(7, -1)
    assert study.edits.slot(7) == EditSlot(7, steps[0], kind)


def test_steps_reach_what_changes_nothing_and_what_removes():
    known = {kind: row.steps for kind, row in EDIT_KINDS.items()}
    assert {0.0, 1.0} <= set(known["scale"]) & set(known["project"])
    assert 0.0 in known["steer"] and min(known["steer"]) == -max(known["steer"])
    assert known["set"][0] == known["project"][0] == 0.0
    assert all(list(steps) == sorted(set(steps)) for steps in known.values())


def test_a_new_edit_steps_from_where_nothing_changes(study):
    study.edits.step(7, 1)
    study.edits.step(9, -1)
    assert study.work.edits == (EditSlot(7, 1.5), EditSlot(9, 0.75))


def test_a_strength_in_between_goes_on_from_the_nearest():
    study = Study(Load(), start_workspace(SET, (Edit(1, 0.7), Edit(2, 100.0), Edit(3, -7.0))))
    for feature, steps, scale in ((1, 1, 1.0), (2, -1, 3.0), (3, 1, -0.5)):
        study.edits.step(feature, steps)
        assert study.edits.slot(feature).strength == scale


def test_another_strength_drops_what_the_old_one_came_to(study):
    study.edits.put((Edit(7, 5.0, "set", absolute=50.0),))
    study.edits.step(7, 1)  # there is no stronger one
    assert study.edits.slot(7).absolute == 50.0
    study.edits.step(7, -1)
    assert study.edits.on() == (Edit(7, 3.0, "set"),)


def test_an_edit_goes_round_all_places(study):
    study.edits.move(7)
    assert study.work.edits == ()  # there is none
    study.edits.put((Edit(7, 2.0, "set", absolute=20.0),))
    seen = []
    for _ in POSITIONS:
        seen.append(study.edits.slot(7).at)
        study.edits.move(7)
    assert tuple(seen) == POSITIONS and study.edits.on() == (Edit(7, 2.0, "set", absolute=20.0),)


def test_the_reconstruction_is_an_edit_like_others(study):
    study.edits.toggle(7)
    study.edits.toggle_reconstruction()
    assert study.edits.on() == (Edit(7), Edit(kind="reconstruct"))
    study.edits.toggle_reconstruction()
    assert study.edits.on() == (Edit(7),) and not study.edits.slot(NO_FEATURE).on
    study.edits.toggle(NO_FEATURE)
    study.edits.step(NO_FEATURE, 1)
    assert study.edits.on() == (Edit(7), Edit(kind="reconstruct"))
    study.edits.remove(NO_FEATURE)
    assert study.work.edits == (EditSlot(7),)


def test_edits_are_put_in_one_step_of_undo(study):
    study.edits.ablate([1, 2])
    study.edits.toggle(2)
    study.edits.put((Edit(2, 0.5, at="prompt"), Edit(kind="reconstruct")))
    assert study.edits.on() == (Edit(1), Edit(2, 0.5, at="prompt"), Edit(kind="reconstruct"))
    assert study.history.undo() and study.work.edits == (EditSlot(1), EditSlot(2, on=False))


@pytest.mark.parametrize(
    "add",
    [
        lambda study: study.edits.toggle(1),
        lambda study: study.edits.step(1, 1),
        lambda study: study.edits.toggle_reconstruction(),
    ],
)
def test_an_edit_new_to_the_list_is_a_step_of_undo(study, add):
    study.edits.ablate([5])
    study.edits.clear()
    add(study)
    add(study)  # what it does to one in the list is none
    study.edits.move(1)
    assert len(study.work.edits) == 1
    assert study.history.undo() and study.work.edits == ()
    assert study.history.undo() and study.work.edits == (EditSlot(5),)


def test_variants_have_one_edit_at_several_strengths():
    edits = (Edit(1), Edit(2, 2.0, "set", absolute=20.0), Edit(3))
    found = variants(edits, edits[1], (0.5, 2.0))
    assert found == ((Edit(1), Edit(2, 0.5, "set"), Edit(3)), edits)
    assert variants(edits, Edit(9), (0.0,)) == ((*edits, Edit(9)),)


def test_stepping_switches_an_edit_on(study):
    study.edits.toggle(7)
    study.edits.toggle(7)
    study.edits.step(7, 1)
    assert study.edits.on() == (Edit(7, 0.125),)


def test_all_edits_at_once(study):
    study.edits.ablate([1, 2, 3])
    study.edits.toggle(2)
    study.edits.switch_all()  # any on: all off
    assert study.edits.on() == () and [s.feature for s in study.work.edits] == [1, 2, 3]
    study.edits.switch_all()
    assert study.edits.on() == (Edit(1), Edit(2), Edit(3))


def test_a_list_of_edits_keeps_the_strength_of_those_there(study):
    study.edits.step(2, 1)
    study.edits.toggle(2)
    study.edits.ablate([1, 2])
    assert study.work.edits == (EditSlot(2, 1.5), EditSlot(1))


# ---- results


def test_a_ranking_of_the_same_prompts_replaces_the_last(study):
    first = of_prompts(study)
    study.add(first)
    again = replace(first, by="t")
    study.add(again)
    assert study.results.of(Ranking) == (again,) and study.ranking() == again
    study.prompts.put("positive", None, "four")
    other = of_prompts(study)
    study.add(other)
    assert study.results.of(Ranking) == (again, other)
    assert [len(s.positive) for s in study.results.prompt_sets] == [2, 3]


def test_texts_and_tables_are_appended(study):
    for result in (samples.GENERATED, samples.PROBES, samples.GENERATED):
        study.add(result)
    assert study.results.of(Generated) == (samples.GENERATED,) * 2
    assert study.results.of(ProbeTable) == (samples.PROBES,)
    assert study.results.prompt_sets == (SET,)
    assert study.version == 3


def test_a_ranking_is_stale_once_the_prompts_are_others(study):
    assert not study.ranking_is_stale() and study.ranking() is None
    study.add(of_prompts(study))
    assert not study.ranking_is_stale()
    study.prompts.put_probe(None, Probe("q"))
    assert not study.ranking_is_stale()  # probes are not ranked
    changes = (
        lambda: study.prompts.put("positive", 0, "uno"),
        lambda: study.prompts.delete("negative", 0),
        lambda: study.prompts.switch_format(),
        lambda: study.prompts.put("negative", None, "x"),
        lambda: study.prompts.move("positive", 1),  # the same texts in the same order, the border moved
    )
    for change in changes:
        change()
        assert study.ranking_is_stale()
        assert study.history.undo() and not study.ranking_is_stale()


# ---- sessions


def test_there_and_back_through_a_session_file(study, tmp_path):
    study.loaded = samples.LOADED
    study.add(of_prompts(study))
    study.add(samples.GENERATED)
    study.toggle_pin(3)
    study.set_label(3, "x")
    study.edits.step(3, 1)
    study.choose_feature(3)
    path = tmp_path / "a.saescope.json"
    sessions.write(study.session(), path)
    again = Study.from_session(sessions.read(path), id="i", file=path)
    assert again.work == study.work and again.session() == study.session()
    assert (again.id, again.file, again.name, again.load) == ("i", path, "a", samples.LOAD)
    assert again.loaded is None and again.session().loaded == samples.LOADED
    assert again.version == again.saved_version == 0


def test_a_session_of_the_command_line_gets_a_workspace():
    session = sessions.new(samples.LOAD, samples.LOADED)
    session = sessions.add(session, samples.RANKING, SET)
    assert workspace_of(session) == start_workspace(SET)
    session = sessions.add(session, samples.PROBES)
    assert Study.from_session(session).edits.on() == samples.EDITS
    session = sessions.add(session, samples.GENERATED)
    study = Study.from_session(session)
    assert study.question() == Prompt(samples.NEGATIVE.text, "chat")
    assert study.edits.on() == samples.EDITS and study.work.sampling == samples.GENERATED.sampling
    assert study.work.prefill == "" and study.work.samples == 1
    last = (Edit(9, 1.0, "steer", absolute=3.0),)
    more = replace(
        samples.GENERATED,
        prompt=replace(samples.NEGATIVE, prefill="So"),
        schedule=(EditsFrom(0, samples.EDITS), EditsFrom(3, last)),
        more=samples.ARMS.more,
    )
    study = Study.from_session(sessions.add(session, more))
    assert study.edits.on() == last and study.work.prefill == "So" and study.work.samples == 2
    assert study.recorded_edits() == (*samples.EDITS, *samples.EDITS, *last)
    assert Study.from_session(sessions.new(Load())).work.prompts == PromptSet("new")


def test_what_is_worth_being_kept(study):
    assert study.is_empty and study.name == "s"
    study.choose_feature(3)
    assert not study.is_empty
    for result in (samples.RANKING, samples.GENERATED, samples.PROBES):
        session = sessions.add(sessions.new(Load()), result)
        assert not Study.from_session(session).is_empty
    assert Study.from_session(sessions.new(Load())).is_empty


def test_every_change_raises_the_version_and_is_told(study):
    prompts, question, edits = Topic.PROMPTS, Topic.QUESTION, Topic.EDITS
    changes = (
        (lambda: study.prompts.put("positive", None, "x"), [prompts]),
        (lambda: study.history.undo(), [prompts, edits]),
        (lambda: study.prompts.put_probe(None, Probe("q")), [prompts]),
        (lambda: study.ask_probe(Probe("q")), [question]),
        (lambda: study.set_question("other"), []),  # the field shows what is typed
        (lambda: study.set_generation(True, Sampling(), "", 1, False), [question]),
        (lambda: study.switch_restart(), [question]),
        (lambda: study.choose_feature(1), []),
        (lambda: study.toggle_pin(1), [Topic.RANKING]),
        (lambda: study.set_label(1, "l"), [Topic.NAMES]),
        (lambda: study.edits.toggle(1), [edits]),
        (lambda: study.edits.step(1, 1), [edits]),
        (lambda: study.edits.switch_all(), [edits]),
        (lambda: study.edits.move(1), [edits]),
        (lambda: study.edits.toggle_reconstruction(), [edits]),
        (lambda: study.edits.put((Edit(3),)), [edits]),
        (lambda: study.edits.ablate([2]), [edits]),
        (lambda: study.edits.remove(2), [edits]),
        (lambda: study.add(samples.GENERATED), []),
        (lambda: study.add(samples.RANKING), [Topic.RANKING]),
    )
    told = []
    study.history.tell = told.append
    for number, (change, topics) in enumerate(changes, 1):
        before = study.version
        told.clear()
        change()
        assert study.version > before and told == topics, f"change {number}"
    for change in (lambda: study.set_question("other"), lambda: study.choose_feature(1)):
        before = study.version
        change()
        assert study.version == before


# ---- what is loaded

OTHER_SAE = replace(samples.LOADED, sae="other", sae_fingerprint="ff")

OTHER_MODEL = replace(samples.LOADED, model_fingerprint="ff")

OTHER_LOAD = replace(samples.LOAD, sae="other")


def worked(study):
    """With something of everything that belongs to a SAE."""
    assert study.now_loaded(samples.LOAD, samples.LOADED, chosen=False) == []
    study.add(of_prompts(study))
    study.edits.toggle(7)
    study.toggle_pin(8)
    study.set_label(9, "x")
    study.choose_feature(7)
    study.file = "f"
    return study.id, study.work, study.results


def test_the_same_pair_again_changes_nothing(study):
    id, work, results = worked(study)
    device = replace(samples.LOAD, device="cuda")
    assert study.now_loaded(device, replace(samples.LOADED, device="cuda"), chosen=True) == []
    assert (study.id, study.work, study.file, study.differences) == (id, work, "f", [])
    assert study.results.of(Ranking) == results.of(Ranking) and study.session().load == device
    assert study.loaded.device == "cuda" and study.session().loaded.device == "cuda"


def test_another_sae_that_was_chosen_takes_edits_and_results_away(study):
    id, work, _ = worked(study)
    assert study.now_loaded(OTHER_LOAD, OTHER_SAE, chosen=True) == ["SAE"]
    assert study.id != id and study.file is None and study.differences == []
    assert (study.work.edits, study.work.pinned, study.work.labels, study.work.feature) == ((), (), {}, None)
    assert study.work.prompts == work.prompts and study.work.question == work.question
    session = study.session()
    assert (session.of(Ranking), session.load, session.loaded) == ((), OTHER_LOAD, OTHER_SAE)


def test_another_model_that_was_chosen_takes_results_away_but_no_edits(study):
    id, work, _ = worked(study)
    assert study.now_loaded(samples.LOAD, OTHER_MODEL, chosen=True) == ["model"]
    assert study.id != id and study.file is None and study.results.of(Ranking) == ()
    assert study.work == work


def test_results_of_another_pair_stay_until_there_are_new_ones(study):
    worked(study)
    found = Study.from_session(study.session(), id="i")
    assert found.now_loaded(OTHER_LOAD, OTHER_SAE, chosen=False) == ["SAE"]
    assert found.differences == ["SAE"] and found.id == "i" and found.ranking() is not None
    assert found.edits.on() == (Edit(7),) and found.loaded == OTHER_SAE
    # in a file they stay with what they came from
    assert (found.session().load, found.session().loaded) == (samples.LOAD, samples.LOADED)
    assert found.session().of(Ranking) == study.results.of(Ranking)
    assert found.add(samples.GENERATED)
    assert found.id != "i" and found.file is None and found.differences == []
    assert found.results.of(Ranking) == () and found.results.of(Generated) == (samples.GENERATED,)
    assert (found.session().load, found.session().loaded) == (OTHER_LOAD, OTHER_SAE)
    assert not found.add(samples.GENERATED)


def test_the_pair_of_a_session_is_no_other(study):
    worked(study)
    same = Study.from_session(study.session(), id="i")
    assert same.now_loaded(samples.LOAD, samples.LOADED, chosen=False) == []
    assert same.id == "i" and same.differences == [] and same.ranking() is not None


def test_a_session_without_results_belongs_to_no_pair(study):
    study.now_loaded(samples.LOAD, samples.LOADED, chosen=False)
    study.edits.toggle(7)
    found = Study.from_session(study.session(), id="i")
    assert found.now_loaded(OTHER_LOAD, OTHER_SAE, chosen=False) == ["SAE"]
    assert found.differences == [] and found.id == "i"
    assert not found.add(samples.GENERATED) and found.session().loaded == OTHER_SAE


def test_effects_of_another_sae_are_none_of_the_loaded_one(study):
    study.now_loaded(samples.LOAD, samples.LOADED, chosen=False)
    study.prompts.set(replace(SET, probes=samples.MEASURE.probes))
    study.add(samples.ATTRIBUTION)
    found = Study.from_session(study.session(), id="i")
    assert found.effects() is not None
    found.now_loaded(OTHER_LOAD, OTHER_SAE, chosen=False)
    assert found.differences == ["SAE"] and found.effects() is None and found.attribution() is not None
    found.now_loaded(samples.LOAD, replace(samples.LOADED, dtype="bfloat16"), chosen=False)
    assert found.differences == ["dtype"] and found.effects() is not None  # the same features, less exactly
    found.now_loaded(samples.LOAD, samples.LOADED, chosen=False)
    assert found.differences == [] and found.effects() is not None
