"""Who fetches which pieces from whom: a machine without sockets, so that every bad holder can be played in a test.

    idle ──take──> busy ──got──> idle            pieces are done when they came and were right, from whomever
                    ├──failed──> resting ──> idle    a while, twice as long each time; after six in a row: left
                    └──corrupt─> left                at once, and remembered with what it sent

Nobody is assigned pieces in advance. A holder that has a hand free takes the next run of consecutive pieces, so a fast one
takes more than a slow one (work-stealing with one queue). When nothing is left to begin, whoever is idle takes again
what has been under way for longest elsewhere: a holder that became slow, or died without saying so, delays the end by at
most one run. The first right copy counts.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from clusterai.content.core.manifest import Manifest

MOST_FAILURES = 6
REST_S = 0.5
MOST_COPIES = 2
"""How many holders may be asked for one piece at the same time."""
STEAL_S = 0.5
"""What is under way for less isn't asked of somebody else too: an end without it would fetch the last runs twice."""

State = Literal["good", "resting", "left", "corrupt"]


class Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a holder sent in place of a piece. It convinces who saw it and nobody else: holders sign nothing."""

    holder: str
    address: str
    """of the data set, 0x hex"""
    piece: int
    wanted: str
    """BLAKE3 of the piece, hex"""
    got: str
    at_s: int


class Run(msgspec.Struct, frozen=True):
    """Consecutive pieces of one file, asked of one holder in one request."""

    number: int
    first: int
    count: int


@dataclass
class _Holder:
    hands: int
    busy: int = 0
    failures: int = 0
    resting_until_s: float = 0.0
    state: State = "good"
    why: str = ""
    pieces: int = 0
    bytes: int = 0


@dataclass
class _Taken:
    run: Run
    holder: int
    since_s: float
    missing: set[int] = field(default_factory=set[int])


class Swarm:
    """One fetch of one data set."""

    def __init__(
        self,
        manifest: Manifest,
        missing: Iterable[int],
        hands: Iterable[int],
        run_bytes: int = 4 << 20,
    ) -> None:
        """
        Args:
            missing: numbers of the pieces that aren't here yet.
            hands: for each holder, how many requests it is asked at a time; 0 is one that is not asked at all.
            run_bytes: about how much is asked for in one request.
        """
        self._pieces = list(manifest.pieces())
        self._most = max(1, run_bytes // manifest.piece_bytes)
        self._missing = set(missing)
        self._queue = deque(sorted(self._missing))
        self._queued = set(self._queue)
        self._holders = [_Holder(count, state="good" if count else "corrupt") for count in hands]
        self._taken: dict[int, _Taken] = {}
        self._number = 0

    @property
    def left(self) -> int:
        """Pieces that aren't here yet."""
        return len(self._missing)

    @property
    def is_over(self) -> bool:
        """All here, or nobody left to ask."""
        return not self._missing or all(holder.state in ("left", "corrupt") for holder in self._holders)

    def take(self, holder: int, now_s: float) -> Run | None:
        """What `holder` should be asked for now; None if it is full, resting, left, or nothing is left to ask."""
        one = self._holders[holder]
        if one.state in ("left", "corrupt") or one.busy >= one.hands or now_s < one.resting_until_s:
            return None
        if one.failures and one.busy:
            return None  # one try at a time, until it answers again
        found = self._from_queue() or self._stolen(holder, now_s)
        if found is None:
            return None
        first, count = found
        self._number += 1
        run = Run(self._number, first, count)
        self._taken[run.number] = _Taken(run, holder, now_s, set(range(first, first + count)) & self._missing)
        one.busy += 1
        one.state = "good"
        return run

    def wakes_s(self, holder: int, now_s: float) -> float | None:
        """When a resting holder may be asked again."""
        one = self._holders[holder]
        return one.resting_until_s if one.state == "resting" and one.resting_until_s > now_s else None

    def got(self, run: Run, piece: int) -> bool:
        """A right copy came. False where another was first: it need not be written."""
        taken = self._taken.get(run.number)
        if taken is not None:
            taken.missing.discard(piece)
            one = self._holders[taken.holder]
            one.failures = 0
            one.pieces += 1
            one.bytes += self._pieces[piece].size
        if piece not in self._missing:
            return False
        self._missing.discard(piece)
        return True

    def wanted(self, run: Run) -> bool:
        """Whether anything of it is still missing: else its request may be broken off."""
        return any(piece in self._missing for piece in range(run.first, run.first + run.count))

    def done(self, run: Run) -> None:
        """The request ended and brought all, or wasn't wanted any more."""
        self._release(run)

    def failed(self, run: Run, why: str, now_s: float) -> None:
        """The request ended early: refused, broken off, too slow."""
        holder = self._release(run)
        if holder is None:
            return
        one = self._holders[holder]
        one.failures += 1
        one.why = why
        if one.state == "corrupt":
            return
        if one.failures >= MOST_FAILURES:
            one.state = "left"
        else:
            one.state = "resting"
            one.resting_until_s = now_s + REST_S * 2 ** (one.failures - 1)

    def corrupt(self, run: Run, why: str) -> None:
        """It sent something else than the piece. There is no innocent way to do that often; it isn't asked again."""
        holder = self._release(run)
        if holder is not None:
            self._holders[holder].state = "corrupt"
            self._holders[holder].why = why

    def states(self) -> list[tuple[State, str, int, int]]:
        """Of each holder: its state, why, and the pieces and bytes that came from it and were right."""
        return [(one.state, one.why, one.pieces, one.bytes) for one in self._holders]

    def _from_queue(self) -> tuple[int, int] | None:
        while self._queue and self._queue[0] not in self._missing:
            self._queued.discard(self._queue.popleft())
        if not self._queue:
            return None
        first = self._queue.popleft()
        self._queued.discard(first)
        count = 1
        while (
            count < self._most
            and self._queue
            and self._queue[0] == first + count
            and self._queue[0] in self._missing
            and self._pieces[first + count].file == self._pieces[first].file
        ):
            self._queued.discard(self._queue.popleft())
            count += 1
        return first, count

    def _stolen(self, holder: int, now_s: float) -> tuple[int, int] | None:
        """The end of what has been under way elsewhere for longest."""
        copies: dict[int, int] = {}
        mine: set[int] = set()
        for taken in self._taken.values():
            for piece in taken.missing & self._missing:
                copies[piece] = copies.get(piece, 0) + 1
                if taken.holder == holder:
                    mine.add(piece)
        for taken in sorted(self._taken.values(), key=lambda it: (it.since_s, it.run.number)):
            if taken.holder == holder or now_s - taken.since_s < STEAL_S:
                continue
            free = sorted(
                piece
                for piece in taken.missing & self._missing
                if copies[piece] < MOST_COPIES and piece not in mine
            )
            if free:
                # The later half: the other one is at work on the earlier.
                first = free[len(free) // 2]
                count = 1
                while first + count in free and count < self._most:
                    count += 1
                return first, count
        return None

    def _release(self, run: Run) -> int | None:
        taken = self._taken.pop(run.number, None)
        if taken is None:
            return None
        self._holders[taken.holder].busy -= 1
        elsewhere = {piece for other in self._taken.values() for piece in other.missing}
        back = [
            piece
            for piece in range(run.first, run.first + run.count)
            if piece in self._missing and piece not in self._queued and piece not in elsewhere
        ]
        for piece in reversed(back):
            self._queue.appendleft(piece)
            self._queued.add(piece)
        return taken.holder
