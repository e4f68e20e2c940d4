"""Which ids a prompt is fed as, and which of its tokens count."""

import pytest
from tiny import BOS, EOS, SPECIAL, TEMPLATE, make_tokenizer
from tokenizers.processors import TemplateProcessing

from engine.models.tokens import Tokens
from engine.records import Prompt
from engine.records.errors import ModelError, UsageError

WITHOUT_BOS = TEMPLATE.replace("{{ bos_token }}", "")

STRIPPING = TEMPLATE.replace("{{ m.content }}", "{{ m.content | trim }}")

SHOUTING = TEMPLATE.replace("{{ m.content }}", "{{ m.content | upper }}")

IN_PARTS = TEMPLATE.replace("{{ m.content }}", "{% for part in m.content %}{{ part.text }}{% endfor %}")

THINKING = TEMPLATE.replace("<|assistant|>\n", "<|assistant|><think>\n")

TEXTS = ("Who is she?", "ab cab", "é ü 漢字 🙂", "two\nlines", "  spaces around  ", "x")


def tokens(template=TEMPLATE, **kind):
    return Tokens(make_tokenizer(template, **kind))


def content(fed, of):
    """The text of the tokens that are not the template's."""
    return of.decode([i for i, masked in zip(fed.ids, fed.template, strict=True) if not masked])


@pytest.mark.parametrize("text", TEXTS)
def test_a_raw_prompt_gets_exactly_one_leading_special_token(text):
    fed = tokens().feed(Prompt(text))
    assert fed.ids[0] == BOS
    assert fed.ids.count(BOS) == 1
    assert len(fed.ids) == len(fed.template)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "before", ["{{ bos_token }}", "", "\n{{ bos_token }}", "<|user|>\n{{ bos_token }}", " {{ bos_token }}"]
)
def test_a_chat_prompt_is_fed_as_the_models_own_template_says(before, text):
    of = tokens(before + WITHOUT_BOS)
    messages = [{"role": "user", "content": text}]
    own = of.tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
    assert of.feed(Prompt(text, "chat")).ids == own


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('System first') }}", "{{ foo.bar }}", "{% for m in messages %}", "{{ 1 + 'a' }}"]
)
def test_a_template_that_fails_is_a_models_error_with_a_way_out(template):
    with pytest.raises(ModelError, match="chat template cannot be used") as caught:
        tokens(template).feed(Prompt("x", "chat"))
    assert "--raw" in caught.value.remedy


def test_a_template_that_takes_a_message_as_a_list_of_parts_gets_one():
    of = tokens(IN_PARTS)
    messages = [{"role": "user", "content": [{"type": "text", "text": "Who?"}]}]
    own = of.tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
    fed = of.feed(Prompt("Who?", "chat"))
    assert fed.ids == own
    assert content(fed, of) == "Who?"


def test_every_special_token_of_the_tokenizer_is_masked_in_raw_text():
    of = tokens()
    fed = of.feed(Prompt("The <s> nurse <|user|> fed</s>"))
    masked = [of.string(i) for i, template in zip(fed.ids, fed.template, strict=True) if template]
    assert masked == ["<s>", "<s>", "<|user|>", "</s>"]


def test_an_answer_is_not_scored_inside_an_open_think_block():
    of = tokens(THINKING)
    with pytest.raises(UsageError, match="<think> block") as caught:
        of.feed(Prompt("Who?", "chat"), "A nurse is", " she")
    assert "</think>" in caught.value.remedy
    assert of.decode(of.feed(Prompt("Who?", "chat"), "</think>\nA nurse is", " she").ids).endswith("A nurse is she")
    assert of.feed(Prompt("Who?", "chat")).ids  # the model itself may go on thinking
    assert tokens().feed(Prompt("What does <think> mean?", "chat"), "A", " b").ids  # the user's own opens nothing


def test_a_leading_token_typed_by_the_user_is_not_doubled():
    assert tokens().feed(Prompt("<s>ab")).ids == tokens().feed(Prompt("ab")).ids


def test_a_tokenizer_without_a_leading_token_gets_none():
    of = tokens(WITHOUT_BOS, bos=False)
    fed = of.feed(Prompt("ab c"))
    assert of.decode(fed.ids) == "ab c"
    assert fed.template == [False] * len(fed.ids)


@pytest.mark.parametrize("text", TEXTS)
def test_in_a_raw_prompt_only_special_tokens_are_masked(text):
    of = tokens()
    fed = of.feed(Prompt(text))
    assert fed.template == [True, *[False] * (len(fed.ids) - 1)]
    assert of.decode(fed.ids) == text
    typed = of.feed(Prompt("a</s>b"))
    assert [i for i, m in zip(typed.ids, typed.template, strict=True) if m] == [BOS, EOS]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("template", [TEMPLATE, WITHOUT_BOS, STRIPPING])
def test_the_template_mask_covers_exactly_what_is_not_the_users_text(template, text):
    of = tokens(template)
    fed = of.feed(Prompt(text, "chat"))
    assert content(fed, of) == text.strip()
    around = of.tokenizer.decode([i for i, m in zip(fed.ids, fed.template, strict=True) if m])
    assert (
        around.replace(" ", "")
        == of.tokenizer.bos_token * ("bos_token" in template) + "<|user|>\n</s>\n<|assistant|>\n"
    )


@pytest.mark.parametrize("text", ["assistant", "|", "s", ">", "user", "</s>", "<|assistant|>"])
def test_a_text_that_also_stands_in_the_template_is_found_in_its_own_place(text):
    of = tokens()
    fed = of.feed(Prompt(text, "chat"))
    first = of.tokenizer("<s><|user|>\n", add_special_tokens=False).input_ids
    own = of.tokenizer(text, add_special_tokens=False).input_ids
    expected = [*first, *own]
    assert fed.ids[: len(expected)] == expected
    may_be_masked = {i for i in own if i in of.special}
    unmasked = [t for t, masked in enumerate(fed.template) if not masked]
    assert unmasked == [len(first) + t for t, i in enumerate(own) if i not in may_be_masked]


def test_a_prefill_counts_as_content_and_is_tokenised_jointly():
    of = tokens()
    plain = of.feed(Prompt("Who?", "chat"))
    fed = of.feed(Prompt("Who?", "chat"), "ca", "b")
    joint = of.tokenizer("cab", add_special_tokens=False).input_ids
    assert fed.ids == [*plain.ids, *joint]
    assert fed.template == [*plain.template, *[False] * len(joint)]
    assert len(joint) == 2  # "c" and the merged "ab"


@pytest.mark.parametrize(
    ("text", "prefill", "whole"),
    [("Who", "is", "Who is"), ("Who ", "is", "Who is"), ("Who", " is", "Who is"), ("Who\n", "is", "Who\nis")],
)
def test_a_raw_prefill_is_a_new_word(text, prefill, whole):
    of = tokens()
    assert of.decode(of.feed(Prompt(text), prefill).ids) == whole
    assert of.decode(of.feed(Prompt(text), prefill, " now").ids) == whole + " now"


def test_an_answer_follows_a_raw_prompt_as_it_is():
    of = tokens()
    assert of.decode(of.feed(Prompt("ca"), "", "b").ids) == "cab"


@pytest.mark.parametrize("format", ["raw", "chat"])
@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_an_empty_prompt_is_refused(format, text):
    with pytest.raises(UsageError, match="empty"):
        tokens().feed(Prompt(text, format))


def test_a_chat_prompt_needs_a_template_and_the_message_names_the_way_out():
    with pytest.raises(ModelError, match="no chat template") as caught:
        tokens(None).feed(Prompt("x", "chat"))
    assert "--raw" in caught.value.remedy
    assert tokens(None).feed(Prompt("x")).ids[0] == BOS


def test_a_template_that_changes_the_text_is_refused():
    with pytest.raises(ModelError, match="changed the prompt's text"):
        tokens(SHOUTING).feed(Prompt("Who?", "chat"))


def test_strings_are_one_per_id_and_decode_leaves_special_tokens_out():
    of = tokens()
    fed = of.feed(Prompt("ab fe\n"))
    assert of.strings(fed.ids) == ("<s>", "ab", " fe", "\n")
    assert of.decode(fed.ids) == "ab fe\n"
    assert of.strings(range(4)) == SPECIAL


def test_a_character_split_over_tokens_stands_whole_on_its_last_one():
    of = tokens()
    ids = of.tokenizer("a é🙂b", add_special_tokens=False).input_ids
    strings = of.strings(ids)
    assert "".join(strings) == "a é🙂b"
    assert "\ufffd" not in "".join(strings)
    assert len(strings) == len(ids) > 5
    broken = of.strings(ids[:-2])  # the last character is cut off
    assert "".join(broken).startswith("a é\ufffd")
    assert len(broken) == len(ids) - 2


@pytest.mark.parametrize(
    ("bos", "trained_with", "raw", "chat"),
    [
        ("auto", True, 1, 0),
        ("auto", False, 0, 0),
        ("auto", None, 0, 0),  # this tokenizer itself puts none
        ("always", False, 1, 1),
        ("never", True, 0, 0),
    ],
)
def test_a_bos_is_put_as_asked_else_as_the_sae_was_trained_else_as_the_tokenizer_does(bos, trained_with, raw, chat):
    of = tokens(WITHOUT_BOS).feeding(bos, trained_with)
    assert of.feed(Prompt("ab")).ids.count(BOS) == raw
    assert of.feed(Prompt("ab", "chat")).ids.count(BOS) == chat


def test_a_tokenizer_that_puts_a_bos_itself_is_followed_where_the_sae_does_not_say():
    tokenizer = make_tokenizer()
    tokenizer._tokenizer.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", BOS)])
    of = Tokens(tokenizer).feeding("auto", None)
    assert of.feed(Prompt("ab")).ids == tokenizer("ab")["input_ids"]
    assert of.feed(Prompt("ab")).ids[0] == BOS
