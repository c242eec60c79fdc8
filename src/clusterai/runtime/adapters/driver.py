"""Runs one machine for real: step, save, then act.

Stepping is synchronous and takes microseconds, so an event is handled at once by whoever received it, on the event
loop's thread; there is no queue to overflow and no task to lose. `perform` must not block: it hands an effect to
the adapter that acts (a link's outbox, the chain's outbox, an engine).
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from clusterai.protocol import canonical
from clusterai.runtime.adapters.journal import JournalLost, SqliteJournal
from clusterai.runtime.machine import Machine, Save, Started, Tick

COMPACT_AFTER = 20_000
"""Journal records before a compaction is tried: about 10 MB, and under a second to replay."""


class Driver:
    """A machine, its journal, and the function that acts on its effects."""

    def __init__(
        self,
        machine: Machine,
        journal: SqliteJournal,
        perform: Callable[[Any], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.machine = machine
        self._journal = journal
        self._perform = perform
        self._clock = clock
        self._lost: JournalLost | None = None
        decoder = msgspec.msgpack.Decoder(machine.RECORDS)
        machine.restore(decoder.decode(record) for record in journal.load())
        self._compact_at = max(COMPACT_AFTER, 2 * journal.appended)

    def start(self) -> None:
        self.handle(Started())

    def handle(self, event: Any) -> None:
        """Step, then carry out the effects in order; every `Save` is durable before the effect behind it.

        Raises:
            JournalLost: then, and at every event after it: what the machine believes was never written. Whoever answers a peer may
                catch it; `tick_forever` doesn't, so the daemon ends with it.
        """
        if self._lost is not None:
            raise self._lost
        effects = self.machine.step(event, self._clock())
        unsaved: list[bytes] = []
        held: list[Any] = []
        # All saves of one step go into one transaction, and all acts wait for it: that keeps the promised order
        # (an act may only wait longer than it must) at one commit a step.
        for effect in effects:
            if isinstance(effect, Save):
                unsaved.append(canonical.encode(effect.record))
            else:
                held.append(effect)
        if unsaved:
            try:
                self._journal.append(unsaved)
            except JournalLost as error:
                self._lost = error
                raise
        for effect in held:
            self._perform(effect)
        if self._journal.appended > self._compact_at:
            snapshot = [canonical.encode(record) for record in self.machine.snapshot()]
            self._journal.replace(snapshot)
            self._compact_at = max(COMPACT_AFTER, 2 * len(snapshot))

    async def tick_forever(self, every_s: float = 0.5) -> None:
        """Post `Tick`s until cancelled; one of the daemon's TaskGroup."""
        while True:
            await asyncio.sleep(every_s)
            self.handle(Tick())
