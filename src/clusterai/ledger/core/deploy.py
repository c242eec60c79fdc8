"""What has to be on a chain before the network can use it, as data: any chain applies the same plan.

A plan has two parts. **Placements** put code and storage at fixed addresses without a transaction (genesis
allocation, `anvil_setCode` and `anvil_setStorageAt`): Channels, the deposit collector and Multicall3 must stand where
x402's clients expect them. **Creations** are transactions of the deployer, in order, from `first_nonce` on; their
addresses follow from the deployer and the nonce, so contracts that need each other name each other in advance.

    Token(0) <- Registry(1) -> Court(2) <-> Channels (placed)      Credit(3) -> Token, Registry
    Panel(4) -> Registry        Delegations(5) <-> Registry
    Leases(6) -> Court, Audits(7), Delegations, Deliveries(8)      Deliveries -> Panel, Leases
    Audits -> Panel, Leases, Disputes(12) -> Leases, Audits        ChainBeacon or DrandBeacon(9) <- Court, Audits
    Vaults(10) <-> Court        Rewards(11) -> Panel

On a chain where nothing can be placed, Channels and the collector are created as well, and their addresses are what
the manifest says instead of x402's.
"""

from collections.abc import Callable

import msgspec

from clusterai.ledger.artifacts import Artifact, Name
from clusterai.ledger.core.rules import LOCAL, BadRules, Rules
from clusterai.protocol.eip712 import word
from clusterai.protocol.ids import Address, address
from clusterai.protocol.keccak import keccak

CHANNELS_ADDRESS = address("0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003")
COLLECTOR_ADDRESS = address("0x4020806089470a89826cB9fB1f4059150b550004")
MULTICALL3_ADDRESS = address("0xcA11bde05977b3631167028862bE2a173976CA11")


class Placement(msgspec.Struct, frozen=True):
    """Code and storage words that stand at a fixed address from the start."""

    name: Name
    address: Address
    code: bytes
    storage: tuple[tuple[int, int], ...]


class Creation(msgspec.Struct, frozen=True):
    """A transaction without recipient: `data` is creation code and arguments; `address` is where it will stand."""

    name: Name
    address: Address
    data: bytes


class Addresses(msgspec.Struct, frozen=True):
    token: Address
    registry: Address
    channels: Address
    collector: Address
    court: Address
    credit: Address
    panel: Address
    delegations: Address
    leases: Address
    audits: Address
    deliveries: Address
    disputes: Address
    vaults: Address
    rewards: Address
    beacon: Address
    multicall: Address


class Plan(msgspec.Struct, frozen=True):
    deployer: Address
    first_nonce: int
    placements: tuple[Placement, ...]
    creations: tuple[Creation, ...]
    addresses: Addresses


def created_address(deployer: Address, nonce: int) -> Address:
    """keccak(rlp([deployer, nonce])), the last 20 bytes."""
    assert nonce < 2**32, "a deployer's nonce is small"
    number = nonce.to_bytes((nonce.bit_length() + 7) // 8)
    encoded = number if len(number) == 1 and number[0] < 0x80 else bytes((0x80 + len(number),)) + number
    body = b"\x94" + deployer + encoded
    return Address(keccak(bytes((0xC0 + len(body),)) + body)[-20:])


CREATED: dict[str, Name] = {
    "token": "Token",
    "registry": "Registry",
    "channels": "Channels",
    "collector": "ERC3009DepositCollector",
    "court": "Court",
    "credit": "Credit",
    "panel": "Panel",
    "delegations": "Delegations",
    "leases": "Leases",
    "audits": "Audits",
    "deliveries": "Deliveries",
    "beacon": "ChainBeacon",
    "vaults": "Vaults",
    "rewards": "Rewards",
    "disputes": "Disputes",
}
"""What is created, in this order, unless it is placed: the field of `Addresses`, and the contract."""


def local_plan(
    load: Callable[[Name], Artifact], deployer: Address, rules: Rules = LOCAL, first_nonce: int = 0
) -> Plan:
    """For a chain whose genesis is ours: x402's addresses are placed.

    The deployer holds the whole supply and governs the Court afterwards.
    """
    placed = {"channels": CHANNELS_ADDRESS, "collector": COLLECTOR_ADDRESS}
    addresses, creations = _creations(load, deployer, rules, first_nonce, placed)
    placements = (
        _channels_placement(load("Channels"), addresses, rules),
        Placement(
            "ERC3009DepositCollector",
            COLLECTOR_ADDRESS,
            load("ERC3009DepositCollector").runtime(),
            ((0, int.from_bytes(CHANNELS_ADDRESS)),),
        ),
        Placement("Multicall3", MULTICALL3_ADDRESS, load("Multicall3").runtime(), ()),
    )
    return Plan(deployer, first_nonce, placements, creations, addresses)


def foreign_plan(
    load: Callable[[Name], Artifact], deployer: Address, rules: Rules, first_nonce: int = 0
) -> Plan:
    """For a chain that others run: everything is created, Multicall3 is there already."""
    addresses, creations = _creations(load, deployer, rules, first_nonce, {})
    return Plan(deployer, first_nonce, (), creations, addresses)


def _channels_placement(artifact: Artifact, addresses: Addresses, rules: Rules) -> Placement:
    """The storage words that Channels' constructor would have written."""
    registry, court, window = (artifact.slots[name] for name in ("registry", "court", "windowS"))
    assert registry.slot != court.slot == window.slot, "the layout that the contract documents"
    return Placement(
        "Channels",
        CHANNELS_ADDRESS,
        artifact.runtime(),
        (
            (registry.slot, int.from_bytes(addresses.registry)),
            (court.slot, int.from_bytes(addresses.court) | rules.window_s << 8 * window.offset),
        ),
    )


def _creations(
    load: Callable[[Name], Artifact],
    deployer: Address,
    rules: Rules,
    first_nonce: int,
    placed: dict[str, Address],
) -> tuple[Addresses, tuple[Creation, ...]]:
    fields = [field for field in CREATED if field not in placed]
    where = {field: created_address(deployer, first_nonce + at) for at, field in enumerate(fields)}
    addresses = Addresses(**where, **placed, multicall=MULTICALL3_ADDRESS)
    arguments = _arguments(addresses, deployer, rules)
    contracts = dict(CREATED)
    if rules.beacon is not None:
        contracts["beacon"] = "DrandBeacon"
    return addresses, tuple(
        Creation(
            contracts[field],
            where[field],
            load(contracts[field]).creation() + b"".join(map(word, arguments[field])),
        )
        for field in fields
    )


def _arguments(at: Addresses, governor: Address, rules: Rules) -> dict[str, tuple[int | bytes, ...]]:
    """Of each constructor; all take static words only."""
    return {
        "token": (governor, rules.supply_wei),
        "registry": (at.token, at.court, at.leases, at.panel, at.delegations, rules.unbond_delay_s),
        "channels": (at.registry, at.court, rules.window_s),
        "collector": (at.channels,),
        "court": (
            *(at.token, at.registry, at.channels, at.beacon, at.leases, at.vaults, at.audits),
            *(rules.epoch_s, rules.window_s, rules.audit_rate_ppm, rules.bounty_bps, rules.answer_s),
            rules.challenge_bond_wei,
            governor,
        ),
        "credit": (at.token, at.registry),
        "panel": (at.registry,),
        "delegations": (at.token, at.registry),
        "leases": (at.token, at.registry, at.court, at.audits, at.deliveries, rules.window_s),
        "audits": (
            *(at.token, at.registry, at.beacon, at.panel, at.leases, at.disputes),
            *msgspec.structs.astuple(rules.audits),
            governor,
        ),
        "deliveries": (
            *(at.token, at.registry, at.panel, at.leases),
            *msgspec.structs.astuple(rules.deliveries),
        ),
        "beacon": _beacon(rules),
        "vaults": (at.token, at.registry, at.court, rules.window_s),
        "rewards": (at.token, at.registry, at.panel, at.beacon, rules.window_s),
        "disputes": (
            *(at.token, at.registry, at.panel, at.leases, at.audits),
            *msgspec.structs.astuple(rules.disputes),
        ),
    }


def _beacon(rules: Rules) -> tuple[int, ...]:
    """
    Raises:
        BadRules: a draw by drand could come too late for a challenge within the window.
    """
    given = rules.beacon
    if given is None:
        return (rules.epoch_s,)
    # Committed at T, drawn by T + 2 epochs + margin + period where drand is down; challenged until T + window - 3 answer_s;
    # an epoch between the two, in which to find out what to challenge.
    least_s = 3 * rules.epoch_s + given.margin_s + given.period_s + 3 * rules.answer_s
    if rules.window_s < least_s:
        raise BadRules(f"with this beacon window_s must be {least_s} at least, and is {rules.window_s}")
    key = bytes.fromhex(given.key)
    words = [part for at in range(0, len(key), 48) for part in (key[at : at + 16], key[at + 16 : at + 48])]
    return (
        *(given.genesis_s, given.period_s, rules.epoch_s, given.margin_s),
        *(int.from_bytes(one) for one in words),
    )
