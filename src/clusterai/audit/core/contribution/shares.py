"""From values to money, as `Rewards.sol` shares a pot out: nothing for nobody's benefit, and not a wei lost."""

from collections.abc import Sequence

from clusterai.protocol.pots import earned_wei


def scores_of(values: Sequence[int]) -> tuple[int, ...]:
    """What `Rewards.scorePot` takes: values above 0 as they are, all others 0."""
    return tuple(max(0, value) for value in values)


def shares(values: Sequence[int], pot_wei: int) -> tuple[int, ...]:
    """What each earns of the pot. They add up to it, or to 0 where no value is above 0: then it goes back to who paid it in."""
    return earned_wei(pot_wei, 0, scores_of(values))
