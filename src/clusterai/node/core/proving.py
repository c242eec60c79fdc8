"""Which tests a node does: of validators that were drawn for it, signed, fresh, never twice, so many a day, and none while it is rented.

Whoever could make a machine work by asking could use it for nothing, or wear down the tenant who pays for it. What a test costs is
bounded by its kind (`protocol/measuring.py`), how many by `MOST_A_DAY` of a validator; they are done one behind the other, for one validator at a time. Nobody but the drawn
is answered at all: a stranger shouldn't even learn that the machine is there.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest
from clusterai.protocol.measuring import (
    Declined,
    Echo,
    Examine,
    Fill,
    Give,
    Introduce,
    Multiply,
    Run,
    Store,
    Sweep,
    Take,
)
from clusterai.protocol.signing import BadSignature

FRESH_S = 30
DAY_S = 86_400.0
HEAVY = (Multiply, Run, Fill, Sweep, Store, Give, Take)
MOST_A_DAY = 64
"""Heavy tests of one validator: some four examinations."""
MOST_LIGHT_A_DAY = 8_000
"""All others: an echo every 15 s, and what opens heavy tests."""
HELD_S = 15.0
"""After its last test a validator still has the machine for itself: what another asked would throw away what is to be opened."""


class Exercise(msgspec.Struct, frozen=True):
    """Effect: do it and answer; `Exercised` comes back. Echoes are answered at once, and nothing comes back."""

    gateway: Address
    ask: Examine


class Exercised(msgspec.Struct, frozen=True):
    """Event: it is over, however."""

    seed: Digest


class Decline(msgspec.Struct, frozen=True):
    """Effect: answer with this."""

    gateway: Address
    ask: Examine
    answer: Declined


class Asked(msgspec.Struct, frozen=True):
    """Event: a gateway relayed this. `engaged` says what keeps the machine from being measured; "" where nothing does."""

    gateway: Address
    ask: Examine
    engaged: str


class Prover:
    """Forgets all in a restart, which lets a drawn validator ask once more: not worth a journal."""

    def __init__(
        self,
        me: Address,
        network: Domain,
        recover: Callable[[Digest, bytes], Address],
        acts_for: Callable[[Address, Address], bool],
        may_measure: Callable[[Address, float], bool],
    ) -> None:
        """
        Args:
            acts_for: whether a key acts for an owner as a validator.
            may_measure: whether that validator was drawn for this node, at that time.
        """
        self._me, self._network, self._recover = me, network, recover
        self._acts_for, self._may_measure = acts_for, may_measure
        self._seen: dict[bytes, float] = {}
        self._counted: dict[tuple[Address, bool], deque[float]] = {}
        self.running: dict[bytes, None] = {}
        self._holder = (ZERO_ADDRESS, 0.0)

    def step(self, event: Any, now_s: float) -> list[Any]:
        match event:
            case Asked(gateway, ask, engaged):
                return self._asked(gateway, ask, engaged, now_s)
            case Exercised(seed):
                if seed in self.running:
                    del self.running[seed]
                    self._holder = (self._holder[0], now_s + HELD_S)
                return []
            case _:
                return []

    def _asked(self, gateway: Address, ask: Examine, engaged: str, now_s: float) -> list[Any]:
        if not self._is_drawn(ask, now_s) or abs(now_s - ask.at_s) > FRESH_S or ask.seed in self._seen:
            return []
        self._seen = {seed: at_s for seed, at_s in self._seen.items() if at_s > now_s - 3 * FRESH_S}
        self._seen[ask.seed] = now_s
        if not self._allowed(Address(ask.validator), isinstance(ask.test, HEAVY), now_s):
            return [Decline(gateway, ask, Declined("too_often", "so much a day, and no more"))]
        if isinstance(ask.test, Echo | Introduce):
            return [Exercise(gateway, ask)]
        if engaged:
            return [Decline(gateway, ask, Declined("rented", engaged))]
        validator = Address(ask.validator)
        holder, until_s = self._holder
        if holder != validator and (self.running or now_s < until_s):
            return [Decline(gateway, ask, Declined("busy", "another validator measures it"))]
        self._holder = (validator, now_s + HELD_S)
        if not isinstance(ask.test, Take):
            self.running[ask.seed] = None
        return [Exercise(gateway, ask)]

    def _is_drawn(self, ask: Examine, now_s: float) -> bool:
        validator = Address(ask.validator)
        if ask.provider != self._me or not self._may_measure(validator, now_s):
            return False
        try:
            hot = self._recover(ask.signing_digest(self._network), ask.signature)
        except BadSignature:
            return False
        return self._acts_for(hot, validator)

    def _allowed(self, validator: Address, heavy: bool, now_s: float) -> bool:
        times = self._counted.setdefault((validator, heavy), deque())
        while times and times[0] <= now_s - DAY_S:
            times.popleft()
        if len(times) >= (MOST_A_DAY if heavy else MOST_LIGHT_A_DAY):
            return False
        times.append(now_s)
        return True
