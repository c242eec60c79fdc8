"""Makes a fresh chain a network that works: participants registered, bonded and delegated, an account with credit.

Every step is asked for first and done only where it is missing, so that an `up` that was killed at any moment is
finished by the next one, and a folder that is complete costs a few reads.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from clusterai.cli.failure import Failure
from clusterai.cli.local.folder import DataFolder, LocalAccount, write_atomically
from clusterai.cli.local.people import BONDS_WEI, CREDIT_WEI, FLOAT_WEI, STAKE_WEI, People, Person
from clusterai.cli.local.wallet import send
from clusterai.gateway.adapters.keys import KeyRing
from clusterai.ledger import artifacts
from clusterai.ledger.adapters.client import ChainClient, OtherChain
from clusterai.ledger.adapters.jsonrpc import JsonRpc
from clusterai.ledger.adapters.network import Network, load_network, save_network
from clusterai.ledger.core import calls, events
from clusterai.ledger.core.deploy import local_plan
from clusterai.ledger.core.rules import local_rules
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest, Role, digest, hex0x
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain

Step = tuple[Key, calls.Call]


async def settle_in(
    folder: DataFolder, rpc_url: str, people: People, key_ring: Path, window_s: int
) -> Network:
    """Bring the chain, the manifest and the account to where daemons can start.

    Args:
        key_ring: the gateway's table of API keys.
        window_s: of a network that is new.
    """
    network = await _manifest(folder, rpc_url, people, window_s)
    async with ChainClient(network) as client:
        try:
            await client.check()
        except OtherChain as error:
            raise Failure(
                "the chain isn't the one of this folder",
                str(error),
                "move the folder away, and start a new one",
            ) from None
        account = open_account(folder, key_ring)
        steps = await _registrations(client, people)
        steps += await _gift(client, people, digest(account.account))
        await send(client, steps)
    return network


def window_of(folder: DataFolder, wished_s: int) -> int:
    """The network's audit window; rules are for ever, so a network that is there keeps its own."""
    return load_network(folder.manifest).rules.window_s if folder.manifest.exists() else wished_s


def knows(folder: DataFolder, rpc_url: str) -> bool:
    """Whether the folder's manifest is there and right, so that daemons can start before the chain answers."""
    return folder.manifest.exists() and load_network(folder.manifest).rpc_urls == (rpc_url,)


def open_account(folder: DataFolder, key_ring: Path) -> LocalAccount:
    """The account of this folder and its key: made once."""
    if not folder.account.exists():
        ring = KeyRing(key_ring)
        try:
            secret, key = ring.create("local network")
        finally:
            ring.close()
        account = LocalAccount(hex0x(key.account), secret)
        write_atomically(folder.account, msgspec.json.format(msgspec.json.encode(account)) + b"\n")
    return folder.local_account()


def fund(network: Network, payer: Key, gateway: Address, account: Digest, amount_wei: int) -> list[Step]:
    """Put money on an account at a gateway."""
    return [
        (payer, calls.Approve(network.contracts.credit, amount_wei)),
        (payer, calls.Fund(gateway, account, amount_wei)),
    ]


async def _manifest(folder: DataFolder, rpc_url: str, people: People, window_s: int) -> Network:
    """The manifest as it is, but for the chain's address: the port may be another than last time."""
    if folder.manifest.exists():
        network = load_network(folder.manifest)
        if network.rpc_urls == (rpc_url,):
            return network
        network = msgspec.structs.replace(network, rpc_urls=(rpc_url,))
    else:
        async with JsonRpc((rpc_url,)) as rpc:
            chain_id = int(await rpc.ask("eth_chainId"), 16)
            block = await rpc.ask("eth_getBlockByNumber", "0x0", False)
        rules = local_rules(window_s)
        network = Network(
            chain_id=chain_id,
            rpc_urls=(rpc_url,),
            contracts=local_plan(artifacts.load, people.treasury.address, rules).addresses,
            genesis=digest(block["hash"]),
            rules=rules,
        )
    save_network(folder.manifest, network)
    return network


async def _registrations(client: ChainClient, people: People) -> list[Step]:
    everyone = people.everyone()
    reads: list[tuple[artifacts.Name, str, Sequence[Any]]] = []
    for one in everyone:
        reads.append(("Registry", "participants", (one.owner.address,)))
        reads.append(("Registry", "ownerOf", (one.hot.address,)))
        reads.append(("Token", "balanceOf", (one.owner.address,)))
    answers = await client.read_many(reads)
    steps: list[Step] = []
    for at, one in enumerate(everyone):
        (stake, roles, barred, *_), owner, balance = answers[3 * at : 3 * at + 3]
        if not barred:
            delegated = owner == one.owner.address
            steps += _enrol(client.network, people.treasury, one, stake, Role(roles), delegated, balance)
    if not await client.read("Token", "balanceOf", people.gateway.hot.address):
        steps.append((people.treasury, calls.Transfer(people.gateway.hot.address, FLOAT_WEI)))
    for one in people.validators:
        if not await client.read("Token", "balanceOf", one.hot.address):
            steps.append((people.treasury, calls.Transfer(one.hot.address, BONDS_WEI)))
    return steps


def _enrol(
    network: Network, treasury: Key, one: Person, stake: int, roles: Role, delegated: bool, balance: int
) -> list[Step]:
    """What is still missing between a pair of keys and a participant."""
    wanted = 0 if one.role is Role.GATEWAY else STAKE_WEI
    steps: list[Step] = []
    if not roles:
        steps.append((one.owner, calls.Register(int(one.role), ZERO_DIGEST)))
    # Stake that is lower than wanted, but not zero, was the owner's decision.
    if wanted and not stake:
        if balance < wanted:
            steps.append((treasury, calls.Transfer(one.owner.address, wanted - balance)))
        steps.append((one.owner, calls.Approve(network.contracts.registry, wanted)))
        steps.append((one.owner, calls.Bond(wanted)))
    if not delegated:
        domain = network_domain(network.chain_id, network.contracts.registry)
        steps.append((one.owner, calls.delegate(one.owner.address, one.hot.address, one.hot.sign, domain)))
    return steps


async def _gift(client: ChainClient, people: People, account: Digest) -> list[Step]:
    """The faucet's, unless this account was ever funded."""
    network = client.network
    topics = [topic for where, topic in client.codec.topics() if where == network.contracts.credit]
    assert len(topics) == 1, f"Credit tells {events.Funded.__name__} and nothing else"
    query = {
        "fromBlock": hex(network.start_block),
        "address": hex0x(network.contracts.credit),
        "topics": [hex0x(topics[0]), None, hex0x(account)],
    }
    if await client.rpc.ask("eth_getLogs", query):
        return []
    return fund(network, people.treasury, people.gateway.owner.address, account, CREDIT_WEI)
