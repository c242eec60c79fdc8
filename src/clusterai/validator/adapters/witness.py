"""Reads out of the chain's blocks what other validators signed: the data of votes, whether they were counted or failed.

    follower ── events, cursor ──> blocks to read ── whole blocks ──> Vote calls ──> Overheard

A vote's event doesn't tell the leaf, nor the signature, and a vote that failed (a second one on a receipt always does)
leaves no event at all. Both stand in the transaction. Votes that reach the Court through another contract are passed
over: their data is that contract's own.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.follower import Cursor
from clusterai.ledger.adapters.jsonrpc import ChainDown, RpcRefused
from clusterai.ledger.core.events import Block, Event, RolledBack, Voted
from clusterai.validator.core.words import Overheard

MOST_WAITING = 1_024
"""Blocks to be read; where more are due, the oldest are left out."""
AT_ONCE = 16
RETRY_S = 1.0


class Witness:
    """Hears verdicts.

    Args:
        hear: called with each, in the order of the chain; the same may come again.
        every_block: read those without a counted vote as well, from the time on when the chain is caught up with.
    """

    def __init__(
        self, client: ChainClient, hear: Callable[[Overheard], None], *, every_block: bool = True
    ) -> None:
        self._client = client
        self._hear = hear
        self._every_block = every_block
        self._due: deque[int] = deque(maxlen=MOST_WAITING)
        self._until: int | None = None
        self._wake = asyncio.Event()

    def told(self, happened: Sequence[Event], cursor: Cursor, *, caught_up: bool) -> None:
        """Note which blocks to read; never blocks. To be called with all that the follower delivers."""
        voted = False
        for event in happened:
            match event:
                case Voted():
                    voted = True
                case Block(number):
                    if voted:
                        self._due.append(number)
                    voted = False
                case RolledBack(number) if self._until is not None:
                    self._until = min(self._until, number)
                case _:
                    pass
        if self._every_block and caught_up:
            first = cursor.number if self._until is None else self._until + 1
            known = frozenset(self._due)
            self._due.extend(
                number
                for number in range(max(first, cursor.number - MOST_WAITING), cursor.number + 1)
                if number not in known
            )
            self._until = cursor.number
        if self._due:
            self._wake.set()

    @property
    def waiting(self) -> int:
        """Blocks still to be read."""
        return len(self._due)

    async def run(self) -> None:
        """Read until cancelled; a chain that is away is waited for."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                blocks = [self._due.popleft() for _ in range(min(AT_ONCE, len(self._due)))]
                try:
                    await self._read(blocks)
                except (ChainDown, RpcRefused):
                    self._due.extendleft(reversed(blocks))
                    await asyncio.sleep(RETRY_S)

    async def _read(self, blocks: Sequence[int]) -> None:
        for sent in await self._client.sent_to("Court", blocks):
            for data in sent:
                vote = self._client.codec.vote(data)
                if vote is not None:
                    self._hear(Overheard(vote.verdict, vote.signature))
