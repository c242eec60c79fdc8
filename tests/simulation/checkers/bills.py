"""Requests are charged whole or not at all: who pays for each charge, and that the books say the same.

Watches what gateways are asked, what they save and what they tell; a charge is found by its tag, which names its errand. A
request of several parts is charged when all of them are done; if it fails, for what its client was shown; if the client
leaves, for what was made; if the gateway dies, not at all. What nobody else pays, the gateway bears.
"""

from typing import Any

import msgspec

from clusterai.gateway.core.errands import Abandon, Ask, Done, Failed, Refunded
from clusterai.gateway.core.meter import Meter
from clusterai.gateway.core.moneystate import Charged, Ended
from clusterai.protocol.ids import Address, Digest
from clusterai.runtime.machine import Save, Started
from clusterai.runtime.simulator import Process
from tests.simulation.checkers.blocks import require


class Whole(msgspec.Struct):
    """One request at one gateway."""

    parts: int
    done: dict[int, Done] = msgspec.field(default_factory=dict)
    failed: bool = False
    abandoned: bool = False


class Held(msgspec.Struct, frozen=True):
    """A charge that waits."""

    errand: int
    whole: Whole
    charged: Charged


class BillsFair:
    """
    Attributes:
        borne: charges that gateways took upon themselves, by order.
        whole, partly, free: requests of several parts that were charged so.
    """

    def __init__(self, gateways: frozenset[Address]) -> None:
        self._gateways = gateways
        self._calls: dict[tuple[Address, int], Whole] = {}
        self._errands: dict[tuple[Address, int], tuple[int, Whole]] = {}
        self._waiting: dict[Address, dict[Digest, Held]] = {it: {} for it in gateways}
        self._refunded: set[Digest] = set()
        """charges that were refunded while they waited: their provider was convicted, and nobody pays them"""
        self._billed_wei: dict[tuple[Address, Digest], int] = {}
        self._abandon: Abandon | None = None
        self.borne: dict[Digest, Charged] = {}
        self.whole = self.partly = self.free = 0

    def stepped(self, process: Process, event: Any, effects: list[Any]) -> None:
        gateway = process.address
        if gateway not in self._gateways:
            return
        self._asked(gateway, event)
        for effect in effects:
            match effect:
                case Save(Charged() as charged):
                    self._charged(gateway, charged)
                case Save(Ended() as ended):
                    self._ended(gateway, event, ended)
                case Refunded(refund):
                    self._refunded.add(Digest(refund.order))
                case Done(errand):
                    self._errands[gateway, errand][1].done[errand] = effect
                case Failed(errand):
                    self._errands[gateway, errand][1].failed = True
                case _:
                    pass
        meter = getattr(process.machine, "meter", None)
        if isinstance(meter, Meter):
            waits = self._waiting[gateway]
            require(not isinstance(event, Started) or not waits, "nothing waits after a restart", *waits)
            self._as_in_the_books(gateway, meter)

    def forfeited_wei(self, channel_id: Digest, kept_wei: int) -> int:
        """What gateways bore of a channel above what its provider kept."""
        borne = [it for it in self.borne.values() if it.channel_id == channel_id]
        return sum(min(it.receipt.amount_wei, max(0, it.vouchered_wei - kept_wei)) for it in borne)

    def _asked(self, gateway: Address, event: Any) -> None:
        match event:
            case Ask(errand, call=call, rest=rest):
                assert call is not None, "simulated clients name their requests"
                whole = self._calls.setdefault((gateway, call), Whole(1 + len(rest)))
                self._errands[gateway, errand] = (call, whole)
            case Abandon(call):
                if (whole := self._calls.get((gateway, call))) is not None:
                    whole.abandoned = True
            case _:
                pass

    def _charged(self, gateway: Address, charged: Charged) -> None:
        errand = int.from_bytes(charged.tag)
        _, whole = self._errands[gateway, errand]
        order = Digest(charged.receipt.order)
        alone = whole.parts == 1 or whole.abandoned
        require(charged.waits or alone, "a charge waits for the rest of its request", order, whole)
        if charged.waits:
            self._waiting[gateway][order] = Held(errand, whole, charged)
        else:
            self._bill(gateway, charged)

    def _ended(self, gateway: Address, event: Any, ended: Ended) -> None:
        waiting = self._waiting[gateway]
        orders = [Digest(it) for it in (*ended.billed, *ended.borne)]
        require(len(orders) == len(set(orders)), "a charge is settled once", *orders)
        require(all(it in waiting for it in orders), "only what waits is settled", *orders)
        billed = [waiting[Digest(it)] for it in ended.billed]
        self._fair(gateway, event, ended, billed)
        for held in billed:
            if held.charged.receipt.order not in self._refunded:
                self._bill(gateway, held.charged)
        for order in ended.borne:
            self.borne[Digest(order)] = waiting[Digest(order)].charged
        for order in orders:
            del waiting[order]

    def _fair(self, gateway: Address, event: Any, ended: Ended, billed: list[Held]) -> None:
        match event:
            case Started():
                require(not billed, "what a client never heard of is not charged", *ended.billed)
                self.free += 1
            case Abandon(_, shown):
                all_of_it = not ended.borne
                within = shown is not None and all(it.errand in shown for it in billed)
                require(all_of_it or within, "a failed request is charged for what was shown", event, ended)
                self.partly += bool(billed)
                self.free += not billed
            case _ if ended.borne:
                left = all(self._waiting[gateway][Digest(it)].whole.abandoned for it in ended.borne)
                require(left and not billed, "only what nobody waits for is borne", *ended.borne)
            case _:
                (whole,) = {id(it.whole): it.whole for it in billed}.values()
                require(not whole.failed, "a request that failed is not charged as a whole", whole)
                free = sum(it.charged is None for it in whole.done.values())
                # The last part's charge is told after this.
                known = len(billed) + free
                require(known >= whole.parts - 1, "a request is charged when all of it is done", whole, known)
                self.whole += 1

    def _bill(self, gateway: Address, charged: Charged) -> None:
        key = gateway, Digest(charged.account)
        self._billed_wei[key] = self._billed_wei.get(key, 0) + charged.receipt.amount_wei

    def _as_in_the_books(self, gateway: Address, meter: Meter) -> None:
        """What accounts are charged is what was billed; what waits is held of them; nobody owes."""
        waiting: dict[Digest, int] = {}
        for held in self._waiting[gateway].values():
            account = Digest(held.charged.account)
            waiting[account] = waiting.get(account, 0) + held.charged.receipt.amount_wei
        for name, account in meter.book.accounts.items():
            billed_wei = self._billed_wei.get((gateway, name), 0)
            charged_wei = account.charged_wei + account.refunded_wei
            require(
                charged_wei == billed_wei, "an account is charged what was billed", charged_wei, billed_wei
            )
            require(account.held_wei >= 0 and account.credit_wei >= 0, "nobody owes", name, account)
