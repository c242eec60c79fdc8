"""A real gateway process on a real embedded chain, with stand-in providers on this process's side of real links."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from clusterai.gateway.adapters.keys import KeyRing
from clusterai.ledger import artifacts
from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.jsonrpc import JsonRpc
from clusterai.ledger.adapters.network import Network, make_key, save_network
from clusterai.ledger.adapters.outbox import transact
from clusterai.ledger.core import calls
from clusterai.ledger.core.calls import Call
from clusterai.ledger.core.deploy import local_plan
from clusterai.ledger.core.rules import LOCAL
from clusterai.protocol.ids import ZERO_DIGEST, Digest, Role, checksummed, digest, hex0x
from clusterai.protocol.statements import Delegation, network_domain, signing_digest
from tests.ports import free_port
from tests.rooms.gateway.standin import StandIn

TOKEN = 10**9
READY_S = 120.0
"""A busy machine starts slowly; a healthy one needs 3 s."""
T = TypeVar("T")


class Person:
    """A participant: its owner key and its hot key."""

    def __init__(self, folder: Path, name: str) -> None:
        self.owner = make_key(folder / f"{name}.owner.key")
        self.hot = make_key(folder / f"{name}.hot.key")
        self.hot_file = folder / f"{name}.hot.key"


class Bed:
    """Chain, gateway and stand-ins. Use inside `with`.

    Args:
        providers: stand-ins, on this process's side.
        nodes: real node processes with the tiny model.
        model: what they serve instead.
        settings: fields of the gateway's configuration.
    """

    GATEWAY = "clusterai.gateway"
    """The module that is run as the gateway."""

    def __init__(
        self, folder: Path, providers: int = 2, nodes: int = 0, model: str = "tiny", **settings: Any
    ) -> None:
        self.model = {"name": model}
        self.folder = folder
        self.port, self.link_port, self.chain_port = free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings = settings
        self.node_settings: dict[str, Any] = {}
        """fields of the real nodes' configuration"""
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stand-ins", daemon=True)
        keys = folder / "keys"
        self.treasury = make_key(keys / "treasury.key")
        self.gateway = Person(keys, "gateway")
        self.people = [Person(keys, f"node-{at}") for at in range(providers)]
        self.nodes = [Person(keys, f"real-{at}") for at in range(nodes)]
        self.standins: list[StandIn] = []
        ring = KeyRing(folder / "gateway" / "keys.db")
        self.key, made = ring.create("test")
        self.account: Digest = made.account
        self.ring = ring

    # --- life ---

    def __enter__(self) -> "Bed":
        self._thread.start()
        try:
            self.start_chain()
            self.network = self.run(self._prepare())
            self.start_gateway()
            self.standins = [self.run(self._standin(person)) for person in self.people]
            for at in range(len(self.nodes)):
                self.start_node(at)
            self.until(lambda: self.usable() == len(self.people) + len(self.nodes), "providers with channels")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for standin in self.standins:
            self.run(standin.stop())
        for name in (*(f"node-{at}" for at in range(len(self.nodes))), "gateway", "chain"):
            self.end(name)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.ring.close()

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = READY_S) -> T:
        """Do something on the stand-ins' loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def start_chain(self) -> None:
        self._spawn(
            "chain",
            "clusterai.ledger.adapters.embedded",
            "--data", str(self.folder / "chain"),
            "--port", str(self.chain_port),
            "--deployer", hex0x(self.treasury.address),
        )  # fmt: skip
        self.until(lambda: _listens(self.chain_port), "the chain")

    def start_gateway(self) -> None:
        config = self.folder / "gateway" / "config.json"
        fields = {
            "data": str(self.folder / "gateway"),
            "network": str(self.folder / "network.json"),
            "key": str(self.gateway.hot_file),
            "owner": hex0x(self.gateway.owner.address),
            "models_folder": str(self.folder / "models"),
            "serve": [self.model["name"]],
            "port": self.port,
            "link_port": self.link_port,
            **self._settings,
        }
        config.write_text(json.dumps(fields))
        self._spawn("gateway", self.GATEWAY, "--config", str(config))
        self.until(self.healthy, "the gateway")

    def start_node(self, at: int, **model: Any) -> None:
        person, home = self.nodes[at], self.folder / f"node-{at}"
        home.mkdir(exist_ok=True)
        gateway = {"owner": hex0x(self.gateway.owner.address), "url": f"wss://127.0.0.1:{self.link_port}"}
        fields = {
            "data": str(home / "state"),
            "network": str(self.folder / "network.json"),
            "key": str(person.hot_file),
            "owner": hex0x(person.owner.address),
            "gateways": [gateway],
            "models": [{"name": "tiny", "input_wei": 3, "output_wei": 3, **model} | self.model],
            "models_folder": str(self.folder / "models"),
            "survives": "process",
            **self.node_settings,
        }
        (home / "config.json").write_text(json.dumps(fields))
        self._spawn(f"node-{at}", "clusterai.node", "--config", str(home / "config.json"))

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        process = self._processes.pop(name)
        process.send_signal(number)
        process.wait(READY_S)

    def end(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is not None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def log(self, name: str = "gateway") -> str:
        return (self.folder / f"{name}.log").read_text()

    def _spawn(self, name: str, module: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdout=log, stderr=log, env=os.environ.copy()
            )

    def until(self, true: Any, what: str, timeout_s: float = READY_S) -> None:
        """Wait for something that other processes bring about."""
        ends_s = time.monotonic() + timeout_s
        while not true():
            for name, process in self._processes.items():
                assert process.poll() is None, f"{name} ended: {self.log(name)[-3000:]}"
            assert time.monotonic() < ends_s, f"waited {timeout_s} s for {what}: {self.log()[-3000:]}"
            time.sleep(0.02)

    # --- the network ---

    async def _prepare(self) -> Network:
        rpc_url = f"http://127.0.0.1:{self.chain_port}"
        async with JsonRpc((rpc_url,)) as rpc:
            block = await rpc.ask("eth_getBlockByNumber", "0x0", False)
        network = Network(
            chain_id=31415,
            rpc_urls=(rpc_url,),
            contracts=local_plan(artifacts.load, self.treasury.address).addresses,
            genesis=digest(block["hash"]),
            rules=LOCAL,
        )
        save_network(self.folder / "network.json", network)
        async with ChainClient(network) as client:
            providers = (*self.people, *self.nodes)
            stake = 1000 * TOKEN
            await transact(
                client,
                self.treasury,
                calls.Transfer(self.gateway.hot.address, 10_000 * TOKEN),
                *(calls.Transfer(person.owner.address, stake) for person in providers),
                calls.Approve(network.contracts.credit, 100 * TOKEN),
            )
            await asyncio.gather(
                _enrol(client, self.gateway, Role.GATEWAY, 0),
                *(_enrol(client, person, Role.PROVIDER, stake) for person in providers),
            )
            gateway = self.gateway.owner.address
            await transact(client, self.treasury, calls.Fund(gateway, self.account, 100 * TOKEN))
        return network

    async def _fund(self, client: ChainClient, account: Digest, amount_wei: int) -> None:
        gateway = self.gateway.owner.address
        await transact(
            client,
            self.treasury,
            calls.Approve(client.network.contracts.credit, amount_wei),
            calls.Fund(gateway, account, amount_wei),
        )

    def fund(self, account: Digest, amount_wei: int) -> None:
        async def work() -> None:
            async with ChainClient(self.network) as client:
                await self._fund(client, account, amount_wei)

        self.run(work())

    async def _standin(self, person: Person) -> StandIn:
        standin = StandIn(
            person.owner.address,
            person.hot,
            self.gateway.owner.address,
            f"wss://127.0.0.1:{self.link_port}/",
            self.network.chain_id,
            self.network.contracts.registry,
            self.network.rules.epoch_s,
        )
        standin.start()
        return standin

    def revive(self, standin: StandIn) -> None:
        """A provider that died comes back, and the gateway has heard what it offers; one that is there stays."""
        self.run(standin.again())
        self.until(lambda: self.known(standin), "the gateway to hear of it")

    def known(self, standin: StandIn) -> bool:
        """Whether the gateway has all that this provider says of itself when its link comes up."""
        return any(
            node["provider"] == checksummed(standin.owner) and node["models"]
            for node in self.get("/v1/clusterai/nodes")["nodes"]
        )

    # --- asking ---

    def get(self, path: str, key: str | None = None, **headers: str) -> Any:
        return json.loads(self.fetch("GET", path, None, key, **headers)[2])

    def fetch(
        self, method: str, path: str, body: bytes | None = None, key: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body), whatever the status is."""
        request = urllib.request.Request(self.url + path, body, method=method)
        if key is not None:
            request.add_header("Authorization", f"Bearer {key}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=READY_S) as response:
                return response.status, dict(response.headers.items()), response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers.items()), error.read()

    def chat(
        self, content: str = "hello", key: str | None = None, **fields: Any
    ) -> tuple[int, dict[str, str], Any]:
        headers = fields.pop("headers", {})
        body = {"model": "tiny", "messages": [{"role": "user", "content": content}], "seed": 1, **fields}
        status, found, raw = self.fetch(
            "POST", "/v1/chat/completions", json.dumps(body).encode(), key or self.key, **headers
        )
        return status, {name.lower(): value for name, value in found.items()}, raw

    def healthy(self) -> bool:
        try:
            return self.fetch("GET", "/healthz")[0] == 200
        except OSError:
            return False

    def usable(self) -> int:
        """Providers that are linked, offer something, and have a channel with money in it."""
        return sum(
            1
            for node in self.get("/v1/clusterai/nodes")["nodes"]
            if node["state"] == "ready" and node["channel"] and node["channel"]["balance_wei"]
        )

    def spent(self) -> int:
        return self.get("/v1/clusterai/account", self.key)["charged_wei"]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def _enrol(client: ChainClient, person: Person, role: Role, stake_wei: int) -> None:
    steps: list[Call] = [calls.Register(int(role), ZERO_DIGEST)]
    if stake_wei:
        steps += [calls.Approve(client.network.contracts.registry, stake_wei), calls.Bond(stake_wei)]
    registry = network_domain(client.network.chain_id, client.network.contracts.registry)
    owner, hot = person.owner.address, person.hot.address
    consent = person.hot.sign(signing_digest(Delegation(owner, hot), registry))
    await transact(client, person.owner, *steps, calls.Delegate(hot, consent))
