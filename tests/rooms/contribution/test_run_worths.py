"""What members of a run added, found from the worth of random groups' sums."""

import numpy as np
import pytest

from clusterai.audit.core.contribution import Seen, added

TRUE = (1.0, 1.0, 0.8, 1.2, 0.5, 0.0, -0.6, 1.0, 1.0)
"""What each member's updates are worth: the sixth adds nothing, the seventh harms."""


def seen(rounds: int, noise: float, seed: int = 1) -> list[Seen]:
    draw = np.random.default_rng(seed)
    found: list[Seen] = []
    for number in range(rounds):
        size = 1 / (1 + number)
        groups = tuple(tuple(map(int, group)) for group in draw.permutation(9).reshape(3, 3))
        worths = [np.mean([TRUE[who] for who in it]) * size + draw.normal(0, noise * size) for it in groups]
        found.append(Seen(groups, tuple(map(float, worths))))
    return found


def test_without_noise_everyone_has_what_it_added():
    """Parts of groups' members follow from the groups, whoever sat beside whom."""
    whole = sum(1 / (1 + number) for number in range(20))
    found = added(seen(20, 0.0), 9)
    assert found is not None
    assert [it.value for it in found] == pytest.approx([whole * it for it in TRUE], abs=0.1)


def test_who_adds_nothing_or_harms_has_no_score_and_the_others_theirs_in_proportion():
    """With noise of a tenth of a member's worth."""
    found = added(seen(20, 0.1), 9)
    assert found is not None
    scores = np.array([it.score for it in found], np.float64)
    assert not scores[5:7].any()
    np.testing.assert_allclose(scores / scores[0], np.maximum(TRUE, 0), atol=0.3)
    assert all(it.value / it.error > 3 for at, it in enumerate(found) if scores[at])


def test_who_took_part_in_half_of_the_rounds_has_added_half():
    """Nobody is paid for rounds in which it was away."""
    half = [
        Seen(tuple(tuple(who for who in it if who != 8) for it in row.groups), row.worths) if at % 2 else row
        for at, row in enumerate(seen(40, 0.0))
    ]
    level = [Seen(it.groups, tuple(1.0 for _ in it.groups)) for it in half]
    found = added(level, 9)
    assert found is not None
    assert found[8].value == pytest.approx(20, rel=1e-3)
    assert found[0].value == pytest.approx(40, rel=1e-3)


def test_too_few_groups_say_nothing():
    """Three groups for two members at least; and groups that are worth nothing give nobody a score."""
    assert added(seen(4, 0.0), 9) is None
    assert added([], 3) is None
    still = [Seen(it.groups, (0.0, 0.0, 0.0)) for it in seen(9, 0.0)]
    assert {it.score for it in added(still, 9) or ()} == {0}
