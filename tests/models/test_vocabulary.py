"""A tokenizer with more tokens than the embeddings have rows: refused where such a token is fed, in words."""

import shutil

import msgspec
import pytest
from tiny import SPECIAL, make_tokenizer, write_model, write_reference
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.cli.run import main
from engine.loading.load_model import load_model
from engine.models.tokens import Tokens
from engine.records import (
    Answer,
    AnswersScored,
    Diagnosis,
    Doctor,
    Generate,
    Generated,
    Load,
    Loaded,
    Probe,
    Prompt,
    PromptSet,
    Rank,
    Ranking,
    Sampling,
    ScoreAnswers,
    Show,
    Shown,
)
from engine.records.errors import UsageError
from engine.serving.client import ask
from engine.serving.local import LocalClient

ROWS = len(make_tokenizer())


@pytest.fixture(scope="module")
def longer(tmp_path_factory):
    """A model whose tokenizer got one token more, as Gemma 3's has."""
    folder = write_model(tmp_path_factory.mktemp("longer"))
    tokenizer = make_tokenizer()
    assert tokenizer.add_special_tokens({"additional_special_tokens": [*SPECIAL[2:], "<new>"]}) == 1
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def opened(longer, load):
    client = LocalClient()
    ask(client, msgspec.structs.replace(load, model=longer), Loaded)
    return client


def test_plain_transformers_has_no_row_for_it(longer):
    weight = AutoModelForCausalLM.from_pretrained(longer).get_input_embeddings().weight
    assert len(weight) == ROWS < len(AutoTokenizer.from_pretrained(longer))


NEW = Prompt("A <new> cab", "raw")
OLD = Prompt("A cab", "raw")


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (Rank(PromptSet("p", (OLD,), (NEW,))), Ranking),
        (Show(3, (NEW,)), Shown),
        (Generate(NEW), Generated),
        (Generate(Prompt("A <new> cab", "chat")), Generated),
        (Generate(OLD, prefill="<new>"), Generated),
        (ScoreAnswers(Probe("A cab", "raw", answers=(Answer("x", ("<new>",)),))), AnswersScored),
    ],
)
def test_a_token_without_a_row_is_refused_by_name(opened, request_, kind):
    with pytest.raises(
        UsageError, match=rf"no embedding for the token '<new>' \(id {ROWS}\): it has {ROWS} rows"
    ) as caught:
        ask(opened, request_, kind)
    assert caught.value.exit_code == 2 and "Leave it out" in caught.value.remedy


def test_other_texts_are_read_as_before(opened):
    assert ask(opened, Generate(OLD, sampling=Sampling(max_tokens=2)), Generated).baseline.token_ids


def test_a_reference_text_with_it_is_refused_too(longer, load, tmp_path):
    (tmp_path / "text.txt").write_text(
        "A <new> cab\n" + write_reference(tmp_path / "r.txt").read_text("utf-8"), "utf-8"
    )
    with pytest.raises(UsageError, match="token '<new>'"):
        request = Load(model=longer, sae=load.sae, reference=str(tmp_path / "text.txt"), device="cpu", dtype="float32")
        ask(LocalClient(), request, Loaded)


def test_the_doctor_names_it(opened):
    checks = {check.name: check for check in ask(opened, Doctor(300), Diagnosis).checks}
    assert checks["vocabulary"].ok is None and f"'<new>' ({ROWS})" in checks["vocabulary"].detail


def test_the_doctor_goes_on_where_the_chat_template_has_it(longer, load, tmp_path):
    folder = shutil.copytree(longer, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "<new>" + tokenizer.chat_template
    tokenizer.save_pretrained(folder)
    client = LocalClient()
    ask(client, msgspec.structs.replace(load, model=str(folder)), Loaded)
    checks = {check.name: check for check in ask(client, Doctor(300), Diagnosis).checks}
    assert checks["chat prompt"].ok is False and "'<new>'" in checks["chat prompt"].detail
    assert "fed raw" not in checks["chat prompt"].detail and "no-op edit exact" in checks


def test_the_doctor_is_red_where_ordinary_tokens_have_no_row(pair, monkeypatch):
    from engine.doctor.declared import vocabulary

    assert vocabulary(pair) == []
    monkeypatch.setattr(pair.model, "tokens", Tokens(make_tokenizer(), 200))
    (check,) = vocabulary(pair)
    assert check.ok is False and "another model's" in check.remedy and f"and {ROWS - 203:,} more" in check.detail


def test_the_command_line_says_it_without_a_traceback(longer, load, capsys):
    pair = [
        "--model",
        longer,
        "--sae",
        load.sae,
        "--reference",
        load.reference,
        "--device",
        "cpu",
        "--dtype",
        "float32",
    ]
    assert main(["generate", "A <new> b", "--raw", *pair]) == 2
    said = capsys.readouterr().err
    assert "'<new>'" in said and "Unexpected" not in said and "Traceback" not in said


def test_a_loaded_tokenizer_knows_the_models_rows(longer):
    import torch

    tokens = load_model(longer, "longer", torch.device("cpu"), torch.float32).tokens
    assert tokens.rows == ROWS and tokens.without_row() == {"<new>": ROWS}
