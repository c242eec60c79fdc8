"""The Meter: orders out, receipts in, and not one unit of money that isn't accounted for.

    Ask ──> choose provider ──> hold the cap ──> Send(Work)
              │ nobody: wait, then Failed             │ Tokens ──> Deliver
              │                                       │ Refused, Unlinked, silence ──> next provider with the tokens so far
              │                                       │ Finished ──> check ──> Save(Charged) ──> Send(Pay), Done
              └──────────────<────────────────────────┘                └─> wrong: Send(Dispute), nothing is charged

An errand is one answer that an account asked for; it may take several orders, and only the one that ends it is paid.
Holds, open orders and errands aren't durable: a crash ends them uncharged, and a receipt for one of them is
disputed. Charges, vouchers, channels and credit are: they change by `book` records alone, saved before anybody hears.

What a provider says is checked here before it costs anything: that it was asked, who signed, the answer's digest
against the tokens that were delivered, the usage recounted, the price that the order states, the cap, the epoch.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from clusterai.gateway.core import book, payouts
from clusterai.gateway.core.bills import Bills
from clusterai.gateway.core.book import Book, Channel, Charged, Ended, Pledge, Refund
from clusterai.gateway.core.errands import (
    Abandon,
    Ask,
    Deliver,
    Done,
    Ending,
    Errand,
    Failed,
    Open,
    Refunded,
    Restarted,
    Settled,
    Terms,
)
from clusterai.gateway.core.payouts import Payouts, Withdraw
from clusterai.gateway.core.tabs import ChargeTab, CloseTab, OpenTab
from clusterai.ledger.core import calls, events
from clusterai.ledger.core.calls import Mined, Reverted, Submit
from clusterai.market.core.directory import Directory
from clusterai.market.core.routing import NoPick, Pick, Routing
from clusterai.protocol import canonical
from clusterai.protocol.eip712 import Domain, typed_digest
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest, Role
from clusterai.protocol.messages import (
    Announce,
    Answer,
    Cancel,
    Dispute,
    Finished,
    ModelOffer,
    OpenChannel,
    Pay,
    Ping,
    Refused,
    Tokens,
    Transcript,
    Work,
)
from clusterai.protocol.statements import ChannelConfig, Order, Voucher
from clusterai.runtime.machine import Linked, Received, Save, Send, Started, Tick, Unlinked

MOST_CLOSED = 10_000
"""Orders that ended unpaid and are remembered, so that a late receipt hears why."""
MOST_ANSWER = 131_072
REASONS = ("stop", "length", "cancelled")
IDLE_BLOCKS = 100
"""Blocks without money after which the place in the chain is saved anyway: a restart reads fewer."""
DEPOSIT_RETRY_S = 10.0
MOST_ALLOWANCE = 2**63 - 1
"""More than all tokens there are; the Channels contract takes only what we deposit."""

Recover = Callable[[Digest, bytes], Address | None]
"""(digest, signature) to the key that signed, None for a malformed signature."""

Follow = Callable[[Digest, Any], Ending | None]


def _unknown_end(model: Digest, request: Any) -> None:
    return None


class Party(msgspec.Struct, frozen=True):
    """Who this gateway is, and the contracts that it deals with."""

    owner: Address
    hot: Address
    token: Address
    channels: Address
    network: Domain
    vouchers: Domain
    epoch_s: int
    window_s: int
    sign: Callable[[Digest], bytes]
    recover: Recover
    till: Address | None = None
    confirmations: int = 0
    """blocks above one before its money counts; 0 on a chain that can't reorganise"""


class Meter:
    """One gateway's orders and money.

    Args:
        follow: (model, request) to what knows where that answer ends, or None: no provider is listened to beyond, nor hired
            to go on there.
    """

    RECORDS = book.Record

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
        self._follow: Follow = follow or _unknown_end
        self._network = me.network.separator()
        self._vouchers = me.vouchers.separator()
        self.book = Book(me.owner, lambda config: config.channel_id(me.vouchers), me.window_s, me.till)
        token = Domain("ClusterAI", "1", me.network.chain_id, me.token)
        self.payouts = Payouts(
            self.book, me.hot, me.network, token, me.sign, me.recover, terms, me.confirmations
        )
        self.bills = Bills(self.book, terms.bear_wei)
        self.errands: dict[int, Errand] = {}
        self.orders: dict[Digest, Open] = {}
        self._waiting: dict[int, Errand] = {}
        self._closed: dict[Digest, str] = {}
        self._batch: list[Any] = []
        self._blocks: deque[events.Block] = deque()
        self._batches: dict[int, tuple[Any, ...]] = {}
        """blocks that aren't deep enough yet, and their money events"""
        self._pending: dict[str, float] = {}
        """intents given to the chain, or to be retried after that time"""
        self._unheld: dict[Digest, float] = {}
        """barred channels of which the chain holds nothing, and since when that is known"""
        self._head_s: int | None = None
        self._head_at_s = 0.0
        self._caught_up = False
        self._now_s = 0.0
        self._effects: list[Any] = []
        self._refunded: list[Refunded] = []

    # --- machine ---

    def restore(self, records: Iterable[Any]) -> None:
        for record in records:
            self.book.apply(record)

    def snapshot(self) -> Sequence[msgspec.Struct]:
        return self.book.snapshot()

    def step(self, event: Any, now_s: float) -> list[Any]:
        self._now_s = now_s
        self._effects = []
        self._refunded = []
        match event:
            case Received(sender, frame):
                self._received(sender, frame)
            case Ask():
                self._ask(event)
            case Abandon(call, shown):
                self._abandon(call, shown)
            case Pledge(account, channel_id, total_wei):
                if total_wei > self.book.pledged.get(channel_id, 0):
                    self._save(book.Pledged(account, channel_id, total_wei))
            case Withdraw():
                self._withdraw(event)
            case OpenTab() | ChargeTab() | CloseTab():
                self._tab(event)
            case Tick():
                self._tick()
            case Linked(peer):
                self._linked(peer)
            case Unlinked(peer):
                self._unlinked(peer)
            case Mined(key, transaction) if key.startswith(payouts.PREFIX):
                self._paid_out(self.payouts.mined(key, transaction))
            case Reverted(key, reason) if key.startswith(payouts.PREFIX):
                self._paid_out(self.payouts.reverted(key, reason, now_s, self.directory.block))
            case Mined(key):
                self._mined(key)
            case Reverted(key):
                self._reverted(key)
            case Started():
                # Channels wait for the chain's head: the deposit may be mined already.
                self._end(self.bills.left_behind())
            case _:
                self._chain(event)
        # Who watches is told last: of a charge before of its refund.
        self._effects += self._refunded
        return self._effects

    def chain_time_s(self, now_s: float) -> float:
        """The chain's time as this gateway believes it; it goes on while the chain is away."""
        if self._head_s is None:
            return now_s
        return self._head_s + max(0.0, now_s - self._head_at_s)

    # --- from the front desk ---

    def _tab(self, event: OpenTab | ChargeTab | CloseTab) -> None:
        record, answer = self.book.tabs.asked(event, self.book)
        if record is not None:
            self._save(record)
        if answer is not None:
            self._effects.append(answer)

    def _ask(self, ask: Ask) -> None:
        call = self.bills.join(ask)
        errand = Errand(ask, call, asked_s=self._now_s, ends_s=self._now_s + ask.patience_s)
        errand.ending = self._follow(ask.model, ask.request)
        self.errands[ask.errand] = call.open[ask.errand] = errand
        missing_wei = self.bills.reserve(errand, *self.routing.cheapest(ask.model, ask.preference))
        if missing_wei:
            self._poor(errand, missing_wei)
            return
        self._place(errand)

    def _abandon(self, name: int, shown: tuple[int, ...] | None) -> None:
        """Nobody waits: stop the work, and settle who pays for what was done. An errand that waits just ends."""
        call = self.bills.calls.get(name)
        if call is None or call.payer:
            return
        ended = self.bills.abandon(call, shown, self._now_s)
        charged_wei = self._end(ended)
        if shown is not None:
            self._effects.append(Settled(name, charged_wei))
        for errand in list(call.open.values()):
            errand.abandoned = True
            if errand.order is None:
                del self.errands[errand.ask.errand]
                self._waiting.pop(errand.ask.errand, None)
                self.bills.over(errand, failed=True)
            else:
                errand.order.due_s = self._now_s + self.terms.cancel_s
                self._send(errand.order.provider, Cancel(errand.order.digest))

    def _end(self, ended: Ended | None) -> int:
        """A request of several parts is settled; returns what its account is charged."""
        if ended is None:
            return 0
        waiting = self.book.waiting
        charged_wei = sum(waiting[Digest(it)].amount_wei for it in ended.billed if it in waiting)
        self._save(ended)
        return charged_wei

    # --- placing ---

    def _place(self, errand: Errand) -> None:
        """Hire the best provider now, or wait, or give up."""
        ask = errand.ask
        if errand.failures >= self.terms.failures:
            self._fail(errand, "suspended", f"{errand.failures} providers failed with it", 5.0)
            return
        costs: dict[Address, int] = {}
        credit_wei = self.book.credit_wei(ask.account) + errand.reserved_wei
        too_dear: list[int] = []

        def affords(provider: Address, offer: ModelOffer) -> bool:
            cost_wei = ask.kind.cap_wei(errand.request, offer.input_price_wei, offer.output_price_wei)
            costs[provider] = cost_wei
            if errand.call.parts > 1 and cost_wei > credit_wei:
                too_dear.append(cost_wei)
                return False
            channel = self.book.by_provider.get(provider)
            return channel is not None and not channel.barred and channel.headroom_wei >= cost_wei

        nonce = canonical.content_digest(ask.nonce + errand.tries.to_bytes(4, "big"))
        pick = self.routing.choose(
            ask.model, ask.preference, errand.refusals.keys(), affords, int.from_bytes(nonce[:8]), self._now_s
        )
        if isinstance(pick, NoPick) and pick.reason == "unfunded" and too_dear:
            self._poor(errand, min(too_dear))
        elif isinstance(pick, NoPick):
            self._nobody(errand, pick)
        elif credit_wei < costs[pick.provider]:
            self._poor(errand, costs[pick.provider])
        else:
            self._hire(errand, pick, costs[pick.provider], nonce)

    def _poor(self, errand: Errand, cost_wei: int) -> None:
        left_wei = self.book.credit_wei(errand.ask.account) + errand.reserved_wei
        self._fail(
            errand,
            "insufficient_credit",
            f"this request can cost up to {cost_wei} wei and the account has {left_wei} wei left: "
            "deposit more, or lower max_tokens",
        )

    def _hire(self, errand: Errand, pick: Pick, cap_wei: int, nonce: Digest) -> None:
        ask = errand.ask
        channel = self.book.by_provider[pick.provider]
        request = canonical.encode(errand.request)
        order = Order(
            self.me.owner,
            pick.provider,
            ask.model,
            canonical.content_digest(request),
            channel.channel_id,
            pick.offer.input_price_wei,
            pick.offer.output_price_wei,
            cap_wei,
            int(self.chain_time_s(self._now_s)) + self.terms.order_s,
            nonce,
        )
        signature = self.me.sign(typed_digest(self._network, order.struct()))
        size = ask.kind.recount(errand.request, ())[0]
        opened = Open(
            order,
            canonical.digest(order),
            signature,
            pick.offer,
            request,
            errand.request,
            errand,
            channel,
            started_s=self._now_s,
            due_s=self._now_s + self.terms.first_token_s + size * self.terms.per_input_unit_s,
        )
        errand.tries += 1
        errand.order = opened
        self.orders[opened.digest] = opened
        self.bills.release(errand)
        self.book.account(ask.account).held_wei += cap_wei
        channel.promised_wei += cap_wei
        self.routing.started(pick.provider)
        self._send(pick.provider, Work(order, signature, ask.kind.name, request))

    def _nobody(self, errand: Errand, why: NoPick) -> None:
        """Wait for somebody while patience lasts; what more waiting can't mend fails at once."""
        self._fund_channels()
        name = errand.ask.errand
        ends_s = errand.ends_s
        if not errand.so_far and why.reason == "unwanted":
            ends_s = self._now_s
        elif not errand.so_far and why.reason == "absent":
            ends_s = min(ends_s, errand.asked_s + self.terms.absent_s)
        if self._now_s < ends_s and len(self._waiting) < self.terms.most_waiting:
            self._waiting[name] = errand
            return
        code, detail = why.reason, why.detail
        if why.reason == "unwanted" and errand.refusals:
            code, detail = next(reversed(errand.refusals.values()))
        self._fail(errand, code, detail, why.retry_after_s)

    def _place_waiting(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, {}
            for errand in waiting.values():
                self._place(errand)

    # --- from providers ---

    def _received(self, sender: Address, frame: msgspec.Struct) -> None:
        match frame:
            case Tokens():
                self._tokens(sender, frame)
            case Finished():
                self._finished(sender, frame)
            case Refused():
                self._refused(sender, frame)
            case Announce():
                self.routing.announced(sender, frame)
                self._meet(sender)
                self._place_waiting()
            case Ping(_, running, queued):
                self.routing.loaded(sender, running, queued)
            case _:
                pass  # nothing that a meter listens to

    def _tokens(self, sender: Address, frame: Tokens) -> None:
        opened = self.orders.get(Digest(frame.order))
        if opened is None or opened.provider != sender or opened.cut:
            return
        have = len(opened.tokens)
        if frame.start > have or (frame.logprobs_milli and len(frame.logprobs_milli) != len(frame.tokens)):
            self._break(opened, "stream_gap", "tokens are missing from its stream")
            return
        skip = have - frame.start
        fresh = frame.tokens[skip:]
        if not fresh:
            return
        if have + len(fresh) > MOST_ANSWER:
            self._break(opened, "too_many_tokens", "it sent more tokens than an answer may have")
            return
        if opened.first_s is None:
            opened.first_s = self._now_s
        errand = opened.errand
        if not errand.abandoned:
            opened.due_s = self._now_s + self.terms.gap_s
        wanted = self._wanted(errand, fresh)
        if wanted:
            end = skip + wanted
            opened.tokens.extend(fresh[:wanted])
            errand.so_far.extend(fresh[:wanted])
            self._effects.append(
                Deliver(
                    errand.ask.errand, fresh[:wanted], frame.logprobs_milli[skip:end], frame.top[skip:end]
                )
            )
        if wanted < len(fresh):
            self._cut(opened)

    @staticmethod
    def _wanted(errand: Errand, tokens: tuple[int, ...]) -> int:
        """How many of the next tokens belong to the answer."""
        if errand.over is not None:
            return 0
        if errand.ending is not None:
            push = errand.ending.push
            for at, token in enumerate(tokens, 1):
                errand.over = push(token)
                if errand.over is not None:
                    return at
        return len(tokens)

    def _cut(self, opened: Open) -> None:
        """It runs past the answer's end: stop it at once. It may ask for what came before the end, and for no more."""
        opened.cut = True
        opened.due_s = self._now_s + self.terms.cancel_s
        self._send(opened.provider, Cancel(opened.digest, len(opened.tokens)))

    def _finished(self, sender: Address, frame: Finished) -> None:
        order = Digest(frame.receipt.order)
        if (paid := self.book.paid.get(order)) is not None:
            if paid.provider == sender:
                self._pay(paid, order)  # it missed our answer
            return
        opened = self.orders.get(order)
        if opened is None or opened.provider != sender:
            why = self._closed.get(order, "unknown_order")
            self._send(sender, Dispute(order, why, "this order isn't open here, so nothing is owed for it"))
            return
        wrong = self._wrong(opened, frame)
        if wrong is not None:
            self._send(sender, Dispute(order, *wrong))
            self._break(opened, *wrong, distrust=not opened.cut)
            return
        self._charge(opened, frame)

    def _wrong(self, opened: Open, frame: Finished) -> tuple[str, str] | None:
        """What is wrong with a receipt, as (code, detail)."""
        receipt, order, kind = frame.receipt, opened.order, opened.errand.ask.kind
        if (receipt.provider, receipt.gateway, receipt.model) != (order.provider, order.gateway, order.model):
            return "wrong_parties", "the receipt names other parties or another model than the order"
        tokens = tuple(opened.tokens)
        cancelled = opened.errand.abandoned or opened.cut
        if frame.reason not in REASONS or (frame.reason == "cancelled" and not cancelled):
            return "wrong_end", f"an answer that nobody cancelled doesn't end by {frame.reason[:16]!r}"
        if receipt.answer != Answer(tokens, frame.reason).digest():
            return "answer_mismatch", f"its answer isn't the {len(tokens)} tokens that arrived here"
        counted = kind.recount(opened.value, tokens)
        if (receipt.input_units, receipt.output_units) != counted:
            return "usage_mismatch", f"it counts {receipt.input_units} + {receipt.output_units}, we {counted}"
        if kind.wrong is not None and (why := kind.wrong(opened.value, tokens, frame.reason)) is not None:
            return "impossible_answer", why
        price_wei = order.price_wei(*counted)
        if receipt.amount_wei != price_wei:
            return "wrong_price", f"it asks {receipt.amount_wei} wei, at the order's prices it is {price_wei}"
        if receipt.amount_wei > order.cap_wei:
            return "over_cap", f"{receipt.amount_wei} wei is above the order's cap of {order.cap_wei}"
        epoch = int(self.chain_time_s(self._now_s)) // self.me.epoch_s
        if abs(receipt.epoch - epoch) > 1:
            return "stale_epoch", f"the receipt is of epoch {receipt.epoch}, now is {epoch}"
        signer = self.me.recover(typed_digest(self._network, receipt.struct()), frame.signature)
        if signer is None or self.directory.owner_of(signer) != order.provider:
            return "bad_signature", "the receipt isn't signed by a key that may act for the provider"
        return None

    def _charge(self, opened: Open, frame: Finished) -> None:
        errand, channel = opened.errand, opened.channel
        charged = Charged(
            errand.ask.account,
            frame.receipt,
            frame.signature,
            opened.signature,
            channel.channel_id,
            channel.vouchered_wei + frame.receipt.amount_wei,
            max(0, int(self.chain_time_s(self._now_s))),
            errand.ask.tag,
            self.bills.waits(errand),
        )
        self._save(charged)
        self._end(self.bills.over(errand, opened.digest))
        self._release(opened)
        self.routing.succeeded(
            opened.provider, None if opened.first_s is None else opened.first_s - opened.started_s
        )
        self._pay(channel, opened.digest)
        if channel.headroom_wei < self.terms.channel_low_wei:
            self._fund_channels()
        del self.errands[errand.ask.errand]
        transcript = Transcript(
            opened.order,
            opened.signature,
            errand.ask.kind.name,
            opened.request,
            Answer(tuple(opened.tokens), frame.reason),
        )
        self._effects.append(
            Done(errand.ask.errand, frame.reason, charged, transcript, frame.cached_units, errand.abandoned)
        )
        self._place_waiting()

    def _refused(self, sender: Address, frame: Refused) -> None:
        opened = self.orders.get(Digest(frame.order))
        if opened is None or opened.provider != sender:
            return
        wait_s = min(60.0, max(0.2, frame.retry_after_ms / 1000))
        match frame.code:
            case "busy":
                self.routing.busy(sender, self._now_s + wait_s)
            case "paused" | "shutting_down":
                self.routing.busy(sender, self._now_s + max(wait_s, 5.0))
            case "unfunded" | "credit":
                # It hasn't seen our deposit or our newest voucher yet: show both again, and let it breathe.
                self._introduce(opened.channel)
                self.routing.busy(sender, self._now_s + max(wait_s, 1.0))
            case "unknown_model":
                self.routing.withdrew(sender, Digest(opened.order.model))
            case "underpaid":
                # Its price rose while the order was on its way: its new offer is here already, or it hides it.
                self.routing.rejected(sender, opened.offer)
                opened.errand.failures += 1
            case "engine_failed":
                self.routing.failed(sender, "engine_failed", self._now_s)
                opened.errand.failures += 1
            case _:
                opened.errand.refusals[sender] = (frame.code, frame.detail)
        self._release(opened)
        self._go_on(opened)

    # --- when a provider fails ---

    def _linked(self, peer: Address) -> None:
        if self.directory.roles(peer) & Role.PROVIDER:
            self.routing.linked(peer)
            if (channel := self.book.by_provider.get(peer)) is not None:
                self._introduce(channel)

    def _unlinked(self, peer: Address) -> None:
        self.routing.unlinked(peer)
        lost = [opened for opened in self.orders.values() if opened.provider == peer]
        if lost:
            self.routing.failed(peer, "its connection was lost", self._now_s)
        for opened in lost:
            self._close(opened, "superseded")
            self._go_on(opened)

    def _break(self, opened: Open, code: str, detail: str, *, distrust: bool = False) -> None:
        """End an order by the provider's fault; the errand goes on elsewhere.

        Args:
            distrust: what it sent can't be used: begin again, if nobody has read it yet.
        """
        self.routing.failed(opened.provider, detail, self._now_s)
        self._close(opened, code)
        errand = opened.errand
        if distrust:
            errand.refusals[opened.provider] = ("bad_receipt", detail)
            if errand.ask.streamed and errand.so_far:
                self._fail(errand, "bad_receipt", f"the provider's receipt was refused: {detail}")
                return
            self._begin_again(errand)
            opened.tokens.clear()
        else:
            self._send(opened.provider, Cancel(opened.digest))
        self._go_on(opened)

    def _go_on(self, opened: Open) -> None:
        """Place an errand again after its order failed: the next provider gets the tokens so far."""
        errand = opened.errand
        errand.order = None
        self.bills.reserve_again(errand, opened.order.cap_wei)
        if errand.abandoned:
            self._fail(errand, "abandoned", "the client went away, and no receipt came")
            return
        if opened.tokens and errand.ask.kind.resume is None and errand.over is None:
            if errand.ask.streamed:
                self._fail(errand, "provider_lost", "the provider was lost, and this work can't be resumed")
                return
            self._begin_again(errand)
        elif opened.tokens or errand.over is not None:
            if self._complete(opened):
                return
            errand.ends_s = self._now_s + errand.ask.patience_s
        self._place(errand)

    def _complete(self, opened: Open) -> bool:
        """Whether all of the answer had arrived, and only the receipt is missing: so it is free. Else, the rest is asked."""
        errand, tokens = opened.errand, tuple(opened.tokens)
        resume, reason = errand.ask.kind.resume, errand.over
        rest = None if resume is None or reason is not None else resume(opened.value, tokens)
        if rest is not None:
            errand.request = rest
            return False
        del self.errands[errand.ask.errand]
        self._end(self.bills.over(errand))
        self._effects.append(Done(errand.ask.errand, reason or "length", None, None, 0, abandoned=False))
        return True

    def _begin_again(self, errand: Errand) -> None:
        """What came so far is void; nobody has read it."""
        errand.so_far.clear()
        errand.request = errand.ask.request
        errand.ending, errand.over = self._follow(errand.ask.model, errand.ask.request), None
        self._effects.append(Restarted(errand.ask.errand))

    def _release(self, opened: Open) -> None:
        """Give back what an open order held."""
        del self.orders[opened.digest]
        opened.errand.order = None
        self.book.account(opened.errand.ask.account).held_wei -= opened.order.cap_wei
        opened.channel.promised_wei -= opened.order.cap_wei
        self.routing.ended(opened.provider)

    def _close(self, opened: Open, why: str) -> None:
        self._release(opened)
        opened.errand.failures += 1
        self._closed[opened.digest] = why
        if len(self._closed) > MOST_CLOSED:
            del self._closed[next(iter(self._closed))]

    def _fail(self, errand: Errand, code: str, detail: str, retry_after_s: float = 0.0) -> None:
        if self.errands.pop(errand.ask.errand, None) is not None:
            self.bills.over(errand, failed=True)
        self._effects.append(
            Failed(errand.ask.errand, code, detail, retry_after_s, partial=bool(errand.so_far))
        )

    # --- time ---

    def _tick(self) -> None:
        for opened in [it for it in self.orders.values() if self._now_s >= it.due_s]:
            if opened.digest in self.orders:
                waited_s = self._now_s - (opened.first_s or opened.started_s)
                self._break(opened, "superseded", f"it stopped answering ({waited_s:.0f} s into the answer)")
        self._place_waiting()
        self._fund_channels()
        self._effects += self.payouts.due(self._now_s)

    # --- payouts ---

    def _withdraw(self, asked: Withdraw) -> None:
        """What can't be paid was told by the front desk, who judged it the same way."""
        found = self.payouts.judge(asked.wish, asked.signature, self.chain_time_s(self._now_s))
        if isinstance(found, book.Payout) and found.name not in self.book.payouts:
            self._save(found)
            self._effects += self.payouts.due(self._now_s)

    def _paid_out(self, record: book.PaidOut | None) -> None:
        if record is not None:
            self._save(record)

    # --- channels ---

    def _meet(self, provider: Address) -> None:
        """Fix the terms of our channel with a provider that offers something; the deposit follows."""
        if provider in self.book.by_provider or provider not in self.routing.providers:
            return
        if self.directory.barred(provider) or not self.routing.providers[provider].offers:
            return
        salt = canonical.content_digest(b"clusterai channel 1" + self.me.owner + provider)
        self._save(
            book.ChannelOpened(
                ChannelConfig(
                    payer=self.me.owner,
                    payer_authorizer=self.me.hot,
                    receiver=provider,
                    receiver_authorizer=provider,
                    token=self.me.token,
                    withdraw_delay_s=self.terms.withdraw_delay_s,
                    salt=salt,
                )
            )
        )
        self._fund_channels()

    def _fund_channels(self) -> None:
        """Deposit where a linked provider's channel runs low; one deposit of a channel at a time."""
        if not self._caught_up:
            return
        for channel in self.book.by_provider.values():
            wanted = channel.provider in self.routing.providers and not channel.barred
            if not wanted or channel.headroom_wei >= self.terms.channel_low_wei:
                continue
            if not self.book.approved:
                self._submit("approve", calls.Approve(self.me.channels, MOST_ALLOWANCE))
                return
            amount_wei = self.terms.channel_target_wei - channel.headroom_wei
            # The count of deposits is in the key: after a crash the same deposit is asked for, not another one.
            key = f"deposit:{channel.channel_id.hex()}:{channel.deposits}"
            self._submit(key, calls.Deposit(channel.config, amount_wei))

    def _introduce(self, channel: Channel) -> None:
        """Tell a provider how it is paid, and the newest voucher, in case it missed one."""
        if channel.balance_wei and not channel.barred:
            self._send(channel.provider, OpenChannel(channel.config))
            if channel.vouchered_wei:
                self._pay(channel, channel.last_order or ZERO_DIGEST)

    def _pay(self, channel: Channel, order: Digest) -> None:
        voucher = Voucher(channel.channel_id, channel.vouchered_wei)
        signature = self.me.sign(typed_digest(self._vouchers, voucher.struct()))
        self._send(channel.provider, Pay(order, voucher, signature))

    # --- chain ---

    def _submit(self, key: str, call: calls.Call) -> None:
        if self._now_s >= self._pending.get(key, 0.0):
            self._pending[key] = float("inf")
            self._effects.append(Submit(key, call))

    def _mined(self, key: str) -> None:
        if key == "approve" and not self.book.approved:
            self._save(book.Approved())
            self._pending.pop(key, None)
            self._fund_channels()

    def _reverted(self, key: str) -> None:
        kind, _, rest = key.partition(":")
        if kind == "reclaim":
            channel = self.book.channels[Digest(bytes.fromhex(rest))]
            # Nothing is held: because nothing was claimed, or because an earlier Reclaim is mined and its event is
            # still on its way here. Which of them is only known once a later block has been read.
            self._unheld[channel.channel_id] = self.chain_time_s(self._now_s)
        else:
            self._pending[key] = self._now_s + DEPOSIT_RETRY_S

    def _chain(self, event: Any) -> None:
        """Chain events, in the chain's order; money moves when their block is complete, and only once."""
        self.directory.apply(event)
        match event:
            case events.Block():
                self._block(event)
            case events.RolledBack(number):
                self._batch = []
                while self._blocks and self._blocks[-1].number > number:
                    self._batches.pop(self._blocks.pop().number, None)
            case events.EpochCleared(provider):
                self.routing.cleared(provider)
            case _ if self._concerns(event):
                self._batch.append(event)
            case _:
                pass

    def _block(self, head: events.Block) -> None:
        """Close a block, and let the money of those count that are deep enough by now."""
        self._head_s, self._head_at_s = head.timestamp_s, self._now_s
        batch, self._batch = tuple(self._batch), []
        if head.number > self.book.block:
            self._blocks.append(head)
            if batch:
                self._batches[head.number] = batch
        while self._blocks and self._blocks[0].number + self.me.confirmations <= head.number:
            block = self._blocks.popleft()
            self._caught_up = True
            happened = self._batches.pop(block.number, ())
            if happened or block.number >= self.book.block + IDLE_BLOCKS:
                self._save(book.Applied(block.number, block.timestamp_s, happened))
                self._after(happened)
            self._close_unheld(block.timestamp_s)
        if self._caught_up:
            self._reclaim()
        self._fund_channels()

    def _close_unheld(self, timestamp_s: int) -> None:
        for channel_id, since_s in list(self._unheld.items()):
            if timestamp_s > since_s:
                del self._unheld[channel_id]
                channel = self.book.channels[channel_id]
                if channel.barred and not channel.closed:
                    self._save(book.Unclaimed(channel_id))

    def _concerns(self, event: Any) -> bool:
        match event:
            case events.Funded(gateway):
                return gateway == self.me.owner
            case events.Transferred(_, to):
                return to == self.me.till
            case (
                events.Deposited(channel_id)
                | events.Claimed(channel_id)
                | events.Reclaimed(channel_id)
                | events.WithdrawInitiated(channel_id)
                | events.WithdrawFinalized(channel_id)
                | events.Refunded(channel_id)
            ):
                return channel_id in self.book.channels
            case events.Settled(receiver) | events.Barred(receiver):
                return receiver in self.book.by_provider
            case _:
                return False

    def _after(self, batch: tuple[book.MoneyEvent, ...]) -> None:
        """What the chain's news asks of us."""
        for event in batch:
            match event:
                case events.Deposited(channel_id):
                    channel = self.book.channels[channel_id]
                    self._pending.pop(f"deposit:{channel_id.hex()}:{channel.deposits - 1}", None)
                    self._introduce(channel)
                    self._place_waiting()
                case events.WithdrawFinalized(channel_id, amount):
                    balance_wei = self.book.channels[channel_id].balance_wei + amount
                    for step in ("withdraw", "finalize"):
                        self._pending.pop(f"{step}:{channel_id.hex()}:{balance_wei}", None)
                case events.Barred(receiver):
                    self._barred(receiver)
                case _:
                    pass

    def _barred(self, provider: Address) -> None:
        """A conviction: take back what the channel holds, and hire it no more."""
        self.routing.unlinked(provider)
        for opened in [it for it in self.orders.values() if it.provider == provider]:
            self._close(opened, "barred")
            self._go_on(opened)
        self._reclaim()

    def _reclaim(self) -> None:
        """Take back what barred providers hold, then what they never claimed; each step follows from what the chain showed,
        so that a crash, or a transaction that was lost, only repeats it."""
        for channel in self.book.channels.values():
            name = channel.channel_id.hex()
            if channel.barred and not channel.closed:
                self._submit(f"reclaim:{name}", calls.Reclaim(channel.config))
            elif channel.closed and channel.unspent_wei > 0:
                # The balance is in the keys: what is left after one withdrawal is asked for by another.
                if channel.withdrawing:
                    self._submit(
                        f"finalize:{name}:{channel.balance_wei}", calls.FinalizeWithdraw(channel.config)
                    )
                else:
                    call = calls.InitiateWithdraw(channel.config, channel.unspent_wei)
                    self._submit(f"withdraw:{name}:{channel.balance_wei}", call)

    # --- effects ---

    def _save(self, record: book.Record) -> None:
        self._effects.append(Save(record))
        self._refunded += map(Refunded, self.book.apply(record))

    def _send(self, to: Address, frame: msgspec.Struct) -> None:
        self._effects.append(Send(to, frame))


__all__ = ["Meter", "Party", "Refund"]
