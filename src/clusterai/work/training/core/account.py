"""What a run has done and cost so far: its rounds, and what came to nothing."""

from collections.abc import Iterable

from clusterai.work.training.core import lineage
from clusterai.work.training.spec import MICRO


class Account:
    """Of one run."""

    def __init__(self) -> None:
        self.rounds: list[lineage.Told] = []
        self.wasted: list[lineage.Part] = []
        """of rounds of which no sum came: what they cost was paid, and their ε is spent"""

    @property
    def charged_wei(self) -> int:
        return sum(part.charged_wei for part in self._parts())

    @property
    def epsilon(self) -> float:
        """At the vault where most was spent."""
        spent: dict[bytes, int] = {}
        for part in self._parts():
            spent[part.subject] = spent.get(part.subject, 0) + part.epsilon_micro
        return max(spent.values(), default=0) / MICRO

    def lost(self) -> list[lineage.Part]:
        """Of rounds without a sum, each once: one that failed may have been asked for again after a kill, and not have failed."""
        summed = {part.order for told in self.rounds for part in told.parts}
        return list({part.order: part for part in self.wasted if part.order not in summed}.values())

    def _parts(self) -> Iterable[lineage.Part]:
        return [*(part for told in self.rounds for part in told.parts), *self.lost()]
