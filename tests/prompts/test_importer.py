"""Prompts out of text, jsonl and toml files, and what is said of files that hold none."""

import os

import pytest

import prompts
from prompts import Entry, PromptSetError, importer
from prompts.importer import Imported, read_prompts


@pytest.fixture
def written(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize("name", ["a.txt", "a", "a.md", "a.csv"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_text_file_is_a_prompt_a_line(written, name, mark):
    found = read_prompts(written(name, mark + "First one.\r\n\n   \n  Zweite, größer \u2028 still\rlast"))
    assert found == Imported((Entry("First one."), Entry("Zweite, größer \u2028 still"), Entry("last")))


def test_a_jsonl_file_sorts_its_lines_by_set(written):
    lines = [
        '"a bare string"',
        '{"text": "p", "set": "positive", "id": 7}',
        "",
        '{"text": " kept as it is \\n", "set": "negative", "breaks": "women without bias"}',
        '{"text": "none", "set": null}',
        '{"text": "\u2028 in it"}',
    ]
    found = read_prompts(written("a.JSONL", "\ufeff" + "\n".join(lines)))
    assert found.entries == (Entry("a bare string"), Entry("none"), Entry("\u2028 in it"))
    assert found.positive == (Entry("p"),)
    assert found.negative == (Entry(" kept as it is \n", "women without bias"),)
    assert (found.probes, found.repeated, found.whole) == ((), 0, None)


@pytest.mark.parametrize("name", prompts.packaged())
def test_a_toml_file_is_a_whole_set(name):
    whole = prompts.load(name)
    found = read_prompts(prompts.find(name))
    assert found == Imported((), whole.positive, whole.negative, whole.probe, whole=whole)


def test_a_bare_name_is_a_file_here_not_a_packaged_set(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written("hedging.toml", '\ufeffname = "mine"\n')
    written("OTHER.TOML", 'name = "other"\n')
    assert read_prompts("hedging.toml").whole.name == "mine"
    assert read_prompts("OTHER.TOML").whole.name == "other"


def test_repeated_texts_are_left_out_and_counted(written):
    found = read_prompts(written("a.txt", "x\ny\nx\n x \n"))
    assert found == Imported((Entry("x"), Entry("y")), repeated=2)


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.txt", "", ["is empty"]),
        ("a.jsonl", "\n \n", ["is empty"]),
        ("a.txt", b"good\nb\xe4d\n", ["line 2", "not UTF-8"]),
        ("a.txt", "word".encode("utf-16"), ["line 1", "not UTF-8"]),
        ("a.txt", "ok\nword".encode("utf-16-le"), ["line 1", "zero byte"]),
        ("a.jsonl", '{"text": "a"}\n{"text": "b"', ["line 2", "not valid JSON"]),
        ("a.jsonl", '"\\ud800"', ["line 1", "not valid JSON"]),
        ("a.jsonl", '"a" "b"', ["line 1", "not valid JSON"]),
        ("a.jsonl", '{"text": "a", "x": ' + "[" * 100_000 + "]" * 100_000 + "}", ["line 1", "not valid JSON"]),
        ("a.jsonl", '\n\n{"text": 3}', ["line 3", "text", "`str`"]),
        ("a.jsonl", '{"set": "positive"}', ["line 1", "text"]),
        ("a.jsonl", '{"text": "a", "set": "both"}', ["line 1", "set", "both"]),
        ("a.jsonl", '{"text": "a", "breaks": 1}', ["line 1", "breaks"]),
        ("a.jsonl", '{"text": " "}', ["line 1", "the text is empty"]),
        ("a.jsonl", '""', ["line 1", "the text is empty"]),
        ("a.jsonl", "[1]", ["line 1"]),
        ("a.jsonl", "7", ["line 1"]),
        ("a.jsonl", '{"text": "a", "set": "positive"}\n{"text": "a ", "set": "negative"}', ["line 2", "of line 1"]),
        ("a.jsonl", '"a"\n{"text": "a", "set": "negative"}', ["line 2", "in no set", "negative"]),
        ("a.toml", "name = ", ["not valid TOML"]),
        ("a.toml", "a=" + "[" * 5000 + "]" * 5000, ["not valid TOML"]),
        ("a.toml", 'name = "a"\n[[positive]]\ntext = 1\n', ["positive"]),
    ],
)
def test_a_mistake_is_named_with_its_file_and_line(written, name, content, parts):
    path = written(name, content)
    with pytest.raises(PromptSetError) as caught:
        read_prompts(path)
    assert caught.value.message.startswith(str(path))
    assert all(part in caught.value.message for part in parts), caught.value.message
    assert caught.value.remedy


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, part in (
        (tmp_path, "is a folder"),
        (tmp_path / "none.txt", "No such file"),
        (tmp_path / "none.toml", "No such file"),
        (tmp_path / "pipe", "is not a file"),
        (tmp_path / ("x" * 300), "name too long"),
        ("~nobody-of-this-name/x", "cannot be read"),
        ("a\0b", "cannot be read"),
    ):
        with pytest.raises(PromptSetError, match=part) as caught:
            read_prompts(path)
        assert caught.value.remedy


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "big.txt"
    with path.open("wb") as file:
        file.truncate(importer.MAX_BYTES + 10**6)
    with pytest.raises(PromptSetError, match="has 51 MB, more than 50"):
        read_prompts(path)
