"""The provider's lease book: which orders to take, what was made of them, what is owed, and what may be asked later.

    Received(Work) ──> checks ──> Start ──> Produced ──> Keep ──> Kept ──> Save(Made), Send(Finished) ──> Pay: Save(Vouched)
                        └──> Send(Refused): bad_request, bad_signature, expired, unknown_model, underpaid, unfunded,
                             credit, busy, paused, shutting_down, engine_failed

Which orders are taken is `admission.py`'s affair, what gateways owe is in `debts.py`, and `epochs.py` commits and opens.

Running orders aren't durable: nothing is owed for them, and after a crash or a lost link their gateway goes elsewhere. A
receipt is durable before it is sent and is made once per order, for good: two would be fraud.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec

from clusterai.ledger.core import events
from clusterai.ledger.core.calls import Mined, Reverted
from clusterai.ledger.core.claims import ChannelMet, ClaimBook, Vouched
from clusterai.ledger.core.claims import Terms as ClaimTerms
from clusterai.ledger.core.projection import Projection
from clusterai.market.core.directory import Directory
from clusterai.node.core.admission import TRIAL_S, Admission, No
from clusterai.node.core.debts import Debts
from clusterai.node.core.epochs import Epochs
from clusterai.node.core.leases import (
    Answered,
    Broke,
    Carried,
    Disputed,
    Drain,
    Keep,
    Kept,
    Made,
    Noted,
    Paused,
    Prepared,
    Produced,
    Record,
    Running,
    Serving,
    Start,
    Stop,
    Terms,
)
from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import typed_digest
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import (
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
from clusterai.protocol.statements import ChannelConfig, Receipt
from clusterai.runtime.machine import Linked, Received, Save, Send, Started, Tick, Unlinked
from clusterai.work.kind import Kind

MOST_RESENT = 1000
"""Receipts sent again when a gateway comes back."""


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
        self.debts = Debts(self.claims)
        self._admission = Admission(
            terms, directory, kinds, self._chain, self.claims, self.epochs, self.debts, self.running
        )
        self._gateways: dict[Address, None] = {}

    # --- machine ---

    def restore(self, records: Iterable[Any]) -> None:
        for record in records:
            self._apply(record)

    def snapshot(self) -> Sequence[msgspec.Struct]:
        carried = self.debts.snapshot(self.epochs.made.values())
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
                self._admission.offers, self._admission.begun = event.offers, event.begun
                return self._announce()
            case Drain():
                self._admission.draining = True
                return self._announce()
            case Paused(why):
                was_paused, self._admission.paused = bool(self._admission.paused), why
                return [] if was_paused == bool(why) else self._announce()
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
        return self.debts.owed_wei(channel_id)

    @property
    def draining(self) -> bool:
        return self._admission.draining

    # --- state ---

    def _apply(self, record: Record) -> None:
        match record:
            case Made():
                self.debts.made(record)
            case Disputed(order):
                made = self.epochs.made.get(Digest(order))
                if made is not None and not made.disputed:
                    self.debts.disputed(made)
            case Carried():
                self.debts.carried(record)
            case ChannelMet() | Vouched():
                if isinstance(record, Vouched):
                    self.debts.paid(record)
                self.claims.apply(record)
            case _:
                pass
        self.epochs.apply(record)

    def _save(self, record: Record) -> Save:
        self._apply(record)
        return Save(record)

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
        value, refusal = self._admission.judge(sender, work, order, now_s)
        if refusal is not None:
            return [self._refuse(sender, order, refusal)]
        self.running[order] = Running(work.order, work.signature, work.kind, work.request, value)
        return [Start(order, sender, Digest(work.order.model), work.kind, value)]

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
        self.debts.paid(vouched)
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
        return [Send(peer, self._offer()), *effects] if self._admission.offers else effects

    def _unlinked(self, peer: Address) -> Sequence[Any]:
        """Its orders go elsewhere at once; what is in work here is worth nothing any more."""
        self._gateways.pop(peer, None)
        lost = [order for order, it in self.running.items() if it.order.gateway == peer]
        for order in lost:
            del self.running[order]
        return [Stop(order, report=False) for order in lost]

    def _offer(self) -> Announce:
        given = self._admission
        offers, paused = given.offers, given.draining or self.claims.barred
        if given.paused:
            offers = tuple(it for it in offers if it.model in given.begun) or offers
            paused = paused or not given.begun
        return Announce(offers, len(self.running), 0, paused)

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


__all__ = ["TRIAL_S", "LeaseBook", "Terms"]
