"""WASM tasks in a process of their own behind the native walls, whole or as segments with digests.

    node ── NativeRunner ── walls ── python: worker.main ── wasmtime ── the tenant's module

Two sandboxes, one in the other: the module's own, which gives the determinism, and the process's, which can be killed
while the module still compiles, and holds whoever breaks out of the first.
"""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

import clusterai
from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.sandbox.adapters.native import CannotSandbox, NativeRunner, host_python
from clusterai.sandbox.adapters.runner import Leash, Log
from clusterai.sandbox.adapters.store import BlobStore, NoSuchBlob
from clusterai.sandbox.core.bubble import Bind, Root
from clusterai.sandbox.core.report import FILES, MAX_REPORT_BYTES, MODULE, PREIMAGE, REPORT, TASK, Ask, Report
from clusterai.sandbox.core.spec import (
    KiB,
    Limits,
    MiB,
    Outcome,
    Output,
    Reason,
    RootFs,
    Task,
    TiB,
    Wasm,
    is_file_name,
    refused,
)
from clusterai.sandbox.core.verdict import explain

ENGINE_BYTES = 256 * MiB
"""Python, wasmtime and what it compiles."""
MAX_INPUTS = 4000
PART_S = 30.0
"""A process that runs a module starts in 0.6 s (docs/explanation/sandbox.md): a fiftieth of that."""
_START = """
import sys, types
sys.path[:0] = {paths!r}
room = sys.modules["clusterai.sandbox"] = types.ModuleType("clusterai.sandbox")
room.__path__ = [sys.path[0] + "/clusterai/sandbox"]
from clusterai.sandbox.adapters.worker import main
main()
"""
"""The room's front loads asyncio and every runner, half of a worker's start, so a worker goes round it."""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider commits to beside its outcome."""

    outcome: Outcome
    digests: tuple[Digest, ...] = ()
    """h_0 … h_T; each also names its preimage in the store, if it was asked to be kept."""
    meter: tuple[int, ...] = ()
    """Fuel of each segment."""
    unfinished: bool = False
    """It was stopped behind the most segments that it might take."""


OnPart = Callable[[Sequence[Digest], Sequence[int]], None]
"""Called with some more states, whose preimages are in the store, and the fuel of the segments that led to them."""


class Rerun(msgspec.Struct, frozen=True, kw_only=True):
    """A segment done again. `outcome.ok` says that it could be; only then the rest means anything."""

    outcome: Outcome
    digests: tuple[Digest, ...] = ()
    meter: tuple[int, ...] = ()
    ended: Reason | None = None


def engine_root() -> Root:
    """Python with wasmtime, and of us only what a worker needs."""
    python = host_python()
    package = Path(clusterai.__file__).resolve().parent
    wanted = [package / "__init__.py", package / "protocol", package / "sandbox", *_libraries()]
    missing = [path for path in wanted if not any(path.is_relative_to(bind.source) for bind in python.binds)]
    extra = tuple(Bind(str(path), str(path)) for path in missing)
    return msgspec.structs.replace(python, name="wasm", binds=(*python.binds, *extra))


def _libraries() -> list[Path]:
    """Where wasmtime and msgspec are installed, should it be beside the Python environment."""
    specs = [importlib.util.find_spec(name) for name in ("wasmtime", "msgspec", "blake3")]
    return sorted(
        {Path(spec.origin).resolve().parents[1] for spec in specs if spec is not None and spec.origin}
    )


def _python() -> str:
    """This Python where `host_python` shows it: an environment may be known to us by a link that isn't there."""
    executable, prefix = Path(sys.executable), Path(sys.prefix)
    if executable.is_relative_to(prefix):
        executable = prefix.resolve() / executable.relative_to(prefix)
    return str(executable)


class WasmRunner:
    """Runs `Wasm` tasks.

    Raises:
        CannotSandbox: at construction, where there are no native walls or no wasmtime.
    """

    def __init__(self, store: BlobStore, folder: Path) -> None:
        if importlib.util.find_spec("wasmtime") is None:
            raise CannotSandbox("wasmtime is missing", "pip install 'clusterai[sandbox]'")
        self._store = store
        self._native = NativeRunner(store, folder / "wasm", {"wasm": engine_root()})
        paths = [Path(clusterai.__file__).resolve().parents[1], *_libraries()]
        self._argv = (_python(), "-I", "-c", _START.format(paths=[str(path) for path in paths]))

    @property
    def name(self) -> str:
        return f"wasmtime in {self._native.name}"

    async def run(
        self,
        task: Task,
        *,
        leash: Leash | None = None,
        on_log: Log | None = None,
        store: BlobStore | None = None,
    ) -> Outcome:
        return (await self._ask(Ask(task=task), (), leash, on_log, store))[0]

    async def prove(
        self,
        task: Task,
        steps: int,
        *,
        keep: bool = False,
        leash: Leash | None = None,
        on_log: Log | None = None,
        store: BlobStore | None = None,
    ) -> Proof:
        """Run to the end with a digest after every `steps` steps.

        Args:
            keep: store the preimage of every digest under that digest.
        """
        outcome, report = await self._ask(Ask(task=task, steps=steps, keep=keep), (), leash, on_log, store)
        return Proof(outcome=outcome, digests=report.digests, meter=report.meter)

    async def prove_in_parts(
        self,
        task: Task,
        steps: int,
        on_part: OnPart,
        *,
        after: Digest | None = None,
        most: int = 0,
        part_s: float = PART_S,
        leash: Leash | None = None,
        on_log: Log | None = None,
        store: BlobStore | None = None,
    ) -> Proof:
        """The same in one process after another, each from the state that the one before left, so that whoever dies in the middle goes on
        from the last that `on_part` was told. All preimages are kept.

        Args:
            after: the state to go on from; its proof isn't told again.
            most: of segments, in all parts together.
            part_s: so long a part lasts, and then to the end of its segment.
        """
        digests: list[Digest] = []
        meter: list[int] = []
        wall_ms = cpu_ms = 0
        limits = task.limits
        while True:
            ask = Ask(
                task=task,
                steps=steps,
                keep=True,
                for_ms=max(1, int(part_s * 1000)),
                kept_bytes=limits.memory_bytes + limits.disk_bytes,
                most=most - len(meter) if most else 0,
            )
            more = () if after is None else ((PREIMAGE, after),)
            left_s = limits.wall_s - wall_ms // 1000
            if left_s <= 0:
                outcome = Outcome(
                    reason=Reason.OUT_OF_TIME, why=explain(Reason.OUT_OF_TIME, limits, 0), runner=self.name
                )
                return Proof(outcome=outcome, digests=tuple(digests), meter=tuple(meter))
            outcome, report = await self._ask(ask, more, leash, on_log, store, left_s)
            wall_ms, cpu_ms = wall_ms + outcome.usage.wall_ms, cpu_ms + outcome.usage.cpu_ms
            usage = msgspec.structs.replace(outcome.usage, wall_ms=wall_ms, cpu_ms=cpu_ms)
            outcome = msgspec.structs.replace(outcome, usage=usage)
            if report.digests:
                on_part(report.digests, report.meter)
                digests += report.digests
                meter += report.meter
                after = report.digests[-1]
            over = bool(most) and len(meter) >= most
            if not report.unfinished or not report.digests or over:
                return Proof(
                    outcome=outcome, digests=tuple(digests), meter=tuple(meter), unfinished=report.unfinished
                )

    async def start(self, task: Task, *, leash: Leash | None = None, store: BlobStore | None = None) -> Rerun:
        """h_0 alone, its preimage kept: what every proof of this task has to begin with."""
        outcome, report = await self._ask(Ask(task=task, keep=True, begin=True), (), leash, None, store)
        return Rerun(outcome=outcome, digests=report.digests)

    async def rerun(
        self,
        task: Task,
        preimage: Digest,
        steps: int,
        *,
        every: int | None = None,
        points: Sequence[int] = (),
        burn: int = 0,
        leash: Leash | None = None,
        store: BlobStore | None = None,
    ) -> Rerun:
        """Do `steps` steps again from a state in the store; a digest after every `every` of them, by default after all.

        Args:
            points: digests at so many units instead, in their order; `meter` is what had been spent by then.
            burn: the most fuel that the steps may take; a state that leads beyond it ends as `TRAPPED`, at once. 0: what the task allows.
        """
        every = steps if every is None else every
        ask = Ask(task=task, steps=steps, every=every, points=tuple(points), burn=burn)
        outcome, report = await self._ask(ask, ((PREIMAGE, preimage),), leash, None, store)
        return Rerun(outcome=outcome, digests=report.digests, meter=report.meter, ended=report.ended)

    async def _ask(
        self,
        ask: Ask,
        more: Sequence[tuple[str, Digest]],
        leash: Leash | None,
        on_log: Log | None,
        store: BlobStore | None,
        wall_s: int | None = None,
    ) -> tuple[Outcome, Report]:
        task = ask.task
        nothing = Report(reason=Reason.REFUSED)
        if not isinstance(task.image, Wasm):
            return refused("this runs WASM modules only", self.name), nothing
        if task.network:
            return refused("a WASM module has no network: ask for network = false", self.name), nothing
        if len(task.inputs) > MAX_INPUTS:
            return refused(f"a WASM task may have {MAX_INPUTS} inputs: pack them", self.name), nothing
        store = store or self._store
        own = store.put(canonical.encode(ask))
        inputs = {MODULE: task.image.module, TASK: own, **dict(more)}
        inputs |= {f"i{place}": task.inputs[name] for place, name in enumerate(sorted(task.inputs))}
        try:
            limits = self._limits(ask)
            if wall_s is not None:
                limits = msgspec.structs.replace(limits, wall_s=wall_s)
            wrapped = Task(
                image=RootFs("wasm"), argv=self._argv, inputs=inputs, limits=limits, seed=task.seed
            )
            outcome = await self._native.run(wrapped, leash=leash, on_log=on_log, store=store)
        finally:
            store.delete(own)
        return self._translate(task, outcome, nothing, store)

    def _limits(self, ask: Ask) -> Limits:
        limits = ask.task.limits
        # Snapshots are copied while they are encoded, and files are held in memory, then written.
        memory = (
            ENGINE_BYTES + (4 if ask.steps or ask.begin else 1) * limits.memory_bytes + 2 * limits.disk_bytes
        )
        disk = 2 * MiB + limits.disk_bytes + (16 * limits.memory_bytes if ask.keep else 0)
        if ask.kept_bytes:
            # A part ends when it has kept so much, so the last state lies beyond it.
            disk = 4 * MiB + limits.disk_bytes + 2 * ask.kept_bytes
        return msgspec.structs.replace(
            limits,
            memory_bytes=min(memory, 4 * TiB),
            disk_bytes=min(disk, 16 * TiB),
            files=limits.files + 100_000,
            processes=16,
            open_files=256,
            output_bytes=limits.output_bytes + 64 * KiB,
        )

    def _translate(
        self, task: Task, outcome: Outcome, nothing: Report, store: BlobStore
    ) -> tuple[Outcome, Report]:
        """The worker's report as an outcome; its limits were ours, so they are told in the task's own numbers."""
        outcome = msgspec.structs.replace(outcome, runner=self.name)
        left = {output.name: output for output in outcome.outputs}
        outcome = msgspec.structs.replace(outcome, outputs=(), skipped=())
        if outcome.reason is not Reason.FINISHED or REPORT not in left:
            if outcome.reason in (Reason.FINISHED, Reason.FAILED):
                # What it printed is the tenant's, and in its log: nothing of it is said where it would be kept in the clear.
                why = f"the WASM engine ended with code {outcome.exit_code}; the log has its last words"
                outcome = msgspec.structs.replace(outcome, reason=Reason.FAILED, why=why)
            return outcome, nothing
        try:
            report = canonical.decode(store.read(left[REPORT].digest), Report, MAX_REPORT_BYTES)
        except (canonical.Malformed, NoSuchBlob, ValueError) as error:
            return msgspec.structs.replace(
                outcome, reason=Reason.FAILED, why=f"no report of the engine: {error}"
            ), nothing
        finally:
            store.delete(left[REPORT].digest)
        outputs: list[Output] = []
        skipped: list[str] = []
        for place, name in enumerate(report.outputs):
            found = left.get(f"{FILES}/f{place}")
            if found is not None and is_file_name(name):
                outputs.append(Output(name, found.digest, found.size))
            else:
                skipped.append(name[:200])
        usage = msgspec.structs.replace(outcome.usage, fuel=report.fuel, max_rss_bytes=report.memory_bytes)
        return (
            msgspec.structs.replace(
                outcome,
                reason=report.reason,
                exit_code=report.exit_code,
                why=report.why or explain(report.reason, task.limits, report.exit_code),
                usage=usage,
                outputs=tuple(outputs),
                skipped=tuple(skipped[:100]),
            ),
            report,
        )
