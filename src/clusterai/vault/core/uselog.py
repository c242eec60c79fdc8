"""The log of uses, and how much of it the chain has.

Each use that is closed is a leaf, which says what was spent before it: a log that contradicts itself convicts whoever signed it. The root is
anchored about once a minute, or as soon as many wait.
"""

from clusterai.protocol.ids import Digest
from clusterai.protocol.vaults import Use, log_root
from clusterai.vault.core.terms import Anchor, Closed, Terms, UseRow

EVERY_S = 60.0
AT = 64
"""Uses that aren't anchored yet, so many and it isn't waited for."""
RETRY_S = 30.0


class UseLog:
    """
    Attributes:
        leaves: as they are anchored. anchored: how many of them the chain has.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.leaves: list[Digest] = []
        self.anchored = 0
        self._grants_micro: dict[Digest, int] = {}
        """by grant, as the log has it"""
        self._total_micro = 0
        self._anchor_at_s = 0.0
        self._latest_s = 0
        """no use may be older than what was anchored before it, whatever the clock does"""

    def closing(self, row: UseRow, result: Digest, now_s: float) -> Closed:
        """The next leaf, signed; `add` makes it one."""
        use = Use(
            self._terms.dataset,
            len(self.leaves),
            row.grant,
            row.requester,
            row.order,
            row.epsilon_micro,
            self._grants_micro.get(row.grant, 0) + row.epsilon_micro,
            self._total_micro + row.epsilon_micro,
            result,
            max(int(now_s), self._latest_s),
        )
        return Closed(use, self._terms.sign(use.signing_digest(self._terms.network)))

    def add(self, use: Use) -> None:
        assert use.index == len(self.leaves), "the log has no gap"
        self.leaves.append(use.struct())
        self._grants_micro[Digest(use.grant)] = use.grant_spent_micro
        self._total_micro = use.total_spent_micro
        self._latest_s = max(self._latest_s, use.at_s)

    def chain_has(self, count: int, as_of_s: int) -> None:
        self.anchored = max(self.anchored, min(count, len(self.leaves)))
        self._latest_s = max(self._latest_s, as_of_s)

    def anchoring(self, now_s: float) -> list[Anchor]:
        """What to anchor now, if anything."""
        behind = len(self.leaves) - self.anchored
        waited_s = now_s - self._anchor_at_s
        if not behind or waited_s < (RETRY_S if behind >= AT else EVERY_S):
            return []
        self._anchor_at_s = now_s
        # Not the time now: the chain takes none from its future, and its clock may be behind ours.
        as_of_s = self._latest_s = max(int(now_s) - 3_600, self._latest_s)
        return [Anchor(len(self.leaves), log_root(self.leaves), self._total_micro, as_of_s)]
