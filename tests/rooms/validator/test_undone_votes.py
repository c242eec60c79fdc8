"""A vote in a block that a reorganisation undid, and another on the new chain: the one pair that the Court itself counted."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.follower import LogFollower
from clusterai.ledger.adapters.outbox import transact
from clusterai.ledger.core import calls
from clusterai.ledger.core.calls import Submit
from clusterai.protocol.ids import ZERO_DIGEST, Digest, Role
from clusterai.protocol.money import WEI_PER_TOKEN
from clusterai.protocol.signing import Key, recover
from clusterai.protocol.statements import (
    EPOCH_LIST,
    Outcome,
    Verdict,
    court_domain,
    network_domain,
    signing_digest,
)
from clusterai.runtime.machine import Save
from clusterai.validator.adapters.witness import Witness
from clusterai.validator.core.auditor import Auditor
from clusterai.validator.core.settings import Settings
from clusterai.validator.core.words import Heard
from clusterai.work import KINDS
from tests.rooms.ledger.conftest import start_world
from tests.rooms.ledger.test_answer_parts import enrol

OWNERS = [Key(bytes([0x90 + number]) * 32) for number in range(3)]
HOTS = [Key(bytes([0xA0 + number]) * 32) for number in range(3)]
PROVIDER, HONEST, LIAR = range(3)


class Daemon:
    """The honest validator's machine and what reads the chain for it; its calls are kept instead of sent."""

    def __init__(self, client: ChainClient) -> None:
        network = client.network
        settings = Settings(
            me=OWNERS[HONEST].address,
            seal_to=bytes(32),
            network=network_domain(network.chain_id, network.contracts.registry),
            court=court_domain(network.chain_id, network.contracts.court),
            rules=network.rules,
        )
        self.auditor = Auditor(settings, KINDS, HOTS[HONEST].sign, recover, lambda _: None)
        self.effects: list[Any] = []
        self.witness = Witness(client, self._hear)
        self.follower = LogFollower(client, self._deliver)

    def _hear(self, event: Any) -> None:
        self.effects += self.auditor.step(event, time.time())

    def _deliver(self, happened: Any, cursor: Any) -> None:
        for event in happened:
            self._hear(event)
        self.witness.told(happened, cursor, caught_up=self.auditor.caught_up)

    async def until(self, found: Callable[[Any], bool]) -> Any:
        """Follow the chain until there is such an effect."""
        while not (effects := [it for it in self.effects if found(it)]):
            if not await self.follower.step():
                await asyncio.sleep(0.02)
        return effects[0]


async def _slashed(client: ChainClient) -> None:
    network = client.network
    domain = network_domain(network.chain_id, network.contracts.registry)
    for at, role in ((PROVIDER, Role.PROVIDER), (HONEST, Role.VALIDATOR), (LIAR, Role.VALIDATOR)):
        await enrol(client, OWNERS[at], HOTS[at], role, domain)
    epoch = int(time.time()) // network.rules.epoch_s - 1
    await transact(client, HOTS[PROVIDER], calls.CommitEpoch(epoch, ZERO_DIGEST, 1, 1))

    def vote(leaf: bytes) -> calls.Vote:
        verdict = Verdict(
            OWNERS[PROVIDER].address, epoch, EPOCH_LIST, Digest(leaf), Outcome.FRAUD, ZERO_DIGEST
        )
        court = court_domain(network.chain_id, network.contracts.court)
        return calls.Vote(verdict, (), HOTS[LIAR].sign(signing_digest(verdict, court)))

    daemon = Daemon(client)
    reading = asyncio.create_task(daemon.witness.run())
    snapshot = await client.rpc.ask("evm_snapshot")
    await transact(client, HOTS[LIAR], vote(b"\1" * 32))
    await daemon.until(lambda it: isinstance(it, Save) and isinstance(it.record, Heard))
    await client.rpc.ask("evm_revert", snapshot)
    await transact(client, HOTS[LIAR], vote(b"\2" * 32))
    proof = await daemon.until(lambda it: isinstance(it, Submit) and isinstance(it.call, calls.Equivocation))
    await transact(client, HOTS[HONEST], proof.call)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert await client.read("Court", "equivocated", OWNERS[LIAR].address)
    assert (await client.read("Registry", "participants", OWNERS[LIAR].address))[0] == 0
    bounty_wei = WEI_PER_TOKEN * network.rules.bounty_bps // 10_000
    assert await client.read("Token", "balanceOf", OWNERS[HONEST].address) == 9 * WEI_PER_TOKEN + bounty_wei


def test_a_vote_that_a_reorganisation_undid_still_speaks_against_its_author(tmp_path: Path) -> None:
    """On anvil: what stood in the undone block was read and kept, and the other vote completes the proof."""
    world = start_world(is_anvil=True, data=tmp_path)

    async def run() -> None:
        async with asyncio.timeout(120), world.client() as client:
            await _slashed(client)

    try:
        asyncio.run(run())
    finally:
        world.process.end()
