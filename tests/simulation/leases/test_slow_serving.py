"""Who answers as it should and hands over byte by byte what its answer names, or none of it, has served nothing."""

from collections.abc import Callable
from typing import Any

import pytest

from clusterai.ledger.core import events
from clusterai.protocol.ids import Digest
from clusterai.protocol.leases import CloseReason
from clusterai.validator.core.jobcase import Began, Reran, Rerun, Retraced
from tests.simulation.leases.world import AT, Process, World, honest, key, skipper

PATIENCE_S = 10
"""as long as a validator waits for a small segment's contents, before it says that they didn't come"""
PANEL = tuple(f"val-{n}" for n in range(20))
HALF = PANEL[::2]


class Trickling(World):
    """A provider says at once what a segment begins with; `comes_s` is how long its contents then take to come to a validator, None where they never do.
    From a member that has them they come at once.

    Args:
        is_steady: what never comes is so much that a validator's pace is kept all the time.
    """

    def __init__(
        self,
        *args: Any,
        comes_s: Callable[["Trickling", str], int | None],
        is_steady: bool = False,
        **changes: Any,
    ) -> None:
        self._comes_s = comes_s
        self._is_steady = is_steady
        self._begin: list[tuple[float, Process, Digest]] = []
        self._here: set[tuple[str, Digest]] = set()
        """who has the contents of which lease: what came once needs not come again"""
        super().__init__(*args, **changes)

    def _run(self, process: Process, wanted: Rerun, done: Reran | Retraced) -> None:
        lease = wanted.lease
        is_elsewhere = (process.name, lease) in self._here or wanted.source != wanted.provider
        takes_s = 0 if is_elsewhere else self._comes_s(self, process.name)
        ends_s = max(PATIENCE_S, wanted.within_s) if self._is_steady else PATIENCE_S
        if takes_s is not None and takes_s <= ends_s:
            self._begin.append((self.now_s + takes_s, process, lease))
            self._running.append((self.now_s + takes_s + self._takes_s, process, done))
            return
        why = f"it didn't come within {ends_s} s"
        given_up = (
            Reran(lease, done.segment, None, why)
            if isinstance(done, Reran)
            else Retraced(lease, done.points, None, why)
        )
        self._running.append((self.now_s + ends_s, process, given_up))

    def turn(self) -> None:
        for at_s, process, lease in self._begin:
            if at_s <= self.now_s:
                self._here.add((process.name, lease))
                self._later.append((process, Began(lease)))
        self._begin = [one for one in self._begin if one[0] > self.now_s]
        super().turn()

    @property
    def disputed(self) -> bool:
        return any(isinstance(event, events.DisputeOpened) for event in self.history)


def never(world: Trickling, name: str) -> int | None:
    return None


def to_one_half(world: Trickling, name: str) -> int | None:
    return 0 if name in HALF else None


def to_auditors(world: Trickling, name: str) -> int | None:
    return None if world.disputed else 0


def to_referees(world: Trickling, name: str) -> int | None:
    return 0 if world.disputed else None


@pytest.mark.parametrize("is_steady", [False, True])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("comes_s", [never, to_one_half, to_auditors, to_referees])
def test_a_cheat_that_hands_over_byte_by_byte_is_convicted(
    seed: int, comes_s: Callable[[Trickling, str], int | None], is_steady: bool
) -> None:
    """Whoever it does that to: all, every second validator, those who judge, or those who audit; or so much of it, at the pace that is
    asked for, that it never ends.
    """
    world = Trickling(seed, {"ann": skipper}, PANEL, comes_s=comes_s, is_steady=is_steady, takes_s=3)
    lease = world.lease("ann")
    world.run(2_000)
    assert world.reason(lease) in (CloseReason.FRAUD, CloseReason.WITHHELD)
    assert world.slashed == [key("ann").address]
    assert world.balance(AT.disputes) == world.balance(AT.audits) == 0


@pytest.mark.parametrize("seed", range(3))
def test_an_honest_provider_on_a_slow_line_is_paid(seed: int) -> None:
    """What comes within the validator's patience was served, and the panel has nothing to report."""
    world = Trickling(seed, {"bob": honest}, PANEL, comes_s=lambda world, name: PATIENCE_S - 2, takes_s=3)
    lease = world.lease("bob")
    world.run(2_000)
    assert world.reason(lease) is CloseReason.COMPLETED
    assert not world.slashed
    assert not any(isinstance(event, events.WithheldReported) for event in world.history)


@pytest.mark.parametrize("seed", range(3))
def test_an_honest_provider_whose_line_to_a_third_breaks_is_not_convicted(seed: int) -> None:
    """A few who can't get it say so; the others see for themselves, and have it."""
    broken = PANEL[::4]
    world = Trickling(
        seed, {"bob": honest}, PANEL, comes_s=lambda world, name: None if name in broken else 2, takes_s=3
    )
    lease = world.lease("bob")
    world.run(2_000)
    assert world.reason(lease) is CloseReason.COMPLETED
    assert not world.slashed


@pytest.mark.parametrize("seed", range(3))
def test_an_honest_provider_that_is_back_in_time_is_not_convicted_by_one_validator(seed: int) -> None:
    """Where nobody else looks, a provider or a gateway that was down for most of the clock has been away, no more."""
    worlds: list[World] = []

    def shows(_: str) -> bool:
        drawn = [one for one in worlds[0].history if isinstance(one, events.AuditorDrawn)]
        return bool(drawn) and worlds[0].now_s >= drawn[-1].commit_by_s - 9

    world = World(seed, {"bob": honest}, ("val",), shows=shows)
    worlds.append(world)
    lease = world.lease("bob")
    world.run()
    assert world.reason(lease) is CloseReason.COMPLETED
    assert not world.slashed


def test_one_validator_convicts_who_never_hands_it_over() -> None:
    """It waits until its clock is all but over, and says so."""
    world = Trickling(1, {"ann": skipper}, ("val",), comes_s=never, takes_s=3)
    lease = world.lease("ann")
    world.run()
    assert world.reason(lease) is CloseReason.WITHHELD
    assert world.slashed == [key("ann").address]
