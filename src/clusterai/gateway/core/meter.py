"""The Meter: orders out, receipts in, and not one unit of money that isn't accounted for.

    front desk ──> orders.py    errands, orders, failover ──> receipts.py    what a provider says, checked
                     │   └────> bills.py       requests of several parts: who pays
                     ▼
    chain <──────> channels.py  deposits, vouchers, taken back from the barred
      └──────────> blocks.py    events, when their block counts ──> book.py    accounts, channels, charges
                   payouts.py   unspent credit, paid back

Holds, open orders and errands aren't durable: a crash ends them uncharged, and a receipt for one of them is
disputed. Charges, vouchers, channels and credit are: they change by `book` records alone, saved before anybody hears.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from clusterai.gateway.core import moneystate, payouts
from clusterai.gateway.core.bills import Bills
from clusterai.gateway.core.blocks import Blocks
from clusterai.gateway.core.book import Book
from clusterai.gateway.core.channels import Channels
from clusterai.gateway.core.errands import Abandon, Ask, Terms
from clusterai.gateway.core.moneystate import Pledge, Refund
from clusterai.gateway.core.orders import Follow, Orders
from clusterai.gateway.core.party import Party
from clusterai.gateway.core.payouts import Payouts, Withdraw
from clusterai.gateway.core.step import Step
from clusterai.gateway.core.tabs import ChargeTab, CloseTab, OpenTab
from clusterai.ledger.core.calls import Mined, Reverted
from clusterai.market.core.directory import Directory
from clusterai.market.core.routing import Routing
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest, Role
from clusterai.protocol.messages import Announce, Finished, Ping, Refused, Tokens
from clusterai.runtime.machine import Linked, Received, Started, Tick, Unlinked


def _unknown_end(model: Digest, request: Any) -> None:
    return None


class Meter:
    """One gateway's orders and money; for `follow` see `Orders`.

    Attributes:
        errands, orders: what is on its way, and the orders that are open for it.
    """

    RECORDS = moneystate.Record

    def __init__(
        self,
        me: Party,
        directory: Directory,
        routing: Routing,
        terms: Terms,
        follow: Follow | None = None,
    ) -> None:
        self.me = me
        self.directory = directory
        self.routing = routing
        self.terms = terms
        self.book = Book(me.owner, lambda config: config.channel_id(me.vouchers), me.window_s, me.till)
        token = Domain("ClusterAI", "1", me.network.chain_id, me.token)
        self.payouts = Payouts(
            self.book, me.hot, me.network, token, me.sign, me.recover, terms, me.confirmations
        )
        self.bills = Bills(self.book, terms.bear_wei)
        self._step = step = Step(self.book)
        self._channels = channels = Channels(me, terms, self.book, directory, routing, step)
        self._orders = Orders(
            me, terms, self.book, self.bills, directory, routing, channels, step, follow or _unknown_end
        )
        self._blocks = Blocks(me, self.book, directory, routing, step, channels, self._orders)
        self.errands, self.orders = self._orders.errands, self._orders.open

    # --- machine ---

    def restore(self, records: Iterable[Any]) -> None:
        for record in records:
            self.book.apply(record)

    def snapshot(self) -> Sequence[msgspec.Struct]:
        return self.book.snapshot()

    def step(self, event: Any, now_s: float) -> list[Any]:
        self._step.begin(now_s)
        match event:
            case Received(sender, frame):
                self._received(sender, frame)
            case Ask():
                self._orders.ask(event)
            case Abandon(call, shown, keep):
                self._orders.abandon(call, shown, keep)
            case Pledge(account, channel_id, total_wei):
                if total_wei > self.book.pledged.get(channel_id, 0):
                    self._step.save(moneystate.Pledged(account, channel_id, total_wei))
            case Withdraw():
                self._withdraw(event)
            case OpenTab() | ChargeTab() | CloseTab():
                self._tab(event)
            case Tick():
                self._tick()
            case Linked(peer):
                self._linked(peer)
            case Unlinked(peer):
                self._orders.unlinked(peer)
            case Mined(key, transaction) if key.startswith(payouts.PREFIX):
                self._paid_out(self.payouts.mined(key, transaction))
            case Reverted(key, reason) if key.startswith(payouts.PREFIX):
                self._paid_out(self.payouts.reverted(key, reason, now_s, self.directory.block))
            case Mined(key):
                self._channels.mined(key)
            case Reverted(key):
                self._channels.reverted(key)
            case Started():
                # Channels wait for the chain's head: the deposit may be mined already.
                self._orders.settle(self.bills.left_behind())
            case _:
                self._blocks.read(event)
        return self._step.effects()

    def chain_time_s(self, now_s: float) -> float:
        """The chain's time as this gateway believes it; it goes on while the chain is away."""
        return self._step.chain_time_s(now_s)

    def _tick(self) -> None:
        self._orders.overdue()
        self._orders.place_waiting()
        self._channels.fund()
        self._step.add(*self.payouts.due(self._step.now_s))

    # --- from peers ---

    def _received(self, sender: Address, frame: msgspec.Struct) -> None:
        match frame:
            case Tokens():
                self._orders.tokens(sender, frame)
            case Finished():
                self._orders.finished(sender, frame)
            case Refused():
                self._orders.refused(sender, frame)
            case Announce():
                self.routing.announced(sender, frame)
                self._channels.meet(sender)
                self._orders.place_waiting()
            case Ping(_, running, queued):
                self.routing.loaded(sender, running, queued)
            case _:
                pass  # nothing that a meter listens to

    def _linked(self, peer: Address) -> None:
        if self.directory.roles(peer) & Role.PROVIDER:
            self.routing.linked(peer)
            if (channel := self.book.by_provider.get(peer)) is not None:
                self._channels.introduce(channel)

    # --- from the front desk ---

    def _tab(self, event: OpenTab | ChargeTab | CloseTab) -> None:
        record, answer = self.book.tabs.asked(event, self.book)
        if record is not None:
            self._step.save(record)
        if answer is not None:
            self._step.add(answer)

    def _withdraw(self, asked: Withdraw) -> None:
        """What can't be paid was told by the front desk, who judged it the same way."""
        found = self.payouts.judge(asked.wish, asked.signature, self._step.chain_time_s())
        if isinstance(found, moneystate.Payout) and found.name not in self.book.payouts:
            self._step.save(found)
            self._step.add(*self.payouts.due(self._step.now_s))

    def _paid_out(self, record: moneystate.PaidOut | None) -> None:
        if record is not None:
            self._step.save(record)


__all__ = ["Meter", "Party", "Refund"]
