"""One sum of each round: what a vault refuses to a requester who says that the first one broke off."""

import msgspec

from clusterai.protocol.ids import Address
from clusterai.vault.core.secagg.messages import Spec
from clusterai.work.training.core.once import MOST_SUMS, Once

COHORT = tuple(Address(bytes([at]) * 20) for at in range(1, 4))


def spec(nonce: int, **changes: object) -> Spec:
    first = Spec(
        bytes(20), nonce.to_bytes(32), COHORT, bytes(32), 1, 0, 4, 64, 0, 2, bytes(32), 1_800_000_000
    )
    return msgspec.structs.replace(first, **changes)


def test_a_sum_is_begun_again_among_the_same_vaults_only():
    """Two cohorts have two quorums, which need have no vault in common."""
    once = Once()
    assert once.begin(spec(1)) is None
    assert once.begin(spec(2)) is None
    assert "among others" in str(once.begin(spec(3, cohort=COHORT[:2])))
    assert "among others" in str(once.endorse(spec(3, cohort=COHORT[:2]), COHORT[:2]))


def test_what_is_endorsed_has_the_same_members_in_all_sums():
    """In whatever order they come."""
    once = Once()
    for it in (spec(1), spec(2), spec(3)):
        assert once.begin(it) is None
    assert once.endorse(spec(1), COHORT) is None
    assert "other members" in str(once.endorse(spec(2), COHORT[:2]))
    assert once.endorse(spec(3), COHORT[::-1]) is None


def test_the_same_sum_is_not_begun_with_other_keys():
    """Its keys died with the process: the others would be told two kinds of this vault's."""
    once = Once()
    assert once.begin(spec(1)) is None
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(once), type=Once)
    assert "keys" in str(kept.begin(spec(1)))


def test_a_round_in_groups_has_one_sum():
    """Groups are drawn anew: the next would be over others."""
    once = Once()
    assert once.begin(spec(1, groups=2)) is None
    assert "among others" in str(once.begin(spec(2, groups=2)))


def test_sums_of_a_round_are_few():
    """Each is held in memory, and noted."""
    once = Once()
    assert [once.begin(spec(at)) for at in range(MOST_SUMS)] == [None] * MOST_SUMS
    assert "were begun" in str(once.begin(spec(MOST_SUMS)))
