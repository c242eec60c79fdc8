"""A vault's end of knowing with whom it sums: says which member it is, and has the chain asked who the others are."""

from collections.abc import Awaitable, Callable, Sequence

import structlog

from clusterai.ledger.core.standing import Standing
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.signing import Key
from clusterai.protocol.vaults import subject
from clusterai.vault.core.policy import Policy
from clusterai.vault.core.secagg.cohort import membership, objection, signed
from clusterai.vault.core.terms import Denied

Standings = Callable[[Sequence[tuple[Address, Digest]]], Awaitable[list[Standing]]]
"""What the chain knows of hot keys and data sets; raises OSError or ValueError where it can't be asked."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("cohorts")


class Cohorts:
    """Of one vault.

    Args:
        standings: None where there is no chain, and so nobody to ask: then members are who their own keys say.
    """

    def __init__(
        self,
        key: Key,
        network: Domain,
        dataset: Digest,
        policy: Callable[[], Policy],
        standings: Standings | None,
    ) -> None:
        self._key, self._network, self._dataset = key, network, dataset
        self._policy, self._standings = policy, standings

    @property
    def matters(self) -> bool:
        """Whether the owner wants to know with whom it sums."""
        return self._policy().cohort_owners > 0

    def membership(self, member: Address) -> bytes:
        """For requesters to show to other vaults: `member` signs for this one."""
        return membership(self._key, self._network, self._dataset, member)

    async def check(
        self, memberships: Sequence[bytes], members: Sequence[bytes], subjects: Sequence[bytes], kind: str
    ) -> None:
        """Whether these members are a cohort that this vault gives something into.

        Args:
            memberships: one for each of `members`, in their order.
            subjects: of the members' data sets, for this kind of work.

        Raises:
            Denied: cohort; `detail` says who isn't what. chain: it can't be asked now.
        """
        if not self.matters:
            return
        policy = self._policy()
        if len(memberships) != len(members):
            raise Denied("cohort", f"{len(memberships)} memberships came for {len(members)} members")
        try:
            found = [signed(raw, self._network) for raw in memberships]
        except Malformed as error:
            raise Denied("cohort", f"a membership can't be read: {error}") from None
        for (it, _), member, about in zip(found, members, subjects, strict=True):
            if it.member != member or subject(Digest(it.dataset), kind) != about:
                raise Denied("cohort", "a membership is of another member than the one that it came with")
        if self._standings is None:
            return
        try:
            known = await self._standings([(signer, Digest(it.dataset)) for it, signer in found])
        except (OSError, ValueError) as error:
            log.warning("chain_away", why=str(error)[:300])
            raise Denied("chain", "the chain can't be asked now who the members are: try again") from None
        cohort = [(it, standing) for (it, _), standing in zip(found, known, strict=True)]
        why = objection(cohort, policy.cohort_owners, policy.cohort_stake_wei)
        if why is not None:
            raise Denied("cohort", why)
