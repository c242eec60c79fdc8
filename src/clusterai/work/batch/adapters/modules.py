"""WASM jobs: the engine cuts them at their steps, and keeps the preimage of every state."""

from typing import Literal

import msgspec

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
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
from clusterai.sandbox.adapters.wasmbox import WasmRunner
from clusterai.sandbox.core.spec import is_file_name
from clusterai.sandbox.core.state import MAX_STATE_BYTES, decode_state
from clusterai.work.batch.adapters import trees
from clusterai.work.batch.adapters.native import Foreign, Stopped
from clusterai.work.batch.core.outcome import Segment
from clusterai.work.batch.core.pinned import MOST_FILES, MOST_OUTPUT_BYTES, STDOUT
from clusterai.work.batch.core.tree import Entry, Tree, checked_path, listing, outputs, overlay
from clusterai.work.batch.spec import MIB, JobSpec

_OUT = "out/"
AGREED = frozenset(
    (Reason.FINISHED, Reason.FAILED, Reason.TRAPPED, Reason.OUT_OF_FUEL, Reason.TOO_MUCH_OUTPUT)
)
"""How a module can end by its own doing, the same on every machine."""


def most_state_bytes(spec: JobSpec) -> int:
    """What a state can take: all memory, all files, and some for their names. A stranger's longer one isn't read."""
    wants = spec.resources
    return min(MAX_STATE_BYTES, wants.memory_bytes + wants.disk_bytes + wants.memory_bytes // 64 + 16 * MIB)


class Whole(msgspec.Struct, frozen=True):
    """A module that was run to its end: state 0 and each segment, its outputs, and how it ended."""

    segments: list[Segment]
    output: Tree
    outcome: Outcome


class Modules:
    """Jobs of the class `wasm`. State i's preimage is the engine's own, and in the store."""

    def __init__(self, store: BlobStore, box: Sandbox) -> None:
        self._store = store
        self._box = box

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
        tree = overlay([trees.load(root.digest, self._store) for root in spec.inputs])
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

    async def start(self, spec: JobSpec, leash: Leash | None = None) -> Digest:
        """h_0: memory as the module lays it out, before its first step.

        Raises:
            Stopped: it can't be had here.
        """
        found = await self._runner.start(self.task(spec), leash=leash, store=self._store)
        if not found.outcome.ok or not found.digests:
            raise Stopped(found.outcome.reason, found.outcome.why)
        return found.digests[0]

    async def run(self, spec: JobSpec, leash: Leash | None = None, on_log: Log | None = None) -> Whole:
        """To the end.

        Raises:
            Stopped: a limit was met that differs between machines, it was cancelled or refused.
            NoSuchBlob, Damaged, canonical.Malformed: of an input.
        """
        printed = bytearray()

        def both(stream: Literal["stdout", "stderr"], data: bytes) -> None:
            if stream == "stdout" and spec.stdout:
                printed.extend(data)
            if on_log is not None:
                on_log(stream, data)

        proof = await self._runner.prove(
            self.task(spec), spec.steps, keep=True, leash=leash, on_log=both, store=self._store
        )
        if proof.outcome.reason not in AGREED or not proof.digests:
            raise Stopped(proof.outcome.reason, proof.outcome.why)
        units = (0, *proof.meter)
        segments = [Segment(state, fuel) for state, fuel in zip(proof.digests, units, strict=True)]
        found = [Entry(it.name, "file", it.digest, it.size) for it in proof.outcome.outputs]
        if spec.stdout and all(entry.path != STDOUT for entry in found):
            found.append(Entry(STDOUT, "file", self._store.put(bytes(printed)), len(printed)))
        return Whole(segments, outputs(Tree(), listing(found), spec.outputs), proof.outcome)

    async def again(
        self, spec: JobSpec, start: Digest, every: int | None = None, leash: Leash | None = None
    ) -> list[Segment]:
        """One segment from the state before it; a state after every `every` steps, by default one.

        Raises:
            Stopped: it can't be run here.
            Foreign: what lies at the start is no state of this job.
            NoSuchBlob, Damaged.
        """
        task = self.task(spec)
        try:
            state = decode_state(self._store.read(start, most_state_bytes(spec)))
        except Damaged:
            raise
        except ValueError as error:
            raise Foreign(f"no state of a module: {error}") from None
        if state.task != canonical.digest(task):
            raise Foreign("a state of another job")
        if state.ended is not None:
            raise Foreign("the end of this job, after which nothing follows")
        found = await self._runner.rerun(task, start, spec.steps, every=every, leash=leash, store=self._store)
        if not found.outcome.ok or not found.digests:
            raise Stopped(found.outcome.reason, found.outcome.why)
        return [Segment(state, fuel) for state, fuel in zip(found.digests, found.meter, strict=True)]

    def outputs(self, spec: JobSpec, end: Digest) -> Tree:
        """The files that the last state holds, none where it isn't an end. What a module printed isn't among them: a state has a chain
        of hashes over it.

        Raises:
            Foreign: it is no state of this job.
            NoSuchBlob, Damaged, canonical.Malformed.
        """
        state = decode_state(self._store.read(end, most_state_bytes(spec)))
        if state.task != canonical.digest(self.task(spec)):
            raise Foreign("a state of another job")
        if state.ended not in (Reason.FINISHED, Reason.FAILED, Reason.TRAPPED):
            return Tree()
        found: list[Entry] = []
        for path, content in state.system.files.items():
            name = path.removeprefix(_OUT)
            if path.startswith(_OUT) and is_file_name(name):
                found.append(Entry(checked_path(name), "file", self._store.put(content), len(content)))
        return outputs(Tree(), listing(found), spec.outputs)

    def needs(self, state: Digest) -> list[tuple[Digest, int]]:
        return [(state, self._store.size(state))]
