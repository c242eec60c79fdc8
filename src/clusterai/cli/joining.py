"""Bringing a machine into a network: keys, registration, stake, configuration, and the daemon itself.

    folder/network.json   the manifest, as the gateway told it when the folder was made
    folder/owner.key      registers, holds the stake and is paid; better kept elsewhere and named by --owner-key
    folder/hot.key        signs on this machine
    folder/node.json      the node's configuration
    folder/gateway.url where that gateway's API is, for people's questions
    folder/node.pid       of the daemon; folder/node.log, folder/state   its log and journal

Each step is asked for first and done only where it is missing, so that a join that was killed at any moment is finished by the next.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.local.folder import DataFolder, tail, write_atomically
from clusterai.cli.local.wallet import send
from clusterai.ledger.adapters.client import ChainClient, OtherChain
from clusterai.ledger.adapters.jsonrpc import ChainDown
from clusterai.ledger.adapters.network import (
    BadKeyFile,
    BadNetwork,
    Network,
    load_key,
    load_network,
    make_key,
    network_digest,
)
from clusterai.ledger.core import calls
from clusterai.node.config import RentalsConfig, load_config
from clusterai.node.core.willing import Pause
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest, Role, checksummed, hex0x
from clusterai.protocol.money import show as money
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.runtime.adapters import filelock
from clusterai.sdk import Client, shapes

if TYPE_CHECKING:
    from clusterai.node.adapters.watch import Status

LISTED_S = 180.0
ENDS_S = 60.0
POLL_S = 0.1
ANOTHER_S = 8.0
"""A link whose node was killed is dead after four."""


class Joiner(msgspec.Struct, frozen=True):
    """A machine that joins, with what it has on chain.

    Attributes:
        steps: what is missing there, in words.
        calls: the same, to be sent in order.
    """

    owner: Key
    hot: Key
    network: Network
    steps: tuple[str, ...]
    calls: tuple[tuple[Key, calls.Call], ...]


class NodeFolder:
    """Where a node that joined lives."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        self.manifest = self.root / "network.json"
        self.owner = self.root / "owner.key"
        self.hot = self.root / "hot.key"
        self.config = self.root / "node.json"
        self.pid = self.root / "node.pid"
        self.log = self.root / "node.log"
        self.gateway = self.root / "gateway.url"

    def running(self) -> int | None:
        """The daemon's process, if it runs: it holds a lock on its pid file, so an old number says nothing."""
        try:
            with self.pid.open("r+") as file:
                if not filelock.hold(file):
                    return int(file.read())
        except (OSError, ValueError):
            return None
        return None


def fetched(client: Client, file: Path, pinned: Digest | None) -> tuple[shapes.Invitation, Network]:
    """A gateway's manifest, in a file.

    Raises:
        Failure: it is unusable, or isn't the pinned one; then there is no file.
    """
    told = client.network()
    write_atomically(file, bytes(told.manifest))
    try:
        network = load_network(file)
    except BadNetwork as error:
        file.unlink()
        raise Failure("the gateway's manifest can't be used", str(error)) from None
    found = network_digest(network)
    if pinned is not None and found != pinned:
        file.unlink()
        raise Failure(
            "this gateway is of another network than you asked for",
            f"its manifest's digest is {hex0x(found)}, and you asked for {hex0x(pinned)}",
            "check the gateway's address and the digest with whoever gave them to you; nothing was sent",
            Exit.UNTRUE,
        )
    return told, network


def invited(
    client: Client, folder: NodeFolder, pinned: Digest | None = None
) -> tuple[shapes.Invitation, Network, bool]:
    """What the gateway tells, kept in the folder, and whether it is the network that was meant: pinned now, or joined before.

    Raises:
        Failure: the manifest is unusable, isn't the pinned one, or the folder belongs elsewhere.
    """
    folder.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = folder.root / ".network.json.told"
    told, network = fetched(client, aside, pinned)
    try:
        held = load_network(folder.manifest) if folder.manifest.exists() else None
    except BadNetwork as error:
        raise Failure(f"{folder.manifest} can't be used", str(error)) from None
    found = network_digest(network)
    if held is not None and (other := network_digest(held)) != found:
        raise Failure(
            f"{folder.root} belongs to another network",
            f"its digest is {hex0x(other)}, and this gateway's is {hex0x(found)}",
            "name another --folder",
        )
    aside.replace(folder.manifest)
    return told, network, pinned is not None or held is not None


async def examined(
    folder: NodeFolder,
    network: Network,
    owner: Key,
    stake_wei: int,
    purse: Key | None,
    main: Key | None = None,
) -> Joiner:
    """What stands between this machine and a place among the providers.

    Args:
        purse: pays what the owner lacks: the faucet of a network on this machine.
        main: the owner of several machines whose this one is: it pays first.

    Raises:
        Failure: the owner is barred, or can't pay.
    """
    hot = make_key(folder.hot)
    try:
        async with ChainClient(network) as client:
            await client.check()
            (stake, roles, barred, *_), bound, balance, spare = await client.read_many(
                [
                    ("Registry", "participants", (owner.address,)),
                    ("Registry", "ownerOf", (hot.address,)),
                    ("Token", "balanceOf", (owner.address,)),
                    ("Token", "balanceOf", ((main or owner).address,)),
                ]
            )
            gas_wei = int(await client.rpc.ask("eth_getBalance", hex0x(owner.address), "latest"), 16)
            free = (await client.fees()).most == 0
    except (ChainDown, OtherChain) as error:
        raise Failure("the network's chain can't be reached", str(error), code=Exit.NOT_RUNNING) from None
    me = checksummed(owner.address)
    if barred:
        raise Failure(f"{me} was convicted and is barred for good", next="join with another --owner-key")
    if roles and not Role(roles) & Role.PROVIDER:
        raise Failure(f"{me} is registered, and not as a provider", next="join with another --owner-key")
    lacking = max(0, stake_wei - stake)
    words: list[str] = []
    wanted: list[tuple[Key, calls.Call]] = []
    if lacking > balance and main is not None and spare >= lacking - balance:
        words.append(f"take {money(lacking - balance)} from {checksummed(main.address)}, whose machine it is")
        wanted.append((main, calls.Transfer(owner.address, lacking - balance)))
    elif lacking > balance:
        if purse is None:
            payer = checksummed((main or owner).address)
            raise Failure(
                f"{me} holds {money(balance)}, and {money(lacking)} are needed for the stake",
                next=f"send {money(lacking - balance)} to {payer}, then the same command again; where the network is somebody's `clusterai up`, "
                f"they do it by: clusterai account fund {money(lacking - balance).split()[0]} --to {payer}",
            )
        words.append(f"take {money(lacking - balance)} from the local network's faucet")
        wanted.append((purse, calls.Transfer(owner.address, lacking - balance)))
    if (not roles or lacking or bound != owner.address) and not free and not gas_wei:
        raise Failure(
            f"{me} can't pay for transactions",
            "it has nothing of the chain's own coin",
            f"send some of it to {me}",
        )
    if not roles:
        words.append(f"register {me} as a provider")
        wanted.append((owner, calls.Register(int(Role.PROVIDER), ZERO_DIGEST)))
    if lacking:
        words.append(
            f"put {money(lacking)} at stake, lost if this machine cheats, else yours again after leaving"
        )
        wanted.append((owner, calls.Approve(network.contracts.registry, lacking)))
        wanted.append((owner, calls.Bond(lacking)))
    if bound != owner.address:
        words.append(f"let the key of this machine, {checksummed(hot.address)}, act for it")
        domain = network_domain(network.chain_id, network.contracts.registry)
        wanted.append((owner, calls.delegate(owner.address, hot.address, hot.sign, domain)))
    return Joiner(owner, hot, network, tuple(words), tuple(wanted))


async def settled(joiner: Joiner) -> None:
    """Do on chain what was missing."""
    async with ChainClient(joiner.network) as client:
        await send(client, joiner.calls)


def owner_key(folder: NodeFolder, file: Path | None) -> Key:
    """The owner's key: the file that was named, or one of the folder's own, made if need be.

    Raises:
        Failure: it can't be read, or this machine is another account's.
    """
    if file is None and folder.config.exists() and not folder.owner.exists():
        raise Failure(
            f"the key of the account that joined in {folder.root} isn't there",
            "a new one would be a stranger",
            "the same --owner-key as then, and the same --machine",
            Exit.USAGE,
        )
    try:
        if file is not None:
            return load_key(file, os.environ.get("CLUSTERAI_KEY_PASSWORD"))
        return make_key(folder.owner)
    except BadKeyFile as error:
        raise Failure(
            "there is no owner key", str(error), "clusterai node join --owner-key FILE", Exit.USAGE
        ) from None


def faucet_of(data: DataFolder, network: Network) -> Key | None:
    """The purse of a network that runs on this machine, if it is that network."""
    treasury = data.keys / "treasury.key"
    if not treasury.exists() or not data.manifest.exists():
        return None
    held = load_network(data.manifest)
    return (
        load_key(treasury) if (held.chain_id, held.genesis) == (network.chain_id, network.genesis) else None
    )


def _whole(folder: Path) -> dict[str, int]:
    """What a renter gets of this machine at first: all but a fifth, a gigabyte at least, on which the node itself lives; half of the
    disk that is free."""
    page = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = max(64 * 1024**2, min(page * 4 // 5, page - 1024**3))
    disk = max(64 * 1024**2, shutil.disk_usage(folder).free // 2)
    return {"cpu_milli": 1_000 * cores, "memory_bytes": memory, "disk_bytes": disk}


def rentable(folder: NodeFolder) -> None:
    """
    Raises:
        Failure: nobody could be given this machine.
    """
    from clusterai.node.hardware import unrentable

    config: dict[str, Any] = msgspec.json.decode(folder.config.read_bytes()) if folder.config.exists() else {}
    rentals: dict[str, Any] = config.get("rentals") or {}
    if missing := unrentable(RentalsConfig(ray=rentals.get("ray", "")).home):
        raise Failure("this machine can't be rented out", missing.found, missing.cure)


def configured(
    folder: NodeFolder,
    joiner: Joiner,
    told: shapes.Invitation,
    models: list[str],
    jobs: bool,
    url: str,
    rent_wei: int | None = None,
) -> None:
    """Write the node's configuration; what a person changed in it beside these stays.

    Args:
        url: of the gateway's API.
        rent_wei: at which price an hour the machine is offered to renters; without one that stays as it was.
    """
    config: dict[str, Any] = msgspec.json.decode(folder.config.read_bytes()) if folder.config.exists() else {}
    serving = {it["name"]: it for it in config.get("models", [])}
    config |= {
        "data": str(folder.root / "state"),
        "network": str(folder.manifest),
        "key": str(folder.hot),
        "owner": hex0x(joiner.owner.address),
        "gateways": [{"owner": told.gateway, "url": told.link}],
        "models": [serving.get(name, {"name": name}) for name in models],
        "jobs": (config.get("jobs") or {}) if jobs else None,
    }
    if rent_wei is not None:
        config["rentals"] = (config.get("rentals") or _whole(folder.root)) | {"hour_wei": rent_wei}
    write_atomically(folder.gateway, f"{url}\n".encode())
    write_atomically(folder.config, msgspec.json.format(msgspec.json.encode(config)) + b"\n")


def kept_apart(folder: NodeFolder, account: Address) -> None:
    """A folder is one account's.

    Raises:
        Failure: another account's machine lives there.
    """
    try:
        held = msgspec.json.decode(folder.config.read_bytes()).get("owner")
    except FileNotFoundError:
        return
    if held != hex0x(account):
        raise Failure(
            f"{folder.root} is the machine of {held}",
            f"this one's account is {checksummed(account)}",
            "name another --folder, or the --machine that it is",
            Exit.USAGE,
        )


def alone(
    nodes: Callable[[], Sequence[shapes.Node]],
    owner: Address,
    pause: Callable[[float], None] = time.sleep,
    key: str = "FILE",
    machine: int = 1,
) -> None:
    """A gateway has one link of an account, so two machines of one would take it from each other for ever.

    Args:
        nodes: those that the gateway knows.
        key: where the owner's key lies.
        machine: which of the owner's machines this one was to be.

    Raises:
        Failure: another machine of this owner stays linked; one that was killed is noticed in less time.
    """
    me = checksummed(owner)
    for _ in range(int(ANOTHER_S / POLL_S)):
        if not any(it.provider == me and it.linked for it in nodes()):
            return
        pause(POLL_S)
    raise Failure(
        f"another machine runs for {me}",
        f"that is machine {machine} of its owner: each has an account and a stake of its own, derived from the owner's key",
        f"clusterai node join --machine {machine + 1} --owner-key {key} --folder ANOTHER (each further machine the next number, "
        "on its own host in any folder); or drain the other machine first",
    )


def started(folder: NodeFolder) -> "subprocess.Popen[bytes]":
    """The daemon, in a session of its own; the lock on its pid file lives as long as it does."""
    holder = folder.pid.open("a+")
    if not filelock.hold(holder):
        holder.close()
        raise Failure(
            f"a node runs in {folder.root} already", next=f"clusterai node drain --folder {folder.root}"
        )
    with holder, folder.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "clusterai.node", "--config", str(folder.config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(holder.fileno(),),
            env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
        )
        holder.truncate(0)
        holder.write(str(process.pid))
        holder.flush()
    return process


def listed(
    client: Client, folder: NodeFolder, joiner: Joiner, process: "subprocess.Popen[bytes]"
) -> shapes.Node:
    """Wait until the gateway gives this node work, or would but for what pauses it: its owner's word, its hours, the machine's use.

    Raises:
        Failure: the daemon ended, or it takes too long; with what is known of why.
    """
    me = checksummed(joiner.owner.address)
    ends_s = time.monotonic() + LISTED_S
    state = "the gateway hasn't heard of it"
    while time.monotonic() < ends_s:
        if process.poll() is not None:
            raise Failure("the node ended", "it said:\n" + tail(folder.log), f"read {folder.log}")
        for node in client.nodes():
            if node.provider == me:
                if node.state == "ready" or (node.linked and pauses(folder)):
                    return node
                state = f"the gateway says: {node.state}"
        time.sleep(POLL_S)
    raise Failure(f"not listed after {LISTED_S:.0f} s", state, f"read {folder.log}")


def pauses(folder: NodeFolder) -> tuple[Pause, ...]:
    """Why it takes nothing new, by its own word: how its gateway remembers it may be from before it was started."""
    status = _told(folder)
    return () if status is None else status.pauses


def withheld(folder: NodeFolder) -> tuple[str, ...]:
    """Why it isn't offered to renters, by its own word."""
    status = _told(folder)
    return () if status is None else status.withheld


def _told(folder: NodeFolder) -> "Status | None":
    from clusterai.node.doctor import running  # loads what a node needs

    return running(load_config(folder.config, os.environ))


def stopped(folder: NodeFolder) -> bool:
    """End the node once its running answers have ended; whether one ran.

    Raises:
        Failure: it doesn't end.
    """
    pid = folder.running()
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    ends_s = time.monotonic() + ENDS_S
    while folder.running() is not None:
        if time.monotonic() > ends_s:
            raise Failure(
                f"process {pid} doesn't end", next=f"kill -9 {pid}; nothing that was acknowledged is lost"
            )
        time.sleep(POLL_S)
    return True
