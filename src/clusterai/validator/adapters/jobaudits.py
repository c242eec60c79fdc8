"""The half of a validator that audits leases: opens what a provider serves, fetches what it names, runs the segment in the sandbox.

A provider that serves what doesn't belong to its commitment serves nothing, and so does who hands over byte by byte what the state names. One whose work began elsewhere than with the job's own
inputs, or whose state is none of this job's, did another job: what the auditor then says is a digest that no run of anything gives,
so that its accusation is heard.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import structlog

from clusterai.audit.adapters.sealing import SealKey, seal
from clusterai.audit.core.segments import Opening, is_opened
from clusterai.ledger.core.calls import Mined, Reverted, Submit
from clusterai.market.core.directory import Directory
from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest, hex0x
from clusterai.protocol.jobs import (
    AskContent,
    AskSealed,
    NotServed,
    SealedPart,
    Segment,
    SegmentServed,
)
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import segment_result
from clusterai.protocol.messages import Relay
from clusterai.protocol.signing import recover
from clusterai.runtime.adapters.driver import Driver
from clusterai.runtime.adapters.journal import SqliteJournal
from clusterai.runtime.machine import Linked, Received, Send, Unlinked
from clusterai.sandbox import SPARE_BYTES, BlobStore, CannotSandbox, Damaged, NoSuchBlob, Quota, StoreFull
from clusterai.validator.adapters.jobdeliveries import Deliveries
from clusterai.validator.core.jobauditor import AuditSettings, JobAuditor
from clusterai.validator.core.jobcase import Began, Reran, Rerun, Retrace, Retraced, Told
from clusterai.validator.core.jobdelivery import Collect, Collected, Drop, Pass
from clusterai.validator.core.passing import Hand, HandPart
from clusterai.work.batch.adapters.exchange import Exchange, NotHad, part
from clusterai.work.batch.adapters.native import Foreign, Stopped
from clusterai.work.batch.adapters.needs import MOST_BEGIN_BYTES, needs
from clusterai.work.batch.adapters.perform import END, Performer
from clusterai.work.batch.spec import JobSpec, decode_spec

OWN_KEYS = ("job-", "enlist")
LEAST_BYTES_S = 1024 * 1024
BEGIN_S = 10.0
"""A provider has so long for what a segment begins with, and at any time beyond that must have handed over a MiB a second."""
MEMBER_S = 5.0
"""As `BEGIN_S`, for a member that hands it on: there may be others."""
CONTENT_BYTES = 16 * 1024**3

log: structlog.stdlib.BoundLogger = structlog.get_logger("jobaudits")

_PARTS = cast("type[SealedPart | NotServed]", SealedPart | NotServed)


class Coming:
    """What is fetched for a lease: from whom, what it is, and by when more of it has to be here."""

    def __init__(
        self, source: Address, clock: asyncio.Timeout, begun_s: float, patience_s: float, within_s: float
    ) -> None:
        self.source = source
        self.wanted: dict[Digest, int] = {}
        self._clock = clock
        self._by_s = begun_s + patience_s
        self._end_s = begun_s + max(patience_s, within_s)

    def more(self, content: Digest, size: int) -> None:
        if content not in self.wanted:
            return
        self._by_s += size / LEAST_BYTES_S
        if not self._clock.expired():
            self._clock.reschedule(min(self._by_s, self._end_s))


class JobAudits:
    """One validator's audits of leases. `send` gives a frame to a gateway, `submit` a call to the chain."""

    def __init__(
        self,
        folder: Path,
        me: Address,
        at: Address,
        disputes: Address,
        network: Domain,
        sign: Callable[[Digest], bytes],
        secret: bytes,
        box: SealKey,
        synchronous: Literal["NORMAL", "FULL"],
        send: Callable[[Address, Any], object],
        submit: Callable[[Submit], None],
        *,
        ticks: bool = True,
    ) -> None:
        """
        Args:
            at: the Audits contract.
            disputes: the Disputes contract.
            secret: salts of commitments are derived from it.
            ticks: whether the chain's own beacon draws.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._me, self._network, self._sign, self._box = me, network, sign, box
        self._send, self._submit = send, submit
        self.store = BlobStore(folder / "content", Quota(CONTENT_BYTES, SPARE_BYTES))
        self._performer = Performer(self.store, folder / "running")
        self._exchange = Exchange(self.store)
        self._deliveries = Deliveries(folder / "delivered", box, self._asks)
        settings = AuditSettings(
            me,
            at,
            network,
            box.public,
            sign,
            lambda lease: Digest(keccak(secret + b"salt" + lease)),
            recover,
            disputes,
            ticks,
        )
        self._journal = SqliteJournal(folder / "journal.sqlite", synchronous)
        self.auditor = JobAuditor(settings, Directory())
        self.driver = Driver(self.auditor, self._journal, self._perform)
        self._tasks: set[asyncio.Task[None]] = set()
        self._coming: dict[Digest, Coming] = {}

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._journal.close()

    # --- in ---

    def hear(self, event: Any) -> bool:
        """Take an event; whether it was of no concern to anyone else."""
        match event:
            case Mined(key) | Reverted(key):
                if not key.startswith(OWN_KEYS):
                    return False
                self.driver.handle(event)
                return True
            case Received(gateway, Relay(sender, _, body)):
                self._part(gateway, Address(sender), body)
                self.driver.handle(event)
                return False
            case Received(_, AskContent()):
                self.driver.handle(event)
                return True
            case Received():
                return False
            case Linked() | Unlinked():
                self.driver.handle(event)
                return False
            case _:
                self.driver.handle(event)
                return False

    def _part(self, gateway: Address, sender: Address, body: bytes) -> None:
        """A piece of content, sealed to this validator. From whom it wasn't asked for nothing is taken: a piece of something else
        would spoil the rest.
        """
        try:
            frame = canonical.decode(body, _PARTS)
        except Malformed:
            return
        if not isinstance(frame, SealedPart):
            return
        self._deliveries.take(gateway, sender, frame)
        coming = self._coming.get(Digest(frame.lease))
        if (
            coming is not None
            and coming.source == sender
            and (data := self._box.unseal(frame.sealed)) is not None
            and self._exchange.take(Digest(frame.content), frame.offset, frame.total, data)
        ):
            for one in self._coming.values():
                # Another lease may wait for the same content.
                one.more(Digest(frame.content), len(data))

    # --- out ---

    def _perform(self, effect: Any) -> None:
        match effect:
            case Submit():
                log.info("submit", call=effect.key)
                self._submit(effect)
            case Send(to, frame):
                self._send(to, frame)
            case Rerun() | Retrace():
                again = self._rerun(effect) if isinstance(effect, Rerun) else self._retrace(effect)
                task = asyncio.get_running_loop().create_task(again)
                self._tasks.add(task)
                task.add_done_callback(lambda done: self._over(effect, done))
            case Collect():
                task = asyncio.get_running_loop().create_task(self._collect(effect))
                self._tasks.add(task)
                task.add_done_callback(lambda done: self._uncollected(effect, done))
            case Hand(gateway, ask, sealed):
                if (plain := self._box.unseal(sealed)) is not None:
                    served = SegmentServed(ask.lease, ask.segment, seal(plain, ask.seal_to))
                    self._relay(gateway, Address(ask.validator), served)
            case HandPart(gateway, ask, sealed):
                self._hand_part(gateway, ask, sealed)
            case Pass(gateway):
                self._send(gateway, self._deliveries.give(effect))
            case Drop(lease):
                self._deliveries.drop(lease)
            case Told(what, lease, detail):
                log.info(what, lease=hex0x(lease), detail=detail)
            case _:
                raise AssertionError(f"nobody performs {effect!r}")

    def _over(self, wanted: Rerun | Retrace, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A fault of ours says nothing of the provider.
            why = "a fault of this validator"
            done = (
                Reran(wanted.lease, wanted.segment, None, why, True)
                if isinstance(wanted, Rerun)
                else Retraced(wanted.segment.lease, wanted.points, None, why, True)
            )
            log.error("rerun_broke", lease=hex0x(done.lease), exc_info=error)
            self.driver.handle(done)

    async def _rerun(self, wanted: Rerun) -> None:
        result: Digest | None = None
        why, unable = "", False
        try:
            shown = self._shown(wanted)
            spec = decode_spec(shown.spec)
            await self._contents(wanted, spec, Digest(shown.state))
            self.driver.handle(Began(wanted.lease))
            result = await self._again(spec, wanted, shown)
        except (Unproven, NotHad, NoSuchBlob, Damaged, Malformed) as error:
            why = str(error)
        except (Stopped, CannotSandbox, StoreFull) as error:
            why, unable = str(error), True
        self.driver.handle(Reran(wanted.lease, wanted.segment, result, why, unable))

    async def _retrace(self, wanted: Retrace) -> None:
        states: tuple[Digest, ...] | None = None
        why, unable = "", False
        try:
            shown = self._shown(wanted.segment)
            spec = decode_spec(shown.spec)
            await self._contents(wanted.segment, spec, Digest(shown.state))
            self.driver.handle(Began(wanted.segment.lease))
            states = await self._traced(spec, wanted, shown)
        except (Unproven, NotHad, NoSuchBlob, Damaged, Malformed) as error:
            why = str(error)
        except (Stopped, CannotSandbox, StoreFull) as error:
            why, unable = str(error), True
        self.driver.handle(Retraced(wanted.segment.lease, wanted.points, states, why, unable))

    # --- what a requester demands ---

    async def _collect(self, wanted: Collect) -> None:
        self.driver.handle(await self._deliveries.collect(wanted))

    def _uncollected(self, wanted: Collect, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("collecting_broke", lease=hex0x(wanted.lease), exc_info=error)
            self.driver.handle(Collected(wanted.lease, "unable", "a fault of this validator"))

    def _shown(self, wanted: Rerun) -> Segment:
        """
        Raises:
            Unproven: it isn't what was committed to.
            Malformed.
        """
        plain = self._box.unseal(wanted.sealed)
        if plain is None:
            raise Unproven("it isn't sealed to this validator")
        shown = canonical.decode(plain, Segment)
        if canonical.content_digest(shown.spec) != wanted.spec:
            raise Unproven("it is of another job")
        start = Opening(0, Digest(shown.start), 0, tuple(Digest(it) for it in shown.start_proof))
        proof = tuple(Digest(it) for it in shown.proof)
        before = Opening(wanted.segment - 1, Digest(shown.state), shown.units, proof)
        if not all(is_opened(wanted.root, wanted.segments, it) for it in (start, before)):
            raise Unproven("the proofs don't lead to what was committed to")
        return shown

    def _asks(self, gateway: Address, of: Address, lease: Digest) -> Callable[[Digest, int], object]:
        """Asks a provider or a member, through a gateway, for a part of a content of a lease."""

        def ask(content: Digest, offset: int) -> object:
            asked = AskSealed(self._me, of, lease, content, offset, self._box.public, bytes(65))
            signed = msgspec.structs.replace(asked, signature=self._sign(asked.signing_digest(self._network)))
            return self._relay(gateway, of, signed)

        return ask

    def _hand_part(self, gateway: Address, ask: AskSealed, sealed: bytes) -> None:
        """To another member, of what was served to this one."""
        plain = self._box.unseal(sealed)
        if plain is None:
            return
        shown = canonical.decode(plain, Segment)
        if Digest(ask.content) not in needs(decode_spec(shown.spec), Digest(shown.state), self.store):
            return
        if (found := part(self.store, Digest(ask.content), ask.offset)) is not None:
            total, data = found
            answer = SealedPart(ask.lease, ask.content, ask.offset, total, seal(data, ask.seal_to))
            self._relay(gateway, Address(ask.validator), answer)

    def _relay(self, gateway: Address, to: Address, frame: Any) -> object:
        return self._send(gateway, Relay(ZERO_ADDRESS, to, canonical.encode(frame)))

    async def _contents(self, wanted: Rerun, spec: JobSpec, state: Digest) -> None:
        """Fetch what the segment begins with: each listing, and then what that names.

        Raises:
            Unproven: it isn't handed over, or too slowly.
        """
        patience_s = BEGIN_S if wanted.source == wanted.provider else MEMBER_S
        begun_s = asyncio.get_running_loop().time()
        ask = self._asks(wanted.gateway, wanted.source, wanted.lease)
        try:
            async with asyncio.timeout_at(begun_s + patience_s) as clock:
                coming = Coming(wanted.source, clock, begun_s, patience_s, wanted.within_s)
                self._coming[wanted.lease] = coming
                while lacking := self._lacking(spec, state):
                    coming.wanted = lacking
                    await self._exchange.fetch_all(lacking.items(), ask)
        except (TimeoutError, NotHad) as error:
            for content in self._lacking(spec, state):
                # Another one may have it whole, which the beginning of something else would spoil.
                self._exchange.forget(content)
            raise Unproven(
                str(error)
                or f"less than a MiB a second came of it for {patience_s:.0f} s, or half of the time was over"
            ) from None
        finally:
            self._coming.pop(wanted.lease, None)

    def _lacking(self, spec: JobSpec, state: Digest) -> dict[Digest, int]:
        """
        Raises:
            Unproven: it is too much.
        """
        found = needs(spec, state, self.store)
        lacking = {content: most for content, most in found.items() if content not in self.store}
        listed = (most for it, most in lacking.items() if it not in (state, spec.image.digest))
        if sum(listed) > MOST_BEGIN_BYTES:
            raise Unproven("its state names more than any segment may begin with")
        return lacking

    async def _again(self, spec: JobSpec, wanted: Rerun, shown: Segment) -> Digest:
        """What the segment comes to from the state before it, its meter going on from what was committed to; something that
        nothing gives, where it is another job's.

        Raises:
            Stopped, CannotSandbox: this machine can't.
        """
        nothing = _nothing(wanted.lease)
        if await self._performer.start(spec) != shown.start:
            return nothing
        try:
            again = await self._performer.rerun(spec, Digest(shown.state))
        except Foreign:
            return nothing
        return segment_result(again.state, shown.units + again.units)

    async def _traced(self, spec: JobSpec, wanted: Retrace, shown: Segment) -> tuple[Digest, ...]:
        """As `_again`, at several units of the segment.

        Raises:
            Stopped, CannotSandbox: this machine can't.
        """
        nothing = _nothing(wanted.segment.lease)
        start = Digest(shown.state)
        if await self._performer.start(spec) != shown.start:
            return (nothing,) * len(wanted.points)
        # Whatever the steps add up to, the last point is the segment's end: a wrong meter can't lead the game elsewhere.
        points = [point if point < wanted.steps else END for point in wanted.points]
        try:
            found = await self._performer.trace(spec, start, points)
        except Foreign:
            return (nothing,) * len(wanted.points)
        return tuple(
            segment_result(it.state, shown.units + it.units) if point == END else it.state
            for point, it in zip(points, found, strict=True)
        )


def _nothing(lease: Digest) -> Digest:
    """What an auditor and a referee say of a segment that is not of this job: no run gives it."""
    return Digest(keccak(b"clusterai: not this job" + lease))


class Unproven(ValueError):
    """What was served can't be used: {why}."""
