"""The provider's lease book: which orders to take, what was made of them, what is owed, and what may be asked later.

    Received(Work) ──> checks ──> Start ──> Produced ──> Keep ──> Kept ──> Save(Made), Send(Finished) ──> Pay: Save(Vouched)
                        └──> Send(Refused): bad_request, bad_signature, expired, unknown_model, underpaid, unfunded,
                             credit, busy, paused, shutting_down, engine_failed

What a gateway can make us lose is bounded: up to `credit_wei` of receipts per channel may go unpaid, then one order in
`TRIAL_S`, and every order's worst price lies within the channel's deposit as the chain showed it last.

Running orders aren't durable: nothing is owed for them, and after a crash or a lost link their gateway goes elsewhere. A
receipt is durable before it is sent and is made once per order, for good: two would be fraud.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec

from clusterai.audit.core.opening import MAX_REQUEST_BYTES
from clusterai.ledger.core import events
from clusterai.ledger.core.calls import Mined, Reverted
from clusterai.ledger.core.claims import ChannelMet, ClaimBook, Vouched
from clusterai.ledger.core.claims import Terms as ClaimTerms
from clusterai.ledger.core.projection import Projection
from clusterai.market.core.directory import Directory
from clusterai.node.core import leases
from clusterai.node.core.epochs import Epochs
from clusterai.node.core.leases import (
    Answered,
    Broke,
    Disputed,
    Drain,
    Keep,
    Kept,
    Made,
    Noted,
    Prepared,
    Produced,
    Record,
    Running,
    Serving,
    Start,
    Stop,
)
from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import Domain, typed_digest
from clusterai.protocol.ids import Address, Digest, Role
from clusterai.protocol.messages import (
    MAX_RECEIPTS_PER_EPOCH,
    Announce,
    Answer,
    AskEpoch,
    Cancel,
    Dispute,
    Finished,
    OpenChannel,
    Pay,
    Refused,
    Relay,
    Relayed,
    Transcript,
    Work,
)
from clusterai.protocol.signing import BadSignature
from clusterai.protocol.statements import ChannelConfig, Receipt
from clusterai.runtime.machine import Linked, Received, Save, Send, Started, Tick, Unlinked
from clusterai.work.kind import Kind

BUSY_RETRY_MS = 500
TRIAL_S = 30
"""Between single orders of a channel whose disputes used up its credit."""
MOST_RESENT = 1000
"""Receipts sent again when a gateway comes back."""


class Terms(msgspec.Struct, frozen=True):
    """Who this provider is, on which network, and what it risks.

    Attributes:
        me: the owner's address.
        keys: hot keys of ours, and the owner: who may be named as a channel's receiver authorizer.
        credit_wei: receipts of one channel that may be unpaid (or were disputed since its last payment) before more
            work is refused. The most that a gateway can take without paying, besides what runs.
        queue: orders taken beyond the engines' slots.
        most_ahead_s: orders that expire later than this are refused; for so long a receipt's order is remembered.
        confirmations: blocks that must stand above a challenge before it is answered.
    """

    me: Address
    keys: tuple[Address, ...]
    token: Address
    network: Domain
    channels: Domain
    epoch_s: int
    window_s: int
    sign: Callable[[Digest], bytes]
    recover: Callable[[Digest, bytes], Address]
    credit_wei: int = 1_000_000_000
    queue: int = 32
    most_ahead_s: int = 7200
    least_claim_wei: int = 1
    confirmations: int = 0


class No(msgspec.Struct, frozen=True):
    """Why an order isn't taken; becomes a `Refused`."""

    code: str
    detail: str
    retry_after_ms: int = 0


class LeaseBook:
    """One provider. See the module's docstring."""

    RECORDS = Record

    def __init__(self, terms: Terms, directory: Directory, kinds: Mapping[str, Kind]) -> None:
        self.terms = terms
        self.directory = directory
        self._kinds = kinds
        self._network = terms.network.separator()
        self._chain = Projection()
        self.claims = ClaimBook(
            ClaimTerms(
                terms.me,
                (terms.me, *terms.keys),
                terms.token,
                terms.channels,
                terms.window_s,
                terms.recover,
                terms.least_claim_wei,
                float(terms.epoch_s),
            ),
            self._chain,
        )
        self.epochs = Epochs(
            terms.me,
            terms.network,
            terms.recover,
            directory,
            self._chain,
            terms.epoch_s,
            terms.window_s,
            terms.confirmations,
        )
        self.running: dict[Digest, Running] = {}
        self._serving: Serving = Serving(())
        self._draining = False
        self._gateways: dict[Address, None] = {}
        self._produced_wei: dict[Digest, int] = {}
        """channel to the sum of its receipts that weren't disputed"""
        self._disputed_wei: dict[Digest, int] = {}
        """channel to what it disputed since its last payment"""
        self._trial_at_s: dict[Digest, float] = {}
        """channel to the last order that it got in spite of its disputes"""

    # --- machine ---

    def restore(self, records: Iterable[Any]) -> None:
        for record in records:
            self._apply(record)

    def snapshot(self) -> Sequence[msgspec.Struct]:
        carried = [
            leases.Carried(channel_id, self._carried_wei(channel_id)) for channel_id in self._produced_wei
        ]
        return [*self.claims.snapshot(), *carried, *self.epochs.snapshot()]

    def step(self, event: Any, now_s: float) -> Sequence[Any]:
        match event:
            case Received(sender, frame):
                return self._received(sender, frame, now_s)
            case Produced():
                return self._produced(event, now_s)
            case Kept(order):
                return self._kept(order)
            case Broke(order):
                running = self.running.pop(order, None)
                no = No(event.code, event.detail, event.retry_after_ms)
                return [] if running is None else [self._refuse(running.order.gateway, order, no)]
            case Tick():
                return [
                    *self.epochs.tick(now_s, self._keeping, barred=self.claims.barred),
                    *self.claims.step(event, now_s),
                ]
            case Linked(peer):
                return self._linked(peer)
            case Unlinked(peer):
                return self._unlinked(peer)
            case Serving():
                self._serving = event
                return self._announce()
            case Drain():
                self._draining = True
                return self._announce()
            case Prepared():
                return self.epochs.prepared(event, now_s)
            case Mined() | Reverted():
                return [*self.claims.step(event, now_s), *self.epochs.outcome(event, now_s)]
            case Started():
                return []  # links come up and the chain is read anew; both ask for what is left undone
            case _:
                was_barred = self.claims.barred
                self._project(event, now_s)
                return [] if self.claims.barred == was_barred else self._announce()

    # --- what others ask, for metrics and doctors ---

    def time_s(self, now_s: float) -> float:
        """The chain's time as this provider believes it."""
        return self._chain.time_s(now_s)

    def owed_wei(self, channel_id: Digest) -> int:
        """Receipts that the channel's vouchers don't cover; negative where it paid ahead."""
        return self._produced_wei.get(channel_id, 0) - self.claims.vouched_wei(channel_id)

    @property
    def draining(self) -> bool:
        return self._draining

    # --- state ---

    def _apply(self, record: Record) -> None:
        match record:
            case Made(receipt, _, channel_id):
                if not record.disputed:
                    self._add(self._produced_wei, Digest(channel_id), receipt.amount_wei)
                if record.cut_wei:
                    self._add(self._disputed_wei, Digest(channel_id), record.cut_wei)
            case Disputed(order):
                made = self.epochs.made.get(Digest(order))
                if made is not None and not made.disputed:
                    channel_id = Digest(made.channel_id)
                    self._add(self._produced_wei, channel_id, -made.receipt.amount_wei)
                    self._add(self._disputed_wei, channel_id, made.receipt.amount_wei)
            case leases.Carried(channel_id, amount_wei):
                self._add(self._produced_wei, Digest(channel_id), amount_wei)
            case ChannelMet() | Vouched():
                if isinstance(record, Vouched):
                    self._forgive(record)
                self.claims.apply(record)
            case _:
                pass
        self.epochs.apply(record)

    def _forgive(self, vouched: Vouched) -> None:
        """What a channel newly pays makes up for as much that it disputed."""
        channel_id = Digest(vouched.channel_id)
        rise_wei = max(0, vouched.amount_wei - self.claims.vouched_wei(channel_id))
        disputed_wei = self._disputed_wei.get(channel_id, 0) - rise_wei
        if disputed_wei > 0:
            self._disputed_wei[channel_id] = disputed_wei
        else:
            self._disputed_wei.pop(channel_id, None)

    def _save(self, record: Record) -> Save:
        self._apply(record)
        return Save(record)

    @staticmethod
    def _add(table: dict[Digest, int], key: Digest, amount: int) -> None:
        table[key] = table.get(key, 0) + amount

    def _carried_wei(self, channel_id: Digest) -> int:
        """What forgotten receipts put on a channel: all that isn't in those that a snapshot holds itself."""
        held_wei = sum(
            made.receipt.amount_wei
            for made in self.epochs.made.values()
            if made.channel_id == channel_id and not made.disputed
        )
        return self._produced_wei[channel_id] - held_wei

    # --- orders ---

    def _received(self, sender: Address, frame: msgspec.Struct, now_s: float) -> Sequence[Any]:
        match frame:
            case Work():
                return self._work(sender, frame, now_s)
            case Pay():
                return self._pay(sender, frame, now_s)
            case Cancel(order, tokens):
                return self._cancel(sender, Digest(order), tokens)
            case Dispute(order, code, detail):
                return self._dispute(sender, Digest(order), f"{code}: {detail}")
            case OpenChannel(config):
                return self._open_channel(sender, config, now_s)
            case Relay(_, _, body):
                return self._relayed(sender, body, now_s)
            case _:
                return []

    def _work(self, sender: Address, work: Work, now_s: float) -> Sequence[Any]:
        order = canonical.digest(work.order)
        made = self.epochs.made.get(order)
        if made is not None and not made.disputed and made.receipt.gateway == sender:
            return [self._finished(made)]
        if order in self.running:
            return []
        value, refusal = self._judge(sender, work, order, now_s)
        if refusal is not None:
            return [self._refuse(sender, order, refusal)]
        self.running[order] = Running(work.order, work.signature, work.kind, work.request, value)
        return [Start(order, sender, Digest(work.order.model), work.kind, value)]

    def _judge(self, sender: Address, work: Work, digest: Digest, now_s: float) -> tuple[Any, No | None]:
        """The decoded request, or why we don't do it."""
        order, terms, time_s = work.order, self.terms, self._chain.time_s(now_s)
        if order.provider != terms.me or order.gateway != sender:
            return None, No("bad_request", "the order names another provider or gateway")
        if not self._signed_by_gateway(work, sender):
            return None, No(
                "bad_signature",
                "not signed by a key that may act for this gateway on this network",
            )
        if digest in self.epochs.made or digest in self.epochs.spent:
            return None, No("expired", "this order had its receipt already")
        if order.expires_s < time_s:
            return None, No("expired", f"the order expired {time_s - order.expires_s:.0f} s ago")
        if order.expires_s > time_s + terms.most_ahead_s:
            return None, No("bad_request", f"let the order expire within {terms.most_ahead_s} s")
        if canonical.content_digest(work.request) != order.request:
            return None, No("bad_request", "the request isn't the one that the order names")
        if len(work.request) > MAX_REQUEST_BYTES:
            detail = f"a request of {len(work.request)} bytes couldn't be shown on chain, {MAX_REQUEST_BYTES} could"
            return None, No("bad_request", detail)
        if self._draining:
            return None, No("shutting_down", "this provider shuts down", BUSY_RETRY_MS)
        if self.claims.barred:
            return None, No("paused", "this provider was convicted and is barred")
        offer = next((it for it in self._serving.offers if it.model == order.model), None)
        if offer is None:
            if not self._serving.offers:
                return None, No("paused", "the engine is starting", 1000)
            return None, No("unknown_model", f"model 0x{order.model.hex()} isn't served here")
        kind = self._kinds.get(work.kind)
        if kind is None:
            return None, No("bad_request", f"unknown kind of work {work.kind!r}")
        try:
            value = kind.decode(work.request)
        except Malformed as error:
            return None, No("bad_request", str(error))
        if order.input_price_wei < offer.input_price_wei or order.output_price_wei < offer.output_price_wei:
            detail = (
                f"{order.input_price_wei} + {order.output_price_wei} wei a unit are offered, the price is "
            )
            return None, No("underpaid", f"{detail}{offer.input_price_wei} + {offer.output_price_wei}")
        worst_wei = kind.cap_wei(value, order.input_price_wei, order.output_price_wei)
        if worst_wei > order.cap_wei:
            return None, No("bad_request", f"it may cost {worst_wei} and the order's cap is {order.cap_wei}")
        return value, self._unpayable(order.channel_id, sender, worst_wei, now_s) or self._overloaded(now_s)

    def _signed_by_gateway(self, work: Work, sender: Address) -> bool:
        try:
            hot = self.terms.recover(typed_digest(self._network, work.order.struct()), work.signature)
        except BadSignature:
            return False
        return self.directory.acts_for(hot, sender, Role.GATEWAY)

    def _unpayable(self, channel_id: bytes, gateway: Address, worst_wei: int, now_s: float) -> No | None:
        channel = Digest(channel_id)
        config = self.claims.configs.get(channel)
        on_chain = self.claims.on_chain(channel)
        if config is None or config.payer != gateway:
            return No("unfunded", "no channel of this gateway with us has that id: send OpenChannel first")
        if on_chain.withdrawing:
            return No("unfunded", "the channel's payer is withdrawing its deposit")
        owed_wei = max(0, self.owed_wei(channel))
        at_risk_wei = owed_wei + self._disputed_wei.get(channel, 0)
        if at_risk_wei > self.terms.credit_wei and not self._on_trial(channel, owed_wei, now_s):
            return No(
                "credit",
                f"{at_risk_wei} of our receipts are unpaid, the limit is {self.terms.credit_wei}",
                1000 * TRIAL_S,
            )
        promised_wei = sum(it.order.cap_wei for it in self.running.values() if it.order.channel_id == channel)
        covered_wei = on_chain.balance_wei - self.claims.vouched_wei(channel) - owed_wei - promised_wei
        if worst_wei > covered_wei:
            return No("unfunded", f"it may cost {worst_wei} and {max(0, covered_wei)} of the deposit is free")
        return None

    def _on_trial(self, channel: Digest, owed_wei: int, now_s: float) -> bool:
        """Whether a channel that disputed too much gets one more order: else two honest sides whose link was slow for a
        while would never work together again. A gateway that never pays gets no more than one order in TRIAL_S."""
        runs = any(it.order.channel_id == channel for it in self.running.values())
        early = now_s < self._trial_at_s.get(channel, float("-inf")) + TRIAL_S
        if owed_wei > self.terms.credit_wei or runs or early:
            return False
        self._trial_at_s[channel] = now_s
        return True

    def _overloaded(self, now_s: float) -> No | None:
        slots = sum(offer.slots for offer in self._serving.offers)
        if len(self.running) >= slots + self.terms.queue:
            return No("busy", f"{len(self.running)} orders run or wait here", BUSY_RETRY_MS)
        made = len(self.epochs.by_epoch.get(self.epochs.epoch_of_next(now_s), ()))
        if made + len(self.running) >= MAX_RECEIPTS_PER_EPOCH:
            return No("busy", "this epoch's receipts are full", 1000 * self.terms.epoch_s)
        return None

    @staticmethod
    def _refuse(gateway: bytes, order: Digest, no: No) -> Send:
        return Send(Address(gateway), Refused(order, no.code, no.detail[:500], no.retry_after_ms))

    def _cancel(self, sender: Address, order: Digest, most: int | None) -> Sequence[Any]:
        running = self.running.get(order)
        if running is None or running.order.gateway != sender or running.cancelled:
            return []
        running.cancelled = True
        running.most = most
        return [Stop(order, report=True)]

    def _produced(self, event: Produced, now_s: float) -> Sequence[Any]:
        running = self.running.get(event.order)
        if running is None or running.keeping is not None:
            return []
        if running.cancelled and not event.answer.tokens:
            del self.running[event.order]
            detail = "cancelled before the first token: nothing is owed"
            return [self._refuse(running.order.gateway, event.order, No("cancelled", detail))]
        order, answer, recount = running.order, event.answer, self._kinds[running.kind].recount
        input_units, output_units = recount(running.value, answer.tokens)
        amount_wei = made_wei = order.price_wei(input_units, output_units)
        if running.most is not None and running.most < len(answer.tokens):
            answer = Answer(answer.tokens[: running.most], "cancelled")
            input_units, output_units = recount(running.value, answer.tokens)
            amount_wei = order.price_wei(input_units, output_units)
        assert amount_wei <= order.cap_wei, "an engine never makes more than the request allows"
        receipt = Receipt(
            order=event.order,
            provider=self.terms.me,
            gateway=order.gateway,
            model=order.model,
            answer=answer.digest(),
            input_units=input_units,
            output_units=output_units,
            amount_wei=amount_wei,
            epoch=self.epochs.epoch_of_next(now_s),
        )
        signature = self.terms.sign(typed_digest(self._network, receipt.struct()))
        running.keeping = Made(
            receipt,
            signature,
            order.channel_id,
            answer.reason,
            event.cached_units,
            order.expires_s,
            cut_wei=made_wei - amount_wei,
        )
        transcript = Transcript(order, running.signature, running.kind, running.request, answer)
        return [Keep(receipt.epoch, event.order, transcript)]

    def _kept(self, order: Digest) -> Sequence[Any]:
        running = self.running.pop(order, None)
        if running is None or running.keeping is None:
            return []  # its gateway went away meanwhile: no receipt was made, the transcript goes with its epoch
        return [self._save(running.keeping), self._finished(running.keeping)]

    def _finished(self, made: Made) -> Send:
        frame = Finished(made.receipt, made.signature, made.reason, made.cached_units)
        return Send(Address(made.receipt.gateway), frame)

    def _keeping(self, epoch: int) -> bool:
        return any(
            it.keeping is not None and it.keeping.receipt.epoch == epoch for it in self.running.values()
        )

    # --- money ---

    def _open_channel(self, sender: Address, config: ChannelConfig, now_s: float) -> Sequence[Any]:
        why = self.claims.refuse_channel(sender, config)
        if why is not None:
            return [Noted("channel_refused", why, sender)]
        return self.claims.step(ChannelMet(config), now_s)

    def _pay(self, sender: Address, pay: Pay, now_s: float) -> Sequence[Any]:
        why = self.claims.refuse_voucher(sender, pay.voucher, pay.signature)
        if why is not None:
            return [Noted("voucher_refused", why, sender)]
        vouched = Vouched(pay.voucher.channel_id, pay.voucher.amount_wei, pay.signature)
        self._forgive(vouched)
        effects = list(self.claims.step(vouched, now_s))
        made = self.epochs.made.get(Digest(pay.order))
        if made is not None and made.receipt.gateway == sender and not made.answered:
            effects.append(self._save(Answered(pay.order)))
        return effects

    def _dispute(self, sender: Address, order: Digest, why: str) -> Sequence[Any]:
        made = self.epochs.made.get(order)
        if made is None or made.receipt.gateway != sender or made.answered:
            return []
        return [self._save(Disputed(order)), Noted("disputed", f"order 0x{order.hex()}: {why}", sender)]

    # --- links ---

    def _linked(self, peer: Address) -> Sequence[Any]:
        self._gateways[peer] = None
        waiting = [
            made for made in self.epochs.made.values() if made.receipt.gateway == peer and not made.answered
        ]
        effects = [self._finished(made) for made in waiting[-MOST_RESENT:]]
        return [Send(peer, self._offer()), *effects] if self._serving.offers else effects

    def _unlinked(self, peer: Address) -> Sequence[Any]:
        """Its orders go elsewhere at once; what is in work here is worth nothing any more."""
        self._gateways.pop(peer, None)
        lost = [order for order, it in self.running.items() if it.order.gateway == peer]
        for order in lost:
            del self.running[order]
        return [Stop(order, report=False) for order in lost]

    def _offer(self) -> Announce:
        paused = self._draining or self.claims.barred
        return Announce(self._serving.offers, len(self.running), 0, paused)

    def _announce(self) -> Sequence[Any]:
        return [Send(gateway, self._offer()) for gateway in self._gateways]

    def _relayed(self, gateway: Address, body: bytes, now_s: float) -> Sequence[Any]:
        try:
            ask = canonical.decode(body, cast("type[Relayed]", Relayed))
        except Malformed as error:
            return [Noted("malformed_relay", str(error), gateway)]
        return self.epochs.asked(gateway, ask, now_s) if isinstance(ask, AskEpoch) else []

    # --- chain ---

    def _project(self, event: Any, now_s: float) -> None:
        self.directory.apply(event)
        if isinstance(event, events.Block | events.RolledBack):
            # The parts close the block before the projection moves on: what they note belongs to this block.
            self.epochs.project(event)
            self.claims.step(event, now_s)
            self._chain.apply(event, now_s)
        else:
            self.epochs.project(event)
            self.claims.step(event, now_s)
