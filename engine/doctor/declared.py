"""Checks that need no measuring: the SAE's hook, model, equations and notes, and which tokens are fed."""

from __future__ import annotations

from itertools import pairwise

import torch

from engine.doctor import limits as health
from engine.models.hooks import same_place
from engine.models.pair import Pair
from engine.models.reference import PASSAGE_TOKENS
from engine.models.tokens import TokenIds
from engine.records import Check, Prompt
from engine.records.errors import ModelError, UsageError

SENTENCE = "The sky is blue."


def records_say(pair: Pair) -> list[Check]:
    """Check what the SAE's configuration, the model's names and the tokenizer tell without a forward pass."""
    config = pair.site.sae.config
    hook = pair.site.reads_at
    k = "" if config.k is None else f" k = {config.k},"
    mean = ", the mean over d_model removed" if config.centered else ""
    scale = f" (scale {config.scale:.4g})" if config.normalisation == "expected_average_only_in" else ""
    how = (
        f"{config.format or 'SAE'}: {config.encoder},{k} {pair.site.sae.d_sae:,} features, normalisation "
        f"{config.normalisation}{scale}{mean}, b_dec {'' if config.apply_b_dec_to_input else 'not '}subtracted at the "
        "input"
    )
    return [
        Check("hook", None, f"{hook.name} is the {hook.side} of {hook.path}"),
        hook_named(pair),
        model_named(pair),
        Check("SAE", None, how),
        *(Check("note", None, note) for note in (*config.notes, *pair.model.notes)),
        fed_ids(pair),
        *vocabulary(pair),
        *context(pair),
        chat_prompt(pair),
    ]


def hook_named(pair: Pair) -> Check:
    """Compare the hook named in the SAE's files with the one used."""
    name, trained_at = "SAE's hook", pair.site.sae.config.hook
    if not trained_at:
        return Check(name, None, "the SAE's files do not name one", "Look it up where the SAE was published.")
    if trained_at == pair.site.reads_at.name:
        return Check(name, True, f"trained at {trained_at}")
    if same_place(pair.model.module, trained_at, pair.site.reads_at.name):
        return Check(name, True, f"trained at {trained_at}, another name of the same place")
    where = f"trained at {trained_at}, used at {pair.site.reads_at.name}"
    return Check(name, False, where, f"Leave --hook out, or give --hook {trained_at} (in the app M).")


def model_named(pair: Pair) -> Check:
    """Compare the model named in the SAE's files with the one used."""
    trained_on, name = pair.site.sae.config.model, pair.model.name
    if not trained_on:
        return Check("model", None, "the SAE's files do not name one", "Look it up where the SAE was published.")
    same, words = health.same_model(trained_on, name), f"the SAE was trained on {trained_on}, this is {name}"
    if same:
        return Check("model", True, words)
    if same is None:
        remedy = (
            "Another variant: trust it as far as the SAE explains this model as well as its own (variance explained)."
        )
        return Check("model", None, words, remedy)
    if health.is_any_folder(name):
        return Check("model", None, f"{words}: a folder may be called anything", "Make sure that it is that model.")
    return Check("model", False, words, f"Give --model {trained_on} (in the app M).")


def fed_ids(pair: Pair) -> Check:
    """Show the ids of a raw prompt; check that it has a BOS as in the SAE's training, and never two."""
    tokens, trained = pair.model.tokens, pair.site.sae.config.prepend_bos
    ids = tokens.feed(Prompt(SENTENCE)).ids
    count = ids.count(tokens.bos)
    shown = " ".join(f"{i}:{tokens.string(i)!r}" for i in ids)
    how = {True: "with one", False: "without one", None: "in a way its files do not tell"}[trained]
    words = f'"{SENTENCE}" is fed as {shown}; BOS: {count}, the SAE was trained {how}'
    words += unlike_own(pair, Prompt(SENTENCE), ids)
    if count > 1:
        return Check("fed token ids", False, words, "It should be one: the tokenizer adds its own. Mend its files.")
    if trained and tokens.bos is None:
        remedy = "This tokenizer has none to prepend: a prompt's first token gets unusual features, do not trust them."
        return Check("fed token ids", None, words, remedy)
    if trained is not None and trained != bool(count):
        return Check("fed token ids", None, words, "Leave --bos out: then prompts are fed as in the SAE's training.")
    return Check("fed token ids", True, words)


def unlike_own(pair: Pair, prompt: Prompt, fed: list[int]) -> str:
    """Say what it does to the model that the ids fed are not the tokenizer's own; nothing where they are."""
    own = pair.model.tokens.own_ids(prompt)
    if own == fed:
        return ""
    with torch.inference_mode():
        own_V, fed_V = (
            pair.model.module(input_ids=torch.tensor([ids], device=pair.model.device), use_cache=False)
            .logits[0, -1]
            .double()
            .log_softmax(-1)
            for ids in (own, fed)
        )
    kl = float((own_V.exp() * (own_V - fed_V)).sum())
    bos = pair.model.tokens.bos
    return f" (BOS by the tokenizer's own habit: {own.count(bos)}; that moves the next token by {kl:.3g} nats of KL)"


def vocabulary(pair: Pair) -> list[Check]:
    """Tokens that the model's embeddings have no row for, if there are any: a text that holds one is refused."""
    tokens = pair.model.tokens
    without = tokens.without_row()
    if not without:
        return []
    more = f" and {len(without) - 3:,} more" if len(without) > 3 else ""
    named = ", ".join(f"{token!r} ({i:,})" for token, i in list(without.items())[:3])
    words = (
        f"the embeddings have {tokens.rows:,} rows, none for {named}{more}: texts that hold such a token are refused"
    )
    if set(without) <= set(tokens.tokenizer.get_added_vocab()):
        return [Check("vocabulary", None, words)]  # Gemma 3's tokenizer has a token for images, its text models do not
    return [Check("vocabulary", False, words, "The tokenizer is another model's: use the model's own files.")]


def context(pair: Pair) -> list[Check]:
    """How long the texts were that the SAE was trained on, where its files tell."""
    trained = pair.site.sae.config.context
    if trained is None:
        return []
    words = f"trained on texts of up to {trained:,} tokens; rankings and texts say where they are longer"
    if trained < PASSAGE_TOKENS:
        words += f"; passages measured here have up to {PASSAGE_TOKENS}"
    return [Check("context", None, words)]


def chat_prompt(pair: Pair) -> Check:
    """Show the chat template's own tokens, and check that a prompt does not get two leading special tokens."""
    tokens = pair.model.tokens
    chat = Prompt(SENTENCE, "chat")
    try:
        fed = tokens.feed(chat)
    except ModelError as error:
        return Check("chat prompt", None, f"{error.message} Prompts are fed raw.")
    except UsageError as error:  # the template has a token that the model lacks
        return Check("chat prompt", False, error.message, error.remedy)
    before, behind = template_around(fed)
    words = (
        f"the template puts {len(before)} tokens before a prompt, {one_line(tokens.strings(before))}, and "
        f"{len(behind)} behind it, {one_line(tokens.strings(behind))}; rankings leave them out"
        f"{unlike_own(pair, chat, fed.ids)}"
    )
    # not their number: SmolLM2's BOS begins each of a chat's messages
    if any(a == b == tokens.bos for a, b in pairwise(fed.ids)):
        return Check("chat prompt", False, f"two BOS in a row: {words}", "Mend the chat template.")
    if fed.ids[0] == tokens.bos and tokens.own_ids(chat)[0] != tokens.bos and tokens.bos in fed.ids[1:]:
        return Check("chat prompt", False, f"a BOS too many: {words}", "Leave --bos always out.")
    return Check("chat prompt", True, words)


def template_around(fed: TokenIds) -> tuple[list[int], list[int]]:
    """Return the template's ids before and behind the prompt's own."""
    own = [at for at, template in enumerate(fed.template) if not template]
    first, last = (own[0], own[-1]) if own else (len(fed.ids), len(fed.ids))
    return fed.ids[:first], fed.ids[last + 1 :]


def one_line(strings: tuple[str, ...]) -> str:
    """Join tokens into one quoted line, its middle cut out beyond 80 characters."""
    text = "".join(strings)
    return repr(text if len(text) <= 80 else f"{text[:40]}…{text[-35:]}")
