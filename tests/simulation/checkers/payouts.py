"""Withdrawals are paid once, by what the gateway owed, and owed once.

Owed is what gateways save; paid is what the chain's `Transferred` events say of addresses that get nothing else.
"""

from typing import Any

from clusterai.gateway.core.moneystate import Payout
from clusterai.ledger.core import events
from clusterai.protocol.ids import Address, Digest
from clusterai.runtime.machine import Save
from clusterai.runtime.simulator import Blockchain, Process
from tests.simulation.checkers.blocks import OfBlocks, require


class PaidBackOnce(OfBlocks):
    """`owed[name]` outlives reorganisations; `paid[home]` is counted from the present chain."""

    def __init__(self, chain: Blockchain, homes: frozenset[Address]) -> None:
        self._homes = homes
        self.owed: dict[Digest, Payout] = {}
        self._due: dict[Address, int] = {}
        super().__init__(chain)

    def reset(self) -> None:
        self.paid: dict[Address, int] = {}

    def stepped(self, process: Process, event: Any, effects: list[Any]) -> None:
        for effect in effects:
            match effect:
                case Save(Payout() as payout):
                    name = Digest(payout.name)
                    require(name not in self.owed, "a withdrawal is owed once", name)
                    self.owed[name] = payout
                    self._due[Address(payout.to)] = payout.amount_wei
                case _:
                    pass

    def event(self, event: Any, timestamp_s: int) -> None:
        match event:
            case events.Transferred(_, to, value) if to in self._homes:
                require(to not in self.paid, "a withdrawal is paid once", to, value)
                owed_wei = self._due.get(to, 0)
                require(value == owed_wei, "what is paid back was owed", to, value, owed_wei)
                self.paid[to] = value
            case _:
                pass
