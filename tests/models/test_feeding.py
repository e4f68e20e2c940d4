"""Which ids reach the model: `--bos`, the SAE's training and the tokenizer's habit, against plain transformers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from tiny import BOS, SENTENCES, make_tokenizer, write_sae
from tokenizers import normalizers

from engine.doctor import declared
from engine.files.session import differences
from engine.loading import open_pair as opening
from engine.models.tokens import Tokens
from engine.records import Generate, Generated, Load, Loaded, Prompt, Sampling
from engine.records.errors import UsageError
from engine.serving.client import ask
from engine.serving.local import LocalClient

RAW, CHAT = Prompt("The nurse fed the cab"), Prompt("The nurse fed the cab", "chat")

LATE_BOS = "{% for m in messages %} {{ bos_token }}{{ m.content }}{% endfor %}"
"""A chat template that puts its BOS behind something else."""


@pytest.fixture(scope="module")
def untold(tmp_path_factory, load):
    """The request for the tiny pair with a SAE whose files do not tell whether it was trained with a BOS."""
    folder = write_sae(tmp_path_factory.mktemp("untold"))
    config = json.loads((Path(folder) / "cfg.json").read_text("utf-8"))
    del config["prepend_bos"]
    (Path(folder) / "cfg.json").write_text(json.dumps(config), "utf-8")
    return msgspec.structs.replace(load, sae=str(folder))


def greedy(model, ids, count):
    """The next tokens by plain passes without a cache."""
    ids = list(ids)
    with torch.inference_mode():
        for _ in range(count):
            ids.append(int(model.module(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return tuple(ids[-count:])


@pytest.mark.parametrize(("bos", "leading"), [("auto", []), ("always", [BOS]), ("never", [])])
def test_a_raw_prompt_is_generated_from_the_ids_that_bos_asks_for(untold, bos, leading):
    client = LocalClient()
    loaded = ask(client, msgspec.structs.replace(untold, bos=bos), Loaded)
    assert loaded.raw_bos is bool(leading)
    model = client._pair.model
    own = make_tokenizer()(RAW.text, add_special_tokens=False)["input_ids"]
    generated = ask(client, Generate(RAW, (), Sampling(8)), Generated)
    assert generated.baseline.token_ids == greedy(model, leading + own, 8)
    assert tuple(client._pair.site.reference.token_ids_T[: len(leading) + 1].tolist())[: len(leading)] == tuple(leading)


def test_pairs_fed_otherwise_do_not_share_a_session_nor_statistics(load):
    client = LocalClient()
    with_bos = ask(client, load, Loaded)
    model = client._pair.model
    without = ask(client, msgspec.structs.replace(load, bos="never"), Loaded)
    assert client._pair.model.module is model.module  # the weights were not loaded again
    assert model.tokens.raw_bos and not client._pair.model.tokens.raw_bos
    assert differences(with_bos, without) == ["BOS before raw prompts", "reference"]
    assert ask(client, load, Loaded) == with_bos


def test_the_demos_shipped_statistics_serve_only_prompts_fed_as_they_were_measured(demo, monkeypatch):
    pair, measured = demo._pair, []

    def compute(model, *_):
        measured.append(model.tokens.raw_bos)
        yield from ()
        return pair.site.reference

    monkeypatch.setattr(opening.references, "compute", compute)
    monkeypatch.setattr(opening.references, "save", lambda *_: None)
    site = pair.site
    for bos in ("auto", "never"):
        model = replace(pair.model, tokens=Tokens(pair.model.tokens.tokenizer).feeding(bos, True))
        list(opening.find_reference(Load(bos=bos), model, site.sae, site.reads_at, opening.DEMO_SAE))
    assert measured == [False]


def test_the_doctor_says_how_far_the_next_token_moves(load):
    client = LocalClient()
    ask(client, load, Loaded)
    pair = client._pair
    own = make_tokenizer()(declared.SENTENCE)["input_ids"]
    with torch.inference_mode():
        p, q = (
            torch.log_softmax(pair.model.module(torch.tensor([ids])).logits[0, -1], -1) for ids in (own, [BOS, *own])
        )
    kl = float(torch.nn.functional.kl_div(q, p, log_target=True, reduction="sum"))
    check = declared.fed_ids(pair)
    assert check.ok is True and f"{kl:.3g} nats" in check.detail and "own habit: 0" in check.detail
    ask(client, msgspec.structs.replace(load, bos="never"), Loaded)
    check = declared.fed_ids(client._pair)
    assert check.ok is None and "nats" not in check.detail and "Leave --bos out" in check.remedy


def test_a_chat_prompt_has_only_its_templates_tokens_unless_a_bos_is_asked_for(pair):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = LATE_BOS
    own = tokenizer.apply_chat_template([{"role": "user", "content": CHAT.text}], return_dict=False)
    for bos, added in (("auto", []), ("never", []), ("always", [BOS])):
        assert Tokens(tokenizer).feeding(bos, True).feed(CHAT).ids == added + own


@pytest.mark.parametrize("bos", ["auto", "always"])
def test_the_doctor_is_red_only_where_a_chat_gets_a_bos_too_many(load, bos, monkeypatch):
    client = LocalClient()
    ask(client, msgspec.structs.replace(load, bos=bos), Loaded)
    tokenizer = client._pair.model.tokens.tokenizer
    monkeypatch.setattr(tokenizer, "chat_template", LATE_BOS)
    check = declared.chat_prompt(client._pair)
    assert (check.ok, "nats" in check.detail) == ((True, False) if bos == "auto" else (False, True))


def test_a_text_that_the_tokenizer_drops_is_refused_in_words():
    tokenizer = make_tokenizer()
    tokenizer._tokenizer.normalizer = normalizers.Replace("\u200b", "")
    with pytest.raises(UsageError, match="no token"):
        Tokens(tokenizer, raw_bos=False).feed(Prompt("\u200b"))


def test_reference_passages_are_fed_as_raw_prompts_are(untold, tmp_path):
    text = tmp_path / "t.txt"
    text.write_text("\n".join(SENTENCES * 8), "utf-8")
    client = LocalClient()
    ask(client, msgspec.structs.replace(untold, reference=str(text)), Loaded)
    assert BOS not in client._pair.site.reference.token_ids_T.tolist()


def test_a_tokenizer_without_a_bos_leaves_no_choice_that_could_differ(load, tmp_path):
    """So a session from before the choice, which says that one was put, goes on with such a model."""
    folder = shutil.copytree(load.model, tmp_path / "model")
    make_tokenizer(bos=False).save_pretrained(folder)
    client = LocalClient()
    loaded = [ask(client, msgspec.structs.replace(load, model=str(folder), bos=b), Loaded) for b in ("auto", "always")]
    assert not client._pair.model.tokens.raw_bos
    assert loaded[0].raw_bos and loaded[0].chat_bos and not differences(*loaded)
