"""WASM jobs: the engine cuts them at their steps, and keeps the preimage of every state."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import is_bait, trap_digest, unit_cap
from clusterai.sandbox import (
    BlobStore,
    CannotSandbox,
    Damaged,
    Leash,
    Limits,
    Log,
    Outcome,
    Reason,
    Task,
    Wasm,
)
from clusterai.sandbox.adapters.front import Sandbox
from clusterai.sandbox.adapters.growing import Appended
from clusterai.sandbox.adapters.wasmbox import PART_S, WasmRunner
from clusterai.sandbox.core.state import MAX_STATE_BYTES, State, decode_state
from clusterai.work.batch.adapters import trees
from clusterai.work.batch.adapters.journal import SegmentLog
from clusterai.work.batch.adapters.native import Foreign, OnSegment, Stopped
from clusterai.work.batch.core.outcome import Segment
from clusterai.work.batch.core.pinned import MOST_FILES, MOST_OUTPUT_BYTES, STDOUT
from clusterai.work.batch.core.tree import Entry, Tree, listing, outputs, overlay
from clusterai.work.batch.spec import MIB, JobSpec

_RECORD_BYTES = 1 << 20
AGREED = frozenset(
    (Reason.FINISHED, Reason.FAILED, Reason.TRAPPED, Reason.OUT_OF_FUEL, Reason.TOO_MUCH_OUTPUT)
)
"""How a module can end by its own doing, the same on every machine."""


def most_state_bytes(spec: JobSpec) -> int:
    """What a state can take: all memory, all files, and some for their names. A stranger's longer one isn't read."""
    wants = spec.resources
    return min(MAX_STATE_BYTES, wants.memory_bytes + wants.disk_bytes + wants.memory_bytes // 64 + 16 * MIB)


def module_task(spec: JobSpec, store: BlobStore) -> Task:
    """What the engine runs, with the inputs' listings from the store."""
    tree = overlay([trees.load(root.digest, store) for root in spec.inputs])
    wants = spec.resources
    return Task(
        image=Wasm(Digest(spec.image.digest)),
        argv=(spec.name, *spec.argv),
        env=dict(spec.env),
        inputs={entry.path: Digest(entry.digest) for entry in tree.entries},
        limits=Limits(
            memory_bytes=wants.memory_bytes,
            cpu_milli=wants.cpu_milli,
            processes=wants.processes,
            disk_bytes=wants.disk_bytes,
            files=MOST_FILES,
            wall_s=wants.time_s,
            cpu_s=max(1, -(-wants.time_s * wants.cpu_milli // 1000)),
            output_bytes=MOST_OUTPUT_BYTES,
            fuel=spec.fuel,
        ),
        seed=spec.seed,
        clock_s=spec.clock_s,
    )


class Whole(msgspec.Struct, frozen=True):
    """A module that was run to its end: state 0 and each segment, its outputs, and how it ended."""

    segments: list[Segment]
    output: Tree
    outcome: Outcome
    resumed: int
    """how many segments were done by an earlier process"""


class Modules:
    """Jobs of the class `wasm`. State i's preimage is the engine's own, and in the store."""

    def __init__(self, store: BlobStore, box: Sandbox, part_s: float = PART_S) -> None:
        """
        Args:
            part_s: what a crash may cost: states are durable at the end of each part that lasts so long.
        """
        self._store = store
        self._box = box
        self._part_s = part_s

    @property
    def _runner(self) -> WasmRunner:
        """
        Raises:
            CannotSandbox: no module can be run here.
        """
        runner = self._box.runners.get("wasm")
        if not isinstance(runner, WasmRunner):
            raise CannotSandbox(self._box.missing.get("wasm", "no WASM engine is here"))
        return runner

    def task(self, spec: JobSpec) -> Task:
        return module_task(spec, self._store)

    async def start(self, spec: JobSpec, leash: Leash | None = None) -> Digest:
        """h_0: memory as the module lays it out, before its first step.

        Raises:
            Stopped: it can't be had here.
        """
        found = await self._runner.start(self.task(spec), leash=leash, store=self._store)
        if not found.outcome.ok or not found.digests:
            raise Stopped(found.outcome.reason, found.outcome.why)
        return found.digests[0]

    async def run(
        self,
        spec: JobSpec,
        log: SegmentLog,
        leash: Leash | None = None,
        on_log: Log | None = None,
        on_segment: OnSegment | None = None,
    ) -> Whole:
        """To the end, from the last state in `log`, which an earlier process left.

        Raises:
            Stopped: a limit was met that differs between machines, it was cancelled or refused.
            NoSuchBlob, Damaged, canonical.Malformed: of an input.
            StoreFull.
        """
        lines = log.read()
        if lines and self._state(spec, Digest(lines[-1].state)).ended is not None:
            # How it ended is told by who runs into the end: that part is done again.
            lines.pop()
        while lines and not lines[-1].is_mark:
            lines.pop()
        log.resume(lines)
        segments = [line.segment for line in lines]
        resumed = max(0, len(segments) - 1)
        before = self._printed(spec)
        before.cut(lines[-1].printed if lines else 0)
        printed = bytearray()

        def both(stream: Literal["stdout", "stderr"], data: bytes) -> None:
            if stream == "stdout" and spec.stdout:
                printed.extend(data)
            if on_log is not None:
                on_log(stream, data)

        def on_part(digests: Sequence[Digest], meter: Sequence[int]) -> None:
            for at in range(0, len(printed), _RECORD_BYTES):
                before.append(bytes(printed[at : at + _RECORD_BYTES]))
            printed.clear()
            units = [0] * (len(digests) - len(meter)) + [*meter]
            for at, (state, fuel) in enumerate(zip(digests, units, strict=True), 1):
                segments.append(Segment(state, fuel))
                log.add(segments[-1], len(before), is_mark=at == len(digests))
                if on_segment is not None and len(segments) > 1:
                    on_segment(len(segments) - 1, segments[-1])

        proof = await self._runner.prove_in_parts(
            self.task(spec),
            spec.steps,
            on_part,
            after=segments[-1].state if segments else None,
            most=spec.segments + 1 - resumed,
            part_s=self._part_s,
            leash=leash,
            on_log=both,
            store=self._store,
        )
        if proof.outcome.reason not in AGREED or not segments:
            raise Stopped(proof.outcome.reason, proof.outcome.why)
        text = b"".join(before.records())
        found = [Entry(it.name, "file", it.digest, it.size) for it in proof.outcome.outputs]
        if spec.stdout and all(entry.path != STDOUT for entry in found):
            found.append(Entry(STDOUT, "file", self._store.put(text), len(text)))
        return Whole(segments, outputs(Tree(), listing(found), spec.outputs), proof.outcome, resumed)

    def forget(self, spec: JobSpec) -> None:
        """Nothing of it will be resumed."""
        self._printed(spec).cut(0)

    def _printed(self, spec: JobSpec) -> Appended:
        """What it printed until its last mark, for `stdout`: a state has only a hash of it."""
        return Appended(self._store, f"printed {spec.digest().hex()}")

    def _state(self, spec: JobSpec, digest: Digest) -> State:
        """
        Raises:
            NoSuchBlob, Damaged, canonical.Malformed.
        """
        return decode_state(self._store.read(digest, most_state_bytes(spec)))

    async def again(
        self, spec: JobSpec, start: Digest, points: Sequence[int] = (), leash: Leash | None = None
    ) -> list[Segment]:
        """One segment from the state before it; or its states at so many units, in their order, each with what had been spent.

        Raises:
            Stopped: it can't be run here, or nobody can go on from there: also where a segment would burn more than any of this job may, so
                that no state keeps an auditor at work beyond its clock.
            Foreign: what lies at the start is no state of this job.
            NoSuchBlob, Damaged.
        """
        task = self.task(spec)
        try:
            state = self._state(spec, start)
        except Damaged:
            raise
        except ValueError as error:
            raise Foreign(f"no state of a module: {error}") from None
        if state.task != canonical.digest(task):
            raise Foreign("a state of another job")
        if state.ended is not None:
            raise Foreign("the end of this job, after which nothing follows")
        found = await self._runner.rerun(
            task,
            start,
            spec.steps,
            points=points,
            burn=unit_cap(spec.fuel, spec.segments),
            leash=leash,
            store=self._store,
        )
        if not found.outcome.ok or not found.digests:
            raise Stopped(found.outcome.reason, found.outcome.why)
        return [Segment(state, fuel) for state, fuel in zip(found.digests, found.meter, strict=True)]

    async def baited(
        self, spec: JobSpec, secret: Digest, segments: int, leash: Leash | None = None
    ) -> list[Segment]:
        """What is committed to for a planted lease: h_0, bait, and between bait the state behind the first segment, which is all that is
        run of it, with a later meter. Telling such a state from a right one takes running a segment: what an auditor is to do anyway.

        Raises:
            Stopped: its first segment can't be run here.
            NoSuchBlob, Damaged, canonical.Malformed: of an input.
            StoreFull.
        """
        start = await self.start(spec, leash)
        first = await self._runner.prove_in_parts(
            self.task(spec),
            spec.steps,
            lambda states, meter: None,
            after=start,
            most=1,
            leash=leash,
            store=self._store,
        )
        if not first.digests:
            raise Stopped(first.outcome.reason, first.outcome.why)
        each = first.meter[0]
        lure, burnt = self._state(spec, first.digests[0]), self._state(spec, start).fuel
        if lure.ended is not None:
            # Nobody goes on from an end.
            lure = self._state(spec, start)
        most = spec.fuel // spec.segments
        found, fuel = [Segment(start, 0)], 0
        for index in range(1, segments + 1):
            # Segments of real work differ a little, and the last one ends early.
            lot = keccak(secret + b"units" + index.to_bytes(4))[0]
            early = each * (lot + 1) // 256
            units = early if index == segments else each - (lot * each >> 16)
            units = max(1, min(most, units))
            fuel += units
            if is_bait(secret, index, segments):
                found.append(Segment(trap_digest(secret, index), units))
                continue
            later = msgspec.structs.replace(lure, step=index * spec.steps, fuel=burnt + fuel)
            found.append(Segment(self._store.put(canonical.encode(later)), units))
        return found
