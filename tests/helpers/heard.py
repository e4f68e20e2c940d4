"""A listener to an engine that remembers what it heard."""

import asyncio

from engine.records import Cancelled, Failed, Finished, TokenStep

ENDS = (Finished, Failed, Cancelled)


class Heard:
    """A Listener that remembers, and can wait."""

    def __init__(self):
        self.events, self.lost, self.news = [], [], asyncio.Event()

    def on_event(self, request_id, event):
        self.events.append((request_id, event))
        self.news.set()

    def on_lost(self, error):
        self.lost.append(error)
        self.news.set()

    def of(self, request_id):
        return [event for i, event in self.events if i == request_id]

    async def until(self, found):
        async with asyncio.timeout(30):
            while not found():
                self.news.clear()
                await self.news.wait()

    async def token(self, request_id):
        await self.until(lambda: any(isinstance(e, TokenStep) for e in self.of(request_id)))

    async def end(self, request_id):
        await self.until(lambda: any(isinstance(e, ENDS) for e in self.of(request_id)))
        (end,) = [e for e in self.of(request_id) if isinstance(e, ENDS)]
        assert self.of(request_id)[-1] is end
        return end
