"""How long a round waits for vaults that have an order and say nothing.

A vault with a live link that never answers would otherwise hold up every round for as long as a round may take. So those that answer decide: once
as many have trained as a sum needs, the others have a few times as long as that took. It is a time that no third of the vaults can shorten, since
the quorum isn't there before honest ones have answered; and nobody can lengthen it but by being one whom the quorum can't do without.

A vault that is slow and honest is given more: whatever the others do, a minute, and twice as long as it ever took itself in this run.
"""

from collections.abc import Sequence

FACTOR = 4.0
"""Of the time that the quorum took."""
LEAST_S = 60.0
"""Short rounds differ by what else a machine has to do."""
OWN_FACTOR = 2.0
"""Of the longest that this vault took."""


def wait_s(answered_s: Sequence[float], quorum: int, longest_s: float, own_s: float = 0.0) -> float:
    """How long after the orders went out a vault that hasn't answered is waited for.

    Args:
        answered_s: how long each of those took that have answered, in any order.
        quorum: so many answers make a sum.
        longest_s: however long the others take.
        own_s: the longest that this vault took in an earlier round; 0: it hasn't answered yet.
    """
    if len(answered_s) < quorum:
        return longest_s
    quorum_s = sorted(answered_s)[quorum - 1]
    return min(longest_s, max(LEAST_S, FACTOR * quorum_s, OWN_FACTOR * own_s))
