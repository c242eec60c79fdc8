"""A provider's part in disputes: what the chain waits for, and the states that it answers with.

The states come from running the disputed segment again, which is exact or the provider was wrong in the first place; so
nothing of it is journaled, and after a restart the chain says again where the game stands.
"""

from typing import Any

import msgspec

from clusterai.ledger.core import events
from clusterai.ledger.core.lease_calls import AssertTrace
from clusterai.protocol.bisection import cut
from clusterai.protocol.ids import Digest

RETRY_S = 2


class Retrace(msgspec.Struct, frozen=True):
    """Run a segment again and say the states at these units of its `steps`: `Retraced` comes back.

    The state at p units is that behind the last whole step that had ended by then, see `protocol.bisection.metered`.
    """

    lease: Digest
    kind: str
    spec: Any
    segment: int
    start: Digest
    steps: int
    points: tuple[int, ...]


class Retraced(msgspec.Struct, frozen=True):
    """`states`: None where it couldn't be run now."""

    lease: Digest
    points: tuple[int, ...]
    states: tuple[Digest, ...] | None


class Accused(msgspec.Struct):
    """One dispute: the range in which the provider has to say its states while it is its turn."""

    steps: int
    low: int
    high: int
    by_s: int
    my_turn: bool
    inner: tuple[Digest, ...] | None = None
    running: bool = False
    again_s: int = 0
    """not run again before, as it has just failed"""

    @property
    def points(self) -> tuple[int, ...]:
        return cut(self.low, self.high)[1:-1]


DisputeEvent = (
    events.DisputeOpened
    | events.TraceAsserted
    | events.RangeSelected
    | events.RefereesDrawn
    | events.DisputeEnded
)


class Defence:
    """All disputes about one provider's leases."""

    def __init__(self) -> None:
        self._open: dict[Digest, Accused] = {}

    def follow(self, event: DisputeEvent) -> None:
        match event:
            case events.DisputeOpened(lease, _, _, steps, _, _, _, by_s):
                self._open[lease] = Accused(steps, 0, steps, by_s, steps > 1)
            case events.RangeSelected(lease, low, high, _, _, _, by_s) if was := self._open.get(lease):
                self._open[lease] = Accused(was.steps, low, high, by_s, high - low > 1)
            case events.TraceAsserted(lease) | events.RefereesDrawn(lease) if lease in self._open:
                self._open[lease].my_turn = False
            case events.DisputeEnded(lease):
                self._open.pop(lease, None)
            case _:
                pass

    def is_open(self, lease: Digest) -> bool:
        return lease in self._open

    def forget(self, lease: Digest) -> None:
        self._open.pop(lease, None)

    def move(self, lease: Digest, chain_s: int) -> Accused | AssertTrace | None:
        """The assertion that is due, or of which range the states have to be run first."""
        game = self._open.get(lease)
        if game is None or not game.my_turn or chain_s > game.by_s or game.running:
            return None
        if game.inner is not None:
            return AssertTrace(lease, game.inner)
        return game if chain_s >= game.again_s else None

    def range(self, lease: Digest) -> tuple[int, int]:
        """Of which range an assertion is: two of a dispute may begin with the same states."""
        return self._open[lease].low, self._open[lease].high

    def take(self, done: Retraced, chain_s: int) -> None:
        """What was run; what failed is run again for as long as there is time, for who doesn't move is convicted."""
        game = self._open.get(done.lease)
        if game is not None and game.running and done.points == game.points:
            game.running = False
            game.inner = done.states
            game.again_s = chain_s + RETRY_S
