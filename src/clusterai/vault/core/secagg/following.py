"""Who moves the model as the others do, found from sums over groups that are drawn anew each round.

Inner products of two groups' means tell of what their members have in common, and of nothing else: what one member sends alone (its rows'
peculiarities, or noise) is orthogonal to the rest. So with s the length of what a round's members have in common,

    <mean of g, mean of h>  =  f(g) f(h)        f(g) = mean over its members of (s pull + push)

where `pull` is how much a member follows what this round's model asks for, relative to the others (the median is 1), and `push` is what it
sends whatever the round. Who trains has a pull near 1 and no push. Who skips, or sends noise, has neither. Who turns its updates round has a
pull below 0. Who sends an old update again has a push and no pull, which shows once s has changed: as the model converges.

The pulls of one round can't be had from its sums, which is the point of masks. Those of many rounds can: each round gives as many equations
as there are pairs of groups. Least squares by turns for pulls, pushes and lengths, until nothing moves; rounds count by how well they fit.

Honest members whose rows are unlike the others' have small pulls too. So a member is named only where the others agree with one another much
more than with it, and nobody is where they don't. That doesn't tell a hospital with another disease from one that sends noise: to
be named says that a member doesn't add to what the others learn, not why. It is a reason to do without it, and none to punish it.
"""

import msgspec
import numpy as np
import numpy.typing as npt

from clusterai.protocol.ids import Address

Reals = npt.NDArray[np.float64]

MOST_ROUNDS = 300
SWEEPS = 150
RIDGE = 1e-2
"""Pulls towards 1 and pushes towards 0: what a few rounds don't say stays where honest members are."""
FAR = 5.0
"""So many spreads (of the others, and of the estimate's error) from the others' median is far."""
LITTLE = 0.5
"""A pull below this, of the others' 1, may be named."""
MUCH = 1.5
"""A push beyond this may be named."""
SURE = 0.15
"""Nobody is named while estimates are less certain than this, or the others agree less."""


class Share(msgspec.Struct, frozen=True):
    """What one member seems to add.

    Attributes:
        pull: relative to the median's 1; `error`: its standard error.
        push: what it sends whatever the round, over what members have in common in the median round.
    """

    pull: float
    error: float
    push: float
    push_error: float


class _Round(msgspec.Struct, frozen=True):
    groups: tuple[tuple[Address, ...], ...]
    products: Reals


class Following:
    """Feed it each round's groups; ask who doesn't follow."""

    def __init__(self) -> None:
        self._rounds: list[_Round] = []

    def saw(self, groups: tuple[tuple[Address, ...], ...], products: Reals) -> None:
        """One round.

        Args:
            groups: members in the sum of each group, those within the norm bound alone.
            products: (groups, groups), inner products of their means.
        """
        if len(groups) >= 2 and np.isfinite(products).all():
            self._rounds.append(_Round(groups, products))
            del self._rounds[:-MOST_ROUNDS]

    def shares(self, pushes: bool = False) -> dict[Address, Share]:
        """Of everyone seen; empty where rounds are too few to say anything.

        Args:
            pushes: whether to look for them too, which takes more rounds, and such that differ in length.
        """
        members = sorted({who for seen in self._rounds for group in seen.groups for who in group})
        pairs = sum(len(seen.groups) * (len(seen.groups) - 1) // 2 for seen in self._rounds)
        if pairs < (3 if pushes else 2) * len(members) + len(self._rounds) * pushes:
            return {}
        return _Fit(members, self._rounds).solved(pushes)

    def named(self) -> dict[Address, str]:
        """Who doesn't follow, with what it does instead."""
        return {**_outliers(self.shares()), **_outliers(self.shares(pushes=True))}


def _outliers(shares: dict[Address, Share]) -> dict[Address, str]:
    found: dict[Address, str] = {}
    for who, share in shares.items():
        others = [other for name, other in shares.items() if name != who]
        pull, spread = _usual([other.pull for other in others])
        push, strewn = _usual([other.push for other in others])
        little = share.pull + 3 * share.error < LITTLE
        if little and pull - share.pull > FAR * np.hypot(spread, share.error):
            unsure = max(spread, share.error)
        elif abs(share.push - push) > max(MUCH, FAR * np.hypot(strewn, share.push_error)):
            unsure = max(strewn, share.push_error)
        else:
            continue
        if unsure < SURE:
            found[who] = _said(share)
    return found


def _usual(values: list[float]) -> tuple[float, float]:
    """The median, and the spread of the nearer half around it as a deviation."""
    middle = float(np.median(values))
    return middle, max(0.02, 1.4826 * float(np.median(np.abs(np.array(values) - middle))))


def _said(share: Share) -> str:
    if share.push > MUCH:
        return f"sends much the same whatever the round (pull {share.pull:.2f} ± {share.error:.2f} of the others' 1, push {share.push:.2f})"
    if share.push < -MUCH or share.pull + 3 * share.error < 0:
        return f"works against the others (pull {share.pull:.2f} ± {share.error:.2f} of their 1, push {share.push:.2f})"
    return f"adds nothing to what the others learn (pull {share.pull:.2f} ± {share.error:.2f} of their 1)"


class _Fit:
    """All rounds at once: arrays are (rounds, groups, …), padded with groups of nobody."""

    def __init__(self, members: list[Address], rounds: list[_Round]) -> None:
        place = {who: at for at, who in enumerate(members)}
        most = max(len(seen.groups) for seen in rounds)
        self._members = members
        self._share = np.zeros((len(rounds), most, len(members)))
        self._products = np.zeros((len(rounds), most, most))
        self._pairs = np.zeros((len(rounds), most, most), np.bool_)
        for number, seen in enumerate(rounds):
            count = len(seen.groups)
            for at, group in enumerate(seen.groups):
                self._share[number, at, [place[who] for who in group]] = 1 / len(group)
            self._pairs[number, :count, :count] = ~np.eye(count, dtype=np.bool_)
            self._products[number, :count, :count] = seen.products
        self._products[~self._pairs] = 0.0
        self._counts = self._pairs.sum(axis=(1, 2))
        self._usual = np.sqrt(np.abs(self._products).sum(axis=(1, 2)) / self._counts) + 1e-150

    def solved(self, pushes: bool) -> dict[Address, Share]:
        count = len(self._members)
        pull: Reals = np.ones(count)
        push: Reals = np.zeros(count)
        lengths = self._lengths(self._share @ pull, np.zeros(self._share.shape[:2]), self._usual)
        misfit: Reals = np.ones(len(lengths))
        size = 2 * count if pushes else count
        normal: Reals = np.eye(size)
        off: Reals = np.zeros(len(lengths))
        for _ in range(SWEEPS):
            # A push is measured in the median round's length.
            usual = float(np.median(lengths))
            moved: Reals = self._share @ pull * lengths[:, None] + self._share @ push * usual
            weight = np.sqrt(1.0 / (lengths**4 * misfit**2))[:, None]
            parts = np.concatenate([self._share * lengths[:, None, None], self._share * usual], axis=2)
            parts = parts[:, :, :size].reshape(-1, size)
            others = np.maximum(0.0, (moved**2).sum(axis=1, keepdims=True) - moved**2)
            rows = parts * (np.sqrt(others) * weight).reshape(-1, 1)
            normal = rows.T @ rows + np.eye(size) * RIDGE
            wanted = (self._products @ moved[:, :, None])[:, :, 0] * weight**2
            right = parts.T @ wanted.reshape(-1)
            right[:count] += RIDGE
            found: Reals = np.linalg.solve(normal, right).astype(np.float64)
            before: Reals = pull
            middle = max(0.05, float(np.median(found[:count])))
            # Half a step damps two who take turns.
            pull = np.clip(0.5 * pull + 0.5 * found[:count] / middle, -8.0, 8.0)
            if pushes:
                push = np.clip(0.5 * push + 0.5 * found[count:] / middle, -8.0, 8.0)
                # All lengths with less, and all pushes with more of the pull, say the same: most members push nothing.
                shift = float(np.median(push))
                push, lengths = push - shift * pull, lengths + shift * usual
            pulls, base = self._share @ pull, self._share @ push * usual
            lengths = self._lengths(pulls, base, lengths)
            left = self._misfit(pulls * lengths[:, None] + base) / lengths**2
            misfit = 0.5 * misfit + 0.5 * np.maximum(0.1, left)
            off = (left / misfit) ** 2
            if float(np.max(np.abs(pull - before))) < 1e-3:
                break
        pairs = self._counts / 2
        variance = float(off @ pairs) / max(1.0, float(pairs.sum()) - size - len(pairs))
        errors = np.sqrt(np.diag(np.linalg.inv(normal)) * 2 * max(variance, 1e-6))
        return {
            who: Share(
                float(pull[at]),
                float(errors[at]),
                float(push[at]),
                float(errors[count + at]) if pushes else 0.0,
            )
            for at, who in enumerate(self._members)
        }

    def _lengths(self, pulls: Reals, base: Reals, lengths: Reals) -> Reals:
        """Of what each round's members have in common, by a few of Newton's steps; never 0."""
        for _ in range(5):
            moved = pulls * lengths[:, None] + base
            slope = pulls[:, :, None] * moved[:, None, :]
            slope = (slope + slope.transpose(0, 2, 1)) * self._pairs
            miss = self._missed(moved)
            step = (slope * miss).sum(axis=(1, 2)) / ((slope**2).sum(axis=(1, 2)) + 1e-300)
            lengths = np.clip(lengths + step, 0.05 * self._usual, 20 * self._usual)
        return lengths

    def _missed(self, moved: Reals) -> Reals:
        return (self._products - moved[:, :, None] * moved[:, None, :]) * self._pairs

    def _misfit(self, moved: Reals) -> Reals:
        """Root of the mean square, over pairs of groups."""
        return np.sqrt((self._missed(moved) ** 2).sum(axis=(1, 2)) / self._counts)
