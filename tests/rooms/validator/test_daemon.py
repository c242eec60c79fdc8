"""The validator as a process: a real chain, real links, a real engine; killed in the middle, and not the worse for it."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from clusterai.ledger import artifacts
from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.embedded.genesis import genesis_of
from clusterai.ledger.adapters.embedded.server import ChainConfig, Server
from clusterai.ledger.adapters.follower import LogFollower
from clusterai.ledger.adapters.jsonrpc import JsonRpc
from clusterai.ledger.adapters.network import Network, save_key, save_network
from clusterai.ledger.adapters.outbox import transact
from clusterai.ledger.core import calls, events
from clusterai.ledger.core.deploy import local_plan
from clusterai.ledger.core.rules import Rules
from clusterai.ledger.core.transaction import sign_transaction
from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest, Role, digest, hex0x
from clusterai.protocol.measuring import Examine
from clusterai.protocol.messages import AskEpoch, Frame, Relay, Relayed, Unreachable
from clusterai.protocol.money import WEI_PER_TOKEN
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import (
    EPOCH_LIST,
    Outcome,
    Verdict,
    court_domain,
    network_domain,
    signing_digest,
)
from clusterai.runtime.adapters.certificate import certificate
from clusterai.runtime.adapters.link import LinkServer
from clusterai.runtime.core.greeting import Identity, Reason
from clusterai.validator.config import BadConfig, load_config
from clusterai.validator.replay import bundle_of, replay_bundle
from clusterai.work.inference.adapters.tiny import TinyEngine
from clusterai.work.inference.core import tiny
from tests.rooms.validator import theatre
from tests.rooms.validator.test_villains import SwapsWeights
from tests.rooms.validator.theatre import Provider, Stage, key

ROOT = Path(__file__).parents[3]
RULES = Rules(
    epoch_s=1,
    window_s=90,
    unbond_delay_s=180,
    audit_rate_ppm=1_000_000,
    bounty_bps=5_000,
    answer_s=4,
    challenge_bond_wei=WEI_PER_TOKEN,
)
PATIENCE_S = 120
"""Until a test gives up; the network is done in a few."""


class Scene:
    """As much of the theatre's stage as its providers look at."""

    def __init__(self, now_s: int) -> None:
        self.now_s = now_s
        self.epoch = now_s // RULES.epoch_s
        self.gateways = (theatre.Gateway("gateway 0"),)
        self.submitted: list[calls.Call] = []

    def submit(self, sender: Key, call: calls.Call) -> None:
        self.submitted.append(call)

    def hot_of(self, owner: bytes) -> Address:
        return key("validator 0 hot").address


class Loopback:
    """Chain and gateway in this process; the provider is the theatre's, its stage this chain."""

    def __init__(self, folder: Path, network: Network, client: ChainClient) -> None:
        self.folder = folder
        self.network = network
        self.client = client
        self.history: list[Any] = []
        self.told = asyncio.Event()
        self.linked = asyncio.Event()
        self.follower = LogFollower(client, self._hear, poll_s=0.05)
        self.links = LinkServer(
            "127.0.0.1",
            0,
            Identity(
                key("gateway 0").address,
                Role.GATEWAY,
                network_domain(network.chain_id, network.contracts.registry),
                key("gateway 0 hot").sign,
            ),
            certificate(folder),
            self._authorize,
            lambda peer, role: self.linked.set(),
            lambda peer, why: None,
            self._frame,
        )
        self.provider: Provider | None = None
        self.away = False

    def _authorize(self, hot: Address, role: Role) -> Address | Reason:
        known = hot == key("validator 0 hot").address and role is Role.VALIDATOR
        return key("validator 0").address if known else Reason.UNREGISTERED

    def _hear(self, told: Any, cursor: Any) -> None:
        self.history.extend(told)
        self.told.set()

    def _frame(self, peer: Address, frame: Frame) -> None:
        if not isinstance(frame, Relay) or self.provider is None or self.away:
            return
        ask = canonical.decode(frame.body, cast("type[AskEpoch | Examine]", Relayed))
        if isinstance(ask, Examine):
            return
        opened = self.provider.asked(ask)
        if opened is None:
            self.links.send(peer, Unreachable(frame.to))
        else:
            self.links.send(peer, Relay(Address(frame.to), peer, canonical.encode(opened)))

    def now_s(self) -> int:
        return max(it.timestamp_s for it in self.history if isinstance(it, events.Block))

    async def until(self, kind: type, count: int = 1) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            while len(found := [it for it in self.history if isinstance(it, kind)]) < count:
                self.told.clear()
                await self.told.wait()
        return found[-1]

    def config(self) -> Path:
        path = self.folder / "validator.json"
        if not path.exists():
            save_network(self.folder / "network.json", self.network)
            save_key(self.folder / "hot.key", key("validator 0 hot"))
        config = {
            "data": "validator",
            "network": "network.json",
            "key": "hot.key",
            "owner": hex0x(key("validator 0").address),
            "gateways": [
                {"owner": hex0x(key("gateway 0").address), "url": f"wss://127.0.0.1:{self.links.port}"}
            ],
            "patience_s": 30,
        }
        path.write_bytes(msgspec.json.encode(config))
        return path

    async def serve(self, provider: type[Provider], count: int) -> None:
        """An epoch of work, committed once it is over."""
        stage = Scene(self.now_s())
        it = self.provider = provider(cast("Stage", stage))
        for number in range(count):
            it.serve(number)
        it.commit()
        async with asyncio.timeout(PATIENCE_S):
            while self.now_s() // RULES.epoch_s <= stage.epoch:
                self.told.clear()
                await self.told.wait()
        await transact(self.client, it.hot, *stage.submitted)


@contextlib.asynccontextmanager
async def loopback(folder: Path) -> AsyncGenerator[Loopback]:
    deployer = key("deployer")
    plan = local_plan(artifacts.load, deployer.address, RULES)
    config = ChainConfig(folder / "chain", 0, block_interval_s=0.2, genesis=genesis_of(plan, ()))
    async with Server(config) as server:
        url = f"http://127.0.0.1:{server.port}"
        async with JsonRpc([url]) as rpc:
            genesis = await rpc.ask("eth_getBlockByNumber", "0x0", False)
        network = Network(
            chain_id=theatre.CHAIN_ID,
            rpc_urls=(url,),
            contracts=plan.addresses,
            genesis=digest(genesis["hash"]),
            rules=RULES,
        )
        async with ChainClient(network) as client:
            for name, role in (
                ("gateway 0", Role.GATEWAY),
                ("provider", Role.PROVIDER),
                ("validator 0", Role.VALIDATOR),
            ):
                await enrol(client, name, role)
            world = Loopback(folder, network, client)
            await world.links.start()
            following = asyncio.create_task(world.follower.run())
            try:
                await world.until(events.Block)
                yield world
            finally:
                following.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await following
                await world.links.close()


async def enrol(client: ChainClient, name: str, role: Role) -> None:
    deployer, owner, hot = key("deployer"), key(name), key(f"{name} hot")
    give = [calls.Transfer(it.address, 1_000 * WEI_PER_TOKEN) for it in (owner, hot)]
    await transact(client, deployer, *give)
    registry = client.network.contracts.registry
    network = network_domain(client.network.chain_id, registry)
    await transact(
        client,
        owner,
        calls.Register(int(role), ZERO_DIGEST),
        calls.delegate(owner.address, hot.address, hot.sign, network),
        calls.Approve(registry, 500 * WEI_PER_TOKEN),
        calls.Bond(500 * WEI_PER_TOKEN),
    )


@contextlib.asynccontextmanager
async def validator(config: Path) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "clusterai.validator",
        "--config",
        str(config),
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "CLUSTERAI_VALIDATOR_LOG_LEVEL": "warning"},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        _, said = await process.communicate()
        assert b"Traceback" not in said, said.decode()


def run(
    scenario: Callable[[Loopback], Awaitable[None]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        async with loopback(folder) as world:
            domain = network_domain(world.network.chain_id, world.network.contracts.registry)
            monkeypatch.setattr(theatre, "NETWORK", domain)
            await scenario(world)

    asyncio.run(play())


def test_an_honest_epoch_is_cleared_on_a_real_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened over TLS, drawn again by an engine of its own, cleared; the evidence stays sealed on disk."""

    async def scenario(world: Loopback) -> None:
        async with validator(world.config()):
            await world.linked.wait()
            await world.serve(Provider, 3)
            cleared = await world.until(events.EpochCleared)
        assert cleared.audited == 3
        kept = list((tmp_path / "validator" / "evidence").glob("*/*"))
        assert len(kept) == 3
        assert all(tiny.ADDRESS not in path.read_bytes() for path in kept), "transcripts lie there sealed"
        assert not list((tmp_path / "validator" / "verdicts").iterdir())

    run(scenario, tmp_path, monkeypatch)


def test_a_cheat_is_convicted_though_the_validator_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 after the link is up, and again while the epoch waits: the third life convicts, with a verdict to replay."""

    async def scenario(world: Loopback) -> None:
        async with validator(world.config()) as first:
            await world.linked.wait()
            first.send_signal(signal.SIGKILL)
            await first.wait()
        await world.serve(SwapsWeights, 3)
        world.linked.clear()
        async with validator(world.config()) as second:
            await world.linked.wait()
            second.send_signal(signal.SIGKILL)
            await second.wait()
        async with validator(world.config()):
            convicted = await world.until(events.Convicted)
        assert convicted.slashed == 500 * WEI_PER_TOKEN
        file = tmp_path / "validator" / "verdicts" / f"{convicted.evidence.hex()}.json"
        bundle = bundle_of(file)
        report = await replay_bundle(bundle, TinyEngine(tiny.ADDRESS), theatre.NETWORK, _owner)
        assert report.evidence == convicted.evidence
        assert report.outcome in ("wrong", "suspicious")

    run(scenario, tmp_path, monkeypatch)


def test_a_governors_new_rate_is_followed_in_mid_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is committed stays drawn by its own rate; the next epoch is drawn by the new one, and both are cleared."""

    async def scenario(world: Loopback) -> None:
        async with validator(world.config()):
            await world.linked.wait()
            await world.serve(Provider, 8)
            rare = calls.Parameters(920_000, RULES.bounty_bps, RULES.answer_s, RULES.challenge_bond_wei)
            await transact(world.client, key("deployer"), calls.SetParameters(rare))
            first = await world.until(events.EpochCleared)
            await world.serve(Provider, 3)
            await world.until(events.EpochCleared, 2)
        assert first.audited == 8
        assert [it.rate_ppm for it in world.history if isinstance(it, events.EpochCommitted)] == [
            1_000_000,
            920_000,
        ]
        assert not [it for it in world.history if isinstance(it, events.Challenged | events.Voted)]

    run(scenario, tmp_path, monkeypatch)


def test_a_two_faced_validator_is_slashed_by_what_its_failed_vote_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second vote on one list fails and leaves no event; the honest daemon finds both in the chain's blocks."""

    async def scenario(world: Loopback) -> None:
        await enrol(world.client, "validator 1", Role.VALIDATOR)
        liar, court = key("validator 1 hot"), world.network.contracts.court
        domain = court_domain(world.network.chain_id, court)
        async with validator(world.config()):
            await world.linked.wait()
            await world.serve(Provider, 1)
            committed = await world.until(events.EpochCommitted)
            first = Verdict(
                committed.provider, committed.epoch, EPOCH_LIST, ZERO_DIGEST, Outcome.FRAUD, ZERO_DIGEST
            )
            second = msgspec.structs.replace(first, outcome=int(Outcome.WITHHELD))
            votes = [calls.Vote(it, (), liar.sign(signing_digest(it, domain))) for it in (first, second)]
            await transact(world.client, liar, votes[0])
            await _send_anyway(world.client, liar, votes[1])
            found = await world.until(events.Equivocated)
            slashed = await world.until(events.Slashed)
        assert found.validator == slashed.owner == key("validator 1").address
        assert slashed.finder == key("validator 0").address
        assert len([it for it in world.history if isinstance(it, events.Voted)]) == 1

    run(scenario, tmp_path, monkeypatch)


async def _send_anyway(client: ChainClient, sender: Key, call: calls.Call) -> None:
    """A transaction that will fail: no outbox would send it."""
    to, data = client.codec.encode(call)
    nonce = await client.nonce(sender.address)
    signed = sign_transaction(sender, client.network.chain_id, nonce, to, data, 500_000, await client.fees())
    await client.rpc.ask("eth_sendRawTransaction", hex0x(signed.raw))
    async with asyncio.timeout(PATIENCE_S):
        while (receipt := (await client.receipts([signed.hash]))[0]) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert not receipt.success


def _owner(hot: Address) -> Address | None:
    owners = {key(f"{name} hot").address: key(name).address for name in ("gateway 0", "provider")}
    return owners.get(hot)


def test_a_missing_chain_is_waited_for(tmp_path: Path) -> None:
    """Without chain and gateway the daemon stays up, and leaves when it is told to."""

    async def scenario() -> None:
        network = Network(
            chain_id=1,
            rpc_urls=("http://127.0.0.1:9",),
            contracts=theatre.ADDRESSES,
            genesis=Digest(bytes(32)),
            rules=RULES,
        )
        save_network(tmp_path / "network.json", network)
        save_key(tmp_path / "hot.key", key("validator 0 hot"))
        config = tmp_path / "validator.json"
        owner = hex0x(key("validator 0").address)
        gateway = {"owner": owner, "url": "wss://127.0.0.1:9"}
        config.write_bytes(
            msgspec.json.encode(
                {
                    "data": "v",
                    "network": "network.json",
                    "key": "hot.key",
                    "owner": owner,
                    "gateways": [gateway],
                    "log_level": "info",
                }
            )
        )
        async with asyncio.timeout(PATIENCE_S):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "clusterai.validator", "--config", str(config)),
                env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
                stderr=asyncio.subprocess.PIPE,
            )
            assert process.stderr is not None
            said = await process.stderr.readline()
            assert msgspec.json.decode(said)["event"] == "auditing"
            process.terminate()
            assert await process.wait() == 0

    asyncio.run(scenario())


def test_a_bad_configuration_is_named(tmp_path: Path) -> None:
    """What is wrong with the file is said in one line, without a traceback."""

    async def scenario() -> None:
        path = tmp_path / "config.json"
        path.write_text("{}")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "clusterai.validator", "--config", str(path)),
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            stderr=asyncio.subprocess.PIPE,
        )
        _, error = await process.communicate()
        assert process.returncode == 78
        assert "missing required field" in error.decode()
        assert b"Traceback" not in error

    asyncio.run(scenario())


GATEWAY = {"owner": "0x" + "11" * 20, "url": "wss://gateway.example:8443/"}
GOOD: dict[str, Any] = {
    "data": "v",
    "network": "n.json",
    "key": "k",
    "owner": "0x" + "22" * 20,
    "gateways": [GATEWAY],
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"extra": 1}, "extra"),
        ({"owner": "0x22"}, "an address must be 20 bytes"),
        ({"gateways": []}, "gateways"),
        ({"gateways": [GATEWAY | {"url": "http://gateway"}]}, "url"),
        ({"metrics_port": 70_000}, "metrics_port"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """The message names the field that is out of range, unknown or malformed."""
    path = tmp_path / "config.json"
    path.write_bytes(msgspec.json.encode(GOOD | changes))
    with pytest.raises(BadConfig, match=said):
        load_config(path, {})


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    """Scalars are overridden by CLUSTERAI_VALIDATOR_*, and relative paths are of the file's folder."""
    path = tmp_path / "config.json"
    path.write_bytes(msgspec.json.encode(GOOD))
    config = load_config(path, {"CLUSTERAI_VALIDATOR_PATIENCE_S": "77", "CLUSTERAI_VALIDATOR_GATEWAYS": "x"})
    assert config.patience_s == 77
    assert config.data == tmp_path / "v"
    assert list(config.gateway_urls().values()) == [GATEWAY["url"]]
