"""A gateway that takes work and means not to pay.

DoubleSpender   pays each receipt one voucher late, so that the last is never paid, and asks its deposits back
                while it still orders work
"""

from collections.abc import Sequence
from typing import Any

from clusterai.gateway.core.meter import Meter
from clusterai.ledger.core.calls import FinalizeWithdraw, InitiateWithdraw, Submit
from clusterai.protocol.ids import Digest
from clusterai.protocol.messages import Pay
from clusterai.runtime.machine import Send, Tick
from tests.simulation.world.gateways import Gateway, Relaying

WITHDRAWS_AFTER_S = 90


class Stingy(Relaying):
    """The honest meter behind a hand that holds back."""

    def __init__(self, host: "DoubleSpender", meter: Meter) -> None:
        super().__init__(meter)
        self._host = host

    def step(self, event: Any, now_s: float) -> Sequence[Any]:
        effects = [self._host.held_back(effect) for effect in super().step(event, now_s)]
        withdrawals = self._host.withdrawals(self.meter, now_s) if isinstance(event, Tick) else []
        return [effect for effect in effects if effect is not None] + withdrawals


class DoubleSpender(Gateway):
    def __init__(self, *arguments: Any) -> None:
        self._newest: dict[Digest, Pay] = {}
        self._sent: dict[Digest, Pay] = {}
        self._asked: dict[str, None] = {}
        super().__init__(*arguments)

    def build(self) -> Relaying:
        return Stingy(self, super().build().meter)

    def held_back(self, effect: Any) -> Any:
        """Each voucher goes out when the next one is due."""
        match effect:
            case Send(to, Pay(_, voucher) as pay):
                channel = Digest(voucher.channel_id)
                newest = self._newest.get(channel)
                if newest is None or newest.voucher.amount_wei < voucher.amount_wei:
                    if newest is not None:
                        self._sent[channel] = newest
                    self._newest[channel] = pay
                late = self._sent.get(channel)
                return None if late is None else Send(to, late)
            case _:
                return effect

    def withdrawals(self, meter: Meter, now_s: float) -> list[Any]:
        """All that isn't claimed yet, of every channel, once; and take it as soon as the delay is over."""
        effects: list[Any] = []
        since_s = now_s - self.world.simulation.start_s
        for channel_id, channel in meter.book.channels.items():
            free_wei = channel.balance_wei - channel.claimed_wei
            begin, end = f"begin:{channel_id.hex()}", f"end:{channel_id.hex()}"
            if since_s > WITHDRAWS_AFTER_S and free_wei > 0 and begin not in self._asked:
                self._asked[begin] = None
                effects.append(Submit(begin, InitiateWithdraw(channel.config, free_wei)))
            later_s = WITHDRAWS_AFTER_S + channel.config.withdraw_delay_s + 30
            if since_s > later_s and begin in self._asked and end not in self._asked:
                self._asked[end] = None
                effects.append(Submit(end, FinalizeWithdraw(channel.config)))
        return effects
