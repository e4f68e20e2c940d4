"""What is asked for and makes no sense: refused before anything is loaded or run. No torch."""

from __future__ import annotations

from math import inf

from engine.errors import UsageError
from engine.records import Attribute, FindMinimalSet, Generate, Sampling

SEEDS = 2**63
MOST_SAMPLES = 4096
"""Rows that a batch may come to, some times over."""
MOST_CONTROLS = 10_000


def check_sampling(sampling: Sampling, samples: int = 1) -> None:
    """Raises UsageError for settings that make no sense."""
    if sampling.max_tokens < 1:
        raise UsageError("--max-tokens must be at least 1.")
    if not 0 <= sampling.temperature < inf:
        raise UsageError("--temperature must be 0 (greedy) or more.")
    if not 1 <= samples <= MOST_SAMPLES:
        raise UsageError(f"--samples must be between 1 and {MOST_SAMPLES:,}.")
    if samples > 1 and sampling.temperature == 0:
        raise UsageError(
            f"--samples {samples} needs a temperature: greedy samples are all the same text.", "Add --temperature 0.8."
        )
    if not 0 <= sampling.seed <= SEEDS - samples:
        raise UsageError(f"--seed must be between 0 and {SEEDS - samples}.")
    if sampling.top_k < 0:
        raise UsageError("--top-k must be 0 (all tokens) or more.")
    if not 0 < sampling.top_p <= 1:
        raise UsageError("--top-p must be above 0 and at most 1.")
    if not 0 <= sampling.min_p <= 1:
        raise UsageError("--min-p must be between 0 and 1.")
    if not all(sampling.stop):
        raise UsageError("--stop must not be empty.")
    check_encoding(*sampling.stop)


def check_encoding(*texts: str) -> None:
    """Raises UsageError for a text that no tokenizer takes, such as an odd byte on the command line."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{text!r} is not in UTF-8.", "Type it anew, or mend it where it comes from.") from error


def check_branch(request: Generate) -> None:
    """Raises UsageError for changes of edits, or a branch, at tokens there are not."""
    last = request.sampling.max_tokens - 1
    places = [change.token_index for change in request.schedule]
    if places != sorted(set(places)) or not all(0 < place <= last for place in places):
        raise UsageError(f"Edits can change at tokens 1 to {last} of this text, in order.")
    if request.branched_at is not None and not 0 < request.branched_at <= last:
        raise UsageError(
            f"The text has at most {last + 1:,} tokens: there is nothing to generate from token "
            f"{request.branched_at + 1:,} on.",
            "Allow more tokens, or go back further.",
        )


def check_causes(request: Attribute | FindMinimalSet) -> None:
    """Raises UsageError for numbers of features that make no sense."""
    if not 0 <= request.controls <= MOST_CONTROLS:
        raise UsageError(f"--controls must be between 0 and {MOST_CONTROLS:,}.")
    if isinstance(request, Attribute) and (request.top < 1 or request.exact < 0):
        raise UsageError("--top must be at least 1, --exact at least 0.")
