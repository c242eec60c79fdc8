"""Standing links between processes, over a network that loses, repeats, delays, reorders, parts and cuts.

A link is dialled again for ever, as the transport does it. While a connection lives, packets on it may be late, twice
or lost by the drawn rates. When it is cut, what was under way is lost; when one end dies, what it had sent still arrives.
Each end notices on its own time:

    down ── both alive, no wall between, after a backoff ──> up ── cut, crash, wall for 4 s ──> down
                 Linked at both ends                               Unlinked at each end, 0 to 4 s later
"""

from collections.abc import Callable
from random import Random

from clusterai.protocol.ids import Address
from clusterai.runtime.machine import Linked, Unlinked
from clusterai.runtime.simulator.faults import Faults
from clusterai.runtime.simulator.process import Process
from clusterai.runtime.simulator.timeline import SECOND_US, Timeline

DEAD_AFTER_US = 4 * SECOND_US
"""An end that heard nothing for so long gives the connection up; the transport's own number."""

BACKOFF_US = (50_000, 2 * SECOND_US)


class Link:
    """One pair of processes.

    Attributes:
        generation: counts connections; `up` is whether the newest lives.
        believed: per end, the connection that it was told of and not yet told the end of; 0 is none.
        cut: the newest connection whose packets under way are lost.
    """

    __slots__ = ("admitted", "arrival_us", "believed", "cut", "ends", "generation", "up")

    def __init__(self, dialler: Process, listener: Process, admitted: Callable[[], bool]) -> None:
        self.ends = (dialler, listener)
        self.admitted = admitted
        self.generation = 0
        self.up = False
        self.believed = [0, 0]
        self.cut = 0
        self.arrival_us = [0, 0]


class Wall:
    """A partition: packets don't pass from one side to the other (one-way: only not from the left side)."""

    __slots__ = ("left", "one_way")

    def __init__(self, left: frozenset[int], one_way: bool) -> None:
        self.left = left
        self.one_way = one_way

    def stops(self, sender: Process, to: Process) -> bool:
        sender_left = sender.index in self.left
        return sender_left != (to.index in self.left) and (sender_left or not self.one_way)


class Network:
    """All links. `receive(process, sender, packet)` is called with bytes as they arrive.

    Attributes:
        sent, lost: packets, for those who measure.
    """

    def __init__(
        self,
        seed: int,
        faults: Faults,
        timeline: Timeline,
        receive: Callable[[Process, Address, bytes], None],
    ) -> None:
        self._random = Random(f"network {seed}")
        self._faults = faults
        self._timeline = timeline
        self._receive = receive
        self._links: list[Link] = []
        self._of: dict[tuple[Address, Address], tuple[Link, int]] = {}
        self._walls: list[Wall] = []
        self._members: list[Process] = []
        self.sent = 0
        self.lost = 0

    def dial(self, dialler: Process, listener: Process, admitted: Callable[[], bool] = lambda: True) -> None:
        """Let a standing link be kept between the two from now on, whenever both ends find the other `admitted`."""
        link = Link(dialler, listener, admitted)
        self._links.append(link)
        self._of[dialler.address, listener.address] = (link, 0)
        self._of[listener.address, dialler.address] = (link, 1)
        for end in link.ends:
            if end not in self._members:
                self._members.append(end)
        self._connect(link)
        if self._faults.cut_every_us:
            self._timeline.after(self._interval(self._faults.cut_every_us), self._cut, link, self._faults)

    def begin_faults(self) -> None:
        """Start drawing partitions; to be called once all links are dialled."""
        faults = self._faults
        if faults.partition_every_us:
            self._timeline.after(self._interval(faults.partition_every_us), self._part, False, faults)
        if faults.one_way_every_us:
            self._timeline.after(self._interval(faults.one_way_every_us), self._part, True, faults)

    def send(self, sender: Process, to: Address, packet: bytes) -> None:
        """Carry a packet over the link between the two; where there is none that is up, it is lost."""
        self.sent += 1
        found = self._of.get((sender.address, to))
        if found is None or not found[0].up:
            self.lost += 1
            return
        link, end = found
        receiver = link.ends[1 - end]
        if self._walls and any(wall.stops(sender, receiver) for wall in self._walls):
            self.lost += 1
            return
        faults, random = self._faults, self._random
        if faults.loss and random.random() < faults.loss:
            self.lost += 1
            return
        copies = 2 if faults.duplication and random.random() < faults.duplication else 1
        low, high = faults.latency_us
        for _ in range(copies):
            arrival_us = self._timeline.now_us + low + int(random.random() * (high - low))
            if faults.delay and random.random() < faults.delay:
                arrival_us += int(random.random() * faults.delay_us)
            if not faults.reordering:
                arrival_us = link.arrival_us[1 - end] = max(arrival_us, link.arrival_us[1 - end])
            delay_us = arrival_us - self._timeline.now_us
            self._timeline.after(delay_us, self._arrive, link, link.generation, 1 - end, packet)

    def crashed(self, process: Process) -> None:
        """All connections of `process` break; its own ends forget at once."""
        for link in self._links:
            if process in link.ends:
                link.believed[link.ends.index(process)] = 0
                if link.up:
                    self._break(link, lossy=False)

    def heal(self) -> None:
        """No more faults, no walls; every connection is made anew, as when all transports reconnect.

        The last part stands for what a real stream does by itself: it can't lose a packet and live.
        """
        self._faults = Faults(latency_us=self._faults.latency_us)
        self._walls.clear()
        for link in self._links:
            if link.up:
                self._break(link)

    def _interval(self, mean_us: int) -> int:
        return 1 + int(self._random.expovariate(1 / mean_us))

    def _arrive(self, link: Link, generation: int, end: int, packet: bytes) -> None:
        if link.believed[end] == generation > link.cut:
            self._receive(link.ends[end], link.ends[1 - end].address, packet)
        else:
            self.lost += 1

    def _connect(self, link: Link) -> None:
        if link.up:
            return
        first, second = link.ends
        reachable = not any(wall.stops(first, second) or wall.stops(second, first) for wall in self._walls)
        if not (reachable and first.machine and second.machine and link.admitted()):
            self._timeline.after(self._random.randint(*BACKOFF_US), self._connect, link)
            return
        link.up = True
        link.generation += 1
        generation = link.generation
        for end in (0, 1):
            self._tell_down(link, end)
            if link.up and link.generation == generation:
                link.believed[end] = generation
                link.ends[end].deliver(link.ends[end].incarnation, Linked(link.ends[1 - end].address))

    def _break(self, link: Link, lossy: bool = True) -> None:
        link.up = False
        if lossy:
            link.cut = link.generation
        for end in (0, 1):
            if link.believed[end]:
                notice_us = int(self._random.random() * DEAD_AFTER_US)
                self._timeline.after(notice_us, self._notice, link, link.generation, end)
        self._timeline.after(self._random.randint(*BACKOFF_US), self._connect, link)

    def _notice(self, link: Link, generation: int, end: int) -> None:
        if link.believed[end] == generation:
            self._tell_down(link, end)

    def _tell_down(self, link: Link, end: int) -> None:
        if link.believed[end]:
            link.believed[end] = 0
            link.ends[end].deliver(link.ends[end].incarnation, Unlinked(link.ends[1 - end].address))

    def _cut(self, link: Link, faults: Faults) -> None:
        if self._faults is not faults:
            return
        if link.up:
            self._break(link)
        self._timeline.after(self._interval(faults.cut_every_us), self._cut, link, faults)

    def _part(self, one_way: bool, faults: Faults) -> None:
        if self._faults is not faults:
            return
        left = frozenset(p.index for p in self._members if self._random.random() < 0.5)
        wall = Wall(left, one_way)
        self._walls.append(wall)
        most_us = faults.one_way_us if one_way else faults.parted_us
        self._timeline.after(1 + int(self._random.random() * most_us), self._open, wall)
        self._timeline.after(DEAD_AFTER_US, self._give_up, wall)
        every_us = faults.one_way_every_us if one_way else faults.partition_every_us
        self._timeline.after(self._interval(every_us), self._part, one_way, faults)

    def _open(self, wall: Wall) -> None:
        if wall in self._walls:
            self._walls.remove(wall)

    def _give_up(self, wall: Wall) -> None:
        if wall not in self._walls:
            return
        for link in self._links:
            first, second = link.ends
            if link.up and (wall.stops(first, second) or wall.stops(second, first)):
                self._break(link)
