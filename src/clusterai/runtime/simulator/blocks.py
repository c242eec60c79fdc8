"""A chain of blocks around any ledger: late, away, reorganised; transactions wait, vanish, come twice.

    submit ── may vanish ──> waiting ── next block ──> mined or reverted ── `final` blocks later ──> told to the sender
       ^── again until it is mined ──'                        |
                                                 reorganisation: the block is undone, its transactions wait again

Outboxes outlive their processes, as the daemons' do: a key in flight stays so over a crash, and an outcome is told
again when the one who was told died of it. Each process follows the chain through a node of its own that may be away: it then sees no block, submits nothing, and
catches up later. A restarted process reads the chain from its first block on, as the daemons do.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Protocol

import msgspec

from clusterai.protocol.ids import Address
from clusterai.runtime.simulator.faults import Faults
from clusterai.runtime.simulator.process import Process
from clusterai.runtime.simulator.timeline import SECOND_US, Timeline

RESUBMIT_US = 5 * SECOND_US
"""A transaction that nobody saw mined for so long is sent again."""

MEMPOOL_US = 300_000


class Ledger(Protocol):
    """The rules of the money, without blocks."""

    def mark(self) -> Any:
        """Name the present state."""
        ...

    def rollback(self, mark: Any) -> None:
        """Go back to a mark; those made after it are void."""
        ...

    def open_block(self, number: int, timestamp_s: int) -> None:
        """Time moves on; what follows happens in this block."""
        ...

    def execute(self, sender: Address, call: Any) -> tuple[Sequence[Any], str | None]:
        """(events, None), or ((), why it reverted); a revert changes nothing."""
        ...


class Words(msgspec.Struct, frozen=True):
    """How the ledger's room says things that this one only passes on."""

    block: Callable[[int, int], Any]
    rolled_back: Callable[[int], Any]
    mined: Callable[[str, bytes, int], Any]
    reverted: Callable[[str, str], Any]


class Transaction(msgspec.Struct):
    """`number` names it for ever; `reason` is why it reverted in the block in which it stands now."""

    number: int
    sender: Address
    call: Any
    process: Process | None
    key: str
    block: int = -1
    reason: str | None = None
    final: bool = False
    told: bool = False


class Mined(msgspec.Struct):
    """One block of the present chain."""

    number: int
    timestamp_s: int
    transactions: list[Transaction]
    events: list[Any]


class _Follower:
    __slots__ = ("away_until_us", "busy", "cursor", "heard", "process", "rolled", "writes_down")

    def __init__(self, process: Process, writes_down: bool) -> None:
        self.process = process
        self.writes_down = writes_down
        self.heard: list[tuple[float, Any]] = []
        self.cursor = 0
        self.rolled: int | None = None
        self.away_until_us = 0
        self.busy = False


class Blockchain:
    """The one chain of a run.

    Args:
        block_us: time between blocks in a healthy network.
        final: how many blocks must stand above a transaction before its outcome is told.

    Attributes:
        ledger: as of the newest block.
        blocks: the present chain, `blocks[n].number == n`.
        undone: how often blocks were undone: a checker that reads `blocks` starts over when it grows.
    """

    def __init__(
        self,
        seed: int,
        faults: Faults,
        timeline: Timeline,
        ledger: Ledger,
        words: Words,
        start_s: int,
        block_us: int = SECOND_US,
        final: int = 0,
    ) -> None:
        self._random = Random(f"chain {seed}")
        self._faults = faults
        self._timeline = timeline
        self._words = words
        self._start_s = start_s
        self._block_us = block_us
        self._final = final
        self.ledger = ledger
        self.blocks: list[Mined] = []
        self.undone = 0
        self.watchers: list[Callable[[Mined], None]] = []
        self._waiting: list[Transaction] = []
        self._in_flight: dict[tuple[int, str], Transaction] = {}
        self._submitted = 0
        self._followers: dict[int, _Follower] = {}
        self._marks: list[tuple[int, Any]] = []

    @property
    def head(self) -> int:
        return len(self.blocks) - 1

    def begin(self, genesis: Sequence[tuple[Address, Any]] = ()) -> None:
        """Mine block 0 out of `genesis` (all must succeed), then go on for ever."""
        for sender, call in genesis:
            self._waiting.append(self._transaction(sender, call, None, ""))
        mined = self._mine()
        assert all(t.reason is None for t in mined.transactions), [
            (t.call, t.reason) for t in mined.transactions if t.reason
        ]
        self._timeline.after(self._block_us, self._next)

    def follow(self, process: Process, writes_down: bool = False) -> None:
        """Tell `process` every block from the first; to be called in each of its incarnations, before it starts.

        Args:
            writes_down: its host keeps what was heard, tells a new incarnation at once, and goes on behind that.
        """
        follower = self._followers.get(process.index)
        if follower is None:
            follower = self._followers[process.index] = _Follower(process, writes_down)
            if self._faults.outage_every_us:
                self._timeline.after(self._interval(self._faults.outage_every_us), self._leave, follower)
        if not writes_down:
            follower.cursor = 0
            follower.rolled = None
        follower.busy = False
        incarnation = process.incarnation
        for heard_s, event in follower.heard.copy():
            if process.machine is None or process.incarnation != incarnation:
                return
            process.remember(event, heard_s)
        self._wake(follower)
        for transaction in list(self._in_flight.values()):
            if transaction.final and transaction.process is process:
                self._hand_over(transaction)

    def submit(self, process: Process, sender: Address, key: str, call: Any) -> None:
        """Put a call into the process's outbox; dropped where its key is on its way already."""
        name = (process.index, key)
        if name not in self._in_flight:
            transaction = self._in_flight[name] = self._transaction(sender, call, process, key)
            self._broadcast(transaction)

    def send(self, sender: Address, call: Any) -> None:
        """A transaction of somebody who doesn't wait for the outcome; never lost."""
        self._waiting.append(self._transaction(sender, call, None, ""))

    def away(self, process: Process, seconds: float) -> None:
        """Let the chain be out of `process`'s reach."""
        follower = self._followers[process.index]
        follower.away_until_us = self._timeline.now_us + int(seconds * SECOND_US)

    def is_away(self, process: Process) -> bool:
        follower = self._followers.get(process.index)
        return follower is not None and follower.away_until_us > self._timeline.now_us

    def heal(self) -> None:
        self._faults = Faults()
        for follower in self._followers.values():
            follower.away_until_us = 0
            follower.busy = False
            self._wake(follower)

    def _transaction(self, sender: Address, call: Any, process: Process | None, key: str) -> Transaction:
        self._submitted += 1
        return Transaction(self._submitted, sender, call, process, key)

    def _broadcast(self, transaction: Transaction) -> None:
        process = transaction.process
        if process is None or transaction.told:
            return
        reachable = process.machine is not None and not self.is_away(process)
        if transaction.block < 0 and reachable and self._random.random() >= self._faults.lost_transaction:
            delay_us = 1 + int(self._random.random() * MEMPOOL_US)
            self._timeline.after(delay_us, self._arrive, transaction)
        self._timeline.after(RESUBMIT_US, self._broadcast, transaction)

    def _arrive(self, transaction: Transaction) -> None:
        # A node knows a transaction by its hash: sent twice, it stands once.
        if transaction.block < 0 and transaction not in self._waiting:
            self._waiting.append(transaction)

    def _next(self) -> None:
        faults, random = self._faults, self._random
        if faults.reorganisation and self.head > 3 and random.random() < faults.reorganisation:
            self._undo(random.randint(1, faults.reorganised_blocks))
        self._mine()
        stretch = 1 + random.random() * (faults.late_blocks - 1)
        self._timeline.after(int(self._block_us * stretch), self._next)

    def _mine(self) -> Mined:
        number = len(self.blocks)
        timestamp_s = self._start_s + self._timeline.now_us // SECOND_US
        if self.blocks:
            timestamp_s = max(timestamp_s, self.blocks[-1].timestamp_s)
        self.ledger.open_block(number, timestamp_s)
        block = Mined(number, timestamp_s, self._minable(), [])
        for transaction in block.transactions:
            events, transaction.reason = self.ledger.execute(transaction.sender, transaction.call)
            transaction.block = number
            block.events.extend(events)
        self.blocks.append(block)
        if self._faults.reorganisation:
            self._marks.append((number, self.ledger.mark()))
            del self._marks[: -(self._faults.reorganised_blocks + 1)]
        for watcher in self.watchers:
            watcher(block)
        for follower in self._followers.values():
            self._wake(follower)
        if self._in_flight:
            self._tell()
        return block

    def _minable(self) -> list[Transaction]:
        """Take what can stand in the next block. Nonces keep a sender's own transactions in order: one that was
        lost holds up those behind it until it is sent again."""
        held: dict[int, int] = {}
        for (index, _), transaction in self._in_flight.items():
            if transaction.block < 0 and transaction not in self._waiting:
                held[index] = min(transaction.number, held.get(index, transaction.number))
        ready: list[Transaction] = []
        waiting: list[Transaction] = []
        for transaction in self._waiting:
            process = transaction.process
            first_missing = held.get(process.index) if process else None
            late = first_missing is not None and transaction.number > first_missing
            (waiting if late else ready).append(transaction)
        self._waiting = waiting
        turn: dict[Address, list[Transaction]] = {}
        for transaction in ready:
            turn.setdefault(transaction.sender, []).append(transaction)
        for mine in turn.values():
            mine.sort(key=lambda it: -it.number)
        return [turn[transaction.sender].pop() for transaction in ready]

    def _undo(self, depth: int) -> None:
        """Take the newest blocks away; senders' transactions keep their own order and lose that among each other."""
        keep = max(self.head - depth, self._marks[0][0])
        self._marks = [(number, mark) for number, mark in self._marks if number <= keep]
        self.ledger.rollback(self._marks[-1][1])
        gone = [t for block in self.blocks[keep + 1 :] for t in block.transactions]
        del self.blocks[keep + 1 :]
        self.undone += 1
        turns = sorted((self._random.random(), sender) for sender in dict.fromkeys(t.sender for t in gone))
        for _, sender in turns:
            for transaction in gone:
                if transaction.sender == sender:
                    transaction.block = -1
                    self._waiting.append(transaction)
        for follower in self._followers.values():
            if follower.cursor > keep + 1:
                follower.rolled = keep if follower.rolled is None else min(keep, follower.rolled)
                follower.cursor = keep + 1
        late = [sender for _, sender in turns if self._random.random() < 0.2]
        for transaction in [it for it in self._waiting if it.sender in late]:
            self._waiting.remove(transaction)
            self._timeline.after(2 * self._block_us, self._arrive, transaction)

    def _tell(self) -> None:
        for transaction in list(self._in_flight.values()):
            if not transaction.final and 0 <= transaction.block <= self.head - self._final:
                transaction.final = True
                self._hand_over(transaction)

    def _hand_over(self, transaction: Transaction) -> None:
        """Tell the outcome as soon as its process lives and its node is there."""
        process = transaction.process
        assert process is not None, "only an outbox has calls in flight"
        away_us = self._followers[process.index].away_until_us - self._timeline.now_us
        if away_us > 0:
            process.later(away_us, self._hand_over, transaction)
        else:
            process.later(1 + int(self._random.random() * 100_000), self._tell_one, transaction)

    def _tell_one(self, transaction: Transaction) -> None:
        process = transaction.process
        assert process is not None, "as in `_hand_over`"
        if transaction.told:
            return
        if transaction.reason is None:
            name = transaction.number.to_bytes(32)
            outcome = self._words.mined(transaction.key, name, transaction.block)
        else:
            outcome = self._words.reverted(transaction.key, transaction.reason)
        incarnation = process.incarnation
        # Forgotten before it is told, so that the same key can be submitted in answer; kept if the teller died of it.
        del self._in_flight[process.index, transaction.key]
        process.deliver(incarnation, outcome)
        if process.machine is not None and process.incarnation == incarnation:
            transaction.told = True
        else:
            self._in_flight.setdefault((process.index, transaction.key), transaction)

    def _wake(self, follower: _Follower) -> None:
        if not follower.busy and follower.process.machine is not None:
            follower.busy = True
            delay_us = 1 + int(self._random.random() * 100_000)
            follower.process.later(delay_us, self._catch_up, follower)

    def _catch_up(self, follower: _Follower) -> None:
        """Hand over what is new, unless the node is away."""
        away_us = follower.away_until_us - self._timeline.now_us
        if away_us > 0:
            follower.process.later(away_us, self._catch_up, follower)
            return
        follower.busy = False
        process = follower.process
        incarnation = process.incarnation
        if follower.rolled is not None:
            rolled, follower.rolled = follower.rolled, None
            self._hear(follower, incarnation, [self._words.rolled_back(rolled)])
        while follower.cursor < len(self.blocks) and process.incarnation == incarnation and process.machine:
            block = self.blocks[follower.cursor]
            follower.cursor += 1
            closing = self._words.block(block.number, block.timestamp_s)
            self._hear(follower, incarnation, [*block.events, closing])

    def _hear(self, follower: _Follower, incarnation: int, batch: list[Any]) -> None:
        process = follower.process
        if follower.writes_down:
            follower.heard += [(process.clock_s, event) for event in batch]
        for event in batch:
            process.deliver(incarnation, event)

    def _leave(self, follower: _Follower) -> None:
        if not self._faults.outage_every_us:
            return
        away_us = int(self._random.random() * self._faults.outage_us)
        follower.away_until_us = max(follower.away_until_us, self._timeline.now_us + away_us)
        self._timeline.after(away_us + self._interval(self._faults.outage_every_us), self._leave, follower)

    def _interval(self, mean_us: int) -> int:
        return 1 + int(self._random.expovariate(1 / mean_us))
