"""One simulated process: a machine, its journal, the adapters around it, and the clock that it believes.

    alive ── crash between two effects ──> dead ── a drawn time ──> restore(journal) ──> Started ──> alive

All that isn't journaled dies with the incarnation: events posted for it later are dropped unseen.
"""

from collections.abc import Callable
from typing import Any, Protocol

from clusterai.protocol.ids import Address
from clusterai.runtime.machine import Machine
from clusterai.runtime.simulator.disk import MemoryJournal


class Host(Protocol):
    """The simulated adapters around one machine: engines, files, the chain's outbox."""

    def perform(self, effect: Any) -> None:
        """Act on an effect that is neither `Save` nor `Send`; outcomes come back through `Process.post`."""
        ...

    def started(self) -> None:
        """A new incarnation is about to get `Started`."""
        ...

    def crashed(self) -> None:
        """Forget what is volatile."""
        ...


class NoHost:
    """For machines that only save and send."""

    def perform(self, effect: Any) -> None:
        raise AssertionError(f"nobody performs {effect!r}")

    def started(self) -> None: ...

    def crashed(self) -> None: ...


class Process:
    """What the simulation knows of one participant's machine.

    Attributes:
        index: position in the order of spawning; stands for the process in the digest.
        machine: None while dead.
        incarnation: counts restarts.
        doomed: it dies in its next step that has effects.
        skew_us: what its clock shows too much.
        steps: how many steps it made, in all incarnations.
    """

    __slots__ = (
        "_clock_s",
        "_step",
        "_timeline_after",
        "address",
        "build",
        "doomed",
        "host",
        "incarnation",
        "index",
        "journal",
        "machine",
        "name",
        "skew_us",
        "steps",
        "tick_us",
    )

    def __init__(
        self,
        index: int,
        name: str,
        address: Address,
        build: Callable[[], Machine],
        host: Host,
        tick_us: int,
        after: Callable[..., None],
        step: Callable[..., None],
        clock_s: Callable[["Process"], float],
    ) -> None:
        self.index = index
        self.name = name
        self.address = address
        self.build = build
        self.host = host
        self.tick_us = tick_us
        self.journal = MemoryJournal()
        self.machine: Machine | None = None
        self.incarnation = 0
        self.doomed = False
        self.skew_us = 0
        self.steps = 0
        self._timeline_after = after
        self._step = step
        self._clock_s = clock_s

    def post(self, delay_us: int, event: Any) -> None:
        """Hand `event` to this incarnation later; lost if it dies before."""
        self._timeline_after(delay_us, self.deliver, self.incarnation, event)

    def later(self, delay_us: int, act: Callable[..., None], *arguments: Any) -> None:
        """Call `act` later if this incarnation still lives then: a timer of an adapter."""
        self._timeline_after(delay_us, self._act, self.incarnation, act, arguments)

    def deliver(self, incarnation: int, event: Any) -> None:
        if incarnation == self.incarnation and self.machine is not None:
            self._step(self, event)

    @property
    def alive(self) -> bool:
        return self.machine is not None

    @property
    def clock_s(self) -> float:
        """What it takes for the time."""
        return self._clock_s(self)

    def remember(self, event: Any, heard_s: float) -> None:
        """Hand over at once what an earlier incarnation heard at that time and its host wrote down."""
        self._step(self, event, None, heard_s)

    def _act(self, incarnation: int, act: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if incarnation == self.incarnation and self.machine is not None:
            act(*arguments)

    def __repr__(self) -> str:
        return self.name
