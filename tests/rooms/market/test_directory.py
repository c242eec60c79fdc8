"""The directory against histories of the Registry's events."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.ledger.core.events import (
    Barred,
    Block,
    Bonded,
    CardUpdated,
    Delegated,
    Registered,
    Revoked,
    RolledBack,
    Slashed,
    Unbonding,
    Withdrawn,
)
from clusterai.market import Directory, Role
from clusterai.market.core.directory import UNDO_BLOCKS, TooDeep
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest

OWNER, HOT, OTHER = (Address(bytes([n]) * 20) for n in (1, 2, 3))
CARD, CARD2 = (Digest(bytes([n]) * 32) for n in (4, 5))


def told(*events: Any) -> Directory:
    directory = Directory()
    for event in events:
        directory.apply(event)
    return directory


def test_a_hot_key_acts_for_its_owner_until_revoked() -> None:
    """A delegated key acts; once revoked it doesn't, but stays its owner's."""
    directory = told(Registered(OWNER, 1, CARD), Delegated(OWNER, HOT))
    assert directory.owner_of(HOT) == OWNER == directory.owner_of(OWNER)
    assert directory.acts_for(HOT, OWNER, Role.PROVIDER)
    assert not directory.acts_for(HOT, OWNER, Role.GATEWAY)
    assert directory.hot_keys(OWNER) == (OWNER, HOT)
    directory.apply(Revoked(OWNER, HOT))
    assert directory.owner_of(HOT) is None
    assert directory.ever_owner_of(HOT) == OWNER
    assert directory.hot_keys(OWNER) == (OWNER,)


def test_a_stranger_is_nobody() -> None:
    """An unknown address has no owner, no roles, no stake and isn't barred."""
    directory = told()
    assert directory.owner_of(OTHER) is None
    assert directory.roles(OTHER) == Role(0)
    assert directory.stake(OTHER) == 0
    assert not directory.barred(OTHER)


def test_stake_follows_bonds_and_unbonds() -> None:
    """What unbonds no longer counts, and a withdrawal empties it."""
    directory = told(Registered(OWNER, 5, CARD), Bonded(OWNER, 100, 100), Bonded(OWNER, 50, 150))
    directory.apply(Unbonding(OWNER, 30, 99))
    assert directory.stake(OWNER) == 120
    assert directory.participant(OWNER).unbonding_wei == 30
    directory.apply(Withdrawn(OWNER, 30))
    assert directory.participant(OWNER).unbonding_wei == 0
    assert directory.roles(OWNER) == Role.PROVIDER | Role.VALIDATOR


def test_a_slashed_owner_is_barred_with_its_hot_keys() -> None:
    """After a slash nothing is at stake and no key of the owner may act."""
    directory = told(Registered(OWNER, 1, CARD), Delegated(OWNER, HOT), Bonded(OWNER, 9, 9))
    directory.apply(Slashed(OWNER, 9, 4, 5, OTHER))
    assert directory.barred(OWNER)
    assert directory.stake(OWNER) == 0
    assert not directory.acts_for(HOT, OWNER, Role.PROVIDER)
    assert directory.holders(Role.PROVIDER) == ()


def test_channels_bar_even_who_never_registered() -> None:
    """A receiver that only Channels knows can be barred."""
    assert told(Barred(OTHER)).barred(OTHER)


def test_a_rollback_takes_back_what_its_blocks_said() -> None:
    """Events above the block that stays are undone, and may come again otherwise."""
    directory = told(Registered(OWNER, 1, CARD), Block(1, 10), Delegated(OWNER, HOT), Block(2, 12))
    directory.apply(CardUpdated(OWNER, CARD2))
    directory.apply(RolledBack(1))
    assert directory.owner_of(HOT) is None
    assert directory.participant(OWNER).card == CARD
    assert directory.block == 1
    directory.apply(Registered(OTHER, 2, CARD))
    directory.apply(Block(2, 13))
    assert directory.holders(Role.GATEWAY) == (OTHER,)


def test_blocks_without_events_may_be_left_out() -> None:
    """What is told before block 9 stands in block 9, though the last block named was 1."""
    directory = told(Registered(OWNER, 1, CARD), Block(1, 10), Delegated(OWNER, HOT), Block(9, 26))
    directory.apply(RolledBack(7))
    assert directory.owner_of(HOT) is None
    assert directory.owner_of(OWNER) == OWNER


def test_a_rollback_deeper_than_the_log_is_refused() -> None:
    """Rather than be wrong, the directory asks for a fresh read."""
    directory = told(Registered(OWNER, 1, CARD))
    for number in range(UNDO_BLOCKS + 2):
        directory.apply(Block(number, number))
    with pytest.raises(TooDeep, match="read the chain anew"):
        directory.apply(RolledBack(-2))


_owners = st.sampled_from((OWNER, HOT, OTHER, ZERO_ADDRESS))
_events = st.one_of(
    st.builds(Registered, _owners, st.integers(1, 7), st.just(CARD)),
    st.builds(Delegated, _owners, _owners),
    st.builds(Revoked, _owners, _owners),
    st.builds(Bonded, _owners, st.just(5), st.integers(5, 50)),
    st.builds(Slashed, _owners, st.just(1), st.just(0), st.just(1), _owners),
    st.builds(Barred, _owners),
)


@given(
    st.lists(st.lists(_events, max_size=4), max_size=8), st.lists(st.lists(_events, max_size=4), max_size=8)
)
def test_a_rolled_back_history_never_was(kept: list[list[Any]], undone: list[list[Any]]) -> None:
    """Directory(kept + undone, rolled back) answers as Directory(kept)."""

    def play(directory: Directory, blocks: list[list[Any]]) -> None:
        for events in blocks:
            for event in events:
                directory.apply(event)
            directory.apply(Block(directory.block + 1, 0))

    plain, rolled = Directory(), Directory()
    play(plain, kept)
    play(rolled, kept)
    at = rolled.block
    play(rolled, undone)
    rolled.apply(RolledBack(at))
    for key in (OWNER, HOT, OTHER, ZERO_ADDRESS):
        assert rolled.participant(key) == plain.participant(key)
        assert rolled.owner_of(key) == plain.owner_of(key)
        assert rolled.ever_owner_of(key) == plain.ever_owner_of(key)
    assert rolled.holders(Role(7)) == plain.holders(Role(7))
