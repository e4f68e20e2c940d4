"""A generation driven as the app drives one: with something sent in answer to its tokens."""

from engine.generation.generate import generate
from engine.records import TokenStep


def driven(pair, request, replies=None):
    """(result, events); replies: what is sent in answer to the token of an index."""
    work, events, reply = generate(pair, request), [], None
    while True:
        try:
            event = work.send(reply)
        except StopIteration as done:
            return done.value, events
        events.append(event)
        reply = (replies or {}).get(event.index) if isinstance(event, TokenStep) else None
