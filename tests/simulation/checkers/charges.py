"""Charges are vouchers: what a gateway takes from accounts is, unit for unit, what it promises to providers.

Watches what gateways save and send. A charge counts once it is durable; a voucher that was sent promises no more than
the durable charges of its channel, each order is charged once, and the chain never shows a claim above the vouchers.
"""

from typing import Any

from clusterai.gateway.core.moneystate import Charged
from clusterai.ledger.core import events
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import Pay
from clusterai.runtime.machine import Save, Send
from clusterai.runtime.simulator import Blockchain, Process
from tests.simulation.checkers.blocks import OfBlocks, require


class ChargesAreVouchers(OfBlocks):
    """`charged[order]` is (channel, amount, account); `vouchered[channel]` their sum."""

    def __init__(self, chain: Blockchain, gateways: frozenset[Address]) -> None:
        self._gateways = gateways
        self.charged: dict[Digest, Charged] = {}
        self.vouchered: dict[Digest, int] = {}
        super().__init__(chain)

    def reset(self) -> None:
        pass  # nothing is counted from the chain

    def stepped(self, process: Process, event: Any, effects: list[Any]) -> None:
        if process.address not in self._gateways:
            return
        for effect in effects:
            match effect:
                case Save(Charged() as charged):
                    self._charge(charged)
                case Send(_, Pay(_, voucher)):
                    channel_id = Digest(voucher.channel_id)
                    durable = self.vouchered.get(channel_id, 0)
                    require(
                        voucher.amount_wei == durable,
                        "a voucher is the sum of its channel's charges",
                        channel_id,
                        voucher.amount_wei,
                        durable,
                    )
                case _:
                    pass

    def event(self, event: Any, timestamp_s: int) -> None:
        match event:
            case events.Claimed(channel_id, _, _, total_claimed) if channel_id in self.vouchered:
                vouchered = self.vouchered[channel_id]
                require(
                    total_claimed <= vouchered, "claims are covered by vouchers", channel_id, total_claimed
                )
            case _:
                pass

    def _charge(self, charged: Charged) -> None:
        order, channel_id = Digest(charged.receipt.order), Digest(charged.channel_id)
        require(order not in self.charged, "an order is charged once", order)
        self.charged[order] = charged
        total = self.vouchered.get(channel_id, 0) + charged.receipt.amount_wei
        require(
            charged.vouchered_wei == total, "a charge raises the voucher by its amount", order, total, charged
        )
        self.vouchered[channel_id] = total
