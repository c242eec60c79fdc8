"""A long answer to a challenge on real chains: all of its parts are mined by what the chain estimates for them."""

import asyncio
import time
from random import Random

from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.outbox import Outbox, transact
from clusterai.ledger.core import calls
from clusterai.ledger.core.calls import Mined, Reverted, Submit
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import ZERO_DIGEST, Role
from clusterai.protocol.money import WEI_PER_TOKEN
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import EPOCH_LIST, network_domain
from tests.rooms.ledger.conftest import OWNER, World

PROVIDER, PROVIDER_HOT, VALIDATOR, VALIDATOR_HOT = (Key(bytes([0x80 + number]) * 32) for number in range(4))
PARTS = 20


async def enrol(client: ChainClient, owner: Key, hot: Key, role: Role, network: Domain) -> None:
    registry = client.network.contracts.registry
    give = [calls.Transfer(it.address, 10 * WEI_PER_TOKEN) for it in (owner, hot)]
    await transact(client, OWNER, *give)
    consent = calls.delegate(owner.address, hot.address, hot.sign, network)
    approve = calls.Approve(registry, WEI_PER_TOKEN)
    await transact(
        client, owner, calls.Register(int(role), ZERO_DIGEST), consent, approve, calls.Bond(WEI_PER_TOKEN)
    )


async def _demanded(client: ChainClient) -> int:
    """An epoch of the provider's whose list is demanded on chain."""
    contracts = client.network.contracts
    network = network_domain(client.network.chain_id, contracts.registry)
    await enrol(client, PROVIDER, PROVIDER_HOT, Role.PROVIDER, network)
    await enrol(client, VALIDATOR, VALIDATOR_HOT, Role.VALIDATOR, network)
    epoch = int(time.time()) // client.network.rules.epoch_s - 1
    await transact(client, PROVIDER_HOT, calls.CommitEpoch(epoch, ZERO_DIGEST, 8_000, 1))
    bond = calls.Approve(contracts.court, WEI_PER_TOKEN)
    await transact(client, VALIDATOR_HOT, bond, calls.Challenge(PROVIDER.address, epoch, EPOCH_LIST))
    return epoch


def test_parts_are_mined_by_their_estimates_and_the_last_pays_the_bond(world: World) -> None:
    """All but one at once, then what completes the answer; none runs out of gas, and the chain says it is answered."""

    async def test() -> None:
        async with world.client() as client:
            epoch = await _demanded(client)
            before_wei = await client.read("Token", "balanceOf", PROVIDER.address)
            told: asyncio.Queue[Mined | Reverted] = asyncio.Queue()
            outbox = Outbox(client, PROVIDER_HOT, ":memory:", told.put_nowait, poll_s=0.05)
            sending = asyncio.create_task(outbox.run())
            noise = Random(3)
            for part in range(PARTS):
                size = 40 if part == PARTS - 1 else 24_576
                call = calls.AnswerChallenge(
                    PROVIDER.address, epoch, EPOCH_LIST, part, PARTS, noise.randbytes(size)
                )
                if part == PARTS - 1:
                    assert all([isinstance(await told.get(), Mined) for _ in range(PARTS - 1)])
                outbox.submit(Submit(f"part {part}", call))
            assert isinstance(await told.get(), Mined)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            outbox.close()
            after_wei = await client.read("Token", "balanceOf", PROVIDER.address)
            assert after_wei == before_wei + client.network.rules.challenge_bond_wei

    async def within() -> None:
        async with asyncio.timeout(120):
            await test()

    asyncio.run(within())
