"""Prompt set files: the packaged ones, and messages that name file and field."""

import pytest

import prompts
from engine.files import prompt_sets
from engine.records import Answer, Edit, Probe, Prompt, PromptSet
from engine.records.errors import UsageError
from prompts import PromptSetError

HEAD = 'name = "mine"\n'

GOOD = HEAD + '[[positive]]\ntext = "a"\n[[negative]]\ntext = "b"\n'


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "mine.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


@pytest.mark.parametrize("name", prompts.packaged())
def test_every_packaged_set_is_valid_and_complete(name):
    found = prompts.load(name)
    assert found.name == name
    assert found.description
    assert found.positive
    assert found.negative
    assert found.probe


def test_the_gender_set_has_enough_prompts_and_says_which_confound_each_negative_breaks():
    found = prompts.load("gender_bias")
    assert len(found.positive) >= 8
    assert len(found.negative) >= 8
    assert all(entry.breaks for entry in found.negative)
    assert len({entry.breaks for entry in found.negative}) == len(found.negative)
    assert all(probe.answers for probe in found.probe if probe.prefill)


def test_the_founding_set_has_its_five_against_two():
    found = prompts.load("founding_5v2")
    assert (len(found.positive), len(found.negative)) == (5, 2)
    assert found.settings.reconstruct is True


def test_answers_of_packaged_probes_differ_from_each_other():
    for name in prompts.packaged():
        for probe in prompts.load(name).probe:
            strings = [s for forms in probe.answers.values() for s in forms]
            assert len(set(strings)) == len(strings)


def test_defaults_fill_what_a_file_leaves_out(written):
    found = prompts.load(written(GOOD + '[[probe]]\ntext = "why?"\n'))
    assert (found.format, found.description) == ("raw", "")
    assert (found.probe[0].format, found.probe[0].prefill, found.probe[0].answers) == ("chat", "", {})


def test_one_text_may_be_a_prompt_and_a_probe(written):
    assert len(prompts.load(written(GOOD + '[[probe]]\ntext = "a"\n[[probe]]\ntext = "a"\n')).probe) == 2


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (GOOD + '[[positve]]\ntext = "x"\n', ["positve", "unknown field"]),
        (HEAD + 'colour = "red"\n', ["colour", "unknown field"]),
        (HEAD + '[[negative]]\ntext = "b"\nbroke = "x"\n', ["negative", "broke"]),
        (HEAD + "[[positive]]\ntext = 3\n", ["positive", "text", "str"]),
        (HEAD + 'positive = "a"\n', ["positive", "array"]),
        (HEAD + "[[positive]]\n", ["positive", "text"]),
        (HEAD + 'format = "spoken"\n', ["format", "spoken"]),
        (HEAD + '[[probe]]\ntext = "q"\nformat = "spoken"\n', ["probe", "format"]),
        (HEAD + '[[probe]]\ntext = "q"\nanswers = { x = " a" }\n', ["probe", "answers"]),
        (HEAD + "[settings]\nscale = true\n", ["settings.scale"]),
        (HEAD + '[settings]\npositions = "some"\n', ["settings.positions"]),
        ("", ["name"]),
        ('name = ""\n', ["name"]),
        ('name = "a/b"\n', ["name", "a/b"]),
        (HEAD + '[[positive]]\ntext = "a"\n[[positive]]\ntext = " \\n"\n', ["positive[1].text", "empty"]),
        (GOOD + '[[probe]]\ntext = ""\n', ["probe[0].text", "empty"]),
        (GOOD + '[[negative]]\ntext = " a "\n', ["negative[1].text", "positive[0].text"]),
        (GOOD + '[[positive]]\ntext = "a"\n', ["positive[1].text", "positive[0].text"]),
        (HEAD + '[[probe]]\ntext = "q"\nanswers = { x = [] }\n', ["probe[0].answers.x", "at least one"]),
        (HEAD + '[[probe]]\ntext = "q"\nanswers = { x = [" a", ""] }\n', ["probe[0].answers.x"]),
        (HEAD + "[[positive]\n", ["not valid TOML", "line 2"]),
        (HEAD + 'name = "twice"\n', ["not valid TOML", "line 2"]),
        (b'name = "\xff"\n', ["cannot be read"]),
        (HEAD + f"x = {'9' * 5000}\n", ["not valid TOML"]),
        (HEAD + f"x = {'[' * 50_000}\n", ["not valid TOML"]),
        (HEAD + "[settings]\nscale = nan\n", ["settings.scale", "not a number"]),
    ],
)
def test_a_mistake_is_named_with_its_file_and_field(written, text, parts):
    path = written(text)
    with pytest.raises(PromptSetError) as caught:
        prompts.load(path)
    assert caught.value.message.startswith(path)
    assert all(part in caught.value.message for part in parts), caught.value.message
    assert caught.value.remedy


def test_a_missing_file_and_an_unknown_name_are_different_mistakes(tmp_path):
    for path in (tmp_path / "none.toml", tmp_path / "none", "none.toml"):
        with pytest.raises(PromptSetError, match="no prompt set file") as caught:
            prompts.load(str(path))
        assert str(path) in caught.value.message
    with pytest.raises(PromptSetError, match="no prompt set 'gendre'") as caught:
        prompts.load("gendre")
    assert all(name in caught.value.remedy for name in prompts.packaged())


@pytest.mark.parametrize("path", ["n" * 300, f"{'n' * 300}.toml", "~nosuchuser/x.toml", "a\0b.toml"])
def test_what_no_path_can_be_is_a_mistake(path):
    with pytest.raises(PromptSetError) as caught:
        prompts.load(path)
    assert caught.value.remedy


def test_a_folder_is_not_a_prompt_set(tmp_path):
    with pytest.raises(PromptSetError):
        prompts.load(str(tmp_path))


def test_the_neutral_text_is_one_passage_a_line():
    lines = prompts.NEUTRAL_TEXT.read_text("utf-8").splitlines()
    passages = [line for line in lines if line.strip()]
    assert len(passages) > 50
    assert len(set(passages)) == len(passages)


# ---- as the engine's records


@pytest.mark.parametrize("name", prompts.packaged())
def test_packaged_sets_are_the_same_there_and_back(name):
    found = prompts.load(name)
    record = prompt_sets.from_file(found)
    assert prompt_sets.to_file(record) == found
    assert prompt_sets.from_file(prompt_sets.to_file(record)) == record
    assert [p.breaks for p in record.negative] == [e.breaks for e in found.negative]
    assert record.description == found.description


def test_only_settings_that_are_not_as_by_default_are_in_the_record():
    assert prompt_sets.from_file(prompts.load("gender_bias")).settings == {}
    founding = prompt_sets.from_file(prompts.load("founding_5v2")).settings
    assert founding == {"scale": 0.125, "reconstruct": True, "positions": "first-step"}


def test_the_founding_studys_edit_is_its_factor_and_the_reconstruction_on_the_first_step():
    settings = prompt_sets.from_file(prompts.load("founding_5v2")).settings
    assert prompt_sets.as_published(settings, 4133) == (
        Edit(4133, 0.125, "scale", "first-step"),
        Edit(kind="reconstruct", at="first-step"),
    )


@pytest.mark.parametrize(
    ("settings", "edits"),
    [
        ({"positions": "last"}, (Edit(7, at="last"),)),
        ({"scale": -2.0}, (Edit(7, -2.0),)),
        ({"reconstruct": True}, (Edit(7), Edit(kind="reconstruct"))),
    ],
)
def test_what_settings_leave_out_is_as_by_default(settings, edits):
    assert prompt_sets.as_published(settings, 7) == edits


@pytest.mark.parametrize(
    ("settings", "part"), [({}, "no .settings."), ({"positions": "some"}, "positions"), ({"colour": 1.0}, "colour")]
)
def test_settings_that_say_nothing_or_nonsense_are_refused(settings, part):
    with pytest.raises(UsageError, match=part) as caught:
        prompt_sets.as_published(settings, 7)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("record", "part"),
    [
        (PromptSet("x", (Prompt("a"),), (Prompt("b", "chat"),)), "mixes raw and chat"),
        (PromptSet("x", probes=(Probe("q", answers=(Answer("a", ("b",)), Answer("a", ("c",)))),)), "same name"),
        (PromptSet("x", settings={"positions": "some"}), "positions"),
        (PromptSet("x", settings={"colour": "red"}), "colour"),
    ],
)
def test_what_a_file_cannot_say_is_refused(record, part):
    with pytest.raises(UsageError, match=part) as caught:
        prompt_sets.to_file(record)
    assert caught.value.remedy
