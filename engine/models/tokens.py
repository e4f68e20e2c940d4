"""Exact token ids: what a prompt is fed as, and which of its tokens count.

Every prompt gets exactly one leading special token where the tokenizer has one. Knows nothing about the SAE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.records import Prompt
from engine.records.errors import ModelError, UsageError
from engine.records.texts import check_encoding

BROKEN, TOKENS_PER_CHARACTER = "\ufffd", 4

MARKER = "\u2402saescope\u2403"


@dataclass(frozen=True)
class TokenIds:
    """A prompt's token ids; `template` is True for tokens of the chat template and other special tokens."""

    ids: list[int]
    template: list[bool]


class Tokens:
    """A tokenizer with its leading special token settled.

    `rows`: how many rows the model's embeddings have, perhaps fewer than the tokenizer has tokens; None if unknown.
    """

    def __init__(self, tokenizer: Any, rows: int | None = None) -> None:
        self.tokenizer, self.rows = tokenizer, rows
        self.bos = tokenizer.bos_token_id
        named = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        self.special: set[int] = {i for i in named if i is not None}
        self._strings: dict[int, str] = {}

    def feed(self, prompt: Prompt, prefill: str = "", answer: str = "") -> TokenIds:
        """Return the token ids of a prompt, with the beginning of the model's answer after it, tokenised jointly.

        Raises UsageError for an empty prompt, one that is not in UTF-8, or one with a token that the model's embeddings
        have no row for; ModelError where a chat prompt meets a model without a template.
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
        return self._ids(text + prefill + answer, (start, start + len(prompt.text.strip()), len(text)))

    def render_chat(self, text: str) -> str:
        """Return the chat template around one user message, generation prompt included. Raises ModelError."""
        if not self.tokenizer.chat_template:
            raise ModelError("This model has no chat template.", 'Use --raw, or format = "raw" in the prompt set.')
        messages = [{"role": "user", "content": text}]
        rendered = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        if text.strip() not in rendered:
            raise ModelError("The chat template changed the prompt's text.", "Use --raw for this prompt.")
        return str(rendered)

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
        if self.bos is not None and (not ids or ids[0] != self.bos):
            ids, template = [self.bos, *ids], [True, *template]
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
