"""Can this machine provide, as this configuration says? Rows of what was found, and the cure where it isn't right.

    rows = await examine(config)          or: python -m clusterai.node --config FILE --check

Nothing is changed and nothing is sent to the chain. Gateways are dialled only while the node itself doesn't run: a
second link of one owner would replace the first.
"""

import asyncio
import contextlib
import functools
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from clusterai import sandbox
from clusterai.ledger.adapters.client import ChainClient, OtherChain, Refused
from clusterai.ledger.adapters.jsonrpc import ChainDown, RpcRefused
from clusterai.ledger.adapters.network import BadKeyFile, BadNetwork, Network, load_key, load_network
from clusterai.models import Altered, ModelStore, NoSuchModel
from clusterai.node import hardware
from clusterai.node.adapters.watch import Status
from clusterai.node.config import Config, ModelConfig
from clusterai.node.hardware import Row
from clusterai.protocol.ids import Address, Role, address, checksummed
from clusterai.protocol.money import show
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.protocol.units import counted
from clusterai.runtime.adapters.link import LinkClient
from clusterai.runtime.core.greeting import Identity, Reason
from clusterai.work.loading import find

LEAST_MEMORY_BYTES = 1_500_000_000
"""One engine with a small model and its cache took 0.75 to 0.95 GB."""
MOST_DRIFT_S = 5.0
"""Epochs are counted in the chain's time; a gateway takes receipts of this epoch and the last."""
GAS_A_DAY = 6_000 * 250_000
"""A commitment and a claim for each of some 6,000 epochs."""
LINK_S = 6.0

T = TypeVar("T")


async def examine(config: Config, password: str | None = None) -> list[Row]:
    """All rows, the machine's first."""
    rows = await asyncio.to_thread(machine, config.data, config.rentals is not None)
    rows += await asyncio.to_thread(lending, config.jobs is not None)
    if config.rentals is not None:
        rows += [*hardware.rentable(config.rentals.home), await asyncio.to_thread(hardware.counted)]
    rows += await asyncio.to_thread(lambda: [_model(config, model) for model in config.models])
    rows += await asyncio.to_thread(_vaults, config)
    key = _loaded(rows, "hot key", lambda: load_key(config.key, password))
    network = _loaded(rows, "manifest", lambda: load_network(config.network))
    if network is None:
        return rows
    gateways: dict[Address, Address] = {}
    if key is not None:
        rows += await _links(config, network, key, gateways)
    async with ChainClient(network) as client:
        rows += await _chain(client, config, key, gateways)
    return rows


def machine(data: Path, rents: bool = False) -> list[Row]:
    """What can be said of this machine before there is any configuration."""
    about = [hardware.system(), _python(), _cpu(), hardware.gpu(), _memory()]
    return [*about, *hardware.disk(data), *hardware.kernel(rents)]


def _vaults(config: Config) -> list[Row]:
    if not config.vaults:
        return []
    from clusterai.vault.adapters.doctor import examine

    return [
        Row(f"{Path(it.folder).name}: {row.name}", row.state, row.found, row.cure)
        for it in config.vaults
        for row in examine(Path(it.folder))
    ]


@functools.cache
def _sandbox() -> list[sandbox.Row]:
    """Tried once a process: it is the machine's, not a node's."""
    return sandbox.doctor()


def lending(lends: bool) -> list[Row]:
    """What of the sandbox works here. Red only for who lends to jobs: an answer to a question needs no walls."""
    rows: list[Row] = []
    for row in _sandbox():
        state = row.state if lends or row.state == "green" else "yellow"
        rows.append(Row(f"jobs: {row.name}", state, row.found, row.cure))
    return rows


def _loaded(rows: list[Row], name: str, load: Callable[[], T]) -> T | None:
    try:
        found = load()
    except (BadKeyFile, BadNetwork) as error:
        rows.append(
            Row(name, "red", str(error), "correct the path in the configuration, or what the message names")
        )
        return None
    rows.append(Row(name, "green", repr(found) if isinstance(found, Key) else "read"))
    return found


# --- the machine ---


def _python() -> Row:
    version = platform.python_version()
    if sys.version_info[:2] in ((3, 11), (3, 12)):
        return Row("python", "green", version)
    return Row("python", "red", version, "install Python 3.11 or 3.12: the engine has wheels for these")


def _cpu() -> Row:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = set(next(line for line in lines if line.startswith("flags")).split())
    except (OSError, StopIteration):
        return Row("cpu", "green", f"{counted(count, 'core')}, {platform.machine()}")
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    found = f"{counted(count, 'core')}, {', '.join(known) or 'no AVX2'}"
    if "avx2" in flags:
        return Row("cpu", "green", found)
    return Row("cpu", "yellow", found, "answers will be slow; a processor with AVX2 is 4 to 8 times as fast")


def _memory() -> Row:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return Row("memory", "yellow", "this system doesn't tell", "make sure that 1.5 GB are free")
    if free < LEAST_MEMORY_BYTES:
        return Row(
            "memory", "red", f"{free / 1e9:.1f} GB free", "end other programs, or serve a smaller model"
        )
    return Row("memory", "green", f"{free / 1e9:.1f} GB free")


def _model(config: Config, model: ModelConfig) -> Row:
    name = f"model {model.name}"
    store = ModelStore(config.store())
    try:
        stored = find(store, model.name)
        if not stored.manifest.files:
            return Row(name, "green", "a toy without weights")
        if importlib.util.find_spec("openvino") is None:
            return Row(name, "red", "its engine, OpenVINO, isn't installed", "pip install 'clusterai[node]'")
        store.verify(stored)
    except (NoSuchModel, Altered) as error:
        return Row(name, "red", str(error), "clusterai model add FILE, then its name in the configuration")
    if stored.card.calibration is None and stored.card.kind == "chat":
        return Row(name, "yellow", "weights verified", "it has no calibration: audits use generic constants")
    return Row(name, "green", "weights verified, calibrated")


# --- the chain ---


async def _chain(
    client: ChainClient, config: Config, key: Key | None, gateways: dict[Address, Address]
) -> list[Row]:
    urls = ", ".join(client.network.rpc_urls)
    began_s = time.monotonic()
    try:
        await client.check()
        head = await client.head()
    except OtherChain as error:
        return [
            Row("chain", "red", str(error), "get network.json again from the network that you want to join")
        ]
    except (ChainDown, RpcRefused) as error:
        return [
            Row(
                "chain",
                "red",
                f"{urls}: {error}",
                "is the address right, and does a firewall let it through?",
            )
        ]
    rows = [
        Row("chain", "green", f"{urls}, block {head.number}, {1000 * (time.monotonic() - began_s):.0f} ms")
    ]
    drift_s = time.time() - head.timestamp_s
    # A chain that mines rarely is behind by its own pace; being ahead of it can only be a clock.
    wrong = drift_s < -MOST_DRIFT_S or drift_s > 12 * MOST_DRIFT_S
    rows.append(
        Row(
            "clock",
            "red",
            f"{drift_s:+.0f} s from the chain's newest block",
            "let the system set its time: NTP",
        )
        if wrong
        else Row("clock", "green", f"{drift_s:+.0f} s from the chain's newest block")
    )
    for check in (_standing, _gas):
        rows += await _asked(check, client, config, key)
    rows += await _gateway_keys(client, gateways)
    return rows


async def _asked(
    check: Callable[[ChainClient, Config, Key | None], Awaitable[list[Row]]],
    client: ChainClient,
    config: Config,
    key: Key | None,
) -> list[Row]:
    try:
        return await check(client, config, key)
    except (ChainDown, RpcRefused, Refused) as error:
        return [Row("chain", "red", str(error), "try again when the chain is well")]


async def _standing(client: ChainClient, config: Config, key: Key | None) -> list[Row]:
    owner = config.owner_address()
    hot = key.address if key is not None else owner
    participant, acts_for = await client.read_many(
        [("Registry", "participants", (owner,)), ("Registry", "ownerOf", (hot,))]
    )
    stake, roles, barred = int(participant[0]), Role(int(participant[1])), bool(participant[2])
    name = checksummed(owner)
    if barred:
        return [
            Row(
                "owner",
                "red",
                f"{name} was convicted and is barred for good",
                "take part with another owner key",
            )
        ]
    rows: list[Row] = []
    if roles & Role.PROVIDER:
        rows.append(Row("owner", "green", f"{name} is registered as a provider"))
    else:
        rows.append(
            Row(
                "owner",
                "red",
                f"{name} is not registered as a provider",
                "call Registry.register with the owner key",
            )
        )
    rows.append(
        Row("stake", "green", show(stake))
        if stake
        else Row("stake", "red", "nothing is bonded", "gateways refuse providers without stake: bond some")
    )
    if key is not None:
        rows.append(
            Row("delegation", "green", f"{checksummed(hot)} acts for the owner")
            if acts_for == owner
            else Row(
                "delegation",
                "red",
                f"{checksummed(hot)} doesn't act for the owner",
                "call Registry.delegate with the owner key for this hot key",
            )
        )
    return rows


async def _gas(client: ChainClient, config: Config, key: Key | None) -> list[Row]:
    if key is None:
        return []
    fees, balance = await client.fees(), await client.balance_wei(key.address)
    day = fees.most * GAS_A_DAY
    if not fees.most:
        return [Row("gas", "green", "free on this chain")]
    found = f"{balance / 1e18:.6f} of the chain's coin, enough for {balance / day:.1f} days"
    if balance < day:
        return [
            Row(
                "gas",
                "red" if balance < day // 24 else "yellow",
                found,
                f"send some to {checksummed(key.address)}",
            )
        ]
    return [Row("gas", "green", found)]


async def _gateway_keys(client: ChainClient, gateways: dict[Address, Address]) -> list[Row]:
    """Whether who greeted as a gateway may."""
    rows: list[Row] = []
    for owner, hot in gateways.items():
        try:
            acts_for = await client.read("Registry", "ownerOf", hot)
        except (ChainDown, RpcRefused, Refused):
            continue
        if acts_for != owner:
            found = f"{checksummed(hot)} answers there and doesn't act for {checksummed(owner)}"
            rows.append(
                Row("gateway", "red", found, "check the gateway's owner and url in the configuration")
            )
    return rows


# --- the gateways ---


async def _links(config: Config, network: Network, key: Key, met: dict[Address, Address]) -> list[Row]:
    status = running(config)
    if status is not None:
        return [
            _link(it.url, it.up, it.why, it.round_trip_ms, " (by the running node)") for it in status.links
        ]

    urls = config.gateway_urls()
    return [await _dial(config, network, key, gateway, url, met) for gateway, url in urls.items()]


async def _dial(
    config: Config, network: Network, key: Key, gateway: Address, url: str, met: dict[Address, Address]
) -> Row:
    linked = asyncio.Event()

    def authorize(hot: Address, _: Role) -> Address | Reason:
        met[gateway] = hot  # the chain is asked afterwards: it may be away, and the gateway still be there
        return gateway

    def up(_: Address, __: Role) -> None:
        linked.set()

    def ignore(_: Address, __: object) -> None:
        pass

    domain = network_domain(network.chain_id, network.contracts.registry)
    me = Identity(config.owner_address(), Role.PROVIDER, domain, key.sign)
    client = LinkClient({gateway: url}, me, authorize, up, ignore, ignore)
    dialling = asyncio.create_task(client.run())
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINK_S):
            while not linked.is_set() and not client.status()[0].why:  # noqa: ASYNC110  two things end this
                await asyncio.sleep(0.05)
    found = client.status()[0]
    dialling.cancel()
    await asyncio.wait([dialling])
    return _link(url, found.up, found.why or "no answer", found.round_trip_ms, "")


def _link(url: str, up: bool, why: str, round_trip_ms: float | None, how: str) -> Row:
    if up:
        took = "" if round_trip_ms is None else f", {round_trip_ms:.1f} ms"
        return Row("gateway", "green", f"{url} is linked{took}{how}")
    cure = "is it running, and does a firewall let this machine dial out?"
    if why.startswith("refused"):
        cure = why.rpartition(": ")[2]
    return Row("gateway", "red", f"{url}: {why}{how}", cure)


def running(config: Config) -> Status | None:
    """The status of this configuration's node, if it runs now."""
    try:
        status = msgspec.json.decode((config.data / "status.json").read_bytes(), type=Status)
        os.kill(status.pid, 0)
    except (OSError, msgspec.MsgspecError):
        return None
    return status if address(status.owner) == config.owner_address() else None
