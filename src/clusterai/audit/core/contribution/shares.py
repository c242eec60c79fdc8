"""From values to money, as `Rewards.sol` shares a pot out: nothing for nobody's benefit, and not a wei lost."""

from collections.abc import Sequence

from clusterai.protocol.pots import earned_wei


def score_of(value: int, quality_milli: int, weight_milli: int) -> int:
    """What `Rewards.scorePot` takes: nothing for a value below 0; of others `weight_milli` thousandths are earned by quality alone.

    Quality multiplies what rows are worth and is no prize of its own, so that ten names, or a single clean row, win none.
    """
    return max(0, value) * (1_000 * (1_000 - weight_milli) + weight_milli * quality_milli) // 1_000_000


def shares(values: Sequence[int], pot_wei: int) -> tuple[int, ...]:
    """What each earns of the pot. They add up to it, or to 0 where no value is above 0: then it goes back to who paid it in."""
    return earned_wei(pot_wei, 0, tuple(max(0, value) for value in values))
