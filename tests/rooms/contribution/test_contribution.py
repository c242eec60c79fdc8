"""Who is paid what for data: the closed form against its definition, and villains who want more than their rows are worth."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.audit.core.contribution import (
    Appraisal,
    Contribution,
    NotTheStudys,
    Rows,
    Study,
    appraise,
    banzhaf,
    from_groups,
    radius_of,
    rows_of,
    shares,
)
from clusterai.audit.core.contribution.banzhaf import drawn_sets
from clusterai.audit.core.contribution.neighbours import UNIT, row_values
from clusterai.audit.core.contribution.whole import joined, squares
from clusterai.protocol.ids import Address
from clusterai.protocol.pots import earned_wei

BEACON = b"\x07" * 32
POT = 10**9
CLASSES, FEATURES = 3, 6


def drawn(seed: int, count: int, noise: float = 0.0, flipped: float = 0.0) -> Rows:
    """Rows around three centres; labels turned to another class for a share of them."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 1.6, (CLASSES, FEATURES))
    labels = rng.integers(0, CLASSES, count)
    x = centres[labels] + rng.normal(0, 1, (count, FEATURES)) + rng.normal(0, 1, (count, FEATURES)) * noise
    turned = rng.random(count) < flipped
    return rows_of(x, np.where(turned, (labels + rng.integers(1, CLASSES, count)) % CLASSES, labels))


def nobody() -> Rows:
    return Rows(np.zeros((0, FEATURES), np.int64), np.zeros(0, np.int64))


HELD_OUT = drawn(1_000, 300)


def study(radius_steps: int = 64, held_out: Rows = HELD_OUT) -> Study:
    return Study(held_out.digest(), CLASSES, 5, radius_steps, POT)


def appraised(*parts: Rows, radius_steps: int = 64) -> Appraisal:
    named = [Contribution(Address(bytes([at + 1]) * 20), rows) for at, rows in enumerate(parts)]
    return appraise(study(radius_steps), named, HELD_OUT, BEACON)


# --- the closed form ---


def worth(right: tuple[int, ...], chosen: tuple[int, ...], most: int, classes: int) -> Fraction:
    near = sorted(chosen)[:most]
    return Fraction(sum(right[at] for at in near), len(near)) if near else Fraction(1, classes)


def defined(right: tuple[int, ...], most: int, classes: int) -> list[Fraction]:
    """Shapley values by their definition: 2^n sets."""
    count = len(right)
    found = [Fraction(0)] * count
    for at in range(count):
        rest = [it for it in range(count) if it != at]
        for size in range(count):
            weight = Fraction(math.factorial(size) * math.factorial(count - 1 - size), math.factorial(count))
            for chosen in itertools.combinations(rest, size):
                gain = worth(right, (*chosen, at), most, classes) - worth(right, chosen, most, classes)
                found[at] += weight * gain
    return found


@pytest.mark.parametrize("most", [1, 2, 3, 9])
@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_values_are_shapleys(count: int, most: int):
    """The closed form gives what the definition gives, for every pattern of right and wrong neighbours."""
    features = np.arange(1, count + 1)[:, None]
    for right in itertools.product((0, 1), repeat=count):
        rows = Rows(features, np.array(right))
        held = Rows(np.zeros((1, 1), np.int64), np.ones(1, np.int64))
        found = row_values(rows, held, CLASSES, most, BEACON)[0]
        for ours, exact in zip(found.tolist(), defined(right, most, CLASSES), strict=True):
            assert abs(ours - exact * UNIT) < 20


def test_values_add_up_to_what_all_are_worth():
    """All contributors' values together are the classifier's share of right neighbours, less guessing."""
    rows = drawn(3, 200)
    total = int(row_values(rows, HELD_OUT, CLASSES, 5, BEACON).sum())
    right = 0
    for start, distances in squares(HELD_OUT.features, rows.features):
        near = np.argsort(distances, axis=1)[:, :5]
        right += int((rows.labels[near] == HELD_OUT.labels[start : start + len(near), None]).sum())
    expected = right / 5 - len(HELD_OUT) / CLASSES
    assert total / UNIT == pytest.approx(expected, abs=1)


def test_distances_are_exact():
    """Distances by floating point are the whole numbers that they are by Python."""
    rows = drawn(4, 30)
    for start, distances in squares(rows.features, rows.features):
        for at, other in itertools.product(range(len(distances)), range(len(rows))):
            gaps = (rows.features[start + at] - rows.features[other]).tolist()
            assert int(distances[at, other]) == sum(it * it for it in gaps)


# --- honest ---


@pytest.mark.parametrize("seed", range(12))
def test_honest_contributors_earn_alike_and_are_not_accused(seed: int):
    """Equal contributors get shares of the same size, and nobody is proposed for slashing."""
    found = appraised(*(drawn(10 * seed + at, 120) for at in range(5))).contributors
    assert sum(it.share_wei for it in found) == POT
    assert min(it.share_wei for it in found) > POT // 5 * 0.6
    assert not any(it.poison for it in found)


def test_more_rows_earn_more():
    """Who brings three times as many rows earns more."""
    found = appraised(drawn(1, 100), drawn(2, 300)).contributors
    assert found[1].share_wei > 2 * found[0].share_wei


def test_a_small_or_odd_contributor_isnt_accused():
    """Few rows, hard ones or one class alone: worth less, not poison."""
    one_class = drawn(5, 300)
    found = appraised(
        drawn(1, 150), drawn(2, 12), drawn(3, 150, noise=2.0), one_class.chosen(one_class.labels == 0)
    )
    assert not any(it.poison for it in found.contributors)


def test_anyone_finds_the_same_appraisal():
    """The same inputs give the same bytes; another beacon or other rows give others."""
    parts = [drawn(1, 80), drawn(2, 80)]
    assert appraised(*parts).digest() == appraised(*parts).digest()
    assert appraised(*parts).digest() != appraised(drawn(1, 80), drawn(3, 80)).digest()


# --- villains ---


@pytest.mark.parametrize("noise_steps", [0, 3, 10])
def test_a_copier_earns_nothing(noise_steps: int):
    """Somebody else's rows, as they were or with a little noise, with labels flipped or not, are void for who came second."""
    mine = drawn(1, 150)
    rng = np.random.default_rng(5)
    noisy = mine.features + rng.integers(-noise_steps, noise_steps + 1, mine.features.shape)
    for labels in (mine.labels, (mine.labels + 1) % CLASSES):
        found = appraised(mine, drawn(2, 150), Rows(np.clip(noisy, -4_095, 4_095), labels)).contributors
        assert found[2].copied == 150
        assert found[2].share_wei == 0
        alone = appraised(mine, drawn(2, 150)).contributors
        assert [it.share_wei for it in found[:2]] == [it.share_wei for it in alone]


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_a_copy_with_noise_beyond_the_radius_earns_next_to_nothing(share: float):
    """Rows moved by a part of the features' spread, farther than the radius, are still told as a copy; honest sets aren't touched."""
    rng = np.random.default_rng(8)
    wide = np.random.default_rng(9).normal(0, 1, (3, 40))
    labels = [rng.integers(0, 3, 150) for _ in range(3)]
    honest = [rows_of(wide[it] + rng.normal(0, 1, (150, 40)), it) for it in labels]
    copy = Rows(honest[0].features + np.rint(rng.normal(0, 256 * share, (150, 40))).astype(int), labels[0])
    held = rows_of(wide[labels[0]] + rng.normal(0, 1, (150, 40)), labels[0])
    named = [Contribution(Address(bytes([at + 1]) * 20), it) for at, it in enumerate([*honest, copy])]
    found = appraise(study(0, held), named, held, BEACON).contributors
    assert found[3].copied >= 140
    assert found[3].share_wei < POT // 40
    assert [it.copied for it in found[:3]] == [0, 0, 0]


def test_the_radius_follows_from_the_held_out_rows():
    """Hardly any honest row is as near to another contributor's as the radius, and a copy with a tenth of the spread as noise is."""
    radius = radius_of(HELD_OUT)
    honest = appraised(drawn(1, 200), drawn(2, 200), radius_steps=radius).contributors
    assert sum(it.copied for it in honest) <= 8
    rng = np.random.default_rng(6)
    mine = drawn(1, 200)
    copy = Rows(mine.features + rng.normal(0, 12, mine.features.shape).astype(int), mine.labels)
    assert appraised(mine, copy, radius_steps=radius).contributors[1].copied > 180
    assert radius_of(joined([HELD_OUT, HELD_OUT])) == 0
    assert radius_of(drawn(1, 1)) == 0


def test_ones_own_copies_earn_once():
    """Ten copies of one's rows are worth the rows."""
    mine = drawn(1, 60)
    tenfold = joined([mine] * 10)
    once, ten = appraised(mine, drawn(2, 60)), appraised(tenfold, drawn(2, 60))
    assert ten.contributors[0].own == 60
    assert ten.contributors[0].share_wei == once.contributors[0].share_wei


def test_ten_names_earn_what_one_earns():
    """Splitting rows among ten names earns within a thousandth of what one name earns."""
    mine, others = drawn(1, 200), [drawn(2, 200), drawn(3, 200)]
    one = appraised(mine, *others).contributors[0].share_wei
    pieces = [mine.chosen(np.arange(at, 200, 10)) for at in range(10)]
    ten = sum(it.share_wei for it in appraised(*pieces, *others).contributors[:10])
    assert abs(ten - one) <= one // 1_000


def test_free_riders_earn_next_to_nothing():
    """Nobody's rows, rows far from everything, and one row repeated: next to nothing."""
    far = Rows(np.full((200, FEATURES), 4_000), np.arange(200) % CLASSES)
    stuck = Rows(np.repeat(drawn(5, 1).features, 200, axis=0), np.zeros(200, np.int64))
    found = appraised(drawn(1, 200), drawn(2, 200), nobody(), far, stuck, radius_steps=0).contributors
    for rider in found[2:]:
        assert rider.share_wei < POT // 50


def test_random_labels_earn_nothing():
    """True features with labels out of a hat are worth less than none."""
    hat = drawn(3, 200, flipped=CLASSES / (CLASSES + 1))
    assert appraised(drawn(1, 200), drawn(2, 200), hat).contributors[2].share_wei == 0


@pytest.mark.parametrize("seed", range(6))
def test_a_poisoner_earns_nothing_and_is_proposed_for_slashing(seed: int):
    """Every label flipped: a value clearly below 0, nothing paid, and the proposal carries value and error."""
    found = appraised(
        *(drawn(100 * seed + at, 150) for at in range(4)), drawn(5_000 + seed, 150, flipped=1.0)
    ).contributors
    assert found[4].share_wei == 0
    assert found[4].poison
    assert found[4].value < -5 * found[4].error
    assert not any(it.poison for it in found[:4])


def test_noise_lowers_what_rows_are_worth():
    """The noisier the rows, the smaller the share."""
    found = appraised(drawn(1, 200), *(drawn(2 + at, 200, noise=it) for at, it in enumerate((0.0, 1.5, 6.0))))
    paid = [it.share_wei for it in found.contributors[1:]]
    assert paid[0] > paid[1] > paid[2]


def test_leaked_held_out_rows_are_void():
    """Who got hold of the held-out rows and contributes them earns nothing by it."""
    assert appraised(drawn(1, 200), HELD_OUT).contributors[1].own == 0


def test_other_held_out_rows_are_refused():
    """An evaluator can't choose the held-out rows after the fact."""
    with pytest.raises(NotTheStudys):
        appraise(study(), [], drawn(1_001, 300), BEACON)
    with pytest.raises(NotTheStudys):
        appraise(
            study(), [Contribution(Address(bytes(20)), Rows(np.zeros((1, 2), int), np.zeros(1, int)))],
            HELD_OUT, BEACON,
        )  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rows(np.full((1, 2), 5_000), np.zeros(1, np.int64)),
        lambda: Rows(np.zeros((1, 2), np.int64), np.full(1, -1)),
        lambda: Rows(np.zeros((1, 2), np.int64), np.zeros(2, np.int64)),
        lambda: Rows(np.zeros((1, 0), np.int64), np.zeros(1, np.int64)),
    ],
)
def test_hostile_rows_are_refused(make: object):
    """Rows beyond the bounds that keep arithmetic exact are none."""
    with pytest.raises(ValueError, match=r"."):
        make()  # pyright: ignore[reportCallIssue]


# --- by contributors and by groups ---


def test_everyone_is_in_half_of_the_sets():
    """Sets follow from the beacon, in pairs of complements."""
    sets = drawn_sets(BEACON, 400, 300)
    assert (sets.sum(axis=0) == 200).all()
    assert np.array_equal(sets, drawn_sets(BEACON, 400, 300))
    assert not np.array_equal(sets, drawn_sets(b"\x08" * 32, 400, 300))


def test_banzhaf_finds_additive_worths():
    """Where worths add up, the estimate is each one's worth, within its own error."""
    worths = (40, 25, 10, 0, -30)
    found = banzhaf(BEACON, 600, 5, lambda chosen: sum(worths[at] for at in chosen))
    for it, exact in zip(found, worths, strict=True):
        assert abs(it.value_milli - 1_000 * exact) <= 4 * it.error_milli + 1


def test_masked_rounds_tell_poisoners_from_groups_sums():
    """From sums of random groups alone: a poisoner's value is clearly below 0 and below all others', a free rider's is not."""
    rng = np.random.default_rng(4)
    worths = np.array([10] * 10 + [0] + [-60])
    groups: list[list[int]] = []
    gains: list[int] = []
    for _ in range(60):
        order = rng.permutation(12).tolist()
        for at in range(0, 12, 4):
            groups.append(order[at : at + 4])
            gains.append(int(worths[order[at : at + 4]].sum() + rng.normal(0, 15)))
    found = from_groups(groups, gains, 12)
    assert found[11].value_milli < -5 * found[11].error_milli
    assert min(range(12), key=lambda at: found[at].value_milli) == 11
    assert all(it.value_milli > -5 * it.error_milli for it in found[:11])


def test_too_few_rounds_say_so():
    """One group with somebody tells nothing about him."""
    found = from_groups([[0, 1], [0, 2]], [3, 4], 3)
    assert found[1].error_milli == -1


# --- money ---


def test_scores_go_on_chain_as_the_pot_shares_them():
    """A pot whose participants are the contributors pays by the appraisal's scores what the appraisal says; a stranger's pot doesn't fit."""
    found = appraised(drawn(1, 100), drawn(2, 100, flipped=1.0), drawn(3, 60))
    participants = tuple(sorted(it.contributor for it in found.contributors))
    scores = found.scores((*participants, b"\xff" * 20))
    assert scores[1] == scores[3] == 0
    by_owner = {it.contributor: it.share_wei for it in found.contributors}
    assert earned_wei(POT, 0, scores[:3]) == tuple(by_owner[it] for it in participants)
    with pytest.raises(NotTheStudys):
        found.scores(participants[1:])


def test_a_contributor_is_named_once():
    """Two sets of one contributor are joined before they are appraised."""
    twice = [Contribution(Address(bytes(20)), drawn(at, 40)) for at in range(2)]
    with pytest.raises(NotTheStudys):
        appraise(study(), twice, HELD_OUT, BEACON)


@given(st.lists(st.integers(-(10**6), 10**15), max_size=40), st.integers(0, 10**18))
def test_shares_are_conserved(values: list[int], pot_wei: int):
    """Shares add up to the pot or to nothing; nobody below 0 gets any, and who is worth more gets no less."""
    paid = shares(values, pot_wei)
    assert sum(paid) in ((pot_wei,) if any(it > 0 for it in values) else (0,))
    for (value, wei), (other, more) in itertools.combinations(zip(values, paid, strict=True), 2):
        assert value > 0 or wei == 0
        assert not (value > other and wei < more)
        assert not (other > value and more < wei)
