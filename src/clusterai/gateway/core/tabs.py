"""Tabs: credit set aside for what is paid by the lease, and what of it was spent.

    OpenTab ─> Save(TabOpened): the amount is no longer credit ─> TabIs(ok)
    ChargeTab ─> Save(TabCharged), once per item ─> Charged
    CloseTab ─> Save(TabClosed): what wasn't spent is credit again

An account never owes: what a tab may cost is set aside before anything is begun, and whoever keeps the tab asks again after a
crash under the same names, which changes nothing.
"""

from typing import TYPE_CHECKING

import msgspec

from clusterai.protocol.ids import Digest
from clusterai.protocol.statements import DigestBytes, Wei

if TYPE_CHECKING:
    from clusterai.gateway.core.book import Book


class _Record(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True, array_like=True):
    pass


class TabOpened(_Record, frozen=True):
    tab: DigestBytes
    account: DigestBytes
    amount_wei: Wei


class TabCharged(_Record, frozen=True):
    tab: DigestBytes
    item: DigestBytes
    cost_wei: Wei


class TabClosed(_Record, frozen=True):
    tab: DigestBytes


class TabState(_Record, frozen=True):
    """Snapshot of an open tab; its amount stands in the account."""

    tab: DigestBytes
    account: DigestBytes
    amount_wei: Wei
    costs: tuple[tuple[DigestBytes, Wei], ...]


TabRecord = TabOpened | TabCharged | TabClosed | TabState


# --- events ---


class OpenTab(msgspec.Struct, frozen=True):
    tab: Digest
    account: Digest
    amount_wei: int


class ChargeTab(msgspec.Struct, frozen=True):
    tab: Digest
    item: Digest
    cost_wei: int


class CloseTab(msgspec.Struct, frozen=True):
    tab: Digest


# --- effects ---


class TabIs(msgspec.Struct, frozen=True):
    """Whether the tab is open; `credit_wei` is what the account has, where it isn't."""

    tab: Digest
    ok: bool
    credit_wei: int


class ItemPaid(msgspec.Struct, frozen=True):
    """The tab bears it, durably."""

    tab: Digest
    item: Digest


class Tab(msgspec.Struct):
    account: Digest
    amount_wei: int
    costs: dict[Digest, int] = msgspec.field(default_factory=dict)

    @property
    def spent_wei(self) -> int:
        return sum(self.costs.values())


class Tabs:
    """All open tabs of one gateway."""

    def __init__(self) -> None:
        self.open: dict[Digest, Tab] = {}

    def apply(self, record: TabRecord, book: "Book") -> None:
        match record:
            case TabOpened(tab, account, amount_wei):
                self.open[Digest(tab)] = Tab(Digest(account), amount_wei)
                book.account(Digest(account)).tabbed_wei += amount_wei
            case TabCharged(tab, item, cost_wei):
                self.open[Digest(tab)].costs[Digest(item)] = cost_wei
            case TabClosed(tab):
                closed = self.open.pop(Digest(tab))
                book.account(closed.account).tabbed_wei -= closed.amount_wei - closed.spent_wei
            case TabState(tab, account, amount_wei, costs):
                self.open[Digest(tab)] = Tab(
                    Digest(account), amount_wei, {Digest(item): cost for item, cost in costs}
                )

    def snapshot(self) -> list[TabRecord]:
        return [
            TabState(name, tab.account, tab.amount_wei, tuple(tab.costs.items()))
            for name, tab in self.open.items()
        ]

    def asked(
        self, event: OpenTab | ChargeTab | CloseTab, book: "Book"
    ) -> tuple[TabRecord | None, TabIs | ItemPaid | None]:
        """What is to be saved first, and what is answered then."""
        match event:
            case OpenTab(tab, account, amount_wei):
                if tab in self.open:
                    return None, TabIs(tab, True, 0)
                credit_wei = book.credit_wei(account)
                if amount_wei > credit_wei:
                    return None, TabIs(tab, False, credit_wei)
                return TabOpened(tab, account, amount_wei), TabIs(tab, True, credit_wei)
            case ChargeTab(tab, item, cost_wei):
                found = self.open.get(tab)
                if found is None or item in found.costs:
                    return None, ItemPaid(tab, item)
                assert found.spent_wei + cost_wei <= found.amount_wei, (
                    "no lease costs more than was set aside"
                )
                return TabCharged(tab, item, cost_wei), ItemPaid(tab, item)
            case CloseTab(tab):
                return (TabClosed(tab) if tab in self.open else None), None
