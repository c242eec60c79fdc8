"""Who poisons, found from which groups looked bad over many rounds: group testing by a beacon's draws.

One bad group accuses nobody: its members are masked. But groups are drawn anew each round, and only the poisoner is in a bad one
nearly every time. Each member's log-odds add up over all its groups:

    log P(group looked so | member poisons) - log P(group looked so | it doesn't)

where the second depends on how likely one of the *others* in the group was to blame, by their own odds; so a member who
often sat beside a found poisoner is cleared by that. Solved by sweeps over the whole history until nothing moves
(mean-field), which makes the order of rounds irrelevant.

Excluded is whose odds reach 1/`alpha`. The two rates are assumptions about the test, to be set wide: how often a group
with a poisoner looks bad (`caught`), how often one without does (`alarms`). A poisoner that poisons seldom enough to look
like false alarms isn't found, and harms as seldom. More than half of all groups bad within the norm bound is beyond any
of this: then "apart" points at the honest.
"""

import math

import msgspec

from clusterai.protocol.ids import Address

MAX_ROUNDS = 2000


class Test(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How good a bad-looking group is as a test of its members."""

    __test__ = False  # not one of pytest's

    caught: float = 0.8
    alarms: float = 0.05
    prior: float = 0.05
    alpha: float = 1e-4
    proven: float = 1e-9
    """`alarms` where a group that looks bad is proof that some member cheated."""


class _Seen(msgspec.Struct, frozen=True):
    members: tuple[Address, ...]
    bad: bool
    proof: bool


class Suspects:
    """Feed it each round's groups; ask whom to leave out."""

    def __init__(self, test: Test | None = None) -> None:
        self._test = test or Test()
        self._seen: list[_Seen] = []
        self._odds: dict[Address, float] = {}

    def saw(self, groups: tuple[tuple[Address, ...], ...], bad: tuple[int, ...], proof: bool = False) -> None:
        """One round: which of its groups looked bad. Groups that ended without a sum are left out of both.

        Args:
            proof: those that are bad hold a member that cheated; only which is unknown.
        """
        self._seen.extend(_Seen(group, at in bad, proof) for at, group in enumerate(groups))
        del self._seen[: max(0, len(self._seen) - MAX_ROUNDS)]
        self._solve()

    def log_odds(self, who: Address) -> float:
        return self._odds.get(who, self._start())

    def excluded(self) -> tuple[Address, ...]:
        """Whose odds of poisoning reached 1/alpha, most suspect first."""
        limit = -math.log(self._test.alpha)
        over = [(odds, who) for who, odds in self._odds.items() if odds >= limit]
        return tuple(who for _, who in sorted(over, reverse=True))

    def _start(self) -> float:
        return math.log(self._test.prior / (1 - self._test.prior))

    def _solve(self) -> None:
        test, start = self._test, self._start()
        odds = {who: start for seen in self._seen for who in seen.members}
        for _ in range(30):
            clean = {who: 1 / (1 + math.exp(min(50.0, value))) for who, value in odds.items()}
            fresh = dict.fromkeys(odds, start)
            for seen in self._seen:
                others = math.prod(clean[who] for who in seen.members)
                for who in seen.members:
                    # Chance that all others are clean: the product without this member's own factor.
                    rest = (
                        others / clean[who]
                        if clean[who] > 1e-12
                        else math.prod(clean[other] for other in seen.members if other != who)
                    )
                    alarms = test.proven if seen.proof else test.alarms
                    if_clean = alarms * rest + test.caught * (1 - rest)
                    if seen.bad:
                        fresh[who] += math.log(test.caught / if_clean)
                    else:
                        fresh[who] += math.log((1 - test.caught) / (1 - if_clean))
            moved = max((abs(fresh[who] - odds[who]) for who in odds), default=0.0)
            # Half a step damps two members who alternate in blaming each other.
            odds = {who: 0.5 * odds[who] + 0.5 * max(-40.0, min(40.0, fresh[who])) for who in odds}
            if moved < 1e-3:
                break
        self._odds = odds
