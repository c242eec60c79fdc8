"""Two parties ran the same segment and ended in different states: find the one step in which they part.

    range lo ... hi          both agree on the state at lo, and not on that at hi
    provider  asserts        its states at up to 15 points between, which cut the range into up to 16 parts
    challenger selects       the first part at whose end its own state is another, and says which
    ... until hi = lo + 1: one step, small enough to be run again by referees

Each round divides the range by 16: 3 rounds for 10^3 steps, 5 for 10^6, 8 for 10^9. Whoever is right needs only to know
its own states; it wins whatever the other does (`Disputes.sol` plays the same game, with clocks and bonds).

Source: refereed delegation of computation, Canetti, Riva, Rothblum 2013; 16-ary as a move on chain costs more than a
digest in it.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

import msgspec

from clusterai.protocol.ids import Digest

ARITY = 16
MAX_STEPS = 2**40

Trace = Callable[[int], Digest]
"""A party's own state after so many steps of the segment; 0 is its start."""


class Dispute(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where the game stands: both say `start` at `low`; at `high` the provider `claimed` and the challenger `denied`.

    `asserted` holds the provider's states at the inner points while the challenger has to select, else nothing.
    """

    low: int
    high: int
    start: Digest
    claimed: Digest
    denied: Digest
    asserted: tuple[Digest, ...] = ()

    @property
    def is_leaf(self) -> bool:
        """One step is left: no move decides it any more, only running it."""
        return self.high == self.low + 1

    @property
    def points(self) -> tuple[int, ...]:
        """The steps at which the range is cut, both ends included: 3 to 17 rising numbers."""
        return cut(self.low, self.high)


class WrongMove(ValueError):
    """The rules don't allow this move now: {why}."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the rules don't allow this move now: {why}")


def opened(steps: int, start: Digest, claimed: Digest, denied: Digest) -> Dispute:
    """The game about a segment of `steps` steps.

    Raises:
        WrongMove: nothing to argue about.
    """
    if not 1 <= steps <= MAX_STEPS:
        raise WrongMove(f"a segment has 1 to {MAX_STEPS} steps, not {steps}")
    if claimed == denied:
        raise WrongMove("both say the same")
    return Dispute(0, steps, start, claimed, denied)


def cut(low: int, high: int) -> tuple[int, ...]:
    """Up to 16 parts whose lengths differ by at most one."""
    parts = min(ARITY, high - low)
    return tuple(low + (high - low) * part // parts for part in range(parts + 1))


def rounds(steps: int) -> int:
    """How many assertions and selections it takes to come down to one step."""
    count = 0
    while steps > 1:
        steps = -(-steps // ARITY)
        count += 1
    return count


# --- the rules ---


def asserted(game: Dispute, inner: Sequence[Digest]) -> Dispute:
    """The provider's move.

    Raises:
        WrongMove: not its turn, or not one state for each inner point.
    """
    if game.is_leaf or game.asserted:
        raise WrongMove("the provider has nothing to assert")
    if len(inner) != len(game.points) - 2:
        raise WrongMove(f"{len(inner)} states for {len(game.points) - 2} points")
    return msgspec.structs.replace(game, asserted=tuple(inner))


def selected(game: Dispute, part: int, denied: Digest) -> Dispute:
    """The challenger's move: it agrees at the beginning of `part`, and has `denied` at its end.

    Raises:
        WrongMove: not its turn, no such part, or no disagreement there.
    """
    if not game.asserted:
        raise WrongMove("the provider has to assert first")
    points = game.points
    if not 0 <= part < len(points) - 1:
        raise WrongMove(f"no part {part} of {len(points) - 1}")
    states = (game.start, *game.asserted, game.claimed)
    if denied == states[part + 1]:
        raise WrongMove("both say the same there")
    if part == len(points) - 2 and denied != game.denied:
        # What it said of the end it can't take back; else it could follow two stories at once.
        raise WrongMove("it said something else of that state before")
    return Dispute(points[part], points[part + 1], states[part], states[part + 1], denied)


# --- how to play them ---


def metered(start: Digest, parts: Sequence[tuple[int, Digest]], steps: int, end: Digest) -> Trace:
    """A run whose parts cost several units each, as a trace by units: `parts` are (units, state behind it).

    At p units it is the state behind the last part that had ended by then; at `steps`, whatever the parts add up to, `end`:
    the result of the whole, which covers the meter (`protocol.leases.segment_result`).
    """
    ends = list(accumulate(units for units, _ in parts))
    states = (start, *(state for _, state in parts))
    return lambda point: end if point >= steps else states[bisect_right(ends, point)]


def assertion(game: Dispute, trace: Trace) -> tuple[Digest, ...]:
    """What a provider that ran the segment answers."""
    return tuple(trace(point) for point in game.points[1:-1])


def selection(game: Dispute, trace: Trace) -> tuple[int, Digest]:
    """What a challenger that ran the segment answers: the first part at whose end the states differ."""
    states = (*game.asserted, game.claimed)
    for part, (point, state) in enumerate(zip(game.points[1:], states, strict=True)):
        own = game.denied if part == len(states) - 1 else trace(point)
        if own != state:
            return part, own
    raise AssertionError("the ends differ, so some part's end does")
