"""Errands and their orders: who is hired, what they send, and who goes on when they fail.

    Ask ──> choose provider ──> hold the cap ──> Send(Work)
              │ nobody: wait, then Failed             │ Tokens ──> Deliver
              │                                       │ Refused, Unlinked, silence ──> next provider with the tokens so far
              │                                       │ Finished ──> check ──> Save(Charged) ──> Send(Pay), Done
              └──────────────<────────────────────────┘                └─> wrong: Send(Dispute), nothing is charged

An errand is one answer that an account asked for; it may take several orders, and only the one that ends it is paid.
"""

from collections.abc import Callable
from typing import Any

from clusterai.gateway.core.bills import Bills
from clusterai.gateway.core.book import Book
from clusterai.gateway.core.channels import Channels
from clusterai.gateway.core.errands import (
    Ask,
    Deliver,
    Done,
    Ending,
    Errand,
    Failed,
    Open,
    Restarted,
    Settled,
    Terms,
)
from clusterai.gateway.core.moneystate import Charged, Ended
from clusterai.gateway.core.party import Party
from clusterai.gateway.core.receipts import wrong
from clusterai.gateway.core.step import Step
from clusterai.market.core.directory import Directory
from clusterai.market.core.routing import NoPick, Pick, Routing
from clusterai.protocol import canonical
from clusterai.protocol.eip712 import typed_digest
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import (
    Answer,
    Cancel,
    Dispute,
    Finished,
    ModelOffer,
    Refused,
    Tokens,
    Transcript,
    Work,
)
from clusterai.protocol.statements import Order

MOST_CLOSED = 10_000
"""Orders that ended unpaid and are remembered, so that a late receipt hears why."""
MOST_ANSWER = 131_072

Follow = Callable[[Digest, Any], Ending | None]


class Orders:
    """All errands of one gateway, and the orders that are open for them. None of it is durable.

    Args:
        follow: (model, request) to what knows where that answer ends, or None: no provider is listened to beyond, nor hired
            to go on there.
    """

    def __init__(
        self,
        me: Party,
        terms: Terms,
        book: Book,
        bills: Bills,
        directory: Directory,
        routing: Routing,
        channels: Channels,
        step: Step,
        follow: Follow,
    ) -> None:
        self._me = me
        self._terms = terms
        self._book = book
        self._bills = bills
        self._directory = directory
        self._routing = routing
        self._channels = channels
        self._step = step
        self._follow = follow
        self._network = me.network.separator()
        self.errands: dict[int, Errand] = {}
        self.open: dict[Digest, Open] = {}
        self._waiting: dict[int, Errand] = {}
        self._closed: dict[Digest, str] = {}

    # --- from the front desk ---

    def ask(self, ask: Ask) -> None:
        call = self._bills.join(ask)
        errand = Errand(ask, call, asked_s=self._step.now_s, ends_s=self._step.now_s + ask.patience_s)
        errand.ending = self._follow(ask.model, ask.request)
        self.errands[ask.errand] = call.open[ask.errand] = errand
        missing_wei = self._bills.reserve(errand, *self._routing.cheapest(ask.model, ask.preference))
        if missing_wei:
            self._poor(errand, missing_wei)
            return
        self._place(errand)

    def abandon(self, name: int, shown: tuple[int, ...] | None, keep: int | None = None) -> None:
        """Nobody waits: stop the work, and settle who pays for what was done. An errand that waits just ends."""
        call = self._bills.calls.get(name)
        if call is None or call.payer:
            return
        ended = self._bills.abandon(call, shown, self._step.now_s)
        charged_wei = self.settle(ended)
        if shown is not None:
            self._step.add(Settled(name, charged_wei))
        for errand in list(call.open.values()):
            errand.abandoned = True
            if errand.order is None:
                del self.errands[errand.ask.errand]
                self._waiting.pop(errand.ask.errand, None)
                self._bills.over(errand, failed=True)
            elif keep is not None:
                assert call.parts == 1, "what is kept is counted in one answer"
                del errand.order.tokens[keep:]
                del errand.so_far[keep:]
                self._cut(errand.order)
            else:
                errand.order.due_s = self._step.now_s + self._terms.cancel_s
                self._step.send(errand.order.provider, Cancel(errand.order.digest))

    def settle(self, ended: Ended | None) -> int:
        """A request of several parts is settled; returns what its account is charged."""
        if ended is None:
            return 0
        waiting = self._book.waiting
        charged_wei = sum(waiting[Digest(it)].amount_wei for it in ended.billed if it in waiting)
        self._step.save(ended)
        return charged_wei

    # --- placing ---

    def _place(self, errand: Errand) -> None:
        """Hire the best provider now, or wait, or give up."""
        ask = errand.ask
        if errand.failures >= self._terms.failures:
            self._fail(errand, "suspended", f"{errand.failures} providers failed with it", 5.0)
            return
        costs: dict[Address, int] = {}
        credit_wei = self._book.credit_wei(ask.account) + errand.reserved_wei
        too_dear: list[int] = []

        def affords(provider: Address, offer: ModelOffer) -> bool:
            cost_wei = ask.kind.cap_wei(errand.request, offer.input_price_wei, offer.output_price_wei)
            costs[provider] = cost_wei
            if errand.call.parts > 1 and cost_wei > credit_wei:
                too_dear.append(cost_wei)
                return False
            channel = self._book.by_provider.get(provider)
            return channel is not None and not channel.barred and channel.headroom_wei >= cost_wei

        nonce = canonical.content_digest(ask.nonce + errand.tries.to_bytes(4, "big"))
        pick = self._routing.choose(
            ask.model,
            ask.preference,
            errand.refusals.keys(),
            affords,
            int.from_bytes(nonce[:8]),
            self._step.now_s,
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
        left_wei = self._book.credit_wei(errand.ask.account) + errand.reserved_wei
        self._fail(
            errand,
            "insufficient_credit",
            f"this request can cost up to {cost_wei} wei and the account has {left_wei} wei left: "
            "deposit more, or lower max_tokens",
        )

    def _hire(self, errand: Errand, pick: Pick, cap_wei: int, nonce: Digest) -> None:
        ask = errand.ask
        channel = self._book.by_provider[pick.provider]
        request = canonical.encode(errand.request)
        order = Order(
            self._me.owner,
            pick.provider,
            ask.model,
            canonical.content_digest(request),
            channel.channel_id,
            pick.offer.input_price_wei,
            pick.offer.output_price_wei,
            cap_wei,
            int(self._step.chain_time_s()) + self._terms.order_s,
            nonce,
        )
        signature = self._me.sign(typed_digest(self._network, order.struct()))
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
            started_s=self._step.now_s,
            due_s=self._step.now_s
            + max(self._terms.first_token_s, ask.kind.first_s)
            + size * self._terms.per_input_unit_s,
        )
        errand.tries += 1
        errand.order = opened
        self.open[opened.digest] = opened
        self._bills.release(errand)
        self._book.account(ask.account).held_wei += cap_wei
        channel.promised_wei += cap_wei
        self._routing.started(pick.provider)
        self._step.send(pick.provider, Work(order, signature, ask.kind.name, request))

    def _nobody(self, errand: Errand, why: NoPick) -> None:
        """Wait for somebody while patience lasts; what more waiting can't mend fails at once."""
        self._channels.fund()
        name = errand.ask.errand
        ends_s = errand.ends_s
        if not errand.so_far and why.reason == "unwanted":
            ends_s = self._step.now_s
        elif not errand.so_far and why.reason == "absent":
            ends_s = min(ends_s, errand.asked_s + self._terms.absent_s)
        if self._step.now_s < ends_s and len(self._waiting) < self._terms.most_waiting:
            self._waiting[name] = errand
            return
        code, detail = why.reason, why.detail
        if why.reason == "unwanted" and errand.refusals:
            code, detail = next(reversed(errand.refusals.values()))
        self._fail(errand, code, detail, why.retry_after_s)

    def place_waiting(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, {}
            for errand in waiting.values():
                self._place(errand)

    # --- from providers ---

    def tokens(self, sender: Address, frame: Tokens) -> None:
        opened = self.open.get(Digest(frame.order))
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
            opened.first_s = self._step.now_s
        errand = opened.errand
        if not errand.abandoned:
            opened.due_s = self._step.now_s + self._terms.gap_s
        wanted = self._wanted(errand, fresh)
        if wanted:
            end = skip + wanted
            opened.tokens.extend(fresh[:wanted])
            errand.so_far.extend(fresh[:wanted])
            self._step.add(
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
        opened.due_s = self._step.now_s + self._terms.cancel_s
        self._step.send(opened.provider, Cancel(opened.digest, len(opened.tokens)))

    def finished(self, sender: Address, frame: Finished) -> None:
        order = Digest(frame.receipt.order)
        if (paid := self._book.paid.get(order)) is not None:
            if paid.provider == sender:
                self._channels.pay(paid, order)  # it missed our answer
            return
        opened = self.open.get(order)
        if opened is None or opened.provider != sender:
            why = self._closed.get(order, "unknown_order")
            self._step.send(
                sender, Dispute(order, why, "this order isn't open here, so nothing is owed for it")
            )
            return
        found = wrong(opened, frame, self._me, self._directory, self._step.chain_time_s())
        if found is not None:
            self._step.send(sender, Dispute(order, *found))
            self._break(opened, *found, distrust=not opened.cut)
            return
        self._charge(opened, frame)

    def _charge(self, opened: Open, frame: Finished) -> None:
        errand, channel = opened.errand, opened.channel
        charged = Charged(
            errand.ask.account,
            frame.receipt,
            frame.signature,
            opened.signature,
            channel.channel_id,
            channel.vouchered_wei + frame.receipt.amount_wei,
            max(0, int(self._step.chain_time_s())),
            errand.ask.tag,
            self._bills.waits(errand),
        )
        self._step.save(charged)
        self.settle(self._bills.over(errand, opened.digest))
        self._release(opened)
        self._routing.succeeded(
            opened.provider, None if opened.first_s is None else opened.first_s - opened.started_s
        )
        self._routing.answered(Digest(opened.order.model), opened.provider, self._step.now_s)
        self._channels.pay(channel, opened.digest)
        if channel.headroom_wei < self._terms.channel_low_wei:
            self._channels.fund()
        del self.errands[errand.ask.errand]
        transcript = Transcript(
            opened.order,
            opened.signature,
            errand.ask.kind.name,
            opened.request,
            Answer(tuple(opened.tokens), frame.reason),
        )
        self._step.add(
            Done(errand.ask.errand, frame.reason, charged, transcript, frame.cached_units, errand.abandoned)
        )
        self.place_waiting()

    def refused(self, sender: Address, frame: Refused) -> None:
        opened = self.open.get(Digest(frame.order))
        if opened is None or opened.provider != sender:
            return
        wait_s = min(60.0, max(0.2, frame.retry_after_ms / 1000))
        match frame.code:
            case "busy":
                self._routing.busy(sender, self._step.now_s + wait_s)
            case "paused" | "shutting_down":
                self._routing.busy(sender, self._step.now_s + max(wait_s, 5.0))
            case "unfunded" | "credit":
                # It hasn't seen our deposit or our newest voucher yet: show both again, and let it breathe.
                self._channels.introduce(opened.channel)
                self._routing.busy(sender, self._step.now_s + max(wait_s, 1.0))
            case "unknown_model":
                self._routing.withdrew(sender, Digest(opened.order.model))
            case "underpaid":
                # Its price rose while the order was on its way: its new offer is here already, or it hides it.
                self._routing.rejected(sender, opened.offer)
                opened.errand.failures += 1
            case "engine_failed":
                self._routing.failed(sender, "engine_failed", self._step.now_s)
                opened.errand.failures += 1
            case _:
                opened.errand.refusals[sender] = (frame.code, frame.detail)
        self._release(opened)
        self._go_on(opened)

    # --- when a provider fails ---

    def unlinked(self, peer: Address) -> None:
        self._routing.unlinked(peer)
        lost = [opened for opened in self.open.values() if opened.provider == peer]
        if lost:
            self._routing.failed(peer, "its connection was lost", self._step.now_s)
        for opened in lost:
            self._close(opened, "superseded")
            self._go_on(opened)

    def _break(self, opened: Open, code: str, detail: str, *, distrust: bool = False) -> None:
        """End an order by the provider's fault; the errand goes on elsewhere.

        Args:
            distrust: what it sent can't be used: begin again, if nobody has read it yet.
        """
        self._routing.failed(opened.provider, detail, self._step.now_s)
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
            self._step.send(opened.provider, Cancel(opened.digest))
        self._go_on(opened)

    def _go_on(self, opened: Open) -> None:
        """Place an errand again after its order failed: the next provider gets the tokens so far."""
        errand = opened.errand
        errand.order = None
        self._bills.reserve_again(errand, opened.order.cap_wei)
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
            errand.ends_s = self._step.now_s + errand.ask.patience_s
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
        self.settle(self._bills.over(errand))
        self._step.add(Done(errand.ask.errand, reason or "length", None, None, 0, abandoned=False))
        return True

    def _begin_again(self, errand: Errand) -> None:
        """What came so far is void; nobody has read it."""
        errand.so_far.clear()
        errand.request = errand.ask.request
        errand.ending, errand.over = self._follow(errand.ask.model, errand.ask.request), None
        self._step.add(Restarted(errand.ask.errand))

    def _release(self, opened: Open) -> None:
        """Give back what an open order held."""
        del self.open[opened.digest]
        opened.errand.order = None
        self._book.account(opened.errand.ask.account).held_wei -= opened.order.cap_wei
        opened.channel.promised_wei -= opened.order.cap_wei
        self._routing.ended(opened.provider)

    def _close(self, opened: Open, why: str) -> None:
        self._release(opened)
        opened.errand.failures += 1
        self._closed[opened.digest] = why
        if len(self._closed) > MOST_CLOSED:
            del self._closed[next(iter(self._closed))]

    def _fail(self, errand: Errand, code: str, detail: str, retry_after_s: float = 0.0) -> None:
        if self.errands.pop(errand.ask.errand, None) is not None:
            self._bills.over(errand, failed=True)
        self._step.add(Failed(errand.ask.errand, code, detail, retry_after_s, partial=bool(errand.so_far)))

    def barred(self, provider: Address) -> None:
        """A conviction: hire it no more; what it was doing goes on elsewhere."""
        self._routing.unlinked(provider)
        for opened in [it for it in self.open.values() if it.provider == provider]:
            self._close(opened, "barred")
            self._go_on(opened)

    def overdue(self) -> None:
        """Replace those who went silent."""
        for opened in [it for it in self.open.values() if self._step.now_s >= it.due_s]:
            if opened.digest in self.open:
                waited_s = self._step.now_s - (opened.first_s or opened.started_s)
                self._break(opened, "superseded", f"it stopped answering ({waited_s:.0f} s into the answer)")
