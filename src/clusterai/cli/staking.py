"""Stake behind validators as a person sees it, asked of the chain itself with the network's manifest.

Stake is between its owner and the contracts: no gateway has a say in it.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.local.folder import DataFolder
from clusterai.cli.local.wallet import GAS, send
from clusterai.ledger.adapters.client import ChainClient, OtherChain, Refused
from clusterai.ledger.adapters.jsonrpc import CallReverted, ChainDown, RpcRefused
from clusterai.ledger.adapters.network import BadKeyFile, BadNetwork, Network, load_key, load_network
from clusterai.ledger.artifacts import Name, load
from clusterai.ledger.core import calls, events
from clusterai.ledger.core.twin.delegations import Pool, Position
from clusterai.ledger.core.twin.registry import DELEGATED_PER_OWN
from clusterai.protocol.ids import Address, Role, checksummed, hex0x
from clusterai.protocol.keccak import keccak
from clusterai.protocol.signing import Key

T = TypeVar("T")


class Validator(msgspec.Struct, frozen=True):
    """`votes_wei` is what counts of `own_wei` and `delegated_wei`; `room_wei` is what more could be delegated.

    The commission is `commission_bps` ten-thousandths of what delegated stake earns, and `next_commission_bps` from
    `next_from_s` on.
    """

    validator: str
    own_wei: int
    delegated_wei: int
    votes_wei: int
    room_wei: int
    unbonding_wei: int
    commission_bps: int
    next_commission_bps: int
    next_from_s: int
    barred: bool
    provides: bool


class Leaving(msgspec.Struct, frozen=True):
    amount_wei: int
    ready_s: int


class Delegation(msgspec.Struct, frozen=True):
    """`earning_wei` has part in rewards; `waiting_wei` will, the last of it from `earns_from_s` on. `lost`: slashed."""

    validator: str
    earning_wei: int
    waiting_wei: int
    earns_from_s: int
    earned_wei: int
    leaving: list[Leaving]
    lost: bool

    @property
    def stake_wei(self) -> int:
        return self.earning_wei + self.waiting_wei

    def ready(self, time_s: int) -> int:
        return 0 if self.lost else sum(it.amount_wei for it in self.leaving if it.ready_s <= time_s)


class Stakes(msgspec.Struct, frozen=True):
    """Everything at one block. `time_s` is the chain's time."""

    delegator: str
    balance_wei: int
    allowance_wei: int
    time_s: int
    unbond_delay_s: int
    validators: list[Validator]
    delegations: list[Delegation]

    def validator(self, name: str) -> Validator:
        """The one whose address is `name` or begins so.

        Raises:
            Failure: there is none, or more than one.
        """
        found = [it for it in self.validators if it.validator.lower().startswith(name.lower())]
        if len(found) == 1:
            return found[0]
        why = "several begin so" if found else "no owner that validates begins so"
        raise Failure(f"{name} names no validator", why, "clusterai stake show", Exit.NOT_FOUND)

    def delegation(self, validator: Validator) -> Delegation:
        for it in self.delegations:
            if it.validator == validator.validator:
                return it
        return Delegation(validator.validator, 0, 0, 0, 0, [], validator.barred)


# --- the chain ---


def signer(file: Path | None, folder: DataFolder, default: str) -> Key:
    """The key in a file; without one, a local network's.

    Raises:
        Failure: there is no such key.
    """
    path = file or folder.keys / default
    try:
        return load_key(path, os.environ.get("CLUSTERAI_KEY_PASSWORD"))
    except BadKeyFile as error:
        raise Failure(
            "there is no key to sign with", str(error), "name one with --key FILE", Exit.USAGE
        ) from None


def manifest(file: Path | None, folder: DataFolder) -> Network:
    """
    Raises:
        Failure: there is no network to speak of.
    """
    if file is None and not folder.manifest.exists():
        raise Failure(
            f"there is no network in {folder.root}",
            next=f"clusterai up --data {folder.root}, or name another's network.json with --network FILE",
            code=Exit.NOT_RUNNING,
        )
    try:
        return load_network(file or folder.manifest)
    except BadNetwork as error:
        raise Failure("the network's manifest can't be used", str(error), code=Exit.USAGE) from None


def look(network: Network, delegator: Address) -> Stakes:
    """All validators, and what `delegator` has behind them.

    Raises:
        Failure: the chain can't be asked.
    """
    return asked(network, lambda client: _look(client, delegator))


def carry_out(network: Network, key: Key, wanted: Sequence[calls.Call], gas: int = GAS) -> list[str]:
    """Send transactions, each awaited.

    Raises:
        Failure: the chain can't be reached or refused one; those before it are done.
    """
    done = asked(network, lambda client: send(client, [(key, call) for call in wanted], gas))
    return [hex0x(one) for one in done]


def asked(network: Network, what: Callable[[ChainClient], Awaitable[T]]) -> T:
    """What the network's chain answers.

    Raises:
        Failure: it can't be asked, or refused.
    """

    async def ask() -> T:
        async with ChainClient(network) as client:
            await client.check()
            return await what(client)

    try:
        return asyncio.run(ask())
    except (ChainDown, OtherChain) as error:
        raise Failure(
            "the chain can't be reached", str(error), "clusterai status", Exit.NOT_RUNNING
        ) from None
    except (RpcRefused, CallReverted, Refused) as error:
        raise Failure("the chain refused to answer", str(error)) from None


async def _look(client: ChainClient, delegator: Address) -> Stakes:
    network = client.network
    owners = await _validators(client)
    asked: list[tuple[Name, str, Sequence[Any]]] = []
    asked.append(("Token", "balanceOf", (delegator,)))
    asked.append(("Token", "allowance", (delegator, network.contracts.delegations)))
    for owner in owners:
        of_one: list[tuple[Name, str, Sequence[Any]]] = [
            ("Registry", "participants", (owner,)),
            ("Registry", "validatorStake", (owner,)),
            ("Delegations", "poolOf", (owner,)),
            ("Delegations", "commissionOf", (owner,)),
            ("Delegations", "positionOf", (owner, delegator)),
            ("Delegations", "pendingOf", (owner, delegator)),
        ]
        asked += of_one
    head = await client.head()
    balance, allowance, *found = await client.read_many(asked)
    delay_s = network.rules.unbond_delay_s
    validators: list[Validator] = []
    delegations: list[Delegation] = []
    for turn, owner in enumerate(owners):
        participant, votes, pool, commission, position, pending = found[6 * turn : 6 * turn + 6]
        one = _validator(owner, participant, votes, Pool(*pool), commission)
        validators.append(one)
        mine = _delegation(one, Position(*position), pending, delay_s)
        if mine.stake_wei or mine.earned_wei or mine.leaving:
            delegations.append(mine)
    return Stakes(
        checksummed(delegator), balance, allowance, head.timestamp_s, delay_s, validators, delegations
    )


async def _validators(client: ChainClient) -> list[Address]:
    """Owners that ever registered as validators, in the chain's order."""
    registry = client.network.contracts.registry
    [entry] = [one for one in load("Registry").abi if one["type"] == "event" and one["name"] == "Registered"]
    kinds = ",".join(one["type"] for one in entry["inputs"])
    query = {
        "fromBlock": hex(client.network.start_block),
        "address": hex0x(registry),
        "topics": [hex0x(keccak(f"Registered({kinds})".encode()))],
    }
    owners: list[Address] = []
    for log in await client.rpc.ask("eth_getLogs", query):
        topics = tuple(bytes.fromhex(topic[2:]) for topic in log["topics"])
        event = client.codec.event(registry, topics, bytes.fromhex(log["data"][2:]))
        if isinstance(event, events.Registered) and event.roles & Role.VALIDATOR:
            owners.append(event.owner)
    return owners


def _validator(
    owner: Address, participant: tuple[Any, ...], votes: int, pool: Pool, commission: int
) -> Validator:
    stake, roles, barred, *_ = participant
    room = 0 if barred or roles & Role.PROVIDER else max(0, stake * DELEGATED_PER_OWN - pool.delegated)
    return Validator(
        validator=checksummed(owner),
        own_wei=stake,
        delegated_wei=pool.delegated,
        votes_wei=votes,
        room_wei=room,
        unbonding_wei=pool.unbonding,
        commission_bps=commission,
        next_commission_bps=pool.next_commission_bps,
        next_from_s=pool.commission_from_s,
        barred=barred,
        provides=bool(roles & Role.PROVIDER),
    )


def _delegation(
    validator: Validator, position: Position, pending: Sequence[tuple[int, int]], delay_s: int
) -> Delegation:
    waits = 2 if position.entering else 1 if position.entered else 0
    return Delegation(
        validator=validator.validator,
        earning_wei=position.active,
        waiting_wei=position.entering + position.entered,
        earns_from_s=(position.period + waits) * delay_s if waits else 0,
        earned_wei=position.earned,
        leaving=[Leaving(*one) for one in pending],
        lost=validator.barred,
    )
