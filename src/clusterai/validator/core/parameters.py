"""The Court's parameters as the chain has them now: those of the manifest until it says otherwise."""

from clusterai.ledger.core.events import ParametersSet
from clusterai.ledger.core.rules import Rules


class Parameters:
    """What was set, with the blocks in which; blocks that are undone take it back."""

    def __init__(self, rules: Rules) -> None:
        at_first = ParametersSet(
            rules.audit_rate_ppm, rules.bounty_bps, rules.answer_s, rules.challenge_bond_wei
        )
        self._set: list[tuple[int, ParametersSet]] = [(-1, at_first)]

    @property
    def now(self) -> ParametersSet:
        return self._set[-1][1]

    def set(self, given: ParametersSet, block: int) -> None:
        self._set.append((block, given))

    def roll_back(self, number: int) -> None:
        """Blocks above `number` are gone."""
        while self._set[-1][0] > number:
            self._set.pop()
