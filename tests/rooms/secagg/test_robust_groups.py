"""Group means with poison in a minority: rejected past the bound, outvoted within it, and traced to who did it."""

import numpy as np
import numpy.typing as npt
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterai.protocol.ids import Address
from clusterai.vault.core.secagg import graph
from clusterai.vault.core.secagg.robust import (
    Rule,
    TooFewGroups,
    clean_share,
    combine,
    krum,
    largest_group,
    trimmed_mean,
)
from clusterai.vault.core.secagg.suspects import Suspects

ROBUST: tuple[Rule, ...] = ("median", "trimmed", "krum")


def honest_means(groups: int = 12, length: int = 50, seed: int = 0) -> npt.NDArray[np.float64]:
    """Around one direction, norm about 0.8 of a bound of 1."""
    draw = np.random.default_rng(seed)
    towards = draw.normal(size=length)
    towards *= 0.7 / np.linalg.norm(towards)
    return towards + draw.normal(size=(groups, length)) * 0.3 / np.sqrt(length)


@pytest.mark.parametrize("rule", ["mean", "median", "trimmed", "krum"])
def test_means_longer_than_the_bound_never_count(rule: Rule):
    """However many groups exceed the norm, infinite ones included, the update is that of the others."""
    means = honest_means()
    clean = combine(means, 1.0, rule)
    assert clean.bad == ()
    spoiled = np.vstack([means, means[:9] * 50, np.full((1, 50), np.nan), np.full((1, 50), np.inf)])
    found = combine(spoiled, 1.0, rule)
    assert np.allclose(found.update, clean.update)
    assert found.beyond == tuple(range(12, 23))


@pytest.mark.parametrize("rule", ROBUST)
def test_poison_within_the_bound_is_outvoted_and_seen(rule: Rule):
    """Three of twelve groups turned round: the mean moves a quarter of the way, robust rules hardly."""
    means = honest_means()
    true = means.mean(axis=0)
    poisoned = means.copy()
    poisoned[:3] = -true / np.linalg.norm(true)
    moved = {
        name: float(np.linalg.norm(combine(poisoned, 1.0, name).update - true)) for name in ("mean", rule)
    }
    assert moved["mean"] > 0.3
    assert moved[rule] < 0.15
    assert combine(poisoned, 1.0, rule).apart == (0, 1, 2)


@given(st.integers(3, 30), st.integers(1, 8), st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_a_minority_of_groups_can_t_move_a_median_out_of_the_honest_range(
    groups: int, length: int, seed: int
):
    """Whatever the bad ones say, each coordinate stays between the least and the greatest honest value."""
    draw = np.random.default_rng(seed)
    honest = draw.normal(size=(groups, length))
    bad = draw.normal(size=((groups - 1) // 2, length)) * draw.choice([1e-3, 1.0, 1e3])
    both = np.vstack([honest, bad])
    bound = float(np.linalg.norm(both, axis=1).max())
    update = combine(both, bound, "median").update
    assert (update >= honest.min(axis=0) - 1e-12).all()
    assert (update <= honest.max(axis=0) + 1e-12).all()
    trimmed = trimmed_mean(both, len(bad)) if 2 * len(bad) < len(both) else update
    assert (trimmed >= honest.min(axis=0) - 1e-9).all()
    assert (trimmed <= honest.max(axis=0) + 1e-9).all()


def test_with_rows_of_one_s_own_even_a_majority_of_bad_groups_is_seen():
    """Eight of twelve groups turned round: medians follow them, a trusted update doesn't."""
    means = honest_means()
    true = means.mean(axis=0)
    means[:8] = -means[:8]
    trusted = true + np.random.default_rng(9).normal(size=50) * 0.05
    assert float(combine(means, 1.0).update @ true) < 0
    found = combine(means, 1.0, trusted=trusted)
    assert found.apart == tuple(range(8))
    assert np.linalg.norm(found.update - true) < 0.2


def test_krum_picks_from_the_crowd():
    """Groups far from their neighbours are not averaged."""
    means = np.vstack([honest_means(), honest_means(seed=5)[:4] * -1])
    assert np.linalg.norm(krum(means, 4) - means[:12].mean(axis=0)) < 0.05


def test_too_few_groups_is_no_update():
    """Rather than believe two."""
    with pytest.raises(TooFewGroups, match="2 groups are left"):
        combine(honest_means(2), 1.0)
    with pytest.raises(TooFewGroups):
        combine(honest_means(5) * 100, 1.0, "mean")


def test_group_sizes_that_leave_a_majority_clean():
    """The arithmetic of the docstring: 6 at 10 %, 1 at 30 %."""
    assert largest_group(0.1) == 6
    assert largest_group(0.3) == 1
    assert clean_share(0.1, 6) > 0.5 > clean_share(0.1, 7)
    assert largest_group(0.0) > 1000


def rounds(
    seed: int, poisoners: int, caught: float = 0.9, alarms: float = 0.03, count: int = 24
) -> tuple[int, int]:
    """Poisoners still in, and honest members out, after 20 rounds of groups of three."""
    draw = np.random.default_rng(seed)
    who = tuple(sorted(Address(blake3(bytes((i, seed))).digest()[:20]) for i in range(count)))
    bad_ones = {who[int(i)] for i in draw.permutation(count)[:poisoners]}
    suspects, out = Suspects(), set[Address]()
    for turn in range(20):
        cohort = tuple(one for one in who if one not in out)
        groups = graph.groups(cohort, blake3(bytes((turn, seed))).digest(), len(cohort) // 3)
        chance = [caught if bad_ones & set(group) else alarms for group in groups]
        suspects.saw(groups, tuple(i for i, p in enumerate(chance) if draw.random() < p))
        out |= set(suspects.excluded())
    return len(bad_ones - out), len(out - bad_ones)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("poisoners", [0, 2, 7])
def test_persistent_poisoners_are_found_and_nobody_else(seed: int, poisoners: int):
    """From none to three in ten poison: all of them are out after 20 rounds, and no honest member ever."""
    assert rounds(seed, poisoners) == (0, 0)


def test_one_bad_group_accuses_nobody():
    """A member is judged by many draws, not by its company once."""
    suspects = Suspects()
    who = tuple(Address(bytes((i,) * 20)) for i in range(3))
    suspects.saw((who,), (0,))
    assert suspects.excluded() == ()
    assert suspects.log_odds(who[0]) < 0
