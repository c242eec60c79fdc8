"""What a vault's effects are to the contract `Vaults`, and what the contract's events are to the book.

Issue ──> GrantAccess ──> AccessGranted ──> Confirmed
a copy that is sold: CopyBought ──> DeliverCopy ──> CopyDelivered ──window──> CloseSale ──> SaleClosed: paid, or what was paid goes back
Withdraw ──> EndGrant ──> GrantEnded ──> Withdrawn
Anchor ──> AnchorLog ──> LogAnchored ──> Anchored
listing ──> ListDataset ──> DatasetListed ──> Fixed
"""

from collections.abc import Callable
from typing import Any

import msgspec

from clusterai.ledger.core.calls import Reverted, Submit
from clusterai.ledger.core.events import Block
from clusterai.ledger.core.vault_calls import (
    AnchorLog,
    CloseSale,
    DatasetTerms,
    DeliverCopy,
    EndGrant,
    GrantAccess,
    ListDataset,
)
from clusterai.ledger.core.vault_events import (
    AccessGranted,
    CopyBought,
    CopyDelivered,
    DatasetListed,
    GrantEnded,
    LogAnchored,
    SaleClosed,
)
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.vaults import Grant, Listing, Operation, name_digest
from clusterai.vault.core.policy import Policy
from clusterai.vault.core.terms import (
    Anchor,
    Anchored,
    Confirmed,
    Due,
    Fixed,
    Issue,
    Refused,
    Withdraw,
    Withdrawn,
)

FOR_GOOD = ("OutOfRange", "ProviderBarred", "DatasetFrozen", "GrantOver")
"""Errors after which asking again is no use. All others may pass: the hot key isn't delegated yet, the data set not listed yet."""
TERMS_FIXED = "TermsFixed"
"""A data set of this owner's and this name stands on chain with another noise key: it was made anew, and can't take that one's place."""


CLOSE_AGAIN_S = 60.0
"""Between two tries at closing a sale: the chain's clock may be behind ours."""


class _Sale(msgspec.Struct, frozen=True):
    request: Digest
    payer: Address
    deliver_by_s: int
    delivered_s: int | None = None


class OnChain:
    """A vault's view of the contract. Pure: told of events, asked for calls.

    Attributes:
        listed: the terms that stand there; None as long as none are known.
        barred: why nothing of this vault's will stand there; empty while something may.
        time_s: of the newest block.
    """

    def __init__(self, dataset: Digest, name: str, window_s: int = 0) -> None:
        """
        Args:
            window_s: after its delivery in which a copy isn't paid yet.
        """
        self._dataset = dataset
        self._name = name_digest(name)
        self._window_s = window_s
        self._sales: dict[Digest, _Sale] = {}
        """copies that somebody paid for, until the chain says that they are closed"""
        self._delivered: list[Digest] = []
        """since the last block, which says when"""
        self._tried_s: dict[Digest, float] = {}
        self._early: dict[Digest, None] = {}
        """grants that were to be issued before the data set stood there: it would refuse them"""
        self._unpaid: dict[Digest, Digest] = {}
        """grants for copies that wait for their price, by request"""
        self.listed: DatasetTerms | None = None
        self.barred = ""
        self.time_s = 0

    # --- out ---

    def calls(self, effect: Any, policy: Policy) -> Submit | None:
        """What an effect of the book asks of the chain now; None where nothing, or not yet."""
        match effect:
            case Issue(grant):
                return self._issue(grant, policy)
            case Withdraw(grant, reason):
                return Submit(f"end:{grant.hex()}", EndGrant(grant, reason))
            case Anchor(count, root, spent_micro, as_of_s):
                call = AnchorLog(self._dataset, root, count, spent_micro, as_of_s)
                return Submit(f"anchor:{count}", call)
            case _:
                return None

    def _issue(self, grant: Grant, policy: Policy) -> Submit | None:
        if self.listed is None:
            self._early[grant.struct()] = None
            return None
        key = f"grant:{grant.struct().hex()}"
        if grant.operation != Operation.COPY or not policy.copy_wei:
            return Submit(key, GrantAccess(grant))
        paid = (it for it in self._sales.values() if it.request == grant.request and it.delivered_s is None)
        if (sold := next(paid, None)) is None:
            self._unpaid[Digest(grant.request)] = grant.struct()
            return None
        return Submit(key, DeliverCopy(sold.payer, grant))

    def decided(self, now_s: float, is_denied: Callable[[Digest], bool]) -> list[Submit]:
        """Sales that can be closed: paid where the window is over, given back where nothing was delivered in time or ever will be."""
        due: list[Submit] = []
        for name, sale in self._sales.items():
            ends_s = sale.deliver_by_s if sale.delivered_s is None else sale.delivered_s + self._window_s
            hopeless = sale.delivered_s is None and is_denied(sale.request)
            if (now_s > ends_s or hopeless) and now_s - self._tried_s.get(
                name, -CLOSE_AGAIN_S
            ) >= CLOSE_AGAIN_S:
                self._tried_s[name] = now_s
                due.append(Submit(f"close:{name.hex()}", CloseSale(name)))
        return due

    def listing(self, said: Listing, policy: Policy) -> Submit | None:
        """What makes the chain say the same as gateways are told; None where it does."""
        listed = self.listed
        price_wei = policy.copy_wei if Operation.COPY in policy.operations else 0
        wanted = DatasetTerms(
            Digest(said.card),
            Digest(said.snapshot),
            Digest(said.policy),
            Digest(said.noise_commit),
            said.serial,
            policy.total_epsilon_micro if listed is None else listed.budget_micro,
            price_wei,
        )
        if self.barred or wanted == listed or (listed is not None and said.serial <= listed.serial):
            return None
        return Submit(f"list:{said.serial}", ListDataset(self._name, wanted))

    # --- in ---

    def hear(self, event: Any) -> list[Any]:
        """What the book is told of it."""
        match event:
            case DatasetListed(dataset, _, _, terms) if dataset == self._dataset:
                self.listed = terms
                early, self._early = self._early, {}
                return [Fixed(terms.budget_micro, terms.serial), *map(Due, early)]
            case AccessGranted(grant, dataset) if dataset == self._dataset:
                return [Confirmed(grant)]
            case GrantEnded(grant, dataset, reason) if dataset == self._dataset:
                return [Withdrawn(grant, reason)]
            case LogAnchored(dataset, _, _, count, _, as_of_s) if dataset == self._dataset:
                return [Anchored(count, as_of_s)]
            case CopyBought(sale, dataset, _, request, payer, _, deliver_by_s) if dataset == self._dataset:
                self._sales[sale] = _Sale(request, payer, deliver_by_s)
                waits = self._unpaid.pop(request, None)
                return [] if waits is None else [Due(waits)]
            case CopyDelivered(sale) if sale in self._sales:
                self._delivered.append(sale)
                return []
            case SaleClosed(sale):
                self._forget(sale)
                return []
            case Block(_, timestamp_s):
                self.time_s = max(self.time_s, timestamp_s)
                delivered, self._delivered = self._delivered, []
                for name in delivered:
                    if (sold := self._sales.get(name)) is not None:
                        self._sales[name] = msgspec.structs.replace(sold, delivered_s=timestamp_s)
                return []
            case Reverted(key, reason):
                return self._reverted(key, reason)
            case _:
                return []

    def _reverted(self, key: str, reason: str) -> list[Any]:
        what, _, name = key.partition(":")
        if what == "close" and reason.startswith("WrongState"):
            self._forget(
                Digest(bytes.fromhex(name))
            )  # by somebody else, or a reorganisation undid its purchase
        if what == "list" and reason.startswith(TERMS_FIXED):
            self.barred = "a data set of this name stands on chain with another noise key or budget: give the vault another name"
        if what == "grant" and reason.startswith(FOR_GOOD):
            return [Refused(Digest(bytes.fromhex(name)), reason)]
        return []

    def _forget(self, sale: Digest) -> None:
        self._sales.pop(sale, None)
        self._tried_s.pop(sale, None)
