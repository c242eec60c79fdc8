"""Operators: who plays, through which identities, and what they have at the end; and leases as the simulator follows them."""

from typing import TYPE_CHECKING

import msgspec

from clusterai.ledger.core.events import Event
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import Terms
from clusterai.simulator.core.strategies import Honest

if TYPE_CHECKING:
    from clusterai.simulator.core.players import Auditor, Customer, Node


def named(name: str) -> Address:
    return Address(keccak(name.encode())[:20])


class Operator(msgspec.Struct, eq=False):
    """One purse: identities and accomplices share what they win and lose.

    Attributes:
        providers, auditors, requesters: its identities.
        customer: who orders from it; `own`: a customer that is itself.
        leases, due: ordered so far, and in what order the next ones will be opened.
        spent: cost of the work that it did, in base units.
        gained: from outside of the network.
        began_with: what it had before the first lease.
        wrong: leases that it committed with a made-up state; `drawn`: of these, those that were audited.
        fell: indices (among its wrong leases, from 1) and seconds from commitment at which it was convicted.
        cancelled, victims: leases that it ordered and cancelled, and what their providers made of them.
    """

    group: int
    strategy: Honest
    providers: list[Address] = []
    auditors: list[Address] = []
    requesters: list[Address] = []
    customer: "Customer | None" = None
    own: "Customer | None" = None
    leases: int = 0
    opened: int = 0
    spent: int = 0
    gained: int = 0
    began_with: int = 0
    wrong: int = 0
    drawn: int = 0
    fell: list[tuple[int, int]] = []
    slashed: int = 0
    cancelled: int = 0
    victims: int = 0


class Lease(msgspec.Struct, eq=False):
    """A lease under way.

    Attributes:
        nth: of its operator.
        cost: of doing all of it.
        customer: who ordered it, or planted it (`is_bait`).
        auditors: who follows it: one that looks after it, and all whom the chain has named.
        past: what the chain said of it, for auditors that are named later.
        version: grows with every event: a clock that was set for an older one has run out.
        states, meters: that its provider committed to.
        wrong_nth: which of its operator's wrong leases it is, from 1.
        done_s: seconds of work before a griefer cancelled it; 0 if nobody does.
    """

    id: Digest
    terms: Terms
    operator: Operator
    nth: int
    cost: int
    node: "Node"
    customer: "Customer | None"
    auditors: list["Auditor"] = []
    past: list[Event] = []
    version: int = 0
    states: tuple[Digest, ...] = ()
    meters: tuple[int, ...] = ()
    is_bait: bool = False
    wrong_nth: int = 0
    is_wrong: bool = False
    accepted_s: int = 0
    committed_s: int = 0
    segment: int = 0
    is_closed: bool = False
