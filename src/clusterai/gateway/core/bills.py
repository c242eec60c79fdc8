"""Requests of several parts, all or nothing: who pays for what was made when the rest of it fails.

    Ask, Ask, ... ──> each part's charge waits ──> all are over ──> Save(Ended): the account pays them
                            │ one fails ───────> Abandon(shown): the account pays what reached its client,
                            │                                    the gateway bears the others
                            ├ the client leaves > Abandon(None): the account pays for all that was made
                            └ the process dies ─> Started:       the gateway bears them

Providers that did right are paid at once, whoever it is that pays. What the gateway bears is bounded by `bear_wei` a day:
without a bound, a client in league with a provider could have requests fail on purpose, one paid part each. And all parts
must be affordable before the first begins, or an account that runs dry would be such a request.
"""

from clusterai.gateway.core.book import Book
from clusterai.gateway.core.errands import Ask, Call, Errand
from clusterai.gateway.core.moneystate import Ended
from clusterai.protocol.ids import Digest

DAY_S = 86_400


class Bills:
    """All calls of one gateway that aren't settled yet. Losing it costs its accounts nothing.

    Args:
        bear_wei: the most that is borne in a day.
    """

    def __init__(self, book: Book, bear_wei: int) -> None:
        self._book = book
        self._bear_wei = self._left_wei = bear_wei
        self._at_s: float | None = None
        self.calls: dict[int, Call] = {}

    def join(self, ask: Ask) -> Call:
        """The call that an errand belongs to; its first errand begins it."""
        name = ask.errand if ask.call is None else ask.call
        call = self.calls.get(name)
        if call is None:
            call = self.calls[name] = Call(name, ask.account, 1 + len(ask.rest))
        return call

    def reserve(self, errand: Errand, input_price_wei: int, output_price_wei: int) -> int:
        """Hold what a part costs at these prices, and with the first part all the others; returns what is missing."""
        call, ask = errand.call, errand.ask
        if call.parts == 1:
            return 0
        if ask.rest:
            costs = [
                ask.kind.cap_wei(request, input_price_wei, output_price_wei)
                for request in (ask.request, *ask.rest)
            ]
            if sum(costs) > self._book.credit_wei(call.account):
                return sum(costs)
            call.reserved_wei = costs
            self._hold(call, sum(costs))
        if call.reserved_wei:
            errand.reserved_wei = call.reserved_wei.pop(0)
        return 0

    def reserve_again(self, errand: Errand, cap_wei: int) -> None:
        """Its order was released, and another is to follow."""
        if errand.call.parts > 1:
            errand.reserved_wei += cap_wei
            self._hold(errand.call, cap_wei)

    def release(self, errand: Errand) -> None:
        self._hold(errand.call, -errand.reserved_wei)
        errand.reserved_wei = 0

    def waits(self, errand: Errand) -> bool:
        """Whether a charge for it isn't to be paid yet, or not by its account."""
        call = errand.call
        return call.payer == "gateway" or (call.parts > 1 and not call.payer)

    def over(self, errand: Errand, order: Digest | None = None, *, failed: bool = False) -> Ended | None:
        """A part is done, by `order` if that was charged, or it failed; returns who pays, once that is known."""
        call, name = errand.call, errand.ask.errand
        waits = order is not None and self.waits(errand)
        self.release(errand)
        del call.open[name]
        call.over += 1
        call.failed = call.failed or failed
        if call.payer or call.parts == 1:
            self._forget(call)
            if order is None or not waits:
                return None
            self._left_wei -= self._book.waiting[order].amount_wei
            return Ended((), (order,))
        if order is not None:
            call.orders[name] = order
        if call.over < call.parts or call.failed:
            return None
        del self.calls[call.name]
        return Ended(tuple(call.orders.values()), ()) if call.orders else None

    def abandon(self, call: Call, shown: tuple[int, ...] | None, now_s: float) -> Ended | None:
        """Nobody waits for it: settle what is made, and who pays for what still comes."""
        self._hold(call, -sum(call.reserved_wei))
        call.reserved_wei = []
        call.payer = "account" if shown is None or not self._bears(now_s) else "gateway"
        orders, call.orders = call.orders, {}
        paid = orders.keys() if call.payer == "account" or shown is None else shown
        billed = tuple(order for errand, order in orders.items() if errand in paid)
        borne = tuple(order for errand, order in orders.items() if errand not in paid)
        self._left_wei -= sum(self._book.waiting[it].amount_wei for it in borne if it in self._book.waiting)
        self._forget(call)
        return Ended(billed, borne) if orders else None

    def left_behind(self) -> Ended | None:
        """What waited when the process died: its clients heard nothing of it."""
        return Ended((), tuple(self._book.waiting)) if self._book.waiting else None

    def _hold(self, call: Call, amount_wei: int) -> None:
        if amount_wei:
            self._book.account(call.account).held_wei += amount_wei

    def _forget(self, call: Call) -> None:
        if not call.open:
            self.calls.pop(call.name, None)

    def _bears(self, now_s: float) -> bool:
        if self._at_s is not None:
            grown_wei = int(self._bear_wei * max(0.0, now_s - self._at_s) / DAY_S)
            self._left_wei = min(self._bear_wei, self._left_wei + grown_wei)
        self._at_s = now_s
        return self._left_wei > 0
