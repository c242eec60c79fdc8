"""What a node earned: by kind of work, by day, and how far each part of it is on its way to its owner.

    answers   owed ── voucher ──> vouched ── epoch on chain ──> committed ── claim ──> held ── audit window ──> settled
    jobs      promised ── committed ──> held ── closed ──> settled, of which a newcomer's tenth is vesting
    copies    promised ── delivered ──> held ── audit window ──> settled                        (of data that is sold)
    any       forfeited: disputed, broken, or lost by a conviction

Money of answers moves by channel and in sums, not by the answer: how far a day's part is, is told as if the oldest were paid
first. Rented time is ordered and paid as answers are, and counts as such. A day is UTC's: that in which the work's epoch
began, or in which a lease ended.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from clusterai.ledger.core import events
from clusterai.ledger.core.projection import Projection
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.leases import CloseReason, Terms

DAY_S = 86_400

State = Literal["promised", "owed", "vouched", "committed", "held", "vesting", "settled", "forfeited"]
STATES: tuple[State, ...] = (
    "promised",
    "owed",
    "vouched",
    "committed",
    "held",
    "vesting",
    "settled",
    "forfeited",
)
Kind = Literal["answers", "jobs", "copies"]

_replace = msgspec.structs.replace
_BROKEN = frozenset(
    (
        CloseReason.NOT_ACCEPTED,
        CloseReason.DEADLINE_MISSED,
        CloseReason.GAVE_UP,
        CloseReason.OUTPUT_DIFFERS,
        CloseReason.FRAUD,
        CloseReason.WITHHELD,
        CloseReason.PROVIDER_CONVICTED,
    )
)


class Earned(msgspec.Struct, frozen=True):
    """A sum. `day` counts from 1970; None where no day is known any more."""

    day: int | None
    kind: Kind
    state: State
    amount_wei: int


class Books(msgspec.Struct, frozen=True):
    """What the node's own books say of answers, all channels together.

    Attributes:
        made: epoch to its receipts' sum, of epochs that aren't committed.
        disputed: epoch to what gateways refused to pay, as far as it is remembered.
    """

    owed_wei: int
    vouched_wei: int
    claimed_wei: int
    settled_wei: int
    committed_wei: int
    made: Mapping[int, int]
    disputed: Mapping[int, int]
    barred: bool


class _Lease(msgspec.Struct, frozen=True):
    terms: Terms
    accepted: bool = False
    committed_wei: int | None = None
    closed: tuple[int, int, int] | None = None
    """day, reason, paid"""
    vesting_wei: int = 0


class _Sale(msgspec.Struct, frozen=True):
    price_wei: int
    delivered: bool = False
    closed: tuple[int, int] | None = None
    """day, paid"""


class Earnings:
    """A projection of chain events for one provider."""

    def __init__(self, me: Address, epoch_s: int) -> None:
        self._me = me
        self._epoch_s = epoch_s
        self._chain = Projection()
        self._batch: list[Any] = []
        self._epochs: dict[int, int] = {}
        self._leases: dict[Digest, _Lease] = {}
        self._released: dict[str, int] = {}
        self._mine: dict[Digest, bool] = {}
        """data sets of this provider's"""
        self._sales: dict[Digest, _Sale] = {}

    def apply(self, event: Any, now_s: float) -> None:
        """Take chain events as they come; those that aren't about this provider's money are passed over."""
        match event:
            case events.Block(_, timestamp_s):
                for one in self._batch:
                    self._take(one, timestamp_s // DAY_S)
                self._batch = []
                self._chain.apply(event, now_s)
            case events.RolledBack():
                self._batch = []
                self._chain.apply(event, now_s)
            case _:
                self._batch.append(event)

    def _take(self, event: Any, day: int) -> None:
        match event:
            case events.EpochCommitted(provider, epoch, _, _, total) if provider == self._me:
                self._chain.put(self._epochs, epoch, total)
            case events.LeaseOpened(lease, _, provider, terms) if provider == self._me:
                self._chain.put(self._leases, lease, _Lease(terms))
            case events.LeaseAccepted(lease):
                self._change(lease, accepted=True)
            case events.LeaseCommitted(lease):
                self._change(lease, committed_wei=event.amount)
            case events.LeaseClosed(lease, reason, paid):
                self._change(lease, closed=(day, reason, paid))
            case events.PayVested(provider, lease, amount) if provider == self._me:
                self._change(lease, vesting_wei=amount)
            case events.VestedReleased(provider, amount, burned) if provider == self._me:
                name = "burned" if burned else "released"
                self._chain.put(self._released, name, self._released.get(name, 0) + amount)
            case events.DatasetListed(dataset, owner) if owner == self._me:
                self._chain.put(self._mine, dataset, True)
            case events.CopyBought(sale, dataset) if dataset in self._mine:
                self._chain.put(self._sales, sale, _Sale(event.price))
            case events.CopyDelivered(sale) if sale in self._sales:
                self._chain.put(self._sales, sale, _replace(self._sales[sale], delivered=True))
            case events.SaleClosed(sale, paid) if sale in self._sales:
                self._chain.put(self._sales, sale, _replace(self._sales[sale], closed=(day, paid)))
            case _:
                pass

    def _change(self, lease: Digest, **changes: Any) -> None:
        if (known := self._leases.get(lease)) is not None:
            self._chain.put(self._leases, lease, _replace(known, **changes))

    # --- what people ask ---

    def earned(self, books: Books) -> list[Earned]:
        """All of it; no amount is zero, and the sums by state are those of `books`."""
        return [*self._answers(books), *self._jobs(books.barred), *self._copies(books.barred)]

    def _answers(self, books: Books) -> list[Earned]:
        work: dict[int, int] = {}
        for epoch, total in [*self._epochs.items(), *books.made.items()]:
            # What was committed and disputed later is in the epoch's total, and isn't on its way to anybody.
            lost = books.disputed.get(epoch, 0) if epoch in self._epochs else 0
            day = epoch * self._epoch_s // DAY_S
            work[day] = work.get(day, 0) + max(0, total - lost)
        found = [
            Earned(epoch * self._epoch_s // DAY_S, "answers", "forfeited", amount)
            for epoch, amount in books.disputed.items()
            if amount
        ]
        found += [
            Earned(day, "answers", state, amount)
            for day, state, amount in placed(sorted(work.items()), answers_by_state(books))
        ]
        return _summed(found)

    def _jobs(self, barred: bool) -> list[Earned]:
        found: list[Earned] = []
        released = self._released.get("released", 0)
        burned = self._released.get("burned", 0)
        for it in self._leases.values():
            if it.closed is None:
                if barred or not it.accepted:
                    continue
                state: State = "promised" if it.committed_wei is None else "held"
                amount = it.terms.compensation_wei if it.committed_wei is None else it.committed_wei
                found.append(Earned(None, "jobs", state, amount))
                continue
            day, reason, paid = it.closed
            vesting = min(it.vesting_wei, paid)
            # What vests is set free, or burned with a conviction, from the oldest on.
            gone = min(vesting, burned)
            free = min(vesting - gone, released)
            burned, released = burned - gone, released - free
            found.append(Earned(day, "jobs", "settled", paid - vesting + free))
            found.append(Earned(day, "jobs", "vesting", vesting - gone - free))
            lost = gone
            if CloseReason(reason) in _BROKEN and it.accepted:
                lost += it.terms.compensation_wei - paid
            found.append(Earned(day, "jobs", "forfeited", lost))
        return _summed(found)

    def _copies(self, barred: bool) -> list[Earned]:
        found: list[Earned] = []
        for it in self._sales.values():
            if it.closed is None:
                state: State = "forfeited" if barred else "held" if it.delivered else "promised"
                found.append(Earned(None, "copies", state, it.price_wei))
                continue
            day, paid = it.closed
            found.append(Earned(day, "copies", "settled", paid))
            # What nobody was sold is no loss; what was taken back within the window is.
            found.append(Earned(day, "copies", "forfeited", it.price_wei - paid if it.delivered else 0))
        return _summed(found)


def answers_by_state(books: Books) -> list[tuple[State, int]]:
    """Each part of what answers earned, in exactly one state, the furthest first."""
    settled, claimed, vouched = books.settled_wei, books.claimed_wei, books.vouched_wei
    held = max(0, claimed - settled)
    waiting = max(0, vouched - claimed)
    committed = min(waiting, max(0, books.committed_wei - claimed))
    if books.barred:
        # Held claims of the convicted stand still, and nothing of them can be committed or claimed any more.
        return [("settled", settled), ("forfeited", held + waiting + books.owed_wei)]
    return [
        ("settled", settled),
        ("held", held),
        ("committed", committed),
        ("vouched", waiting - committed),
        ("owed", books.owed_wei),
    ]


def placed(
    work: Sequence[tuple[int, int]], states: Sequence[tuple[State, int]]
) -> list[tuple[int | None, State, int]]:
    """Lay the states over the days, the oldest first. What no day is left for has None; what no state is left for is
    forfeited: disputed, and forgotten since."""
    found: list[tuple[int | None, State, int]] = []
    days = [[day, amount] for day, amount in work]
    at = 0
    for state, total in states:
        left = total
        while left and at < len(days):
            part = min(left, days[at][1])
            if part:
                found.append((days[at][0], state, part))
            left -= part
            days[at][1] -= part
            if not days[at][1]:
                at += 1
        if left:
            found.append((None, state, left))
    for day, amount in days[at:]:
        if amount:
            found.append((day, "forfeited", amount))
    return found


def by_state(found: Iterable[Earned], kind: Kind | None = None) -> dict[State, int]:
    """Sums, of all states in their order."""
    sums = dict.fromkeys(STATES, 0)
    for it in found:
        if kind is None or it.kind == kind:
            sums[it.state] += it.amount_wei
    return sums


def _summed(found: Iterable[Earned]) -> list[Earned]:
    sums: dict[tuple[int | None, Kind, State], int] = {}
    for it in found:
        key = (it.day, it.kind, it.state)
        sums[key] = sums.get(key, 0) + it.amount_wei
    return [Earned(*key, amount) for key, amount in sums.items() if amount]
