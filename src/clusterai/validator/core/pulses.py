"""Which of drand's pulses this validator brings to the chain, and when; only where the network's beacon is drand's.

    EpochCommitted, LeaseCommitted(round) ─> its time, and our turn ─> Fetch ─> Fetched ─> Submit(RecordPulse)
                                                       └ nobody brought it for an epoch ─> Submit(RecordLapsed)

Anyone may bring a pulse, and one is enough: validators take turns by lot, a few seconds each, so that mostly one of them pays.
Nothing is kept: after a start the chain tells what waits. A round whose receipts nobody can judge any more isn't worth
its gas; a lease waits for its draw as long as it takes.
"""

from typing import Any

import msgspec

from clusterai.audit.core import drand
from clusterai.audit.core.drand import FalsePulse, Pulse
from clusterai.ledger.core import events
from clusterai.ledger.core.calls import Mined, RecordLapsed, Reverted, Submit
from clusterai.ledger.core.projection import Projection
from clusterai.ledger.core.rules import DrandRules
from clusterai.protocol.ids import Address
from clusterai.protocol.keccak import keccak
from clusterai.runtime.machine import Tick

TURNS, TURN_S = 4, 6.0
"""Later than a round's time by up to 18 s, a block or two on most chains; less where epochs are short."""
AGAIN_S = 6.0
LAG_S = 30
"""How far the chain's clock may stand behind ours and still count as caught up."""
KEY = "pulse-"


class Fetch(msgspec.Struct, frozen=True):
    """Effect: get this round's pulse from a relay, verified; `Fetched` or `NotFetched` comes back."""

    round: int


class Fetched(msgspec.Struct, frozen=True):
    pulse: Pulse


class NotFetched(msgspec.Struct, frozen=True):
    round: int
    why: str


class Pulses:
    """See the module. `trouble` says why a due pulse isn't there; "" when none is missing."""

    def __init__(self, me: Address, given: DrandRules, epoch_s: int, window_s: int) -> None:
        self._me = me
        self._given = given
        self._epoch_s = epoch_s
        self._window_s = window_s
        self._chain = Projection()
        self._waiting: dict[int, bool] = {}
        """rounds that draw from something; whether a lease is among that"""
        self._recorded: dict[int, bool] = {}
        self._not_before_s: dict[int, float] = {}
        self._is_live = False
        self.trouble = ""

    def waiting(self) -> list[int]:
        """Rounds that draw from something and aren't recorded."""
        return [it for it in self._waiting if it not in self._recorded]

    def step(self, event: Any, now_s: float) -> list[Any]:
        match event:
            case events.EpochCommitted() if event.round not in self._waiting:
                self._chain.put(self._waiting, event.round, False)
            case events.LeaseCommitted() if event.round:
                self._chain.put(self._waiting, event.round, True)
            case events.BeaconRecorded(number):
                self._chain.put(self._recorded, number, True)
            case events.Block(_, timestamp_s):
                self._chain.apply(event, now_s)
                self._is_live = self._is_live or timestamp_s >= now_s - LAG_S
                return self._due(now_s)
            case events.RolledBack():
                self._chain.apply(event, now_s)
                self._not_before_s.clear()
            case Tick():
                return self._due(now_s)
            case Fetched(pulse):
                return self._bring(pulse, now_s)
            case NotFetched(number, why):
                self._not_before_s[number] = now_s + AGAIN_S
                self.trouble = f"round {number}: {why}"
            case Mined(key) | Reverted(key):
                self._not_before_s[int(key.removeprefix(KEY))] = now_s + AGAIN_S
            case _:
                pass
        return []

    def _due(self, now_s: float) -> list[Any]:
        if not self._is_live:
            return []
        for number in [it for it in self._recorded if now_s > self._given.time_of(it) + self._window_s]:
            del self._recorded[number]
            self._waiting.pop(number, None)
            self._not_before_s.pop(number, None)
        effects: list[Any] = []
        for number in self.waiting():
            due_s = self._given.time_of(number)
            late_s = due_s + self._epoch_s
            if not self._waiting[number] and now_s > due_s + self._window_s:
                del self._waiting[number]  # nobody can judge what it would draw
                continue
            late = now_s > late_s
            turn_s = (late_s if late else due_s) + self._turn(number)
            if now_s < turn_s or now_s < self._not_before_s.get(number, 0.0):
                continue
            self._not_before_s[number] = now_s + 2 * AGAIN_S
            effects.append(Submit(f"{KEY}{number}", RecordLapsed(number)) if late else Fetch(number))
        if not effects and not self.waiting():
            self.trouble = ""
        return effects

    def _bring(self, pulse: Pulse, now_s: float) -> list[Any]:
        self.trouble = ""
        if pulse.round in self._recorded:
            return []
        try:
            call = drand.call(pulse)
        except FalsePulse as error:
            return self.step(NotFetched(pulse.round, str(error)), now_s)
        return [Submit(f"{KEY}{pulse.round}", call)]

    def _turn(self, number: int) -> float:
        turn_s = min(TURN_S, self._epoch_s / (2 * TURNS))
        return turn_s * (int.from_bytes(keccak(number.to_bytes(8) + self._me)[:4]) % TURNS)
