"""Virtual time, blocks, and who is told what: the part of a market that knows no money.

    now ──> wakes, frames and results of work ──> machines' calls ──> one block ──> its events, to those whom they concern
     └── the next moment at which anything happens; idle machines cost nothing

An event about a lease goes to its provider, its requester, one auditor that looks after it, and every auditor that the chain
has named; one that is named later is told first what was before, as a daemon asks a chain for the events of one lease. Whom an
event may move is decided by its kind: the filter that a follower hands to its chain. All machines share one `Directory`.

Time moves in seconds. Within a second frames and wakes come first, then the block. A frame takes a second.
"""

import heapq
from collections.abc import Callable
from typing import Any

from clusterai.ledger.core import calls, events
from clusterai.ledger.core.calls import Mined, Reverted
from clusterai.ledger.core.twin import BlockContext, Refused, TwinChain
from clusterai.market.core.directory import Directory
from clusterai.node.core.jobbook import KEEP_S
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.keccak import keccak
from clusterai.runtime.machine import Received, Tick
from clusterai.simulator.core.books import Books
from clusterai.simulator.core.people import Lease
from clusterai.simulator.core.players import Auditor, Customer, Player

AGAIN_S = 3
"""Auditors take turns at what anybody may do."""
RETRY_S = 6
ASKED = 2
"""Times that a panel looks for outputs after the first; members tick all the time, and who asked once only says nothing."""
SPARE_S = 4
"""Before a clock's end an auditor says that nothing was served."""
PANEL_LEVEL = 2

_CLOCKS: dict[type, str] = {
    events.AuditorDrawn: "commit_by_s",
    events.AuditCommitted: "open_by_s",
    events.SegmentShown: "reveal_by_s",
    events.WithheldReported: "report_by_s",
    events.AuditContested: "dispute_by_s",
    events.DisputeOpened: "assert_by_s",
    events.TraceAsserted: "select_by_s",
    events.RangeSelected: "assert_by_s",
    events.RefereesDrawn: "seal_by_s",
    events.RefereesSealed: "reveal_by_s",
}
_OF_DISPUTES = (
    events.DisputeOpened,
    events.TraceAsserted,
    events.RangeSelected,
    events.RefereesDrawn,
    events.DisputeEnded,
)
_MOVES = frozenset(
    (*_CLOCKS, events.LeaseCommitted, events.LeaseDrawn, events.AuditResolved, events.DisputeEnded)
)
"""After these an earlier clock says nothing any more."""
_FOR_PROVIDERS = frozenset(
    (
        events.LeaseOpened,
        events.LeaseAccepted,
        events.LeaseCommitted,
        events.LeaseDrawn,
        events.AuditCommitted,
        events.SegmentShown,
        events.AuditRevealed,
        events.AuditResolved,
        events.LeaseClosed,
        events.DeliveryDemanded,
        events.DemandEnded,
        *_OF_DISPUTES,
    )
)
_FOR_REQUESTERS = frozenset(
    (
        events.LeaseOpened,
        events.LeaseAccepted,
        events.LeaseCommitted,
        events.AuditResolved,
        events.LeaseClosed,
        events.DeliveryDemanded,
        events.DemandEnded,
    )
)
_OF_BAIT = frozenset((events.LeaseDrawn, events.AuditRevealed, events.TrapSprung))
"""Of these a requester hears only where it planted the lease."""
_OF_ONE_REFEREE = (events.RefereeCommitted, events.RefereeRevealed)
"""These move nobody but who is named: telling forty judges of forty seals would be most of a dispute."""
_OF_PARTICIPANTS = frozenset(
    (
        events.Registered,
        events.Bonded,
        events.Unbonding,
        events.Withdrawn,
        events.Slashed,
        events.Barred,
    )
)


class SharedDirectory(Directory):
    """One projection of the chain for all machines: each applies what it is told, and it is known already."""

    def apply(self, event: object) -> None:
        pass

    def learn(self, event: object) -> None:
        super().apply(event)


class Network:
    """
    Args:
        watch: is told every event, before those whom it concerns.
        beacon: (block, epoch) to the block's randomness.
    """

    def __init__(
        self,
        chain: TwinChain,
        books: Books,
        begin_s: int,
        watch: Callable[[events.Event], None],
        beacon: Callable[[int, int], bytes],
    ) -> None:
        self.chain = chain
        self.books = books
        self.now_s = begin_s
        self.directory = SharedDirectory()
        self.directory.time_s = begin_s
        self.leases: dict[Digest, Lease] = {}
        self.players: dict[Address, Player] = {}
        self.auditors: list[Auditor] = []
        self.calls = 0
        self.steps = 0
        self._watch = watch
        self._beacon = beacon
        self._epoch_s = chain.world.rules.epoch_s
        self._window_s = chain.world.rules.window_s
        self._block = 0
        self._heap: list[tuple[int, int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._wakes: set[tuple[int, int]] = set()
        self._pending: list[tuple[Player | None, str, calls.Call, Address]] = []
        self._mined = False

    # --- time ---

    def at(self, time_s: int, act: Callable[..., None], *about: Any) -> None:
        self._push(time_s, 0, act, about)

    def _push(self, time_s: int, phase: int, act: Callable[..., None], about: tuple[Any, ...]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (time_s, phase, self._order, act, about))

    def run(self) -> None:
        """Until nothing happens any more."""
        while self._heap:
            time_s, _, _, act, about = heapq.heappop(self._heap)
            if time_s != self.now_s:
                # A block a second; those without calls are not worth making.
                self._block += time_s - self.now_s
                self.now_s, self._mined = time_s, False
                self.directory.block, self.directory.time_s = self._block - 1, time_s
            act(*about)

    def wake(self, player: Player, time_s: int) -> None:
        """Let a machine look around then."""
        time_s = max(time_s, self.now_s + 1)
        key = (id(player), time_s)
        if key not in self._wakes:
            self._wakes.add(key)
            self.at(time_s, self._wake, player)

    def _wake(self, player: Player) -> None:
        self._wakes.discard((id(player), self.now_s))
        player.hear(Tick())

    # --- what machines want ---

    def submit(self, player: Player | None, name: str, call: calls.Call, sender: Address) -> None:
        """For the next block."""
        if not self._pending:
            self._push(self.now_s + self._mined, 1, self._mine, ())
        self._pending.append((player, name, call, sender))

    def send(self, to: Address, sender: Address, frame: Any) -> None:
        if (player := self.players.get(to)) is not None:
            self.at(self.now_s + 1, player.hear, Received(sender, frame))

    # --- the chain ---

    def must(self, call: calls.Call, sender: Address) -> tuple[events.Event, ...]:
        """Out of any block, while the market is set up."""
        found = self.chain.execute(call, sender, BlockContext(self._block, self.now_s, bytes(32)))
        assert not isinstance(found, Refused), f"{call}: {found.reason}"
        self.books.book(found)
        for event in found:
            if type(event) in _OF_PARTICIPANTS:
                self.directory.learn(event)
        self.calls += 1
        return found

    def settled(self) -> None:
        """What was set up stays."""
        self.chain.finalize()
        for number in (self._block, self._block + 1_000):
            self.directory.learn(events.Block(number, self.now_s))
        self._block += 1_001

    def _mine(self) -> None:
        submitted, self._pending, self._mined = self._pending, [], True
        epoch = self.now_s // self._epoch_s
        context = BlockContext(self._block, self.now_s, self._beacon(self._block, epoch))
        told: list[events.Event] = []
        outcomes: list[tuple[Player, Mined | Reverted]] = []
        for player, name, call, sender in submitted:
            found = self.chain.execute(call, sender, context)
            self.calls += 1
            if isinstance(found, Refused):
                outcome = Reverted(name, found.reason)
            else:
                outcome = Mined(name, ZERO_DIGEST, context.number)
                self.books.book(found)
                told += found
            if player is not None:
                outcomes.append((player, outcome))
        self.chain.finalize()
        changed = False
        for event in told:
            if type(event) in _OF_PARTICIPANTS:
                self.directory.learn(event)
                changed = True
        if changed:
            self.directory.learn(events.Block(context.number, self.now_s))
        for event in told:
            self._tell(event)
        for player, outcome in outcomes:
            player.hear(outcome)
            if isinstance(player, Auditor):
                self.wake(player, self.now_s + 1)
            if isinstance(outcome, Reverted) and not isinstance(player, Customer):
                # What a requester closes too early its provider closes in time.
                self.wake(player, self.now_s + RETRY_S)

    # --- who is told ---

    def _tell(self, event: events.Event) -> None:
        self._watch(event)
        match event:
            case events.BeaconRecorded() | events.Enlisted():
                for auditor in self.auditors:
                    auditor.hear(event)
                return
            case events.PayVested():
                return
            case _:
                pass
        lease = self.leases.get(getattr(event, "lease", ZERO_DIGEST))
        if lease is None:
            return
        kind = type(event)
        if kind in _MOVES:
            lease.version += 1
        match event:
            case events.LeaseCommitted():
                self._join(lease, self._keeper(lease))
            case events.AuditorDrawn(_, _, who):
                self._join(lease, who)
            case events.RefereesDrawn(_, level, referees):
                for who in referees if level < PANEL_LEVEL else (it.address for it in self.auditors):
                    self._join(lease, who)
            case events.WithheldReported() | events.DeliveryDemanded():
                for auditor in self.auditors:
                    self._join(lease, auditor.address)
            case _:
                pass
        lease.past.append(event)
        if kind in _FOR_PROVIDERS:
            lease.node.hear(event)
        if lease.customer is not None and (kind in _FOR_REQUESTERS or (lease.is_bait and kind in _OF_BAIT)):
            lease.customer.hear(event)
        alone = event.referee if isinstance(event, _OF_ONE_REFEREE) else None
        for auditor in lease.auditors:
            if alone is None or auditor.address == alone:
                auditor.hear(event)
        if kind is events.LeaseClosed:
            lease.is_closed = True
            del self.leases[lease.id]
            self.wake(lease.node, self.now_s + KEEP_S + 1)
        else:
            self._set_clock(lease, event)

    def _keeper(self, lease: Lease) -> Address:
        """Who looks after it: a lot, as among auditors who share the work of drawing."""
        lot = int.from_bytes(keccak(b"keeper" + lease.id)[:8])
        return self.auditors[lot % len(self.auditors)].address

    def _join(self, lease: Lease, who: Address) -> None:
        auditor = self.players[who]
        assert isinstance(auditor, Auditor)
        if auditor not in lease.auditors:
            for event in lease.past:
                auditor.hear(event)
            lease.auditors.append(auditor)

    # --- clocks ---

    def _set_clock(self, lease: Lease, event: events.Event) -> None:
        """Machines look at the clock at every tick; here they are ticked when a clock says something new."""
        match event:
            case events.LeaseOpened(_, _, _, terms):
                self.at(terms.start_by_s + 1, self._late, lease, lease.past[-1])
            case events.LeaseAccepted():
                self.at(lease.terms.deadline_s + 1, self._late, lease, lease.past[-1])
            case events.LeaseCommitted():
                next_s = (self.now_s // self._epoch_s + 1) * self._epoch_s
                self.at(next_s, self._expired, lease, lease.version)
            case events.AuditResolved(_, rest_until_s):
                due_s = max(rest_until_s, lease.committed_s + self._window_s) + 1
                self.at(max(due_s, self.now_s + 1), self._overdue, lease)
            case events.DeliveryDemanded():
                by_s = event.report_by_s
                for again in range(1, ASKED + 1):
                    self.at(self.now_s + again * (AGAIN_S + 1), self._demanded, lease)
                self.at(by_s - SPARE_S, self._demanded, lease)
                for turn in range(1, 3 * AGAIN_S * 2, AGAIN_S):
                    self.at(by_s + turn, self._demanded, lease)
            case _ if (clock := _CLOCKS.get(type(event))) is not None:
                by_s = int(getattr(event, clock))
                self.at(max(by_s - SPARE_S, self.now_s + 1), self._ending, lease, lease.version)
                self.at(max(by_s + 1, self.now_s + 1), self._expired, lease, lease.version)
            case _:
                pass

    def _ending(self, lease: Lease, version: int) -> None:
        if lease.version == version and not lease.is_closed:
            for auditor in lease.auditors:
                self.wake(auditor, self.now_s + 1)

    def _demanded(self, lease: Lease) -> None:
        """The panel reports in time, and somebody ends what is over."""
        for player in (*lease.auditors, lease.customer):
            if player is not None and not lease.is_closed:
                self.wake(player, self.now_s + 1)

    def _expired(self, lease: Lease, version: int) -> None:
        """Until somebody has done what anybody may do."""
        if lease.version == version and not lease.is_closed:
            for auditor in lease.auditors:
                self.wake(auditor, self.now_s + 1)
            self.at(self.now_s + AGAIN_S, self._expired, lease, version)

    def _late(self, lease: Lease, last: events.Event) -> None:
        """It should have been accepted, or committed, by now."""
        if lease.past[-1] is last:
            self._overdue(lease)

    def _overdue(self, lease: Lease) -> None:
        """A party may close it, or go on."""
        if lease.is_closed:
            return
        lease.node.hear(Tick())
        if lease.customer is not None:
            lease.customer.hear(Tick())
