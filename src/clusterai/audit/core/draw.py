"""Which receipts of an epoch are audited: decided by a beacon that nobody knew at the time of the commitment.

    lot = keccak(beacon || provider || uint64 epoch || root || uint32 index);  drawn iff lot < rate * 2^256 / 10^6

`Court.sol` draws the same, so a verdict on a receipt that wasn't drawn doesn't count, and anyone can recompute it.
"""

from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.keccak import keccak

MILLION = 1_000_000


def lot(beacon: Digest, provider: Address, epoch: int, root: Digest, index: int) -> int:
    """A number of 256 bits, uniform over beacons."""
    return int.from_bytes(keccak(beacon + provider + epoch.to_bytes(8) + root + index.to_bytes(4)))


def is_drawn(beacon: Digest, provider: Address, epoch: int, root: Digest, index: int, rate_ppm: int) -> bool:
    return (lot(beacon, provider, epoch, root, index) * MILLION) >> 256 < rate_ppm


def drawn(
    beacon: Digest, provider: Address, epoch: int, root: Digest, count: int, rate_ppm: int
) -> tuple[int, ...]:
    """The indices to audit of an epoch with `count` receipts, rising."""
    return tuple(index for index in range(count) if is_drawn(beacon, provider, epoch, root, index, rate_ppm))
