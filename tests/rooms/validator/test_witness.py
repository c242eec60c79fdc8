"""Which blocks a witness reads, and that it reads them in spite of everything."""

import asyncio
from collections.abc import Sequence
from typing import cast

from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.follower import Cursor
from clusterai.ledger.adapters.jsonrpc import ChainDown
from clusterai.ledger.core import calls
from clusterai.ledger.core.abi import Codec
from clusterai.ledger.core.events import Block, Event, RolledBack, Voted
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.statements import Verdict
from clusterai.validator.adapters.witness import MOST_WAITING, Witness
from clusterai.validator.core.words import Overheard
from tests.rooms.validator.theatre import ADDRESSES

SOMEBODY, DIGEST = Address(bytes(20)), Digest(bytes(32))
A_VOTE = Voted(SOMEBODY, SOMEBODY, 1, 2, 2, DIGEST)


class Blocks:
    """A chain with one vote in each block, whose index is the block's number."""

    def __init__(self) -> None:
        self.codec = Codec(ADDRESSES)
        self.read: list[int] = []
        self.away = 0

    async def sent_to(self, contract: str, blocks: Sequence[int]) -> list[list[bytes]]:
        if self.away:
            self.away -= 1
            raise ChainDown("away")
        self.read += blocks
        votes = [calls.Vote(Verdict(SOMEBODY, 1, it, DIGEST, 2, DIGEST), (), bytes(65)) for it in blocks]
        return [[b"not a vote", self.codec.encode(vote)[1]] for vote in votes]


def watch(*told: tuple[list[Event], int, bool], every_block: bool = True, away: int = 0) -> list[int]:
    """The numbers of the blocks that were read, when the follower delivers (events, cursor, caught up)."""
    blocks, heard = Blocks(), list[Overheard]()
    blocks.away = away
    witness = Witness(cast("ChainClient", blocks), heard.append, every_block=every_block)

    async def read() -> None:
        reading = asyncio.create_task(witness.run())
        async with asyncio.timeout(120):
            for happened, number, caught_up in told:
                witness.told(happened, Cursor(number), caught_up=caught_up)
                while witness.waiting or len(heard) < len(blocks.read):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    asyncio.run(read())
    assert [it.verdict.index for it in heard] == blocks.read
    return blocks.read


def test_of_the_past_only_blocks_with_votes_are_read() -> None:
    """While the chain is read from its beginning, and for good where every block is too much."""
    history: tuple[list[Event], int, bool] = ([Block(3, 30), A_VOTE, Block(4, 40), Block(9, 90)], 9, False)
    assert watch(history) == [4]
    assert watch(history, ([Block(12, 120)], 12, True), every_block=False) == [4]


def test_from_then_on_every_block_is_read_once() -> None:
    """Also those without any event of ours, which the follower doesn't name."""
    assert watch(([Block(9, 90)], 9, True), ([A_VOTE, Block(12, 120)], 12, True)) == [9, 12, 10, 11]


def test_what_replaces_undone_blocks_is_read() -> None:
    """Another vote may stand in them now; what was read before stays heard."""
    told: list[tuple[list[Event], int, bool]] = [
        ([Block(9, 90)], 9, True),
        ([RolledBack(7)], 7, True),
        ([Block(9, 91)], 9, True),
    ]
    assert watch(*told) == [9, 8, 9]


def test_an_absent_chain_is_asked_again() -> None:
    """Nothing that is due is left out."""
    assert watch(([A_VOTE, Block(4, 40), A_VOTE, Block(5, 50)], 5, False), away=1) == [4, 5]


def test_only_so_many_blocks_wait() -> None:
    """A daemon that was long away reads the newest."""
    read = watch(([Block(1, 1)], 1, True), ([Block(9_000, 9)], 9_000, True))
    assert len(read) == 1 + MOST_WAITING
    assert read[-1] == 9_000
