"""The hands of the book of leases: fetches inputs, runs jobs in the sandbox, hands over outputs, shows segments to auditors.

FOLDER/leases/       a volume for each lease: inputs, modules, states, outputs and what is on its way, sealed under the lease's key
FOLDER/images/       root file systems that leases name, as they are: an image is shared, and no secret
FOLDER/running/      walls of running tasks; what a tenant sees or writes in them is memory
"""

import asyncio
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import structlog

from clusterai.audit.adapters.sealing import seal
from clusterai.node.config import JobsConfig
from clusterai.node.core.handing import too_much
from clusterai.node.core.jobbook import JobBook
from clusterai.node.core.jobdefence import Retrace, Retraced
from clusterai.node.core.joblease import (
    Discard,
    Failed,
    Halt,
    Lease,
    Perform,
    Performed,
    Progressed,
    committed,
)
from clusterai.node.core.jobshowing import Serve, ServePart
from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest, hex0x
from clusterai.protocol.jobs import (
    MOST_LOG_BYTES,
    AskContent,
    AskLog,
    Bait,
    ContentMissing,
    ContentPart,
    Lends,
    Logged,
    NotServed,
    SealedPart,
    Segment,
    SegmentServed,
)
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import Terms
from clusterai.protocol.messages import Relay
from clusterai.sandbox import (
    SPARE_BYTES,
    BlobStore,
    CannotSandbox,
    Damaged,
    DiskFull,
    LeaseStore,
    Leash,
    NativeRunner,
    NoSuchBlob,
    Quota,
    StoreFull,
    Volumes,
)
from clusterai.sandbox.adapters.front import Sandbox
from clusterai.sandbox.adapters.store import told
from clusterai.work.batch.adapters import delivery, trees
from clusterai.work.batch.adapters.base import host_base
from clusterai.work.batch.adapters.exchange import Exchange, NotHad, part
from clusterai.work.batch.adapters.logbook import Logbook, Stream
from clusterai.work.batch.adapters.native import Foreign, Stopped
from clusterai.work.batch.adapters.needs import needs
from clusterai.work.batch.adapters.perform import Performer
from clusterai.work.batch.core.outcome import Ended
from clusterai.work.batch.core.outcome import Segment as Worked
from clusterai.work.batch.core.plan import Offer
from clusterai.work.batch.core.prices import Tariff, total_wei
from clusterai.work.batch.core.tree import MOST_TREE_BYTES
from clusterai.work.batch.kind import BATCH
from clusterai.work.batch.spec import JobSpec

TELL_EVERY_S = 10.0
"""Between two tellings of what is lent."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("jobs")


class Bench:
    """What works on one lease: its volume, and who performs and fetches in it."""

    def __init__(self, store: LeaseStore, running: Path, box: Sandbox, performs: type[Performer]) -> None:
        self.store = store
        self.performer = performs(store, running, box)
        self.exchange = Exchange(store)
        self.log = Logbook(store)


class Jobs:
    """One node's jobs. `hear` takes events to the book; `send` a frame to a gateway; of `secret` come the keys of the volumes' keys."""

    def __init__(
        self,
        config: JobsConfig,
        folder: Path,
        me: Address,
        hear: Callable[[Any], None],
        send: Callable[[Address, Any], object],
        secret: bytes,
        performs: type[Performer] = Performer,
    ) -> None:
        """
        Raises:
            WrongKey: the volumes are of another node.
        """
        quota = Quota(config.disk_bytes, SPARE_BYTES)
        self.volumes = Volumes(folder / "leases", secret, quota)
        self.images = BlobStore(folder / "images", quota)
        self.box = Sandbox(self.images, folder / "running")
        self._folder = folder / "running"
        self._benches: dict[Digest, Bench] = {}
        self._coming_images = Exchange(self.images)
        self._config = config
        self._performs = performs
        self._me = me
        self._hear = hear
        self._send = send
        self._running: dict[Digest, tuple[asyncio.Task[None], Leash]] = {}
        self._tracing: set[asyncio.Task[None]] = set()
        self._own = host_base().digest()
        self.is_paused = False
        """nothing is lent for now; what runs goes on"""

    # --- what is lent ---

    def offer(self) -> Offer:
        """What this machine can run, as far as its sandboxes go."""
        config, runners = self._config, self.box.runners
        native = "root" in runners
        checks = [*(("wasm",) if "wasm" in runners else ()), *(("pinned", "unverified") if native else ())]
        forms = [*(("wasm",) if "wasm" in runners else ()), *(("tar",) if native else ())]
        if "container" in runners:
            forms.append("oci")
        return Offer(
            provider=hex0x(self._me),
            tariff=self.tariff,
            checks=tuple(checks),  # type: ignore[arg-type]
            bases=(("python", self._own),) if native else (),
            forms=tuple(forms),
            cpu_milli=config.cpu_milli,
            memory_bytes=config.memory_bytes,
            disk_bytes=min(config.disk_bytes, self._free_bytes()),
            processes=config.processes,
            most_time_s=config.most_time_s,
        )

    def _free_bytes(self) -> int:
        """Of the disk that jobs are kept on, what they may take."""
        return max(0, shutil.disk_usage(self._folder.parent).free - SPARE_BYTES)

    @property
    def tariff(self) -> Tariff:
        config = self._config
        return Tariff(
            core_hour_wei=config.core_hour_wei,
            memory_gib_hour_wei=config.memory_gib_hour_wei,
            giga_fuel_wei=config.giga_fuel_wei,
        )

    async def tell(self, gateways: Callable[[], Iterable[Address]]) -> None:
        """Every linked gateway hears again and again what is lent, until cancelled."""
        while True:
            for gateway in gateways():
                self._send(gateway, self.lends())
            await asyncio.sleep(TELL_EVERY_S)

    @property
    def running(self) -> int:
        return len(self._running)

    def lends(self) -> Lends:
        running = len(self._running)
        offer = b"" if self.is_paused else canonical.encode(self.offer())
        return Lends(BATCH.name, offer, running, 0)

    def fits(self, kind: str, spec: Any, terms: Terms, running: int) -> tuple[str, str] | None:
        """Whether a lease is taken: room, and what it pays."""
        assert isinstance(spec, JobSpec)
        offer = self.offer()
        if running >= self._config.most:
            return "full", f"{running} jobs run or wait here"
        if spec.check not in offer.checks:
            return "spec", f"this provider runs {', '.join(offer.checks) or 'no class of jobs'}"
        wants = spec.resources
        if wants.cpu_milli > offer.cpu_milli or wants.memory_bytes > offer.memory_bytes:
            return "full", "it asks for more than this machine lends"
        if wants.disk_bytes > offer.disk_bytes:
            return (
                "full",
                f"its disk has room for {offer.disk_bytes} bytes now, and the job asks for {wants.disk_bytes}",
            )
        asked = total_wei(self.tariff, spec)
        if terms.compensation_wei < asked:
            return "price", f"it pays {terms.compensation_wei}, and this provider asks {asked}"
        return None

    # --- effects of the book ---

    def perform(self, effect: Perform) -> None:
        leash = Leash()
        task = asyncio.get_running_loop().create_task(self._performed(effect, leash))
        self._running[effect.lease] = (task, leash)
        task.add_done_callback(lambda done: self._over(effect.lease, done))

    def _over(self, lease: Digest, task: asyncio.Task[None]) -> None:
        self._running.pop(lease, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A fault of ours: the lease is given back at once, instead of running into its deadline.
            log.error("job_broke", lease=hex0x(lease), exc_info=error)
            if isinstance(error, OSError) and isinstance(told(error), DiskFull):
                self._hear(_disk_full(lease))
                return
            self._hear(Failed(lease, "node_fault", f"a fault of this node: {type(error).__name__}"))

    def halt(self, effect: Halt) -> None:
        if (running := self._running.get(effect.lease)) is not None:
            running[1].end()

    def discard(self, effect: Discard, book: JobBook) -> None:
        """The key first; then nothing that still runs or is asked for can read or write any of it."""
        if (running := self._running.get(effect.lease)) is not None:
            running[1].end()
        self.volumes.end(effect.lease)
        self._benches.pop(effect.lease, None)
        log.info("volume_ended", lease=hex0x(effect.lease))
        self._keep_images(book)

    def sweep(self, book: JobBook) -> None:
        """Before anything runs: what a crash left of leases that are over goes now."""
        for lease in self.volumes.leases():
            if lease not in book.leases:
                self.volumes.end(lease)
        self._keep_images(book)

    def _keep_images(self, book: JobBook) -> None:
        named = {Digest(it.spec.image.digest) for it in book.leases.values() if it.spec.image.form == "tar"}
        native = self.box.runners.get("root")
        for image in self.images.digests():
            if image not in named:
                self.images.delete(image)
                if isinstance(native, NativeRunner):
                    native.forget_root(image)

    def _bench(self, lease: Digest) -> Bench:
        """Of a lease that the book has."""
        if (bench := self._benches.get(lease)) is None:
            bench = self._benches[lease] = Bench(
                self.volumes.of(lease), self._folder, self.box, self._performs
            )
        return bench

    async def close(self) -> None:
        """Stop all jobs; they go on from their last checkpoint when the node is started again."""
        tasks = [*(task for task, _ in self._running.values()), *self._tracing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.volumes.close()

    async def _performed(self, effect: Perform, leash: Leash) -> None:
        lease, spec, bench = effect.lease, effect.spec, self._bench(effect.lease)
        log.info("job_begins", lease=hex0x(lease), name=spec.name, check=spec.check)

        def on_log(stream: Stream, data: bytes) -> None:
            for kept, start, printed in bench.log.write(stream, data):
                total = start + len(printed)
                for at in range(0, len(printed), MOST_LOG_BYTES):
                    piece = printed[at : at + MOST_LOG_BYTES]
                    # What is lost on the way its gateway asks for.
                    self._send(effect.gateway, Logged(lease, start + at, kept == "stderr", total, piece))

        try:
            await self._inputs(effect.gateway, lease, spec, bench)
            if effect.bait is not None:
                self._hear(await _baited(lease, spec, effect.bait, bench, leash))
                return
            before: Digest | None = None

            def on_segment(at: int, segment: Worked) -> None:
                nonlocal before
                self._hear(Progressed(lease, at, segment.units))
                if before is not None and self._too_much(effect, bench, at, before):
                    leash.end()
                before = segment.state

            done = await bench.performer.perform(
                spec, leash=leash, on_log=on_log, on_segment=on_segment, logbook=bench.log
            )
            bench.log.flush()
            for at, state in enumerate(done.states[:-1]):
                if why := self._too_much(effect, bench, at + 1, Digest(state)):
                    self._hear(Failed(lease, Ended.REFUSED, why))
                    return
        except DiskFull as error:
            log.error("disk_full", lease=hex0x(lease), why=str(error))
            self._hear(_disk_full(lease))
            return
        except (NotHad, StoreFull, NoSuchBlob, Damaged, Malformed) as error:
            self._hear(Failed(lease, "inputs", str(error)))
            return
        log.info("job_ended", lease=hex0x(lease), ended=done.ended, why=done.why, wall_ms=done.wall_ms)
        if done.is_payable:
            code = -1 if done.exit_code is None else done.exit_code
            output = trees.keep(done.output, bench.store)
            self._hear(Performed(lease, done.states, done.units, output, code, done.why))
        else:
            self._hear(Failed(lease, done.ended.value, done.why))

    def _too_much(self, effect: Perform, bench: Bench, segment: int, state: Digest) -> str:
        """Why what a segment begins with couldn't be handed over to who audits it."""
        if effect.spec.check == "unverified":
            return ""
        size = self._size(bench, needs(effect.spec, state, bench.store).items())
        return too_much(segment, size, self._config.handed_bytes_s, effect.audit_s)

    async def _inputs(self, gateway: Address, lease: Digest, spec: JobSpec, bench: Bench) -> None:
        """All content that the spec names.

        Raises:
            NotHad, StoreFull, Malformed.
        """

        def ask(content: Digest, offset: int) -> object:
            return self._send(gateway, AskContent(lease, content, offset))

        for root in spec.inputs:
            await bench.exchange.fetch_all([(Digest(root.digest), MOST_TREE_BYTES)], ask)
            await bench.exchange.fetch_all(trees.load(root.digest, bench.store).contents(), ask)
        if spec.image.form in ("wasm", "tar"):
            whither = bench.exchange if spec.image.form == "wasm" else self._coming_images
            await whither.fetch_all([(Digest(spec.image.digest), self._config.disk_bytes)], ask)

    # --- what gateways say ---

    def heard(self, gateway: Address, frame: Any, book: JobBook) -> bool:
        """Take a frame about content; whether it was one."""
        match frame:
            case ContentPart(lease, content, offset, total, data):
                for exchange in self._exchanges(Digest(lease), gateway, book):
                    exchange.take(Digest(content), offset, total, data)
            case ContentMissing(lease, content):
                for exchange in self._exchanges(Digest(lease), gateway, book):
                    exchange.miss(Digest(content))
            case AskLog(lease, is_error, start):
                held = book.leases.get(Digest(lease))
                if held is not None and held.gateway == gateway:
                    log, stream = self._bench(held.id).log, "stderr" if is_error else "stdout"
                    piece = log.read(stream, start)
                    self._send(gateway, Logged(lease, start, is_error, log.size(stream), piece))
            case AskContent(lease, content, offset):
                held = book.leases.get(Digest(lease))
                found = None
                if held is not None and held.gateway == gateway and held.done is not None:
                    # What the requester may ask for: the outputs, and what shows that they are those of the last state.
                    found = self._piece(held, len(held.done.units) + 1, Digest(content), offset)
                reply = (
                    ContentMissing(lease, content)
                    if found is None
                    else ContentPart(lease, content, offset, *found)
                )
                self._send(gateway, reply)
            case _:
                return False
        return True

    def _exchanges(self, lease: Digest, gateway: Address, book: JobBook) -> tuple[Exchange, ...]:
        """Who may wait for a content of a lease of that gateway's."""
        held, bench = book.leases.get(lease), self._benches.get(lease)
        if held is None or bench is None or held.gateway != gateway:
            return ()
        return bench.exchange, self._coming_images

    # --- what a dispute asks ---

    def retrace(self, effect: Retrace) -> None:
        task = asyncio.get_running_loop().create_task(self._retraced(effect))
        self._tracing.add(task)
        task.add_done_callback(lambda done: self._traced(effect, done))

    def _traced(self, effect: Retrace, task: asyncio.Task[None]) -> None:
        self._tracing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("trace_broke", lease=hex0x(effect.lease), exc_info=error)
            self._hear(Retraced(effect.lease, effect.points, None))

    async def _retraced(self, effect: Retrace) -> None:
        spec = effect.spec
        log.info("job_disputed", lease=hex0x(effect.lease), segment=effect.segment, points=len(effect.points))
        try:
            performer = self._bench(effect.lease).performer
            found = await performer.trace(spec, effect.start, effect.points)
        except (Stopped, Foreign, CannotSandbox, StoreFull, NoSuchBlob, Damaged) as error:
            log.error("job_not_traced", lease=hex0x(effect.lease), why=str(error))
            self._hear(Retraced(effect.lease, effect.points, None))
            return
        # Asserted are inner points only: what the end comes to was claimed before.
        self._hear(Retraced(effect.lease, effect.points, tuple(it.state for it in found)))

    # --- what auditors ask ---

    def serve(self, effect: Serve, book: JobBook) -> None:
        """The state before a segment, sealed to the auditor."""
        ask = effect.ask
        lease = book.leases[Digest(ask.lease)]
        assert lease.done is not None, "the book serves what was done"
        state = Digest(lease.done.states[ask.segment - 1])
        try:
            self._size(self._bench(lease.id), self._named(lease, ask.segment))
        except (NoSuchBlob, Damaged, Malformed) as error:
            log.error("state_lost", lease=hex0x(lease.id), why=str(error))
            self._relay(effect.gateway, Address(ask.validator), NotServed(ask.lease, "missing"))
            return
        start = committed(lease.done).open(0)
        shown = Segment(lease.raw, start.state, start.proof, state, effect.units, effect.proof)
        sealed = seal(canonical.encode(shown), ask.seal_to)
        self._relay(effect.gateway, Address(ask.validator), SegmentServed(ask.lease, ask.segment, sealed))
        log.info("segment_shown", lease=hex0x(lease.id), segment=ask.segment, to=hex0x(ask.validator))

    def serve_part(self, effect: ServePart, book: JobBook) -> None:
        ask = effect.ask
        lease = book.leases[Digest(ask.lease)]
        assert lease.done is not None, "the book serves what was done"
        pieces = (self._piece(lease, segment, Digest(ask.content), ask.offset) for segment in effect.segments)
        found = next((it for it in pieces if it is not None), None)
        if found is None:
            self._relay(effect.gateway, Address(ask.validator), NotServed(ask.lease, "missing"))
            return
        total, data = found
        answer = SealedPart(ask.lease, ask.content, ask.offset, total, seal(data, ask.seal_to))
        self._relay(effect.gateway, Address(ask.validator), answer)

    def _piece(self, lease: Lease, segment: int, content: Digest, offset: int) -> tuple[int, bytes] | None:
        """A part of what `_named` names; behind the last segment the last state too, asked for by what hides it."""
        assert lease.done is not None, "the book serves what was done"
        try:
            named = self._named(lease, segment)
        except (NoSuchBlob, Damaged, Malformed):
            return None
        store = self._store_of(self._bench(lease.id), content)
        if segment > len(lease.done.units):
            return delivery.piece(store, named, Digest(lease.done.states[-1]), content, offset)
        return part(store, content, offset) if content in dict(named) else None

    def _named(self, lease: Lease, segment: int) -> Iterable[tuple[Digest, int]]:
        """What who sees how a segment begins may ask for; behind the last one, what is delivered."""
        assert lease.done is not None, "the book serves what was done"
        bench, state = self._bench(lease.id), Digest(lease.done.states[segment - 1])
        if segment <= len(lease.done.units):
            return needs(lease.spec, state, bench.store).items()
        return delivery.kept(bench.performer.ends, lease.spec, state, Digest(lease.done.output))

    def _size(self, bench: Bench, named: Iterable[tuple[Digest, int]]) -> int:
        """Of all of it, in bytes.

        Raises:
            NoSuchBlob: some of it isn't here.
        """
        return sum(self._store_of(bench, content).size(content) for content, _ in named)

    def _store_of(self, bench: Bench, content: Digest) -> BlobStore:
        return bench.store if content in bench.store else self.images

    def _relay(self, gateway: Address, to: Address, frame: Any) -> None:
        self._send(gateway, Relay(ZERO_ADDRESS, to, canonical.encode(frame)))


def _disk_full(lease: Digest) -> Failed:
    """What its tenant reads: another provider may do it as it stands."""
    return Failed(lease, "disk_full", f"{DiskFull()}; the job itself did nothing wrong")


async def _baited(lease: Digest, spec: JobSpec, bait: Bait, bench: Bench, leash: Leash) -> Performed | Failed:
    """What is committed to instead of work."""
    try:
        found = await bench.performer.bait(spec, Digest(bait.secret), bait.segments, leash)
    except (Stopped, Foreign, CannotSandbox) as error:
        return Failed(lease, "bait", str(error))
    states, units = tuple(it.state for it in found), tuple(it.units for it in found[1:])
    return Performed(lease, states, units, keccak(bait.secret + b"output"), 0, "")
