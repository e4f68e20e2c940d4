"""The causal verbs over one loaded model and SAE: attribution, exact effects, the smallest set."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from engine.explorer import Events, Explorer
from engine.records import Attribute, Effect, Event, FindMinimalSet, Measure


def attribute(explorer: Explorer, request: Attribute) -> Events:
    """Which features does the measure depend on? Returns an Attribution. Raises UsageError."""
    raise NotImplementedError
    yield


def find_minimal_set(explorer: Explorer, request: FindMinimalSet) -> Events:
    """Which smallest set carries it? Returns a MinimalSet. Raises UsageError."""
    raise NotImplementedError
    yield


def exact_effect(explorer: Explorer, measure: Measure, feature: int) -> Generator[Event, Any, Effect]:
    """What ablating one feature does to the measure. Raises UsageError."""
    raise NotImplementedError
    yield
