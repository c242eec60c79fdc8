"""Operators: who plays, through which identities, and what they have at the end."""

import msgspec

from clusterai.audit.adversary.core.strategies import Honest
from clusterai.audit.core.segments import Commitment
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import Terms


def named(name: str) -> Address:
    return Address(keccak(name.encode())[:20])


class Operator(msgspec.Struct, eq=False):
    """One purse: identities and accomplices share what they win and lose.

    Attributes:
        providers, auditors, requesters: its identities.
        spent: cost of the work that it did, in base units.
        gained: from outside of the network.
        began_with: what it had before the first lease.
        wrong: leases that it committed with a made-up state.
        fell: indices (among its wrong leases, from 1) and seconds from commitment at which it was convicted.
        cancelled, victims: leases that it ordered and cancelled, and what their providers made of them.
    """

    group: int
    player: Honest
    providers: list[Address] = []
    auditors: list[Address] = []
    requesters: list[Address] = []
    leases: int = 0
    spent: int = 0
    gained: int = 0
    began_with: int = 0
    wrong: int = 0
    fell: list[tuple[int, int]] = []
    slashed: int = 0
    cancelled: int = 0
    victims: int = 0


class Lease(msgspec.Struct, eq=False):
    """A lease under way, as the market follows it."""

    id: Digest
    operator: Operator
    nth: int
    provider: Address
    requester: Address
    terms: Terms
    cost: int
    spec: Digest
    secret: Digest | None = None
    wrong_nth: int = 0
    """which of its operator's wrong leases it is, from 1"""
    commitment: Commitment | None = None
    is_wrong: bool = False
    committed_s: int = 0
    segment: int = 0
    auditor: Address = ZERO_ADDRESS
    by_s: int = 0
    opened: bool = False
    accusers: list[Address] = []
    results: dict[Address, Digest] = {}
    is_closed: bool = False
