"""The asyncio end of an engine's stream, fed from the engine's own thread or task."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from clusterai.work.engine import EngineFailed, Finish, TokenEvent


class QueueStream:
    """Events of one request. Bounded by the request: an engine can't produce more than it allows."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel
        self._events: deque[TokenEvent | Finish | EngineFailed] = deque()
        self._wake = asyncio.Event()

    def put(self, event: TokenEvent | Finish | EngineFailed) -> None:
        """Called in the event loop's thread."""
        self._events.append(event)
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[TokenEvent | Finish]:
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, EngineFailed):
                    raise event
                yield event
                if isinstance(event, Finish):
                    return
            self._wake.clear()
            await self._wake.wait()

    def cancel(self) -> None:
        self._cancel()
