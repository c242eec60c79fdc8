"""Which receipts of an epoch are audited, and how many: decided by a beacon that nobody knew at the time of the commitment.

    lot = keccak(beacon || provider || uint64 epoch || root || uint32 index);  drawn iff lot < rate * 2^256 / 10^6

`Court.sol` draws the same, so a verdict on a receipt that wasn't drawn doesn't count, and anyone can recompute it.
"""

from clusterai.audit.core.segments import VETERAN_AT, RateRules, least_rate_ppm
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


def epoch_rate_ppm(
    rules: RateRules, least_ppm: int, stake_wei: int, total_wei: int, count: int, valid_in_a_row: int
) -> int:
    """The rate that a commitment gets, in millionths: the governor's least, p* of the epoch's whole total, and of a newcomer
    ten receipts (VETERAN_AT), whichever is most.

    Half of the stake counts: a cheat's own validator may be the first to accuse it, and is paid half.

    Args:
        least_ppm: what the governor set.
        total_wei: what all receipts of the epoch come to.
        count: how many they are, 1 at least.
        valid_in_a_row: receipts of the provider that were drawn and found valid.
    """
    newcomer = VETERAN_AT * MILLION // (valid_in_a_row + count)
    deterring = least_rate_ppm(rules, stake_wei // 2, total_wei) if total_wei else 0
    return min(MILLION, max(least_ppm, newcomer, deterring))
