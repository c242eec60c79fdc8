"""The validator as a process on a chain that draws by drand: it brings the pulse from a relay, and audits by it."""

import asyncio
import time
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from clusterai.audit.core import drand
from clusterai.ledger import artifacts
from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.jsonrpc import JsonRpc
from clusterai.ledger.adapters.network import Network
from clusterai.ledger.core import events
from clusterai.ledger.core.deploy import local_plan
from clusterai.protocol.ids import Role, digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.statements import network_domain
from tests.contracts.anvil import anvil
from tests.rooms.validator import test_daemon, theatre
from tests.rooms.validator.test_daemon import Loopback, enrol, validator
from tests.rooms.validator.test_pulses import DRAND, pulse
from tests.rooms.validator.theatre import Provider, key

RULES = msgspec.structs.replace(test_daemon.RULES, epoch_s=6, beacon=DRAND)


async def relay() -> tuple[web.AppRunner, str]:
    """Serves the pulses of our own network whose time has come."""

    async def serve(request: web.Request) -> web.Response:
        number = int(request.match_info["round"])
        if time.time() < DRAND.time_of(number):
            return web.Response(status=404)
        return web.json_response({"round": number, "signature": pulse(number).signature.hex()})

    app = web.Application()
    app.router.add_get(f"/{DRAND.chain}/public/{{round}}", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    (address,) = runner.addresses
    return runner, f"http://127.0.0.1:{address[1]}"


def test_a_network_that_draws_by_drand_clears_an_honest_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commitment, pulse by the validator, draw, audit, clearance: all with processes, a relay and a chain of others."""
    monkeypatch.setattr(test_daemon, "RULES", RULES)
    deployer = key("deployer")
    plan = local_plan(artifacts.load, deployer.address, RULES)
    with anvil(plan, deployer, theatre.CHAIN_ID, int(time.time())) as chain:
        chain.ask("evm_setIntervalMining", 1)

        async def play() -> None:
            async with JsonRpc([chain.url]) as rpc:
                genesis = await rpc.ask("eth_getBlockByNumber", "0x0", False)
            network = Network(
                chain_id=theatre.CHAIN_ID,
                rpc_urls=(chain.url,),
                contracts=plan.addresses,
                genesis=digest(genesis["hash"]),
                rules=RULES,
            )
            monkeypatch.setattr(theatre, "NETWORK", network_domain(theatre.CHAIN_ID, plan.addresses.registry))
            runner, url = await relay()
            async with ChainClient(network) as client:
                for name, role in (
                    ("gateway 0", Role.GATEWAY),
                    ("provider", Role.PROVIDER),
                    ("validator 0", Role.VALIDATOR),
                ):
                    await enrol(client, name, role)
                world = Loopback(tmp_path, network, client)
                await world.links.start()
                following = asyncio.create_task(world.follower.run())
                await world.until(events.Block)
                path = world.config()
                config = {**msgspec.json.decode(path.read_bytes()), "drand_relays": [url]}
                path.write_bytes(msgspec.json.encode(config))
                async with validator(path):
                    await world.linked.wait()
                    await world.serve(Provider, 3)
                    committed = await world.until(events.EpochCommitted)
                    recorded = await world.until(events.BeaconRecorded)
                    cleared = await world.until(events.EpochCleared)
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
                await world.links.close()
            await runner.cleanup()
            assert cleared.audited == 3
            assert recorded.round == committed.round
            random = drand.randomness(DRAND, pulse(recorded.round))
            assert recorded.beacon == keccak(random + recorded.round.to_bytes(8))

        asyncio.run(play())
