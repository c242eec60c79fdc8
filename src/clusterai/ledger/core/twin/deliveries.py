"""Deliveries.sol: whether the requester of a committed lease can have its outputs."""

import msgspec

from clusterai.ledger.core.events import DeliveryDemanded, DemandEnded, UndeliveredReported
from clusterai.ledger.core.twin.leases import COMMITTED, Leases
from clusterai.ledger.core.twin.panel import Panel
from clusterai.ledger.core.twin.registry import Registry
from clusterai.ledger.core.twin.state import Transaction, World, require
from clusterai.ledger.core.twin.token import Token
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest
from clusterai.protocol.leases import CloseReason, DemandOutcome

NONE, OPEN, ENDED = range(3)


class Demand(msgspec.Struct, frozen=True):
    stage: int = NONE
    by_s: int = 0
    payer: Address = ZERO_ADDRESS
    weight: int = 0


_NO_DEMAND = Demand()
_replace = msgspec.structs.replace


class Deliveries:
    def __init__(self, world: World, token: Token, registry: Registry, panel: Panel, leases: Leases) -> None:
        self._store = world.store
        self._token = token
        self._registry = registry
        self._panel = panel
        self._leases = leases
        self._here = world.addresses.deliveries
        self._rules = world.rules.deliveries
        self._window_s = world.rules.window_s

    # --- public: the requester ---

    def demand_delivery(self, tx: Transaction, lease_id: Digest) -> None:
        self._in(lease_id, NONE)
        lease = self._leases.lease(lease_id)
        require(lease.state == COMMITTED, "NotCommitted")
        owner = self._registry.owner_of(tx.sender)
        require(lease.requester in (tx.sender, owner), "NotRequester")
        require(tx.now_s <= lease.committed_s + self._window_s, "TooLate")
        by_s = tx.now_s + self._rules.deliver_s
        self._put(lease_id, Demand(OPEN, by_s, tx.sender))
        tx.emit(DeliveryDemanded(lease_id, lease.requester, lease.provider, by_s))
        if self._rules.bond_wei:
            self._token.pull(tx, self._here, tx.sender, self._here, self._rules.bond_wei)

    # --- public: the panel ---

    def report_undelivered(self, tx: Transaction, lease_id: Digest) -> None:
        demand = self._in(lease_id, OPEN)
        require(tx.now_s <= demand.by_s, "TooLate")
        lease = self._leases.lease(lease_id)
        require(lease.state == COMMITTED, "NotCommitted")
        member = self._registry.owner_of(tx.sender)
        require(not self.reported(lease_id, member), "AlreadyReported")
        own, total = self._panel.shares(member, lease.committed_s, (lease.provider, lease.requester))
        require(own != 0, "NotMember")
        self._store.put(("undelivered", lease_id, member), True)
        demand = _replace(demand, weight=demand.weight + own)
        self._put(lease_id, demand)
        tx.emit(UndeliveredReported(lease_id, member, demand.weight, total))
        if demand.weight * 3 >= total * 2:
            self._end(tx, lease_id, demand, DemandOutcome.UNDELIVERED, demand.payer)
            self._leases.convict(tx, lease_id, ZERO_ADDRESS, CloseReason.WITHHELD)

    # --- public: anyone ---

    def expire_demand(self, tx: Transaction, lease_id: Digest) -> None:
        demand = self._in(lease_id, OPEN)
        lease = self._leases.lease(lease_id)
        if lease.state != COMMITTED:
            return self._end(tx, lease_id, demand, DemandOutcome.MOOT, demand.payer)
        require(tx.now_s > demand.by_s, "NotExpired")
        return self._end(tx, lease_id, demand, DemandOutcome.DELIVERED, lease.provider)

    # --- views ---

    def demand(self, lease_id: Digest) -> Demand:
        return self._store.get(("demand", lease_id), _NO_DEMAND)

    def is_demanded(self, lease_id: Digest) -> bool:
        return self.demand(lease_id).stage == OPEN

    def reported(self, lease_id: Digest, member: Address) -> bool:
        return self._store.get(("undelivered", lease_id, member), False)

    # --- internal ---

    def _end(
        self, tx: Transaction, lease_id: Digest, demand: Demand, outcome: DemandOutcome, to: Address
    ) -> None:
        self._put(lease_id, _replace(demand, stage=ENDED))
        tx.emit(DemandEnded(lease_id, int(outcome)))
        if self._rules.bond_wei:
            self._token.move(tx, self._here, to, self._rules.bond_wei)

    def _put(self, lease_id: Digest, demand: Demand) -> None:
        self._store.put(("demand", lease_id), demand)

    def _in(self, lease_id: Digest, stage: int) -> Demand:
        demand = self.demand(lease_id)
        require(demand.stage == stage, "WrongStage")
        return demand
