"""How the desk gets a lease's outputs, or its money back.

    committed ─> Fetch from the provider ─ here: done
                     ├ they aren't those of the last state ──────────────────┐
                     └ they can't be had, half of the window is over ────────┴─> DemandDelivery
    demanded  ─> Fetch from members of the panel, who ask the provider too ─ here: done, the bond is lost
                     └ two thirds of them can't have it either: the lease is refunded, the bond comes back

The bond is the gateway's own, whoever's job it is. What can't be taken here (a full disk) is no reason to demand anything.
"""

from collections.abc import Iterable, Iterator

from clusterai.gateway.core.jobstate import DeskTerms, Fetch, Fetched, Slot
from clusterai.ledger.core import events
from clusterai.ledger.core.calls import Approve, Call
from clusterai.ledger.core.lease_calls import DemandDelivery, ExpireDemand
from clusterai.market.core.directory import Directory
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest, Role
from clusterai.protocol.leases import CloseReason

UNLIMITED_WEI = 2**63 - 1
SPARE_S = 6
"""Before the window's end, so that a demand is mined in time."""
KEPT_S = 60
"""So long a provider keeps what a closed lease owes."""


class Delivering:
    """Of all leases of one gateway. What the chain showed isn't journaled: it is read again."""

    def __init__(self, terms: DeskTerms, directory: Directory) -> None:
        self._terms = terms
        self._directory = directory
        self._approved = False
        self._open: dict[Digest, int] = {}
        """demands of ours, and until when the panel reports"""

    # --- the chain ---

    def follow(self, event: events.DeliveryDemanded | events.DemandEnded) -> None:
        if isinstance(event, events.DemandEnded):
            self._open.pop(event.lease, None)
        elif event.requester == self._terms.me:
            self._open[event.lease] = event.report_by_s

    def closed(self, lease: Digest) -> None:
        """Nothing more is waited for: the bond is given back."""
        if lease in self._open:
            self._open[lease] = 0

    def approved(self) -> None:
        self._approved = True

    # --- what is to be done ---

    def due(
        self, lease: Digest, slot: Slot, linked: Iterable[Address], now_s: float
    ) -> Iterator[Fetch | Call]:
        """For a committed lease whose outputs aren't here."""
        assert slot.terms is not None, "what is committed has terms"
        if slot.fetch_s is None:
            slot.fetch_s = now_s
        provider = Address(slot.terms.provider)
        yield Fetch(lease, self._source(slot, provider, linked), slot.output, slot.last)
        if slot.closed is not None or slot.demanded or self._terms.deliveries == ZERO_ADDRESS:
            return
        if not self._approved:
            # Before it is needed: one more block between the wish and the demand may be the one that comes too late.
            if slot.verdict or self._age_s(slot) >= self._terms.window_s / 3:
                yield Approve(self._terms.deliveries, UNLIMITED_WEI)
        elif self._is_to_be_demanded(slot, now_s):
            yield DemandDelivery(lease)

    def expired(self) -> Iterator[tuple[Digest, ExpireDemand]]:
        """Demands of ours that time, or the end of their lease, has decided."""
        for lease, by_s in self._open.items():
            if self._directory.time_s > by_s:
                yield lease, ExpireDemand(lease)

    def is_lost(self, slot: Slot) -> bool:
        """Whether a lease was paid whose outputs nobody gives any more."""
        closed = slot.closed
        return (
            closed is not None
            and closed.reason == CloseReason.COMPLETED
            and slot.came is not None
            and not slot.here
            and self._directory.time_s > slot.closed_s + KEPT_S
        )

    # --- inside ---

    def _source(self, slot: Slot, provider: Address, linked: Iterable[Address]) -> Address:
        """The provider; once it is demanded, members of the panel in turn, and then it again."""
        if not slot.demanded:
            return provider
        members = [it for it in linked if self._directory.roles(it) & Role.VALIDATOR]
        return [*members, provider][slot.tries % (len(members) + 1)]

    def _is_to_be_demanded(self, slot: Slot, now_s: float) -> bool:
        """At once where nothing better can come; else with half the window over, or more where nothing is said: it may be on its way.

        What a busy machine takes from the asking to the block must fit into what is left.
        """
        window_s, age_s = self._terms.window_s, self._age_s(slot)
        if age_s > window_s - min(SPARE_S, window_s / 10) or slot.verdict == "unable":
            return False
        if slot.verdict == "differs":
            return True
        assert slot.fetch_s is not None, "it was asked for"
        refused = slot.verdict == "missing" and age_s >= window_s / 2
        return refused or (age_s >= window_s * 2 / 3 and now_s - slot.fetch_s >= window_s / 3)

    def _age_s(self, slot: Slot) -> float:
        """Since the commitment, as the chain's time goes."""
        return self._directory.time_s - slot.committed_s


def heard(slot: Slot, event: Fetched) -> bool:
    """Take what came of a fetch that brought nothing; whether it is news."""
    news = slot.verdict != event.verdict
    slot.verdict = event.verdict
    slot.tries += 1
    return news
