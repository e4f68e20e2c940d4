"""The generation loop: the arms of a text as rows of one batch, token by token.

Row 0 is the baseline and row 1 the edited model, each reading its own tokens; row 2 is the edited model reading the
baseline's tokens, on which KL(baseline || edited) is measured. Variants and further samples follow. The loop yields a
TokenStep per token and takes new edits as the answer to one, so a caller can stop it at any token by closing the
generator, and change the edits between two tokens. A text can be resumed at any of its tokens.

Shape suffixes: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from math import inf, isnan

import torch
from msgspec.structs import replace

from engine.generation.sampling import Chooser, stops
from engine.generation.steps import Steps
from engine.models.language_model import LanguageModel, not_finite
from engine.records import Edit, EditsFrom, Generate, Progress, Reply, TokenStep
from engine.records.errors import EditError, ModelError, SaescopeError

BASELINE, EDITED, FORCED = 0, 1, 2

Edits = tuple[Edit, ...]


@dataclass(frozen=True)
class Row:
    """Which arm a row of the batch is."""

    sample: int = 0
    edited: bool = False
    forced: bool = False
    """Whether it reads the first baseline's tokens instead of its own."""
    variant: int | None = None
    """Index of its edits among the request's variants; None for the edits that may change while it runs."""

    def edits(self, current: Edits, variants: Sequence[Edits]) -> Edits:
        """Return the edits that the row is under."""
        if not self.edited:
            return ()
        return current if self.variant is None else variants[self.variant]


def rows_of(request: Generate, kl: bool = True) -> list[Row]:
    """Return the rows of a request: baseline, edited, forced unless `kl` is off, variants, then further samples."""
    rows = [Row(), Row(edited=True)] + [Row(edited=True, forced=True)] * kl
    for sample in range(request.samples):
        if sample > 0:
            rows += [Row(sample), Row(sample, edited=True)]
        rows += [Row(sample, edited=True, variant=n) for n in range(len(request.variants))]
    return rows


def like_rows(rows: Sequence[Row]) -> list[int]:
    """Return for each row the first row that is always under the same edits: in the prompt the two are identical."""
    keys = [(row.edited, row.variant) for row in rows]
    return [keys.index(key) for key in keys]


def lists_of(request: Generate, rows: Sequence[Row], edits: Edits) -> list[Edits]:
    """Return each row's edits while `edits` are the current ones."""
    return [row.edits(edits, request.variants) for row in rows]


@dataclass
class DecodedArm:
    """One row's generated tokens. It ends with an end token or a stop string; both are kept."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    """Gap in nats between the two likeliest tokens."""
    ended: bool = False
    positions: int = 0
    """Number of positions at which its edits might act."""
    inactive_positions: int = 0
    """Number of those at which they had nothing to act on."""


@dataclass(frozen=True)
class Decoded:
    """All arms, the KL per baseline token, which edits were in force from which token on, and the speed."""

    rows: list[Row]
    arms: list[DecodedArm]
    """One per row; the forced row's is empty."""
    kl: list[float]
    schedule: list[EditsFrom]
    variants: list[Edits]
    tokens_per_second: float
    """Tokens of one arm per second."""
    stopped: bool
    fault: str
    """What ended the text early, in words; "" where nothing did."""
    without_cache: bool
    """Whether each token took a pass over the whole text."""


@dataclass(frozen=True)
class Chosen:
    """The outcome of one pass: every row's next token and what is reported about it."""

    tokens: list[int]
    logprobs: list[float]
    margins: list[float]
    kl: float
    allowed: list[int]
    """Number of the pass's positions at which each row's edits might act."""
    active: list[int]
    """Number of those positions at which they acted."""


class Text:
    """A text that is being generated, or was generated and may be resumed.

    `rows` are the rows of `steps`; making the editor has checked the request's edits.
    """

    def __init__(
        self, model: LanguageModel, steps: Steps, rows: list[Row], prompt_ids: list[int], request: Generate
    ) -> None:
        self.model, self.steps, self.rows, self.prompt_ids, self.request = model, steps, rows, prompt_ids, request
        self._end_ids = model.end_ids()
        self._forced = any(row.forced for row in rows)
        self._passes: list[Chosen] = []
        self.schedule: list[EditsFrom] = []

    def take_up(self, request: Generate) -> bool:
        """Go back to the token at which a request branches off, if its text is this one up to there; return whether.

        The keys and values must still be there: no other text may have used the steps since.
        """
        at, old = request.branched_at, self.request
        if not at or len(self._passes) < at:
            return False
        schedule = [change for change in self.schedule if change.token_index < at]
        if request.variants not in (old.variants, self._variants()):
            return False
        if _asked(request) != _asked(old) or planned(request, at) != schedule:
            return False
        length = len(self.prompt_ids) + request.sampling.max_tokens
        if length > self.steps.length or not self.steps.rewind(len(self.prompt_ids) + at - 1):
            return False
        del self._passes[at:]
        self.request, self.schedule = request, schedule
        self.steps.editor.set_rows(lists_of(request, self.rows, schedule[-1].edits))
        return True

    @torch.inference_mode()
    def run(self) -> Generator[TokenStep | Progress, Reply, Decoded]:
        """Continue until all arms have ended or max_tokens is reached; tokens before a branch are not reported again.

        A tuple of edits sent in answer to a TokenStep is in force from the next token on: keys and values of earlier
        positions stay as they were computed. Raises EditError for edits that cannot be applied, ModelError where the
        model's own numbers overflow.
        """
        request, report_from = self.request, self.request.branched_at or 0
        changes = {0: request.edits} | {change.token_index: change.edits for change in request.schedule}
        chooser = Chooser(request.sampling, [row.sample for row in self.rows], self.model.device)
        arms = self._arms()
        reply: Reply = None
        seconds, first, fault = 0.0, len(self._passes), ""
        while (index := len(self._passes)) < request.sampling.max_tokens and not self._over(arms) and reply != "stop":
            started = time.perf_counter()
            edits = reply if isinstance(reply, tuple) else changes.get(index)
            try:
                if edits is not None:
                    self._put(edits, index)
                chosen = self._choose(chooser, index)
            except (EditError, ModelError) as error:
                if not self._passes:
                    raise
                fault = f"{error.message} {error.remedy}"  # the text so far is kept
                break
            self._passes.append(chosen)
            step = self._note(arms, chosen, index)
            seconds += time.perf_counter() - started
            reply = None
            if index >= report_from:
                reply = yield step
            else:
                yield Progress("going back to the token", index, report_from)
        stopped = reply == "stop" and index < request.sampling.max_tokens and not self._over(arms)
        speed = (len(self._passes) - first) / seconds if seconds else 0.0
        return self._decoded(arms, speed, stopped, fault)

    def _over(self, arms: list[DecodedArm]) -> bool:
        return all(arm.ended for arm, row in zip(arms, self.rows, strict=True) if not row.forced)

    def _put(self, edits: Edits, index: int) -> None:
        """Put edits in force from token `index` on."""
        editor = self.steps.editor
        editor.set_rows(lists_of(self.request, self.rows, edits))
        if not self.schedule or editor.rows[EDITED] != self.schedule[-1].edits:
            self.schedule.append(EditsFrom(index, editor.rows[EDITED]))

    def _choose(self, chooser: Chooser, index: int) -> Chosen:
        """Run the pass before token `index` and choose each row's token."""
        if index == 0:
            out = self.steps.prompt(self.prompt_ids, like_rows(self.rows))
        else:
            out = self.steps.step(torch.tensor(self._passes[-1].tokens, device=self.model.device))
        logprobs_BV = torch.log_softmax(out.logits_BV.float(), -1)
        chosen_B = chooser.choose(logprobs_BV, index)
        if self._forced:
            chosen_B[FORCED] = chosen_B[BASELINE]
            kl_B = divergence(logprobs_BV[BASELINE], logprobs_BV[FORCED]).expand(len(chosen_B))
        else:
            kl_B = torch.zeros(len(chosen_B), device=logprobs_BV.device)
        best_B2 = logprobs_BV.topk(2).values
        own_B = logprobs_BV.gather(1, chosen_B[:, None])[:, 0]
        per_row = (chosen_B, own_B, best_B2[:, 0] - best_B2[:, 1], kl_B, out.allowed_BT.sum(-1), out.active_BT.sum(-1))
        # moved to Python in one piece, so that a GPU is waited for once
        numbers = torch.stack([number_B.double() for number_B in per_row]).tolist()
        tokens, logprobs, margins, kl, allowed, active = numbers
        if any(map(isnan, logprobs)):
            raise self._overflow(logprobs, index)
        return Chosen(list(map(int, tokens)), logprobs, margins, kl[0], list(map(int, allowed)), list(map(int, active)))

    def _overflow(self, logprobs: list[float], index: int) -> SaescopeError:
        """Whose doing it is that numbers are NaN: the model's own where an unedited row has them, else the edits'."""
        if any(isnan(logprob) for row, logprob in zip(self.rows, logprobs, strict=True) if not row.edited):
            return not_finite(self.model.dtype, f"The model's logits overflow at token {index + 1}")
        return EditError(f"The edits make the model's numbers overflow at token {index + 1}.", "Use smaller strengths.")

    def _note(self, arms: list[DecodedArm], chosen: Chosen, index: int) -> TokenStep:
        """Add the chosen token to each arm that has not ended, and report it."""
        kl = chosen.kl if self._forced and not arms[BASELINE].ended else None
        strings: list[str | None] = []
        for b, (row, arm) in enumerate(zip(self.rows, arms, strict=True)):
            if row.forced:
                continue
            if arm.ended:
                strings.append(None)
                continue
            token = chosen.tokens[b]
            arm.ids.append(token)
            arm.logprobs.append(chosen.logprobs[b])
            arm.margins.append(chosen.margins[b])
            arm.positions += chosen.allowed[b]
            arm.inactive_positions += chosen.allowed[b] - chosen.active[b]
            arm.ended = token in self._end_ids or stops(self.model.tokens, arm.ids, self.request.sampling.stop)
            strings.append(self.model.tokens.string(token))
        return TokenStep(index, strings[BASELINE], strings[EDITED], more=tuple(strings[2:]), kl=kl)

    def _arms(self) -> list[DecodedArm]:
        """Return the arms as the passes so far left them."""
        arms = [DecodedArm() for _ in self.rows]
        for index, chosen in enumerate(self._passes):
            self._note(arms, chosen, index)
        return arms

    def _variants(self) -> tuple[Edits, ...]:
        """Return the variants' edits with their absolute strengths filled in."""
        by_variant = {row.variant: edits for row, edits in zip(self.rows, self.steps.editor.rows, strict=True)}
        return tuple(by_variant[n] for n in range(len(self.request.variants)))

    def _decoded(self, arms: list[DecodedArm], speed: float, stopped: bool, fault: str) -> Decoded:
        kl = [chosen.kl for chosen in self._passes[: len(arms[BASELINE].ids)]] if self._forced else []
        # without edits that failed
        schedule = [change for change in self.schedule if change.token_index < len(self._passes)]
        return Decoded(self.rows, arms, kl, schedule, list(self._variants()), speed, stopped, fault, self.steps.whole)


def planned(request: Generate, at: int) -> list[EditsFrom]:
    """Return which edits a request puts in force from which token on, as far as that is before token `at`."""
    return [EditsFrom(0, request.edits), *(change for change in request.schedule if change.token_index < at)]


def _asked(request: Generate) -> tuple[object, ...]:
    """Return what a text depends on, except its length and the edits that may change."""
    how = replace(request.sampling, max_tokens=1)
    return request.prompt.text, request.prompt.format, request.prefill, how, request.samples


def divergence(base_V: torch.Tensor, edited_V: torch.Tensor) -> torch.Tensor:
    """Return KL(base || edited) in nats of two log-probability vectors; tokens impossible in base count nothing."""
    terms_V = torch.where(base_V == -inf, 0.0, base_V.exp() * (base_V - edited_V))
    return terms_V.sum().clamp(0, torch.finfo(terms_V.dtype).max)
