"""Cheats that choose whom of the panel they serve: whoever has the segment hands it on, and friends who spoil that only delay it."""

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest

from clusterai.ledger.core import events
from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.protocol.jobs import Segment
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import CloseReason
from tests.simulation.leases.world import AT, World, honest, key, skipper

PANEL = tuple(f"val-{n}" for n in range(20))


class Ring:
    """A cheat's friends on the panel, and those that it serves besides: of twenty, the starved are thirteen, one too few to convict."""

    def __init__(self, seed: int, friends: int) -> None:
        names = Random(seed).sample(PANEL, len(PANEL))
        self.friends = names[:friends]
        self.served = names[: len(PANEL) - 13]

    def world(self, seed: int, passes: Callable[[str, bytes], bytes | None], **changes: Any) -> World:
        return World(
            seed,
            {"ann": skipper},
            PANEL,
            shows=lambda name: name in self.served,
            copies=lambda name: name in self.friends,
            passes=lambda name, shown: passes(name, shown) if name in self.friends else shown,
            **changes,
        )

    def is_drawn(self, world: World) -> bool:
        """The lot fell on a friend first."""
        first = next(it.auditor for it in world.history if isinstance(it, events.AuditorDrawn))
        return first in [key(name).address for name in self.friends]

    def starved(self, world: World) -> bool:
        """It fell on somebody whom the cheat doesn't serve."""
        first = next(it.auditor for it in world.history if isinstance(it, events.AuditorDrawn))
        return first not in [key(name).address for name in self.served]


def silent(name: str, shown: bytes) -> None:
    return None


def spoiled(name: str, shown: bytes) -> bytes:
    """The beginning of something else."""
    segment = canonical.decode(shown, Segment)
    return canonical.encode(msgspec.structs.replace(segment, state=keccak(b"something else")))


def is_convicted(world: World, lease: Digest) -> bool:
    convicted = world.reason(lease) in (CloseReason.FRAUD, CloseReason.WITHHELD)
    assert world.slashed == [key("ann").address] * convicted
    assert world.balance(AT.disputes) == world.balance(AT.audits) == 0
    return convicted


@pytest.mark.parametrize("passes", [silent, spoiled])
@pytest.mark.parametrize("friends", [2, 4, 6])
def test_a_cheat_that_serves_its_friends_is_convicted_unless_one_of_them_is_drawn(
    friends: int, passes: Callable[[str, bytes], bytes | None]
) -> None:
    """What p* assumes: with a share r of friends it gets away with r of its audits, whomever it starves."""
    starved = 0
    for seed in range(8):
        ring = Ring(seed, friends)
        world = ring.world(seed, passes)
        lease = world.lease("ann")
        world.run(3_000)
        assert is_convicted(world, lease) != ring.is_drawn(world), seed
        starved += ring.starved(world)
    assert starved >= 3, "what it is about happened"


def test_friends_that_hand_over_nothing_only_delay_it() -> None:
    """They show how the segment begins, as whoever has it does, and then nothing of what that names."""
    for seed in range(8):
        ring = Ring(seed, 4)

        def feeds(source: str, to: str, friends: list[str] = ring.friends) -> bool:
            return source not in friends

        world = ring.world(seed, lambda _, shown: shown, feeds=feeds)
        lease = world.lease("ann")
        world.run(3_000)
        assert is_convicted(world, lease) != ring.is_drawn(world), seed


@pytest.mark.parametrize("fed", [0, 10])
@pytest.mark.parametrize("seed", range(3))
def test_a_cheat_that_shows_the_beginning_alone_is_convicted(seed: int, fed: int) -> None:
    """Everybody sees how the segment begins; what that names half of the panel gets, or nobody."""
    served = Random(seed).sample(PANEL, fed)
    world = World(seed, {"ann": skipper}, PANEL, feeds=lambda source, to: source != "ann" or to in served)
    lease = world.lease("ann")
    world.run(3_000)
    assert is_convicted(world, lease)
    assert world.reason(lease) is (CloseReason.FRAUD if fed else CloseReason.WITHHELD)


@pytest.mark.parametrize("seed", range(4))
def test_who_works_and_is_heard_by_few_is_paid(seed: int) -> None:
    """A third of the panel has no way to an honest provider: it audits from what the others hand on, or lets them audit."""
    deaf = Random(seed).sample(PANEL, 7)
    world = World(seed, {"ann": honest}, PANEL, shows=lambda name: name not in deaf)
    lease = world.lease("ann")
    world.run(3_000)
    assert world.reason(lease) is CloseReason.COMPLETED
    assert not world.slashed
