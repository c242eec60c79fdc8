"""An owner's machines: which there are, whose they say they are, and how money comes back from their accounts.

The owner's key is all that is needed: each machine's account is derived from it (`ledger/adapters/derived.py`), and the chain says
which of them are registered. Nothing is kept on the side.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.joining import NodeFolder
from clusterai.cli.local.folder import write_atomically
from clusterai.cli.local.wallet import send
from clusterai.cli.staking import asked
from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.derived import GAP, MOST_MACHINES, machine_key
from clusterai.ledger.adapters.follower import LogFollower
from clusterai.ledger.adapters.network import BadKeyFile, BadNetwork, Network, load_key, load_network
from clusterai.ledger.artifacts import Name
from clusterai.ledger.core import calls
from clusterai.ledger.core.events import Event
from clusterai.node.adapters.carding import BELONGING
from clusterai.protocol import canonical
from clusterai.protocol.belonging import belong
from clusterai.protocol.ids import Address, Role, checksummed, hex0x
from clusterai.protocol.money import show as money
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.runtime.adapters.config import PASSWORD
from clusterai.sdk.shapes import Node

DAYS = 365
"""For so long a machine says whose it is; each join says it anew, and so does `node declare`."""
DAY_S = 86_400


class Machine(msgspec.Struct, frozen=True):
    """One of an owner's machines as the chain has it.

    Attributes:
        ready_s: when what is unbonding can be withdrawn.
        free_wei: what its account holds beside the stake.
    """

    number: int
    account: str
    stake_wei: int
    unbonding_wei: int
    ready_s: int
    free_wei: int
    barred: bool


class Machines(msgspec.Struct, frozen=True):
    owner: str
    machines: list[Machine]
    time_s: int


class Owner(msgspec.Struct, frozen=True):
    """Whose machines, on which network."""

    key: Key
    network: Network


def owner_at(folder: NodeFolder, file: Path | None) -> Owner:
    """The owner of several machines, as one of them joined.

    Raises:
        Failure: the folder has joined nothing, or the key isn't there.
    """
    try:
        network = load_network(folder.manifest)
    except BadNetwork as error:
        raise Failure(
            f"no machine has joined a network in {folder.root}",
            str(error),
            "name the --folder of one that has",
            Exit.NOT_FOUND,
        ) from None
    try:
        return Owner(load_key(file or folder.owner, os.environ.get(PASSWORD)), network)
    except BadKeyFile as error:
        raise Failure(
            "the owner's key isn't here", str(error), "name it by --owner-key FILE", Exit.USAGE
        ) from None


def belonging(owner: Key, account: Key, network: Network, now_s: float) -> bytes:
    """What says whose the account's machine is, as the file beside its card has it."""
    domain = network_domain(network.chain_id, network.contracts.registry)
    return canonical.encode(belong(owner, account, domain, int(now_s), int(now_s) + DAYS * DAY_S))


def declare(folder: NodeFolder, owner: Key, account: Key, network: Network) -> None:
    """Put it where the node's card takes it from."""
    state = folder.root / "state"
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(state / BELONGING, belonging(owner, account, network, time.time()))


def declared(folder: NodeFolder, account: Address, owner: Owner) -> int:
    """Sign anew, for a year from now, that the folder's machine is this owner's; which of its machines it is.

    Raises:
        Failure: its account isn't one of those that follow from the owner's key.
    """
    for number in range(2, MOST_MACHINES + 1):
        if (key := machine_key(owner.key, number)).address == account:
            declare(folder, owner.key, key, owner.network)
            return number
    raise Failure(
        f"{checksummed(account)} is no machine of {checksummed(owner.key.address)}",
        "its account doesn't follow from that key, or is the owner's own, whose machine needs no word",
        "name the owner's key by --owner-key FILE",
        Exit.USAGE,
    )


def withdrawn(folder: NodeFolder) -> bool:
    """Take back that the machine is anybody's but its account's; whether it said so."""
    try:
        (folder.root / "state" / BELONGING).unlink()
    except FileNotFoundError:
        return False
    return True


def machines(owner: Owner) -> Machines:
    """All that are registered, found by trying one number after the other.

    Raises:
        Failure: the chain can't be asked.
    """
    return asked(owner.network, lambda client: _machines(client, owner.key))


async def _machines(client: ChainClient, owner: Key) -> Machines:
    found: list[Machine] = []
    first = 1
    while first <= MOST_MACHINES:
        numbers = range(first, min(first + GAP, MOST_MACHINES + 1))
        some = await _registered(client, {it: machine_key(owner, it).address for it in numbers})
        found += some
        if not some:
            break
        first = some[-1].number + 1
    head = await client.head()
    return Machines(checksummed(owner.address), found, head.timestamp_s)


async def _registered(client: ChainClient, accounts: Mapping[int, Address]) -> list[Machine]:
    reads: list[tuple[Name, str, tuple[Address]]] = []
    for account in accounts.values():
        reads.append(("Registry", "participants", (account,)))
        reads.append(("Token", "balanceOf", (account,)))
    said = await client.read_many(reads)
    found: list[Machine] = []
    for at, (number, account) in enumerate(accounts.items()):
        (stake, roles, barred, ready_s, unbonding, *_), free = said[2 * at], said[2 * at + 1]
        if roles & Role.PROVIDER:
            found.append(Machine(number, checksummed(account), stake, unbonding, ready_s, free, bool(barred)))
    return found


def states(found: Machines, nodes: list[Node]) -> dict[int, str]:
    """By machine what a gateway says of it."""
    by_account = {it.provider: it.state for it in nodes}
    return {it.number: by_account.get(it.account, "unknown to this gateway") for it in found.machines}


def history(network: Network) -> list[Event]:
    """All that the chain tells, from its first block on.

    Raises:
        Failure: it can't be asked.
    """

    async def read(client: ChainClient) -> list[Event]:
        told: list[Event] = []
        follower = LogFollower(client, lambda events, _: told.extend(events))
        while await follower.step():
            pass
        return told

    return asked(network, read)


# --- money back ---


class Collecting(msgspec.Struct, frozen=True):
    """What is to be sent, in words and as calls; `amount_wei` comes to the owner."""

    says: tuple[str, ...]
    calls: tuple[tuple[Key, calls.Call], ...]
    amount_wei: int


def collecting(owner: Key, found: Machines, leave: int | None = None) -> Collecting:
    """All that the machines' accounts hold, to the owner; what has finished unbonding too.

    Args:
        leave: of this machine all stake begins to unbond: it is no provider any more.

    Raises:
        Failure: there is no such machine, or it has nothing at stake.
    """
    says: list[str] = []
    wanted: list[tuple[Key, calls.Call]] = []
    amount = 0
    if leave is not None:
        one = _named(found, leave)
        says.append(
            f"take {money(one.stake_wei)} out of the stake of machine {leave}; it gives no work any more"
        )
        wanted.append((machine_key(owner, leave), calls.Unbond(one.stake_wei)))
    for it in found.machines:
        key = machine_key(owner, it.number)
        ready = it.unbonding_wei if it.ready_s <= found.time_s and it.number != leave else 0
        if ready:
            says.append(f"withdraw {money(ready)} that machine {it.number} had at stake")
            wanted.append((key, calls.Withdraw()))
        held = it.free_wei + ready
        if held and it.number != 1:
            says.append(f"move {money(held)} from machine {it.number} to {found.owner}")
            wanted.append((key, calls.Transfer(owner.address, held)))
            amount += held
        elif ready:
            amount += ready
    return Collecting(tuple(says), tuple(wanted), amount)


def sent(owner: Owner, plan: Collecting) -> list[str]:
    """
    Raises:
        Failure: the chain can't be reached or refused one; those before it are done.
    """
    return [hex0x(it) for it in asked(owner.network, lambda client: send(client, plan.calls))]


def _named(found: Machines, number: int) -> Machine:
    for it in found.machines:
        if it.number == number:
            if it.stake_wei and not it.barred:
                return it
            raise Failure(f"machine {number} has nothing at stake", next="clusterai node machines")
    raise Failure(
        f"there is no machine {number} of this owner", next="clusterai node machines", code=Exit.NOT_FOUND
    )
