"""Both ends of secure sums, over whatever carries bytes to vaults and back.

`Aggregation` is the requester's end: it runs `Collector`s over `send(vault, bytes) -> bytes`. `SumDesk` is the vault's: its
`answer` belongs behind the vault's sealed calls, which say who asks. What a vault puts into a sum, and whether it may, is its
service's affair: `offer(spec, server)` returns the integers or raises `Declined`. Neither end knows what is summed.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from clusterai.protocol.canonical import Malformed, decode, encode
from clusterai.protocol.ids import Address
from clusterai.protocol.signing import Key
from clusterai.runtime.machine import Journal, Received, Save, Send, Started, Tick
from clusterai.vault.adapters.masking import Libraries
from clusterai.vault.core.secagg import graph, vectors
from clusterai.vault.core.secagg.checking import (
    Checked,
    Checker,
    Published,
    Shown,
    Wanted,
    from_checker,
    to_checker,
)
from clusterai.vault.core.secagg.collector import Collector, Failed, Lost, Summed
from clusterai.vault.core.secagg.member import Contribution, Member, Terms, objection
from clusterai.vault.core.secagg.messages import (
    MAX_FRAME_BYTES,
    Invite,
    Refused,
    Roll,
    Spec,
    to_member,
    to_server,
)
from clusterai.vault.core.secagg.proof import Proof, shown_chunks
from clusterai.vault.core.secagg.transcript import Opening

MAX_ROUNDS = 32
"""Rounds that one vault takes part in at once; each holds a vector."""

Sender = Callable[[Address, bytes], Awaitable[bytes]]
"""Bytes to a vault and its answer; raises OSError, TimeoutError or Unreachable where there is none."""
Offer = Callable[[Spec, Address], Awaitable[Contribution]]


Endorses = Callable[[Spec, tuple[Address, ...]], Awaitable[None]]
"""Asked before a member endorses a roll, with those who are on it; raises Declined. What it notes must be durable when it returns."""


class Unreachable(Exception):
    """A vault can't be asked now; it counts as dropped out."""


class Declined(Exception):
    """This vault takes no part in this sum: {code}, {detail}."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"this vault takes no part in this sum: {code}, {detail}")
        self.code, self.detail = code, detail


class NoSum(Exception):
    """The round ended in its {phase} without a sum: {detail}. Run another, without those named in `blamed`."""

    def __init__(self, failed: Failed, refused: dict[bytes, str] | None = None) -> None:
        super().__init__(f"the round ended in its {failed.phase} without a sum: {failed.detail}")
        self.failed = failed
        self.refused = refused or {}
        """Who didn't even begin, and why."""
        self.blamed = failed.blamed


class SumDesk:
    """A vault's end. `answer` is given bodies that `sender` signed."""

    def __init__(
        self,
        key: Key,
        offer: Offer,
        terms: Terms | None = None,
        clock: Callable[[], float] = time.time,
        found: Callable[[Spec, Checked], None] | None = None,
        endorses: Endorses | None = None,
    ) -> None:
        """
        Args:
            endorses: where one vector goes into several sums; without it each offer is for one sum.
        """
        self._endorses = endorses
        self._key, self._offer, self._terms, self._clock = key, offer, terms or Terms(), clock
        self._found = found
        self._libraries = Libraries()
        self._rounds: dict[bytes, Member] = {}
        self._checks: dict[bytes, Checker] = {}
        self._over: dict[bytes, int] = {}
        """Rounds that made place for others, until they expire."""
        self._alone = asyncio.Lock()

    async def answer(self, sender: Address, body: bytes) -> bytes:
        """One frame in, one out. A frame that can't be read is answered by a refusal of round zero."""
        async with self._alone:
            try:
                frame = to_member(body)
            except Malformed as error:
                return await self._check(sender, body, error)
            if isinstance(frame, Invite):
                refused = await self._invited(sender, frame.spec)
                if refused is not None:
                    return encode(refused)
                round_id = frame.spec.round()
            else:
                round_id = frame.round
            member = self._rounds.get(round_id)
            if member is None or member.spec.server != sender:
                return encode(Refused(round_id, "unknown", "no round of this server's with this vault"))
            if isinstance(frame, Roll) and (refused := await self._unendorsed(member, frame)) is not None:
                return encode(refused)
            return encode(await asyncio.to_thread(member.answer, frame, self._clock()))

    async def _unendorsed(self, member: Member, roll: Roll) -> Refused | None:
        there = graph.members(member.spec)
        # Whatever else is wrong with it, the member sees.
        if self._endorses is None or any(claim.member >= len(there) for claim in roll.claims):
            return None
        try:
            await self._endorses(member.spec, tuple(there[claim.member] for claim in roll.claims))
        except Declined as declined:
            return Refused(member.round, declined.code[:40], declined.detail[:400])
        return None

    async def _invited(self, sender: Address, spec: Spec) -> Refused | None:
        now_s, round_id = self._clock(), spec.round()
        for old in [known for known, member in self._rounds.items() if member.spec.expires_s < now_s]:
            self._rounds.pop(old).forget()
            self._checks.pop(old, None)
        if len(self._rounds) >= MAX_ROUNDS:
            # The oldest that is over: it can be checked no more, and what it held is another's.
            over = next((known for known, member in self._rounds.items() if member.over), None)
            if over is not None:
                self._over[over] = self._rounds.pop(over).spec.expires_s
                self._checks.pop(over, None)
        if round_id in self._rounds:
            return None
        self._over = {known: ends_s for known, ends_s in self._over.items() if ends_s >= now_s}
        if round_id in self._over:
            return Refused(round_id, "over", "this vault has opened what it opens of this round")
        if spec.server != sender:
            return Refused(round_id, "server", "who asks isn't the server of this round")
        if len(self._rounds) >= MAX_ROUNDS:
            return Refused(round_id, "busy", f"this vault is in {MAX_ROUNDS} rounds")
        refused = objection(spec, self._key.address, self._terms, int(now_s))
        if refused is not None:
            return refused
        try:
            given = await self._offer(spec, sender)
        except Declined as declined:
            return Refused(round_id, declined.code[:40], declined.detail[:400])
        if len(given.values) != spec.length:
            return Refused(round_id, "length", f"{len(given.values)} values here, {spec.length} asked for")
        self._rounds[round_id] = Member(spec, self._key, self._key.address, given, self._libraries)
        return None

    async def _check(self, sender: Address, body: bytes, error: Malformed) -> bytes:
        try:
            frame = to_checker(body)
        except Malformed:
            return encode(Refused(bytes(32), "malformed", str(error)[:400]))
        round_id = frame.transcript.spec.round() if isinstance(frame, Published) else frame.round
        member = self._rounds.get(round_id)
        if member is None or member.spec.server != sender:
            return encode(Checked(round_id, "unknown", "no round of this server's with this vault"))
        checker = self._checks.get(round_id)
        if checker is None:
            checker = Checker(round_id, member.endorsed, member.left_out, self._libraries, secrets.randbelow)
            self._checks[round_id] = checker
        said = await asyncio.to_thread(checker.answer, frame)
        if isinstance(said, Checked) and self._found is not None:
            self._found(member.spec, said)
        return encode(said)


class Aggregation:
    """The requester's end: `await aggregation.sum(spec)`."""

    def __init__(
        self,
        key: Key,
        send: Sender,
        phase_s: float = 30.0,
        clock: Callable[[], float] = time.time,
        most_at_once: int = 64,
    ) -> None:
        self._key, self._send, self._phase_s, self._clock = key, send, phase_s, clock
        self._slots = asyncio.Semaphore(most_at_once)
        self._libraries = Libraries()

    async def sum(self, spec: Spec, journal: Journal | None = None) -> Summed:
        """Run one round to its end; with a journal, on from where a killed one was.

        Raises:
            NoSum: too many dropped out, or dealt what doesn't fit.
        """
        return (await self._run(spec, journal)).outcome_of_sum()

    async def checked_sum(
        self,
        spec: Spec,
        journal: Journal | None = None,
        keep: Callable[[Proof], None] | None = None,
    ) -> tuple[Summed, dict[Address, Checked]]:
        """As `sum`, and then let every member check it: what each of those that answered found.

        Args:
            keep: gets what proves the sum to others.
        """
        run = await self._run(spec, journal)
        summed = run.outcome_of_sum()
        if keep is not None:
            openings = await asyncio.to_thread(_openings, run.collector, shown_chunks(summed.transcript))
            keep(Proof(summed.transcript, openings))
        return summed, await self.publish(run.collector)

    async def _run(self, spec: Spec, journal: Journal | None) -> "_Run":
        run = _Run(Collector(spec, self._key, self._libraries, self._phase_s), journal)
        await run.to_end(self._ask, self._clock, self._phase_s)
        return run

    async def _ask(self, to: Address, body: bytes) -> bytes:
        async with self._slots, asyncio.timeout(self._phase_s):
            return await self._send(to, body)

    async def publish(self, collector: Collector) -> dict[Address, Checked]:
        """Show everyone who dealt the transcript and what they want opened; who of them doesn't answer is left out."""
        outcome = collector.outcome
        assert isinstance(outcome, Summed)
        published = encode(Published(outcome.transcript))
        found: dict[Address, Checked] = {}

        async def one(who: Address) -> None:
            try:
                said = from_checker(await self._ask(who, published))
                if isinstance(said, Wanted):
                    openings = await asyncio.to_thread(_openings, collector, said.chunks)
                    said = from_checker(await self._ask(who, encode(Shown(said.round, openings))))
            except (OSError, TimeoutError, Unreachable, Malformed):
                return  # no answer is no check; the caller sees who is missing
            if isinstance(said, Checked):
                found[who] = said

        async with asyncio.TaskGroup() as tasks:
            for member in outcome.transcript.roll.dealers:
                tasks.create_task(one(graph.members(collector.spec)[member]))
        return found


def _openings(collector: Collector, chunks: tuple[int, ...]) -> tuple[Opening, ...]:
    there = vectors.chunks(collector.spec.length)
    return tuple(collector.opening(chunk) for chunk in chunks if chunk < there)


class _Run:
    """One collector, its journal, and what is under way."""

    def __init__(self, collector: Collector, journal: Journal | None) -> None:
        self.collector, self._journal = collector, journal
        self._heard: asyncio.Queue[Any] = asyncio.Queue()
        if journal is not None:
            collector.restore(decode(raw, Collector.RECORDS, MAX_FRAME_BYTES) for raw in journal.load())

    def outcome_of_sum(self) -> Summed:
        outcome = self.collector.outcome
        if isinstance(outcome, Summed):
            return outcome
        assert isinstance(outcome, Failed)
        raise NoSum(outcome)

    async def to_end(self, ask: Sender, clock: Callable[[], float], phase_s: float) -> None:
        async with asyncio.TaskGroup() as tasks:
            asking: set[asyncio.Task[None]] = set()
            event: Any = Started()
            while True:
                effects = await asyncio.to_thread(self.collector.step, event, clock())
                if self._journal is not None:
                    records = [encode(effect.record) for effect in effects if isinstance(effect, Save)]
                    if records:
                        await asyncio.to_thread(self._journal.append, records)
                for effect in effects:
                    if isinstance(effect, Send):
                        task = tasks.create_task(self._asked(ask, effect))
                        asking.add(task)
                        task.add_done_callback(asking.discard)
                if self.collector.outcome is not None:
                    break
                try:
                    async with asyncio.timeout(min(1.0, phase_s / 10)):
                        event = await self._heard.get()
                except TimeoutError:
                    event = Tick()
            for task in asking:
                task.cancel()

    async def _asked(self, ask: Sender, send: Send) -> None:
        try:
            reply = to_server(await ask(send.to, encode(send.frame)))
        except (OSError, TimeoutError, Unreachable, Malformed) as error:
            self._heard.put_nowait(Lost(send.to, str(error) or type(error).__name__))
        else:
            self._heard.put_nowait(Received(send.to, reply))
