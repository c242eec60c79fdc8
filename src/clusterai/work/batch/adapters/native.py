"""Native jobs in the sandbox, segment by segment."""

from collections.abc import Callable
from typing import Literal

from clusterai.protocol.ids import Digest
from clusterai.sandbox import BlobStore, Damaged, Leash, Log, NoSuchBlob, Outcome, Reason, Runner, StoreFull
from clusterai.work.batch.adapters import trees
from clusterai.work.batch.adapters.base import inside
from clusterai.work.batch.core import pinned
from clusterai.work.batch.core.outcome import Segment
from clusterai.work.batch.core.pinned import Checkpoint, decode_checkpoint
from clusterai.work.batch.core.tree import Tree
from clusterai.work.batch.spec import JobSpec, OutOfRange

MOST_CHECKPOINT_BYTES = 4096


class Stopped(Exception):
    """A segment was not done: {why}."""

    def __init__(self, reason: Reason, why: str) -> None:
        super().__init__(why)
        self.reason = reason
        self.why = why


class Foreign(ValueError):
    """{why}: whoever committed to it as a state of this job lied."""


class Tally:
    """What the segments of one run used and couldn't keep."""

    def __init__(self) -> None:
        self.wall_ms = 0
        self.cpu_ms = 0
        self.lost: tuple[str, ...] = ()


class Patience:
    """How long what is left of a segment may take: each call as long as any, or all of them together `most_s`."""

    def __init__(self, call_s: int, most_s: int | None) -> None:
        self.most_s = most_s
        self.wall_s = call_s if most_s is None else most_s

    def spend(self, wall_ms: int) -> None:
        if self.most_s is not None:
            self.wall_s = max(1, self.wall_s - wall_ms // 1000)


class Native:
    """Jobs of the classes `pinned` and `unverified`.

    State i's preimage is a `Checkpoint`; it, the listing and the files that it names are in the store.
    """

    def __init__(self, store: BlobStore, runner: Runner) -> None:
        self._store = store
        self._runner = runner
        self._inside = {name: store.put(content) for name, content in inside().items()}

    def begin(self, spec: JobSpec) -> Segment:
        """State 0.

        Raises:
            NoSuchBlob, Damaged, canonical.Malformed: of an input.
        """
        checkpoint, tree = pinned.begin(spec, [trees.load(root.digest, self._store) for root in spec.inputs])
        trees.keep(tree, self._store)
        return Segment(self._store.put(checkpoint.canonical()), 0)

    def state(self, digest: Digest) -> Checkpoint:
        return decode_checkpoint(self._store.read(digest, MOST_CHECKPOINT_BYTES))

    async def advance(
        self,
        spec: JobSpec,
        start: Digest,
        leash: Leash | None = None,
        on_log: Log | None = None,
        tally: Tally | None = None,
        most_s: int | None = None,
    ) -> Segment:
        """One segment from the state before it.

        Args:
            most_s: that it may take, `setup` included; what another machine is given to run it again if None.

        Raises:
            Stopped: a limit was met, it was cancelled or refused; there is no state after it.
            Foreign: what lies at the start is no state of this job.
            NoSuchBlob, Damaged, canonical.Malformed: the state before isn't whole.
        """
        try:
            before = self.state(start)
        except Damaged:
            raise
        except ValueError as error:
            raise Foreign(f"no state of a native job: {error}") from None
        if before.job != spec.digest():
            raise Foreign("a state of another job")
        if before.has_ended:
            raise Foreign("the end of this job, after which nothing follows")
        tally = tally or Tally()
        patience = Patience(pinned.segment_s(spec), most_s)
        try:
            tree = trees.load(before.tree, self._store)
        except Damaged:
            raise
        except ValueError as error:
            raise Foreign(f"a state whose folder is none: {error}") from None
        for content, _ in tree.contents():
            if content not in self._store:
                raise NoSuchBlob(content)
        if before.segment == 0 and spec.setup:
            outcome, kept = await self._call(spec, 1, tree, spec.setup, leash, on_log, None, tally, patience)
            if outcome.exit_code:
                raise Stopped(outcome.reason, f"setup ended with code {outcome.exit_code}")
            tree = kept
        stdout = bytearray()
        if spec.stdout and before.segment:
            old = next((it for it in tree.entries if it.path == pinned.STDOUT), None)
            if old is not None and self._store.size(Digest(old.digest)) > pinned.MOST_OUTPUT_BYTES:
                raise Foreign("a state that holds more output than any may")
            stdout += self._store.read(Digest(old.digest), pinned.MOST_OUTPUT_BYTES) if old else b""
        outcome, kept = await self._call(
            spec,
            before.segment + 1,
            tree,
            spec.argv,
            leash,
            on_log,
            stdout if spec.stdout else None,
            tally,
            patience,
        )
        after = pinned.after(before, outcome, kept)
        if after is None:
            raise Stopped(outcome.reason, outcome.why)
        trees.keep(kept, self._store)
        return Segment(self._store.put(after.canonical()), 1)

    async def _call(
        self,
        spec: JobSpec,
        segment: int,
        tree: Tree,
        program: tuple[str, ...],
        leash: Leash | None,
        on_log: Log | None,
        stdout: bytearray | None,
        tally: Tally,
        patience: Patience,
    ) -> tuple[Outcome, Tree]:
        task = pinned.task(spec, segment, tree, program, self._inside, patience.wall_s)
        outcome = await self._runner.run(task, leash=leash, on_log=_tee(on_log, stdout), store=self._store)
        tally.wall_ms += outcome.usage.wall_ms
        tally.cpu_ms += outcome.usage.cpu_ms
        patience.spend(outcome.usage.wall_ms)
        if (
            outcome.reason in (Reason.OUT_OF_TIME, Reason.OUT_OF_CPU)
            and patience.most_s is not None
            and spec.segments > 1
        ):
            share = f"segment {segment} took longer than its share of the time, {patience.most_s} s"
            raise Stopped(
                outcome.reason, f"{share}: cut it more evenly, or ask for more time ({outcome.why})"
            )
        if outcome.reason not in (Reason.FINISHED, Reason.FAILED):
            raise Stopped(outcome.reason, outcome.why)
        if stdout is not None and len(stdout) > pinned.MOST_OUTPUT_BYTES:
            most = f"it printed more than {pinned.MOST_OUTPUT_BYTES} bytes in all its segments"
            raise Stopped(Reason.TOO_MUCH_OUTPUT, f"{most}: write files, or don't keep what it prints")
        try:
            kept, tally.lost = pinned.left(
                tree, outcome, None if stdout is None else (self._store.put(bytes(stdout)), len(stdout))
            )
        except OutOfRange as error:
            raise Stopped(Reason.OUT_OF_DISK, f"the work folder holds too many files: {error}") from None
        except StoreFull as error:
            raise Stopped(Reason.OUT_OF_DISK, str(error)) from None
        return outcome, kept


def _tee(on_log: Log | None, kept: bytearray | None) -> Log | None:
    if kept is None:
        return on_log

    def both(stream: Literal["stdout", "stderr"], data: bytes) -> None:
        if stream == "stdout":
            kept.extend(data)
        if on_log is not None:
            on_log(stream, data)

    return both


OnSegment = Callable[[int, Segment], None]
"""Called when segment i (from 1) is done and its state durable."""
