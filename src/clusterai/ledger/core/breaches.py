"""Whether what one holds of a vault convicts it, and the call that does: for requesters with their signed uses, and whoever was shown a log.

A vault that won't show its log's leaves isn't convicted for that; a requester sees that it was refused, and asks elsewhere.
"""

from collections.abc import Sequence

from clusterai.ledger.core.events import LogAnchored
from clusterai.ledger.core.vault_calls import (
    Piece,
    ProveEquivocation,
    ProveOmission,
    ProveSpending,
    ProveSums,
    Shown,
    VaultsCall,
)
from clusterai.protocol.ids import ZERO_DIGEST, Digest
from clusterai.protocol.vaults import Grant, SignedUse, Use, log_proof, log_root


def equivocation(first: SignedUse, second: SignedUse) -> ProveEquivocation | None:
    """Two uses that requesters got, which claim one place."""
    a, b = first.use, second.use
    if (a.dataset, a.index) != (b.dataset, b.index) or a == b:
        return None
    return ProveEquivocation(a, first.signature, b, second.signature)


def missing(held: SignedUse, anchored: LogAnchored) -> ProveOmission | None:
    """A use that the anchored log must have and ends before."""
    use = held.use
    if use.dataset != anchored.dataset or use.index < anchored.count or use.at_s >= anchored.as_of_s:
        return None
    return ProveOmission(use, held.signature, Piece(anchored.number, ZERO_DIGEST, ()))


def replaced(held: SignedUse, leaves: Sequence[Digest], anchored: LogAnchored) -> ProveOmission | None:
    """Something else stands at a use's index of the log whose leaves were shown; None if they aren't the anchored log's."""
    use = held.use
    if use.dataset != anchored.dataset or not use.index < anchored.count == len(leaves):
        return None
    if leaves[use.index] == use.struct() or log_root(leaves) != anchored.root:
        return None
    piece = Piece(anchored.number, leaves[use.index], log_proof(leaves, use.index))
    return ProveOmission(use, held.signature, piece)


def first_wrong(
    uses: Sequence[Use], anchored: LogAnchored, grants: dict[Digest, Grant], budget_micro: int
) -> VaultsCall | None:
    """The first use of a whole log that spent too much or whose sums don't add up; None for an honest log, or one that isn't the anchored.

    Args:
        grants: of this dataset, as the chain has them, ended or not.
    """
    leaves = [use.struct() for use in uses]
    if log_root(leaves) != anchored.root or len(leaves) != anchored.count:
        return None

    def shown(index: int) -> Shown:
        return Shown(uses[index], anchored.number, log_proof(leaves, index))

    last_of: dict[bytes, int] = {}
    for index, use in enumerate(uses):
        if use.index != index or use.dataset != anchored.dataset:
            return None
        grant = grants.get(Digest(use.grant))
        allowed = 0 if grant is None else grant.epsilon_micro
        in_order = use.epsilon_micro <= use.grant_spent_micro <= use.total_spent_micro <= anchored.spent_micro
        if use.grant_spent_micro > allowed or use.total_spent_micro > budget_micro or not in_order:
            return ProveSpending(shown(index))
        if index and use.total_spent_micro < uses[index - 1].total_spent_micro + use.epsilon_micro:
            return ProveSums(shown(index - 1), shown(index))
        before = last_of.get(use.grant)
        if before is not None and use.grant_spent_micro < uses[before].grant_spent_micro + use.epsilon_micro:
            return ProveSums(shown(before), shown(index))
        last_of[use.grant] = index
    return None
