"""The work that is leased in simulations: a chain of hashes, whose cost is a number and not time.

    h_0 = keccak(spec)      h_j = keccak(h_{j-1} || j)      a skipped segment: keccak("made up" || ...)

Running a segment from a state that somebody made up is as easy as from a right one, as with real work: an audit finds
only the segments that were skipped themselves. Inside a segment there are states too, for disputes to come down to.
"""

from collections.abc import Sequence
from functools import lru_cache

from clusterai.protocol.ids import Digest
from clusterai.protocol.jobs import Bait
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import is_bait, trap_digest


def run(before: bytes, segment: int) -> Digest:
    """The right state after `segment`, from any state before it."""
    return Digest(keccak(before + segment.to_bytes(4)))


def inside(start: bytes, segment: int, used: int, points: Sequence[int]) -> tuple[Digest, ...]:
    """The right states so many units into a segment that uses up so many."""
    end = run(start, segment)
    return tuple(
        end if point >= used else Digest(keccak(b"inside" + start + point.to_bytes(8)) if point else start)
        for point in points
    )


def invented(result: Digest, steps: int, points: Sequence[int]) -> tuple[Digest, ...]:
    """States that lead nowhere but have the wanted end: who made that up makes these up too, the same each time."""
    return tuple(
        result if point >= steps else Digest(keccak(b"invented" + result + point.to_bytes(8)))
        for point in points
    )


@lru_cache(maxsize=256)
def done(spec: bytes, segments: int) -> tuple[Digest, ...]:
    """The states of honest work; jobs of the same specification come to the same, so it is worth remembering."""
    return skipped(spec, segments, frozenset())


def heavy(segments: int) -> frozenset[int]:
    """The quarter of a job's segments that costs more than the others, where its segments are uneven."""
    return frozenset(range(1, max(1, segments // 4) + 1))


def skipped(spec: bytes, segments: int, made_up: frozenset[int]) -> tuple[Digest, ...]:
    """The states of a cheat that makes up those after some segments."""
    states = [Digest(keccak(spec))]
    for segment in range(1, segments + 1):
        if segment in made_up:
            states.append(Digest(keccak(b"made up" + states[-1])))
        else:
            states.append(run(states[-1], segment))
    return tuple(states)


def baited(spec: bytes, bait: Bait) -> tuple[Digest, ...]:
    """What is committed to for a planted lease: between bait stands something to run on from."""
    secret = Digest(bait.secret)
    states = [Digest(keccak(spec))]
    for index in range(1, bait.segments + 1):
        is_end = is_bait(secret, index, bait.segments)
        lure = keccak(b"lure" + secret + index.to_bytes(4))
        states.append(trap_digest(secret, index) if is_end else Digest(lure))
    return tuple(states)
