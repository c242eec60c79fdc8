"""The chain dies by SIGKILL and comes back, again and again, while calls are sent and events are followed."""

import asyncio
import contextlib
from pathlib import Path
from random import Random

from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.follower import Cursor, LogFollower
from clusterai.ledger.adapters.jsonrpc import JsonRpc
from clusterai.ledger.adapters.outbox import Outbox
from clusterai.ledger.core import calls
from clusterai.ledger.core.calls import Mined, Reverted, Submit
from clusterai.ledger.core.events import Event, RolledBack, Transferred
from clusterai.protocol.ids import Address
from tests.rooms.ledger.conftest import OWNER, World, start_embedded, start_world

SOMEBODY = Address(b"\x88" * 20)
CALLS = 60


async def live_through(world: World, data: Path) -> tuple[list[Mined | Reverted], list[Event]]:
    random = Random(11)
    told: list[Mined | Reverted] = []
    events: list[Event] = []
    process, port = world.process, int(world.process.url.rpartition(":")[2])
    rpc = JsonRpc([world.process.url], deadline_s=60)
    async with ChainClient(world.network, rpc) as client:
        outbox = Outbox(client, OWNER, data / "outbox.sqlite", told.append, poll_s=0.01, resend_s=0.1)
        follower = LogFollower(
            client, lambda new, _: events.extend(new), Cursor(world.network.start_block - 1), poll_s=0.01
        )
        async with asyncio.timeout(400):
            work = [asyncio.create_task(outbox.run()), asyncio.create_task(follower.run())]
            for at in range(CALLS):
                outbox.submit(Submit(f"pay:{at}", calls.Transfer(SOMEBODY, at + 1)))
                if at % 12 != 6:
                    await asyncio.sleep(random.random() * 0.02)  # calls come when they come
                else:
                    # At once: nothing of this call has left yet, so the chain surely dies with one on the way.
                    process.kill()
                    assert outbox.on_the_way()
                    process = await asyncio.to_thread(start_embedded, data, "--port", str(port))
            while len(told) < CALLS or follower.behind or len(paid(events)) < CALLS:
                await asyncio.sleep(0.01)
                assert not any(task.done() for task in work)
        for task in work:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert (outbox.trouble, follower.trouble) == ("", "")
        outbox.close()
    assert process.end() == 0
    return told, events


def paid(events: list[Event]) -> list[int]:
    return [event.value for event in events if isinstance(event, Transferred) and event.to == SOMEBODY]


def test_nothing_is_lost_or_doubled_when_the_chain_dies(tmp_path: Path):
    """Each call is mined once and told once, each event is delivered once, and nothing is rolled back."""
    world = start_world(is_anvil=False, data=tmp_path)
    told, events = asyncio.run(live_through(world, tmp_path))
    assert sorted(outcome.key for outcome in told) == sorted(f"pay:{at}" for at in range(CALLS))
    assert all(isinstance(outcome, Mined) for outcome in told)
    assert sorted(paid(events)) == list(range(1, CALLS + 1))
    assert not any(isinstance(event, RolledBack) for event in events)
