"""From values to money: whole numbers, nothing for nobody's benefit, and not a wei lost."""

from collections.abc import Sequence


def shares(values: Sequence[int], pot_wei: int) -> list[int]:
    """What each earns of the pot, in proportion to values above 0; the largest remainders get what rounding left.

    They add up to the pot, or to 0 where no value is above 0: then it goes back to who paid it in.
    """
    assert pot_wei >= 0
    earning = [max(0, value) for value in values]
    total = sum(earning)
    if not total:
        return [0] * len(values)
    found = [pot_wei * value // total for value in earning]
    remainders = sorted(range(len(values)), key=lambda at: (-(pot_wei * earning[at] % total), at))
    for at in remainders[: pot_wei - sum(found)]:
        found[at] += 1
    return found
