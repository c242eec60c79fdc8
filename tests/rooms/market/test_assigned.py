"""The draw of who measures: by stake, by a beacon that nobody knew when the owner registered, the same for everybody."""

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from clusterai.ledger.core.events import (
    BeaconRecorded,
    Block,
    Bonded,
    Enlisted,
    Registered,
    RolledBack,
    Slashed,
)
from clusterai.market.core.directory import Directory
from clusterai.market.core.placement.assigned import DAY_S, PER_OWNER, Draws, draw
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest, Role
from clusterai.protocol.keccak import keccak
from tests.rooms.market.machines import name

EYES = [name(10 + at) for at in range(6)]
OWNER, FRIEND = name(1), name(2)
NOON = 100 * DAY_S + 43_200


def told(*blocks: tuple[int, list[Any]]) -> Draws:
    """Blocks by time, numbered from 1."""
    directory = Directory()
    draws = Draws(directory)
    for number, (time_s, events) in enumerate(blocks, 1):
        for event in (*events, Block(number, time_s)):
            directory.apply(event)
            draws.apply(event)
    return draws


def panel(weight: int = 100) -> list[Any]:
    return [
        event
        for at, eye in enumerate(EYES)
        for event in (
            Registered(eye, int(Role.VALIDATOR), ZERO_DIGEST),
            Bonded(eye, weight, weight),
            Enlisted(at, eye, weight),
        )
    ]


def beacon(round_: int) -> BeaconRecorded:
    return BeaconRecorded(round_, Digest(keccak(round_.to_bytes(4))))


def joins(owner: Address = OWNER) -> Registered:
    return Registered(owner, int(Role.PROVIDER), ZERO_DIGEST)


def test_a_newcomer_is_drawn_for_by_the_first_beacon_after_it_registered() -> None:
    """One that was known before draws nobody: an address could be chosen to suit it."""
    blocks = [(NOON, [*panel(), beacon(0)]), (NOON + 10, [joins()])]
    assert told(*blocks).drawn(OWNER, NOON + 20) is None
    drawn = told(*blocks, (NOON + 30, [beacon(1)]), (NOON + 40, [beacon(2)])).drawn(OWNER, NOON + 50)
    assert drawn is not None
    assert (drawn.round, len(drawn.validators)) == (1, PER_OWNER)


def test_it_is_drawn_anew_each_day_and_yesterdays_still_counts() -> None:
    """At the turn of a draw a measurement that is under way isn't lost."""
    morning = 101 * DAY_S + 5
    draws = told((NOON, [*panel(), joins()]), (NOON + 30, [beacon(1)]), (morning, [beacon(2)]))
    before, after = draws.drawn(OWNER, NOON + 60), draws.drawn(OWNER, morning + 1)
    assert before is not None
    assert after is not None
    assert (before.round, after.round) == (1, 2)
    for validator in {*before.validators, *after.validators}:
        assert draws.may_measure(OWNER, validator, morning + 1)
    assert not draws.may_measure(OWNER, FRIEND, morning + 1)
    later = draws.drawn(OWNER, morning + DAY_S)
    assert later is not None, "a day without a beacon keeps the last draw"
    assert later.round == 2


def test_a_rollback_takes_its_draw_with_it() -> None:
    """A beacon that isn't there any more drew nobody."""
    draws = told((NOON, [*panel(), joins()]), (NOON + 30, [beacon(1)]))
    draws.apply(RolledBack(1))
    assert draws.drawn(OWNER, NOON + 60) is None


def test_who_is_barred_measures_nobody() -> None:
    """A convicted validator is out of the draw at once."""
    draws = told((NOON, [*panel(), joins()]), (NOON + 30, [beacon(1)]))
    first = draws.drawn(OWNER, NOON + 60)
    assert first is not None
    barred = first.validators[0]
    draws = told(
        (NOON, [*panel(), joins()]), (NOON + 30, [beacon(1), Slashed(barred, 1, 0, 1, ZERO_ADDRESS)])
    )
    second = draws.drawn(OWNER, NOON + 60)
    assert second is not None
    assert barred not in second.validators


def test_an_owner_that_tries_addresses_gains_nothing_by_it() -> None:
    """All of its addresses stand before the beacon: its friend with a sixth of the stake is drawn for half of them, alone for none."""
    owners = [Address(keccak(at.to_bytes(4))[:20]) for at in range(300)]
    seats = [(eye, 100) for eye in EYES]
    drawn = [draw(Digest(keccak(b"later")), owner, seats) for owner in owners]
    friends = sum(EYES[0] in it for it in drawn)
    assert 110 <= friends <= 190
    assert all(len(set(it)) == PER_OWNER for it in drawn)


def test_the_draw_goes_by_stake() -> None:
    """Who has half of all the stake is the first drawn half of the time."""
    seats = [(EYES[0], 500), *((eye, 100) for eye in EYES[1:])]
    firsts = Counter(draw(Digest(keccak(at.to_bytes(4))), OWNER, seats)[0] for at in range(400))
    assert 160 <= firsts[EYES[0]] <= 240


@given(st.lists(st.integers(0, 5), max_size=6), st.binary(min_size=32, max_size=32))
def test_nobody_is_drawn_twice_nor_for_itself(weights: list[int], word: bytes) -> None:
    """Whatever the weights are; who has none is never drawn."""
    seats = [(EYES[at], weight) for at, weight in enumerate(weights)]
    drawn = draw(Digest(word), EYES[0], seats)
    able = {who for who, weight in seats if weight and who != EYES[0]}
    assert set(drawn) <= able
    assert len(drawn) == len(set(drawn)) == min(PER_OWNER, len(able))
