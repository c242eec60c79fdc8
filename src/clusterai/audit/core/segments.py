"""What a lease's provider commits to, whether it is audited, at which segment, and by whom: pure arithmetic.

    h_0 ... h_T    digests of the state before the first segment and after each
    M_0 ... M_T    units that were metered up to there; M_0 = 0
    value_i = keccak(uint32 i || keccak(h_i) || uint64 M_i)          the commitment tells keccak(h_T) and M_T, not h_T
    C       = root of the Merkle tree over value_0 ... value_T          (`protocol/merkle.py`, the receipts' tree)

    u = keccak(beacon || J || C || lease)
    audited   iff u < rate * 2^256 / 10^6
    segment   = 1 + keccak(u || 0x01) mod T            run again from h_{j-1}, M_{j-1} to keccak(h_j || uint64 M_j)
    other     = k, M_{k-1} <= keccak(u || 0x04) mod M_T < M_k           its meter is looked at too
    attempt k : lot = keccak(u || 0x02 || uint8 k), and the seat at lot mod (sum of weights)

The commitment stands before anyone knows the beacon, so neither side picks what is looked at. `Audits.sol` computes
the same; tests/vectors/segments.json holds both to it.
"""

from bisect import bisect_right
from collections.abc import Collection, Sequence
from itertools import accumulate

import msgspec

from clusterai.protocol import merkle
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import MAX_SEGMENTS, hidden_state, segment_result

MILLION = 1_000_000
VETERAN_AT = 10
"""A provider with N audits in a row that matched is audited at least at rate 10 / (N + 1)."""


class Opening(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One digest of the commitment with its meter, which counts from the beginning, and its proof."""

    index: int
    state: Digest
    units: int
    proof: tuple[Digest, ...]


class Commitment:
    """A provider's own: all digests and meters, from which any opening is made.

    Args:
        states: h_0 ... h_T.
        units: what each segment metered.
    """

    def __init__(self, states: Sequence[Digest], units: Sequence[int]) -> None:
        assert len(states) == len(units) + 1, "a state before the first segment and one after each"
        assert 1 <= len(units) <= MAX_SEGMENTS, "the number of segments is bounded"
        self.states = tuple(states)
        self.meters = tuple(accumulate(units, initial=0))
        self._tree = merkle.levels(
            [value(i, h, m) for i, (h, m) in enumerate(zip(states, self.meters, strict=True))]
        )

    @property
    def root(self) -> Digest:
        return Digest(self._tree[-1][0])

    @property
    def segments(self) -> int:
        return len(self.states) - 1

    def open(self, index: int) -> Opening:
        """h_index with its proof; `commitLease` takes that of T."""
        return Opening(index, self.states[index], self.meters[index], merkle.path(self._tree, index))

    def show(self, segment: int, seed: Digest) -> tuple[tuple[Opening, ...], int]:
        """What `openSegment` takes: both ends of the drawn segment, and of the one in which the drawn unit lies, if that is
        another; and which one that is."""
        other = bisect_right(self.meters, drawn_unit(seed, self.meters[-1]))
        wanted = (segment - 1, segment) if other == segment else (segment - 1, segment, other - 1, other)
        return tuple(map(self.open, wanted)), other

    def result(self, index: int) -> Digest:
        """What is claimed of the segment that ends there."""
        return segment_result(self.states[index], self.meters[index])


class Draw(msgspec.Struct, frozen=True):
    """What the beacon decided of one lease; `segment` counts from 1."""

    seed: Digest
    audited: bool
    segment: int


class Seat(msgspec.Struct, frozen=True):
    """A place on the panel of auditors, with the stake that weighed when the lease was committed. Empty ones weigh 0."""

    owner: Address
    weight: int


class RateRules(msgspec.Struct, frozen=True):
    """Millionths, as the governor set them: what cheating saves of the price (s/R), the check's sensitivity (d0), the
    adversary's share of auditors (r) and by how much honesty shall win (mu)."""

    saving_ppm: int
    sensitivity_ppm: int
    corrupt_ppm: int
    margin_ppm: int


def value(index: int, state: Digest, units: int) -> Digest:
    """What the tree holds at `index`."""
    return Digest(keccak(index.to_bytes(4) + hidden_state(state) + units.to_bytes(8)))


def is_opened(root: Digest, segments: int, opening: Opening) -> bool:
    """Whether the opening shows what was committed to; of T segments there are T + 1 states."""
    if not 0 <= opening.index <= segments or not 0 <= opening.units < 2**64 or len(opening.state) != 32:
        return False
    leaf = value(opening.index, opening.state, opening.units)
    return merkle.verify(root, leaf, opening.index, segments + 1, opening.proof)


def draw(beacon: Digest, spec: Digest, root: Digest, lease: Digest, segments: int, rate_ppm: int) -> Draw:
    seed = Digest(keccak(beacon + spec + root + lease))
    audited = int.from_bytes(seed) * MILLION >> 256 < rate_ppm
    return Draw(seed, audited, 1 + int.from_bytes(keccak(seed + b"\x01")) % segments)


def drawn_unit(seed: Digest, units: int) -> int:
    """A unit of all that were claimed, each with the same chance: where more were claimed than anybody can do in a segment,
    it is found in proportion to what they would have earned."""
    return int.from_bytes(keccak(seed + b"\x04")) % units


def auditor_lot(seed: Digest, attempt: int) -> int:
    return int.from_bytes(keccak(seed + b"\x02" + attempt.to_bytes(1)))


def pick(lot: int, seats: Sequence[Seat], excluded: Collection[Address]) -> Address | None:
    """The owner at `lot`, each with a chance in proportion to its weight; None where nobody is left.

    Args:
        seats: in the panel's order, which decides who stands where.
        excluded: the lease's own parties, and auditors who have spoken already.
    """
    able = [seat for seat in seats if seat.weight and seat.owner not in excluded]
    total = sum(seat.weight for seat in able)
    if not total:
        return None
    point = lot % total
    for seat in able:
        if point < seat.weight:
            return seat.owner
        point -= seat.weight
    raise AssertionError("the point lies below the sum")


def least_rate_ppm(rules: RateRules, stake_wei: int, pay_wei: int) -> int:
    """p* in millionths, rounded up, at most a million: PROOF's formula without gain outside (B = 0) and without false
    convictions, (1 + mu) s R / [d0 (1 - r) (R + S)]."""
    detection = rules.sensitivity_ppm * (MILLION - rules.corrupt_ppm) * (pay_wei + stake_wei)
    saved = (MILLION + rules.margin_ppm) * rules.saving_ppm * pay_wei * MILLION
    return MILLION if detection == 0 else min(MILLION, -(-saved // detection))


def rate_ppm(rules: RateRules, stake_wei: int, pay_wei: int, valid_in_a_row: int) -> int:
    """The rate that a commitment gets: reputation lowers it down to p*, never below."""
    return max(
        least_rate_ppm(rules, stake_wei, pay_wei), min(MILLION, VETERAN_AT * MILLION // (valid_in_a_row + 1))
    )


def bait_ppm(rules: RateRules, pay_wei: int, segments: int, at_risk_wei: int) -> int:
    """Beside how many of a million leases bait stands so that copying costs an auditor about twice what running a segment does, rounded
    up: 4 K / (A + V + S_a), K = s R / T. Half of what is drawn of bait has nothing to copy.

    Args:
        at_risk_wei: what a copier loses: the fee A, the bond V, its stake S_a.
    """
    saved = 4 * rules.saving_ppm * pay_wei
    return MILLION if at_risk_wei <= 0 else min(MILLION, -(-saved // (segments * at_risk_wei)))
