"""Exact token ids: what a prompt is fed as, and which of its tokens count.

A chat prompt is fed as the model's own template says, and nothing before it. A raw prompt begins with one BOS where
the SAE was trained with one, or, if nothing tells, where the tokenizer itself puts one. `--bos` overrides both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.records import Prompt
from engine.records.base import Bos
from engine.records.errors import ModelError, UsageError
from engine.records.texts import check_encoding

USE_RAW = 'Use --raw, or format = "raw" in the prompt set.'

BROKEN, TOKENS_PER_CHARACTER = "\ufffd", 4

MARKER = "\u2402saescope\u2403"

THINK_BLOCKS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"))
"""What opens and closes the block in which a model thinks before it answers."""


@dataclass(frozen=True)
class TokenIds:
    """A prompt's token ids; `template` is True for tokens of the chat template and other special tokens."""

    ids: list[int]
    template: list[bool]


class Tokens:
    """A tokenizer, and whether a BOS is put before raw and before chat prompts.

    `rows`: how many rows the model's embeddings have, perhaps fewer than the tokenizer has tokens; None if unknown.
    """

    def __init__(self, tokenizer: Any, rows: int | None = None, raw_bos: bool = True, chat_bos: bool = False) -> None:
        self.tokenizer, self.rows = tokenizer, rows
        self.bos = tokenizer.bos_token_id
        self.raw_bos, self.chat_bos = (wanted and self.bos is not None for wanted in (raw_bos, chat_bos))
        added = tokenizer.added_tokens_decoder.items()  # a template's own are special without having a name
        self.special: set[int] = {*tokenizer.all_special_ids, *(i for i, token in added if token.special)}
        self._strings: dict[int, str] = {}

    def feeding(self, bos: Bos, trained_with: bool | None) -> Tokens:
        """Return this tokenizer feeding prompts by `--bos`; `trained_with`: whether the SAE saw a BOS, None if unknown.

        Where that changes nothing, it is this object.
        """
        if bos == "auto":
            raw, chat = self.puts_bos if trained_with is None else trained_with, False
        else:
            raw = chat = bos == "always"
        changed = Tokens(self.tokenizer, self.rows, raw, chat)
        same = (changed.raw_bos, changed.chat_bos) == (self.raw_bos, self.chat_bos)
        return self if same else changed

    @property
    def puts_bos(self) -> bool:
        """Whether the tokenizer itself puts a BOS before a text."""
        return self.bos is not None and self.own_ids(Prompt("a"))[:1] == [self.bos]

    def own_ids(self, prompt: Prompt) -> list[int]:
        """Return a prompt's ids as tokenizer and chat template make them by themselves, whatever `--bos` says."""
        if prompt.format == "raw":
            ids = list(self.tokenizer(prompt.text)["input_ids"])
            while ids and ids[-1] == self.tokenizer.eos_token_id:  # put after a text in training; here it goes on
                ids.pop()
            return ids
        return list(self.tokenizer(self.render_chat(prompt.text), add_special_tokens=False)["input_ids"])

    def feed(self, prompt: Prompt, prefill: str = "", answer: str = "") -> TokenIds:
        """Return the token ids of a prompt, with the beginning of the model's answer after it, tokenised jointly.

        Raises UsageError for an empty prompt, one that is not in UTF-8, one with a token that the model's embeddings
        have no row for, or an answer inside an open think block; ModelError where a chat prompt meets a model without a
        template that takes it.
        """
        check_encoding(prompt.text, prefill, answer)
        if not prompt.text.strip():
            raise UsageError("The prompt is empty.", "Type some text.")
        if prompt.format == "raw":
            # raw text is continued where it stops: a prefill begins a new word
            gap = " " if prefill and not prompt.text[-1].isspace() and not prefill[0].isspace() else ""
            return self._ids(prompt.text + gap + prefill + answer, None)
        text = self.render_chat(prompt.text)
        # where the template puts a message, located with a marker that occurs nowhere else in it
        start = self.render_chat(MARKER).index(MARKER)
        if not text.startswith(prompt.text.strip(), start):  # a template that treats messages differently
            start = text.rindex(prompt.text.strip())
        end = start + len(prompt.text.strip())
        if answer:
            check_thought(text[end:] + prefill)
        return self._ids(text + prefill + answer, (start, end, len(text)))

    def render_chat(self, text: str) -> str:
        """Return the chat template around one user message, generation prompt included. Raises ModelError."""
        if not self.tokenizer.chat_template:
            raise ModelError("This model has no chat template.", USE_RAW)
        first: Exception | None = None
        # some templates, of vision models most, take a message as a list of parts
        for content in (text, [{"type": "text", "text": text}]):
            try:
                rendered = self.tokenizer.apply_chat_template(
                    [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
                )
            except Exception as error:  # a template is a program of the model's files: it may raise anything
                first = first or error
                continue
            if text.strip() in rendered:
                return str(rendered)
        if first is None:
            raise ModelError("The chat template changed the prompt's text.", "Use --raw for this prompt.")
        reason = str(first).rstrip(".") or type(first).__name__
        raise ModelError(f"The model's chat template cannot be used: {reason}.", USE_RAW) from first

    def _ids(self, text: str, content: tuple[int, int, int] | None) -> TokenIds:
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=content is not None)
        ids = list(encoded["input_ids"])
        template = [i in self.special for i in ids]
        if content is not None:
            start, end, reply = content
            template = [
                special or not ((start < b and a < end) or a >= reply)
                for special, (a, b) in zip(template, encoded["offset_mapping"], strict=True)
            ]
        if (self.raw_bos if content is None else self.chat_bos) and ids[:1] != [self.bos]:
            ids, template = [self.bos, *ids], [True, *template]
        if not ids:
            raise UsageError("The tokenizer makes no token of this prompt.", "Type some other text.")
        self._check_rows(ids)
        return TokenIds(ids, template)

    def _check_rows(self, ids: Sequence[int]) -> None:
        """Raises UsageError for a token that the model's embeddings have no row for."""
        token = None if self.rows is None else next((i for i in ids if i >= self.rows), None)
        if token is None:
            return
        raise UsageError(
            f"The model has no embedding for the token {self.string(token)!r} (id {token}): it has {self.rows} rows.",
            "Leave it out of the text. If it comes from the chat template or stands before every text, the tokenizer "
            "belongs to another model.",
        )

    def without_row(self) -> dict[str, int]:
        """The tokenizer's tokens that the model's embeddings have no row for, with their ids in order."""
        known = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        return {token: i for token, i in known if self.rows is not None and i >= self.rows}

    def string(self, token_id: int) -> str:
        """Return one token as text."""
        if token_id not in self._strings:
            self._strings[token_id] = str(self.tokenizer.decode([token_id]))
        return self._strings[token_id]

    def strings(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Return each token as text; a character split over several tokens stands whole on its last one."""
        texts: list[str] = []
        start = 0
        for at, token in enumerate(ids):
            texts.append(self.string(token) if start == at else str(self.tokenizer.decode(list(ids[start : at + 1]))))
            if BROKEN not in texts[-1]:
                start = at + 1
            elif at + 1 - start < TOKENS_PER_CHARACTER and at + 1 < len(ids):
                texts[-1] = ""  # perhaps the next token completes it
            else:  # never completed: the tokens one by one, broken as they are
                texts[start:] = [self.string(i) for i in ids[start : at + 1]]
                start = at + 1
        return tuple(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """Return a run of tokens as text, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def check_thought(text: str) -> None:
    """Raises UsageError where the text between a chat prompt and an answer leaves a think block open."""
    for opening, closing in THINK_BLOCKS:
        if text.rfind(opening) > text.rfind(closing):
            raise UsageError(
                f"The text before the answers opens a {opening} block and nothing closes it: answers would be scored "
                "inside it.",
                f"Give a prefill that holds {closing}, or use --raw.",
            )
