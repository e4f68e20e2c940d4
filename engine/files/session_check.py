"""What the parts of a session must agree in, beyond their types. Showing, exporting and replaying rely on it.

Numbers are finite already, since JSON has no others. Knows nothing about files or torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from engine.records import Arm, Attribution, FedPrompt, Generated, MinimalSet, Record

LARGEST = 2**63 - 1
"""The largest whole number that the engine and the database accept."""

Rule = Callable[[Any], Iterator[str]]
"""Yields what is wrong with a record, each as the rest of a sentence that begins with the record's place."""


def problems(value: Any, rules: dict[type, Rule], place: str = "") -> Iterator[str]:
    """Yield what is wrong with a value and everything in it, a sentence each, in the order of the fields."""
    match value:
        case Record():
            if rule := rules.get(type(value)):
                yield from (f"{place} {problem}" for problem in rule(value))
            for name in value.__struct_fields__:
                yield from problems(getattr(value, name), rules, f"{place}.{name}" if place else name)
        # these may have thousands of items, one per token
        case (str() | float() | bool(), *_):
            pass
        case (int(), *_):
            yield from problems(max(value, key=abs), rules, place)
        case tuple():
            for index, item in enumerate(value):
                yield from problems(item, rules, f"{place}[{index}]")
        case dict():
            for key, item in value.items():
                yield from problems(key, rules, f"{place}: a key")
                yield from problems(item, rules, f"{place}[{key!r}]")
        case int() if abs(value) > LARGEST:
            yield f"{place} has a whole number of more than 64 bits"


def same_length(record: Record, *names: str) -> Iterator[str]:
    """Check that lists with one entry per token have the same length."""
    counts = {name: len(getattr(record, name)) for name in names}
    if len(set(counts.values())) > 1:
        yield f"has {' and '.join(f'{count} {name}' for name, count in counts.items())}: there must be as many of each"


def once(name: str, features: Sequence[int]) -> Iterator[str]:
    """Check that no feature stands twice in a list whose rows are identified by their feature."""
    seen: set[int] = set()
    for feature in features:
        if feature in seen:
            yield f"has feature {feature} twice in {name}"
        seen.add(feature)


def of_prompt(fed: FedPrompt) -> Iterator[str]:
    """Check a prompt as it was fed."""
    return same_length(fed, "token_ids", "tokens", "rank_mask", "edit_mask")


def of_arm(arm: Arm) -> Iterator[str]:
    """Check one text. Older sessions may lack margins."""
    return same_length(arm, "token_ids", "tokens", "logprobs", *["margins"] * bool(arm.margins))


def of_generated(result: Generated) -> Iterator[str]:
    """Check that all arms are there, in the order of the batch, and that indices refer to tokens that exist."""
    rows = [(other.sample, other.edited, other.variant) for other in result.more]
    samples = 1 + max((sample for sample, _, _ in rows), default=0)
    kinds = [(False, None), (True, None), *((True, variant) for variant in range(len(result.variants)))]
    # counts are compared first: a large sample number would make a long list
    if len(rows) + 2 != samples * len(kinds) or rows != [(n, *kind) for n in range(samples) for kind in kinds][2:]:
        yield "has in `more` other texts than its samples and variants have, or in another order"
    baseline, edited = len(result.baseline.tokens), len(result.edited.tokens)
    if result.kl and len(result.kl) != baseline:
        yield f"has {len(result.kl)} kl for a baseline of {baseline} tokens"
    if result.first_divergence is not None and not 0 <= result.first_divergence <= max(baseline, edited):
        yield f"has its first_divergence at {result.first_divergence}, where no token is"
    places = [change.token_index for change in result.schedule]
    if places and (places[0] != 0 or places != sorted(set(places))):
        yield "has a schedule that does not go from token 0 upwards"
    if result.branched_at is not None and result.branched_at < 1:
        yield f"has branched_at {result.branched_at}: a branch keeps at least one token"


RULES: dict[type, Rule] = {
    FedPrompt: of_prompt,
    Arm: of_arm,
    Generated: of_generated,
    Attribution: lambda attribution: once("features", [row.feature for row in attribution.features]),
    MinimalSet: lambda minimal_set: once("members", [member.feature for member in minimal_set.members]),
}
