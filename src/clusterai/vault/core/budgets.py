"""What was spent of a vault's ε and δ, by whom, and what may still be.

Three budgets hold at once, of a grant, of a requester and of everybody, and the least of them is what is left. What the chain holds the
vault to is never exceeded, whatever its policy says later: more spent is a breach that costs the stake.
"""

from collections.abc import Iterable

import msgspec

from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.vaults import Grant, SignedUse
from clusterai.vault.core.policy import Policy, epsilon
from clusterai.vault.core.terms import Closed, Denied, Entry, Spend, Spending, UseRow


class Budgets:
    """
    Attributes:
        spends: by order, in the order in which they were made.
        total_micro, delta_pico: of everybody, for ever.
        fixed_micro: what the chain holds us to; None until it has said.
    """

    def __init__(self) -> None:
        self.spends: dict[Digest, UseRow] = {}
        self._open: dict[Digest, None] = {}
        """orders"""
        self._spent_of: dict[Address, int] = {}
        self.total_micro = 0
        self.delta_pico = 0
        self.fixed_micro: int | None = None

    def spent_by(self, requester: Address) -> int:
        return self._spent_of.get(requester, 0)

    def of_all_micro(self, policy: Policy) -> int:
        """ε of everybody, for ever: the policy's, and never more than the chain's."""
        fixed = self.fixed_micro
        return policy.total_epsilon_micro if fixed is None else min(fixed, policy.total_epsilon_micro)

    def lefts_micro(self, policy: Policy, requester: Address) -> tuple[tuple[str, int], tuple[str, int]]:
        """What this one may still spend, and what all may."""
        return (
            ("requester", policy.requester_epsilon_micro - self.spent_by(requester)),
            ("vault", self.of_all_micro(policy) - self.total_micro),
        )

    def left_micro(self, policy: Policy, requester: Address) -> int:
        return min(left for _, left in self.lefts_micro(policy, requester))

    def lacking(
        self, policy: Policy, requester: Address, epsilon_micro: int, promised: tuple[int, int]
    ) -> str:
        """Why they don't hold it besides what was promised, to everybody and to this requester; empty where they do."""
        (_, theirs_left), (_, all_left) = self.lefts_micro(policy, requester)
        everybody, theirs = promised
        for who, left, held in (
            ("this requester's", theirs_left, theirs),
            ("all requesters'", all_left, everybody),
        ):
            if epsilon_micro > left - held:
                return (
                    f"ε {epsilon(epsilon_micro)} is asked, and of the ε {epsilon(max(0, left))} left {who} living grants hold {epsilon(held)}: "
                    "it waits until they end, or for the owner"
                )
        return ""

    def check_left(self, policy: Policy, requester: Address, epsilon_micro: int) -> None:
        """
        Raises:
            Denied: budget: nothing that ends gives so much back.
        """
        for whose, left in self.lefts_micro(policy, requester):
            if epsilon_micro > left:
                raise Denied(
                    "budget",
                    f"ε {epsilon(epsilon_micro)} is asked, and ε {epsilon(max(0, left))} is left to this {whose}, for ever: ask for less",
                )

    def check(self, policy: Policy, spend: Spend, entry: Entry, stated: Grant) -> None:
        """
        Raises:
            Denied: budget, delta: `detail` names which doesn't hold it.
        """
        asked = spend.epsilon_micro
        lefts = (
            ("grant", stated.epsilon_micro - entry.spent_micro),
            *self.lefts_micro(policy, entry.requester),
        )
        for whose, left in lefts:
            if asked > left:
                raise Denied(
                    "budget",
                    f"ε {epsilon(asked)} is more than the {epsilon(max(0, left))} left to this {whose}: ask for less, or for noisier answers",
                )
        delta_left = policy.total_delta_pico - self.delta_pico
        if spend.delta_pico > delta_left:
            raise Denied(
                "delta", f"δ {spend.delta_pico}e-12 is more than the {delta_left}e-12 left to this vault"
            )

    def open_since(self, before_s: float) -> list[UseRow]:
        """Spends that were made before then and aren't closed."""
        return [self.spends[order] for order in self._open if self.spends[order].at_s < before_s]

    # --- what was written down ---

    def count(self, record: Spending, requester: Address) -> None:
        order = Digest(record.order)
        self._spent_of[requester] = self.spent_by(requester) + record.epsilon_micro
        self.total_micro += record.epsilon_micro
        self.delta_pico += record.delta_pico
        self.spends[order] = UseRow(
            order,
            Digest(record.grant),
            requester,
            record.epsilon_micro,
            record.delta_pico,
            record.at_s,
            -1,
            None,
            None,
        )
        self._open[order] = None

    def close(self, record: Closed) -> None:
        use, order = record.use, Digest(record.use.order)
        self.spends[order] = msgspec.structs.replace(
            self.spends[order],
            index=use.index,
            result=Digest(use.result),
            signed=SignedUse(use, record.signature),
        )
        self._open.pop(order, None)

    def records(self) -> Iterable[Spending]:
        for row in self.spends.values():
            yield Spending(row.grant, row.order, row.epsilon_micro, row.delta_pico, row.at_s)

    def closed(self) -> list[SignedUse]:
        """In the order of the log."""
        signed = [row.signed for row in self.spends.values() if row.signed is not None]
        return sorted(signed, key=lambda it: it.use.index)
