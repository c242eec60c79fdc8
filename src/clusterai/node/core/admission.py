"""Which orders to take. What a gateway can make us lose is bounded:

up to `credit_wei` of receipts per channel may go unpaid, then one order in `TRIAL_S`, and every order's worst price lies within
the channel's deposit as the chain showed it last.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from clusterai.audit.core.opening import MAX_REQUEST_BYTES
from clusterai.ledger.core.claims import ClaimBook
from clusterai.ledger.core.projection import Projection
from clusterai.market.core.directory import Directory
from clusterai.node.core.debts import Debts
from clusterai.node.core.epochs import Epochs
from clusterai.node.core.leases import Running, Terms
from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import typed_digest
from clusterai.protocol.ids import Address, Digest, Role
from clusterai.protocol.messages import MAX_RECEIPTS_PER_EPOCH, ModelOffer, Work
from clusterai.protocol.signing import BadSignature
from clusterai.work.kind import Kind

BUSY_RETRY_MS = 500
PAUSED_RETRY_MS = 5_000
TRIAL_S = 30
"""Between single orders of a channel whose disputes used up its credit."""


class No(msgspec.Struct, frozen=True):
    """Why an order isn't taken; becomes a `Refused`."""

    code: str
    detail: str
    retry_after_ms: int = 0


class Admission:
    """Judges orders by what the rest of the lease book knows; it changes nothing of that.

    Attributes:
        offers: what the engines serve now.
        draining: no more is taken.
        paused: why nothing new is taken for now.
        begun: models whose orders aren't new work.
    """

    def __init__(
        self,
        terms: Terms,
        directory: Directory,
        kinds: Mapping[str, Kind],
        chain: Projection,
        claims: ClaimBook,
        epochs: Epochs,
        debts: Debts,
        running: Mapping[Digest, Running],
    ) -> None:
        self._terms = terms
        self._directory = directory
        self._kinds = kinds
        self._network = terms.network.separator()
        self._chain = chain
        self._claims = claims
        self._epochs = epochs
        self._debts = debts
        self._running = running
        self._trial_at_s: dict[Digest, float] = {}
        """channel to the last order that it got in spite of its disputes"""
        self.offers: tuple[ModelOffer, ...] = ()
        self.draining = False
        self.paused = ""
        self.begun: tuple[Digest, ...] = ()

    def judge(self, sender: Address, work: Work, digest: Digest, now_s: float) -> tuple[Any, No | None]:
        """The decoded request, or why we don't do it."""
        order, terms, time_s = work.order, self._terms, self._chain.time_s(now_s)
        if order.provider != terms.me or order.gateway != sender:
            return None, No("bad_request", "the order names another provider or gateway")
        if not self._signed_by_gateway(work, sender):
            return None, No(
                "bad_signature",
                "not signed by a key that may act for this gateway on this network",
            )
        if digest in self._epochs.made or digest in self._epochs.spent:
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
        if self.draining:
            return None, No("shutting_down", "this provider shuts down", BUSY_RETRY_MS)
        if self.paused and order.model not in self.begun:
            return None, No("paused", self.paused, PAUSED_RETRY_MS)
        if self._claims.barred:
            return None, No("paused", "this provider was convicted and is barred")
        offer = next((it for it in self.offers if it.model == order.model), None)
        if offer is None:
            if not self.offers:
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
            hot = self._terms.recover(typed_digest(self._network, work.order.struct()), work.signature)
        except BadSignature:
            return False
        return self._directory.acts_for(hot, sender, Role.GATEWAY)

    def _unpayable(self, channel_id: bytes, gateway: Address, worst_wei: int, now_s: float) -> No | None:
        channel = Digest(channel_id)
        config = self._claims.configs.get(channel)
        on_chain = self._claims.on_chain(channel)
        if config is None or config.payer != gateway:
            return No("unfunded", "no channel of this gateway with us has that id: send OpenChannel first")
        if on_chain.withdrawing:
            return No("unfunded", "the channel's payer is withdrawing its deposit")
        owed_wei = max(0, self._debts.owed_wei(channel))
        at_risk_wei = owed_wei + self._debts.disputed_wei(channel)
        if at_risk_wei > self._terms.credit_wei and not self._on_trial(channel, owed_wei, now_s):
            return No(
                "credit",
                f"{at_risk_wei} of our receipts are unpaid, the limit is {self._terms.credit_wei}",
                1000 * TRIAL_S,
            )
        promised_wei = sum(
            it.order.cap_wei for it in self._running.values() if it.order.channel_id == channel
        )
        covered_wei = on_chain.balance_wei - self._claims.vouched_wei(channel) - owed_wei - promised_wei
        if worst_wei > covered_wei:
            return No("unfunded", f"it may cost {worst_wei} and {max(0, covered_wei)} of the deposit is free")
        return None

    def _on_trial(self, channel: Digest, owed_wei: int, now_s: float) -> bool:
        """Whether a channel that disputed too much gets one more order: else two honest sides whose link was slow for a
        while would never work together again. A gateway that never pays gets no more than one order in TRIAL_S."""
        runs = any(it.order.channel_id == channel for it in self._running.values())
        early = now_s < self._trial_at_s.get(channel, float("-inf")) + TRIAL_S
        if owed_wei > self._terms.credit_wei or runs or early:
            return False
        self._trial_at_s[channel] = now_s
        return True

    def _overloaded(self, now_s: float) -> No | None:
        slots = sum(offer.slots for offer in self.offers)
        if len(self._running) >= slots + self._terms.queue:
            return No("busy", f"{len(self._running)} orders run or wait here", BUSY_RETRY_MS)
        made = len(self._epochs.by_epoch.get(self._epochs.epoch_of_next(now_s), ()))
        if made + len(self._running) >= MAX_RECEIPTS_PER_EPOCH:
            return No("busy", "this epoch's receipts are full", 1000 * self._terms.epoch_s)
        return None
