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
from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.ledger.artifacts import Artifact, Name
from clusterai.protocol.eip712 import word
from clusterai.protocol.ids import Address, address
from clusterai.protocol.keccak import keccak
from clusterai.protocol.money import WEI_PER_TOKEN

CHANNELS_ADDRESS = address("0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003")
COLLECTOR_ADDRESS = address("0x4020806089470a89826cB9fB1f4059150b550004")
MULTICALL3_ADDRESS = address("0xcA11bde05977b3631167028862bE2a173976CA11")


class AuditRules(msgspec.Struct, frozen=True, kw_only=True):
    """How leases are audited; shares in millionths, clocks at most 7 days, all of them the governor's to change.

    Args:
        saving_ppm: what cheating saves of the price.
        sensitivity_ppm: how often a check of wrong work finds it wrong.
        corrupt_ppm: the adversary's share of the panel's stake.
        margin_ppm: by how much honesty shall win.
        commit_s: for an auditor to begin, twice as long with each that is drawn after another, at most by what the terms allow for
            a segment; it has twice the mean time of a segment besides.
        open_s: for the provider to show the drawn segment.
        reveal_s: for the auditor to reveal, and again for a trap to be sprung. Longer than a validator that was killed needs to be back: it
            would lose its bond.
        dispute_s: for an accuser to start a dispute.
        bond_wei: what an auditor puts up at least; at most 1000 tokens.
        bond_ppm: of the provider's stake, if that is more; of an accuser as of an auditor. At most a tenth, the default: who copies
            instead of running loses its bond where there is bait, so the less bait is needed the more it is (`audit.core.rate.trap_rate`).
    """

    saving_ppm: int = 700_000
    sensitivity_ppm: int = 990_000
    corrupt_ppm: int = 200_000
    margin_ppm: int = 200_000
    commit_s: int = 30
    open_s: int = 20
    reveal_s: int = 20
    dispute_s: int = 20
    bond_wei: int = WEI_PER_TOKEN
    bond_ppm: int = 100_000


class DisputeRules(msgspec.Struct, frozen=True, kw_only=True):
    """How disputes about audits are played; clocks at most 7 days.

    Args:
        move_s: for each party's move, besides twice the mean time of a segment, or what the audit took if that was longer.
        seal_s: for referees to commit, besides the same.
        reveal_s: for referees to reveal.
        committee: seats of the first committee, at most 15; the second has three times as many, the third is the panel.
        bond_wei: what the accuser puts up at least, see `AuditRules.bond_ppm`; at most 1000 tokens.
    """

    move_s: int = 20
    seal_s: int = 30
    reveal_s: int = 20
    committee: int = 15
    bond_wei: int = WEI_PER_TOKEN


class DeliveryRules(msgspec.Struct, frozen=True, kw_only=True):
    """How it is found out whether outputs were handed over.

    Args:
        deliver_s: for the panel to ask the provider and to report; at most 7 days. What members take of one lease is bounded
            (`work.batch.core.delivery`), so that a provider can serve all of them in this time.
        bond_wei: what the requester puts up, and what serving the panel is worth; at most 1000 tokens.
    """

    deliver_s: int = 30
    bond_wei: int = WEI_PER_TOKEN


class DrandRules(msgspec.Struct, frozen=True, kw_only=True):
    """Which drand network draws, and how late after an epoch. The contract needs a chain with EIP-2537 (Prague).

    Args:
        chain: hash of the drand network, under which relays serve it.
        key: its public key, on G2: four coordinates of 48 bytes, x before y, the real part first.
        genesis_s: when its round 1 is signed.
        period_s: between two rounds.
        margin_s: how late a block may be made public, counted from its own timestamp, before its maker could know the
            pulse that draws from what is in it. On Ethereum a proposer of k slots in a row can hold blocks back for 12 k s.
    """

    chain: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    key: Annotated[str, Meta(pattern="^[0-9a-f]{384}$")]
    genesis_s: int
    period_s: int
    margin_s: int = 72

    def time_of(self, number: int) -> int:
        """When a round is signed, in seconds of Unix time; rounds count from 1."""
        return self.genesis_s + (number - 1) * self.period_s

    def round_of(self, epoch: int, epoch_s: int) -> int:
        """The round that draws from what was committed in an epoch: the first later than the margin after its end."""
        end_s = (epoch + 1) * epoch_s + self.margin_s
        return 1 if end_s < self.genesis_s else (end_s - self.genesis_s) // self.period_s + 2


QUICKNET = DrandRules(
    chain="52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971",
    key=(
        "0d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a"
        "03cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d106451"
        "0e5db2b6bfbb01c867749cadffca88b36c24f3012ba09fc4d3022c5c37dce0f977d3adb5d183c7477c442b1f04515273"
        "01a714f2edb74119a2f2b0d5a7c75ba902d163700a61bc224ededd8e63aef7be1aaf8e93d7a9718b047ccddb3eb5d68b"
    ),
    genesis_s=1_692_803_367,
    period_s=3,
)
"""The League of Entropy's network without chaining, a round every 3 s."""


class BadRules(ValueError):
    """These rules don't fit together: {why}."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Constructor parameters of the contracts; the contracts refuse what is out of bounds.

    Args:
        epoch_s: seconds of an epoch.
        window_s: seconds in which a commitment can be judged and for which claims are held; at least 4 epochs.
        unbond_delay_s: seconds for which stake that is being taken out can still be slashed; above window_s.
        audit_rate_ppm: least share of receipts that is drawn, in millionths; 1 to 10**6.
        bounty_bps: share of a slashed stake for the finder, in ten-thousandths; at most 5000.
        answer_s: seconds for beginning to answer a challenge, and again for the rest of the answer; at most a sixth of
            window_s, and long enough for the chain to take 64 parts of a million gas.
        challenge_bond_wei: what an answered challenge pays to the provider; at most 1000 tokens.
        supply_wei: all tokens that will ever exist.
        audits: how leases are audited.
        disputes: how contested audits are decided.
        deliveries: how a requester gets its outputs or its money.
        beacon: the drand network that draws; none: the chain's own randomness.
    """

    epoch_s: int
    window_s: int
    unbond_delay_s: int
    audit_rate_ppm: int
    bounty_bps: int
    answer_s: int
    challenge_bond_wei: int
    supply_wei: int = 10**9 * WEI_PER_TOKEN
    audits: AuditRules = AuditRules()
    disputes: DisputeRules = DisputeRules()
    deliveries: DeliveryRules = DeliveryRules()
    beacon: DrandRules | None = None


LOCAL = Rules(
    epoch_s=15,
    window_s=60,
    unbond_delay_s=120,
    audit_rate_ppm=250_000,
    bounty_bps=5_000,
    answer_s=8,
    challenge_bond_wei=WEI_PER_TOKEN,
)
"""A network on one machine: a cheat is convicted within a minute, and a newcomer sees audits often. A challenge leaves three
times `answer_s` of the window: the shorter that is, the longer a provider is asked over gateways first."""


def local_rules(window_s: int) -> Rules:
    """`LOCAL` with another window. Lies are convicted as fast; what a provider that is away owes is demanded on chain some 28 s before the window ends, so a longer one forgives a longer restart."""
    return msgspec.structs.replace(LOCAL, window_s=window_s, unbond_delay_s=2 * window_s)


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
