"""The work that is leased in simulations: a chain of hashes, whose cost is a number and not time.

    h_0 = keccak(spec)      h_j = keccak(h_{j-1} || j)      a skipped segment: keccak("made up" || ...)

Running a segment from a state that somebody made up is as easy as from a right one, as with real work: an audit finds
only the segments that were skipped themselves.
"""

from functools import lru_cache

from clusterai.audit.core.segments import Commitment
from clusterai.protocol.ids import Digest
from clusterai.protocol.keccak import keccak

UNITS = 1


def run(before: Digest, segment: int) -> Digest:
    """The right state after `segment`, from any state before it."""
    return Digest(keccak(before + segment.to_bytes(4)))


@lru_cache(maxsize=256)
def done(spec: Digest, segments: int) -> Commitment:
    """What honest work commits to; jobs of the same specification come to the same, so it is worth remembering."""
    return skipped(spec, segments, frozenset())


def skipped(spec: Digest, segments: int, made_up: frozenset[int]) -> Commitment:
    """What a cheat commits to that makes up the states after some segments."""
    states = [Digest(keccak(spec))]
    for segment in range(1, segments + 1):
        if segment in made_up:
            states.append(Digest(keccak(b"made up" + states[-1])))
        else:
            states.append(run(states[-1], segment))
    return Commitment(states, [UNITS] * segments)
