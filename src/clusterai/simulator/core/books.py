"""Money kept a second time: every call's events are booked, and the contracts must hold what the books say.

    sum of all balances = supply         Leases holds what open leases pay, and what vests
    each moved balance  = its book       Registry holds all stakes, bonded or unbonding
                                         Delegations holds others' stakes, and their share of fees

Checked after every call, at the cost of what the call moved; `audit` counts everything again.
"""

from collections.abc import Iterable

from clusterai.ledger.core.events import (
    Bonded,
    Event,
    LeaseClosed,
    LeaseOpened,
    PayVested,
    Slashed,
    Transferred,
    VestedReleased,
    Withdrawn,
)
from clusterai.ledger.core.stake_events import DelegatedSlashed, RewardShared, StakeDelegated
from clusterai.ledger.core.twin import TwinChain
from clusterai.protocol.ids import ZERO_ADDRESS, Address


class NotConserved(AssertionError):
    """Money appeared or vanished: {what}."""

    def __init__(self, what: str) -> None:
        super().__init__(f"money appeared or vanished: {what}")


class Books:
    def __init__(self, chain: TwinChain, holder: Address) -> None:
        self._chain = chain
        self._at = chain.world.addresses
        self.supply = chain.token.supply()
        self.balances: dict[Address, int] = {holder: self.supply}
        self.escrow = 0
        self.stakes = 0
        self.delegated = 0
        self.shared = 0
        self.burned = 0

    def book(self, events: Iterable[Event]) -> None:
        """
        Raises:
            NotConserved: a contract holds something else than the events account for.
        """
        token, balances, moved = self._chain.token, self.balances, False
        for event in events:
            match event:
                case Transferred(source, to, value):
                    moved = True
                    balances[source] = balances.get(source, 0) - value
                    if to == ZERO_ADDRESS:
                        self.burned += value
                    else:
                        balances[to] = balances.get(to, 0) + value
                case LeaseOpened(terms=terms):
                    self.escrow += terms.compensation_wei + terms.audit_fee_wei
                case LeaseClosed(lease=lease, paid=paid, refunded=refunded):
                    kept = self._chain.leases.lease(lease)
                    fee = kept.compensation + kept.audit_fee - paid - refunded
                    if fee not in (0, kept.audit_fee):
                        raise NotConserved(
                            f"a lease of {kept.compensation} paid {paid}, {refunded} and {fee}"
                        )
                    self.escrow -= paid + refunded + fee
                case PayVested(amount=amount):
                    self.escrow += amount
                case VestedReleased(amount=amount):
                    self.escrow -= amount
                case Bonded(amount=amount):
                    self.stakes += amount
                case StakeDelegated(amount=amount):
                    self.delegated += amount
                case DelegatedSlashed(amount=amount):
                    self.delegated -= amount
                case RewardShared(shared=shared):
                    self.shared += shared
                case Slashed(amount=amount) | Withdrawn(amount=amount):
                    self.stakes -= amount
                case _:
                    pass
        if not moved:
            return
        for event in events:
            if isinstance(event, Transferred):
                for who in (event.source, event.to):
                    if who != ZERO_ADDRESS and token.balance(who) != balances[who]:
                        raise NotConserved(f"0x{who.hex()} has {token.balance(who)}, booked {balances[who]}")
        if balances.get(self._at.leases, 0) != self.escrow:
            raise NotConserved(f"Leases has {balances.get(self._at.leases, 0)}, owes {self.escrow}")
        if balances.get(self._at.registry, 0) != self.stakes:
            raise NotConserved(f"Registry has {balances.get(self._at.registry, 0)}, owes {self.stakes}")
        lent = self.delegated + self.shared
        if balances.get(self._at.delegations, 0) != lent:
            raise NotConserved(f"Delegations has {balances.get(self._at.delegations, 0)}, owes {lent}")
        if token.supply() != self.supply - self.burned:
            raise NotConserved(f"supply {token.supply()}, booked {self.supply - self.burned}")

    def audit(self) -> None:
        """
        Raises:
            NotConserved: all balances don't sum to the supply.
        """
        total = sum(self.balances.values())
        if total != self._chain.token.supply():
            raise NotConserved(f"balances sum to {total}, supply is {self._chain.token.supply()}")
        for who, held in self.balances.items():
            if held != self._chain.token.balance(who):
                raise NotConserved(f"0x{who.hex()} has {self._chain.token.balance(who)}, booked {held}")
