"""Follows the chain block by block: our contracts' logs as events, time, and what a reorganisation undid.

    cursor ──logs up to the head──> [events of a block, Block] … ──> deliver(events, cursor)
       └─ the block at the cursor has another hash now ─> back to the last block both know ──> [RolledBack]

The receiver keeps the cursor together with what it made of the events, and hands it back after a restart.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from clusterai.ledger.adapters.client import ChainClient, Head, head_of
from clusterai.ledger.adapters.jsonrpc import ChainDown, Request, RpcRefused
from clusterai.ledger.core.events import Block, Event, RolledBack
from clusterai.protocol.ids import Address, hex0x

KNOWN = 64
"""Blocks remembered for finding the common ancestor; a deeper reorganisation is told from the start on."""
FIRST_RANGE, MOST_RANGE = 256, 4096
FIRST_BACKOFF_S, MOST_BACKOFF_S = 0.1, 5.0


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Everything up to `number` was delivered; `known` are (number, hash) of some delivered blocks, oldest first."""

    number: int
    known: tuple[tuple[int, bytes], ...] = ()


class _Log(msgspec.Struct, rename="camel"):
    """One entry of eth_getLogs: what of it matters."""

    address: str
    topics: list[str]
    data: str
    block_number: str
    block_hash: str
    block_timestamp: str | None = None


_logs: msgspec.json.Decoder[list[_Log]] = msgspec.json.Decoder(list[_Log])

Deliver = Callable[[Sequence[Event], Cursor], None]


class LogFollower:
    """Delivers each block's events once, in order, for as long as the chain stands.

    Args:
        cursor: where to go on; None: from the manifest's start block.
        poll_s: how often a new head is asked for.

    Attributes:
        trouble: why nothing is delivered at present, for people; "" while all is well.
        behind: blocks between the head and the cursor when last looked.
        found: set once the chain answered, and was the manifest's.
    """

    def __init__(
        self, client: ChainClient, deliver: Deliver, cursor: Cursor | None = None, poll_s: float = 0.25
    ) -> None:
        self._client = client
        self._deliver = deliver
        self._poll_s = poll_s
        self._range = FIRST_RANGE
        self.cursor = cursor or Cursor(client.network.start_block - 1)
        self.trouble = ""
        self.behind = 0
        self.found = asyncio.Event()
        topics = client.codec.topics()
        self._addresses = [hex0x(address) for address in dict.fromkeys(address for address, _ in topics)]
        self._topics = [hex0x(topic) for topic in dict.fromkeys(topic for _, topic in topics)]
        self._address_of = {text: Address(bytes.fromhex(text[2:])) for text in self._addresses}
        self._topic_of = {text: bytes.fromhex(text[2:]) for text in self._topics}

    async def run(self) -> None:
        """Follow until cancelled; a chain that is away is waited for.

        Raises:
            OtherChain: what answers isn't the manifest's chain.
        """
        backoff_s = FIRST_BACKOFF_S
        while True:
            try:
                if not self.found.is_set():
                    await self._client.check()
                    self.found.set()
                moved = await self.step()
                self.trouble, backoff_s = "", FIRST_BACKOFF_S
            except (ChainDown, RpcRefused) as error:
                self.trouble = str(error)
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, MOST_BACKOFF_S)
                continue
            if not moved:
                await asyncio.sleep(self._poll_s)

    async def step(self) -> bool:
        """Deliver the next range of blocks, or a rollback; False where there is nothing new."""
        head, at_cursor = await self._look()
        if self.cursor.known and (at_cursor is None or at_cursor.hash != self.cursor.known[-1][1]):
            await self._roll_back()
            return True
        self.behind = max(0, head.number - self.cursor.number)
        if not self.behind:
            return False
        await self._advance(head)
        return True

    async def _look(self) -> tuple[Head, Head | None]:
        """The head, and the block at the cursor as it is now."""
        at = hex(max(0, self.cursor.number))
        head, found = await self._client.rpc.batch(
            [Request("eth_getBlockByNumber", ("latest", False)), Request("eth_getBlockByNumber", (at, False))]
        )
        for answer in (head, found):
            if isinstance(answer, RpcRefused):
                raise answer
        return head_of(head), None if found is None else head_of(found)

    async def _advance(self, head: Head) -> None:
        first = self.cursor.number + 1
        last = min(head.number, first + self._range - 1)
        requests = [
            Request("eth_getLogs", (self._filter(first, last),)),
            Request("eth_getBlockByNumber", (hex(last), False)),
        ]
        logs, end = await self._client.rpc.batch(requests, raw=1)
        if isinstance(logs, RpcRefused):
            # nodes limit results or ranges, each with words of its own: a smaller range is the answer to all
            if first == last:
                raise logs
            self._range = max(1, (last - first + 1) // 2)
            return
        if not isinstance(end, dict):
            return  # the chain became shorter meanwhile
        self._range = min(MOST_RANGE, self._range * 2)
        await self._tell(_logs.decode(logs), head_of(end))  # pyright: ignore[reportUnknownArgumentType]

    def _filter(self, first: int, last: int) -> dict[str, Any]:
        return {
            "fromBlock": hex(first),
            "toBlock": hex(last),
            "address": self._addresses,
            "topics": [self._topics],
        }

    async def _tell(self, logs: list[_Log], end: Head) -> None:
        events: list[Event] = []
        known: list[tuple[int, bytes]] = []
        times = await self._times(logs)
        current = ""
        event_of, addresses, topics = self._client.codec.event, self._address_of, self._topic_of
        for log in logs:
            if log.block_number != current:
                if current:
                    events.append(Block(int(current, 16), times[current]))
                current = log.block_number
                known.append((int(current, 16), bytes.fromhex(log.block_hash[2:])))
            first, *rest = log.topics
            event = event_of(
                addresses[log.address.lower()],
                (topics[first], *[bytes.fromhex(topic[2:]) for topic in rest]),
                bytes.fromhex(log.data[2:]),
            )
            if event is not None:
                events.append(event)
        if known and known[-1][0] == end.number:
            if known.pop()[1] != end.hash:
                return  # reorganised between the two answers: look again
        elif current:
            events.append(Block(int(current, 16), times[current]))
        events.append(Block(end.number, end.timestamp_s))
        known.append((end.number, end.hash))
        self._go(events, Cursor(end.number, (*self.cursor.known, *known)[-KNOWN:]))

    async def _times(self, logs: list[_Log]) -> dict[str, int]:
        """Timestamp of each block with logs; older nodes don't put it into the log."""
        times = {log.block_number: int(log.block_timestamp, 16) for log in logs if log.block_timestamp}
        missing = [
            number for number in dict.fromkeys(log.block_number for log in logs) if number not in times
        ]
        answers = await self._client.rpc.batch(
            [Request("eth_getBlockByNumber", (number, False)) for number in missing]
        )
        for number, answer in zip(missing, answers, strict=True):
            if not isinstance(answer, dict):
                raise ChainDown(f"block {number} went away while its logs were read")
            times[number] = head_of(answer).timestamp_s  # pyright: ignore[reportUnknownArgumentType]
        return times

    async def _roll_back(self) -> None:
        """To the newest delivered block that still stands, or to the start where none of those known does."""
        requests = [Request("eth_getBlockByNumber", (hex(number), False)) for number, _ in self.cursor.known]
        answers = await self._client.rpc.batch(requests)
        stands = [
            isinstance(answer, dict) and head_of(answer).hash == block_hash  # pyright: ignore[reportUnknownArgumentType]
            for answer, (_, block_hash) in zip(answers, self.cursor.known, strict=True)
        ]
        kept = self.cursor.known[: stands.index(False)] if False in stands else self.cursor.known
        number = kept[-1][0] if kept else self._client.network.start_block - 1
        if number < self.cursor.number:
            self._range = FIRST_RANGE
            self._go([RolledBack(number)], Cursor(number, kept))

    def _go(self, events: Sequence[Event], cursor: Cursor) -> None:
        self._deliver(events, cursor)
        self.cursor = cursor
