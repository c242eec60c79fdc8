"""The orders that a vault's engine has taken: `work.hosting.Taken`."""

import asyncio

import pytest

from clusterai.work.engine import Busy, EngineFailed, Finish, TokenEvent
from clusterai.work.hosting import Taken
from clusterai.work.packed import bytes_of
from clusterai.work.streams import QueueStream


async def read(stream: QueueStream) -> bytes:
    tokens = [it.token async for it in stream if isinstance(it, TokenEvent)]
    return bytes_of(tokens)


async def never() -> bytes:
    await asyncio.Event().wait()
    raise AssertionError


def test_an_answer_comes_whole():
    """Its bytes are the stream's tokens, and the stream ends."""

    async def play() -> None:
        async def answer() -> bytes:
            return b"all of it"

        taken = Taken(1)
        stream = taken.take(answer)
        assert taken.stats().running == 1
        events = [it async for it in stream]
        assert isinstance(events[-1], Finish)
        assert bytes_of([it.token for it in events if isinstance(it, TokenEvent)]) == b"all of it"

    asyncio.run(play())


def test_one_too_many_is_told_to_wait():
    """So many orders wait at most; the next is told when to come again."""

    async def play() -> None:
        taken = Taken(2, 30.0)
        for _ in range(2):
            taken.room()
            taken.take(never)
        with pytest.raises(Busy) as busy:
            taken.room()
        assert (busy.value.queued, busy.value.retry_after_s) == (2, 30.0)
        await taken.close()

    asyncio.run(play())


@pytest.mark.parametrize("begun", [False, True])
def test_who_waits_for_an_engine_that_closes_is_told(begun: bool):
    """A stream whose order is cut short fails, whether the order had begun or not."""

    async def play() -> None:
        taken = Taken(1)
        stream = taken.take(never)
        if begun:
            await asyncio.sleep(0)
        await taken.close()
        with pytest.raises(EngineFailed):
            await read(stream)

    asyncio.run(play())


def test_a_client_that_goes_away_ends_what_costs_nothing_yet():
    """Only an order that may be ended ends with its client."""

    async def play() -> None:
        taken = Taken(2)
        paid, free = taken.take(never), taken.take(never, ends=True)
        paid.cancel()
        free.cancel()
        with pytest.raises(EngineFailed):
            await read(free)
        assert taken.stats().running == 1
        await taken.close()

    asyncio.run(play())


def test_a_fault_of_ours_ends_the_stream():
    """What broke unforeseen is told as a failure, without its words."""

    async def play() -> None:
        async def broken() -> bytes:
            raise RuntimeError("row 7")

        with pytest.raises(EngineFailed) as failed:
            await read(Taken(1).take(broken))
        assert "row 7" not in str(failed.value)

    asyncio.run(play())
