"""Performing a job, and doing any part of it again.

    performer = Performer(store, folder)
    done = await performer.perform(spec)                    # the provider
    again = await performer.rerun(spec, done.states[j - 1]) # the auditor: equal to done.states[j], done.units[j - 1]

A provider commits to `done.commitment()`; the preimage of every state is in its store under the state's digest, so that an auditor,
handed those blobs, can begin anywhere. For a job that claims to be deterministic the provider runs a segment again by itself before it
commits (`self_checks`): a requester whose program isn't must not be able to bring an honest provider before a jury.
"""

import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from clusterai.audit.core.segments import Opening, is_opened
from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.protocol.leases import unit_cap
from clusterai.sandbox import BlobStore, CannotSandbox, Damaged, Leash, Log, NoSuchBlob, Reason, StoreFull
from clusterai.sandbox.adapters.front import Sandbox
from clusterai.sandbox.adapters.wasmbox import PART_S
from clusterai.work.batch.adapters import trees
from clusterai.work.batch.adapters.ends import Ends
from clusterai.work.batch.adapters.journal import SegmentLog
from clusterai.work.batch.adapters.logbook import Logbook
from clusterai.work.batch.adapters.modules import Modules
from clusterai.work.batch.adapters.native import (
    Foreign,
    Native,
    OnSegment,
    Stopped,
    Tally,
)
from clusterai.work.batch.core.outcome import Ended, Performed, Segment
from clusterai.work.batch.core.pinned import Checkpoint, share_s
from clusterai.work.batch.core.tree import EMPTY, Tree, missing
from clusterai.work.batch.spec import MOST_FUEL, JobSpec

END = MOST_FUEL
"""More units than any segment has."""


class Checked(msgspec.Struct, frozen=True):
    """What an auditor found of one segment.

    Attributes:
        verdict: `matched`; `differs`: doing it again gave `state`, or there is no state to begin with; `start`: the work didn't begin
            with this job's inputs; `units`: the state is right, its meter isn't; `unopened`: what was shown isn't what was
            committed to; `missing`: the state before can't be had whole; `unable`: this machine couldn't do it, which
            says nothing about the provider.
        state: what h_j should be, where that was found out.
    """

    verdict: str
    state: Digest | None = None
    units: int = 0
    why: str = ""


class Performer:
    """Runs jobs on this machine.

    Args:
        store: where inputs, states and outputs lie.
        folder: for running tasks.
        box: the sandboxes; made here where none are handed in. What can't be run is refused, with what is missing.
        part_s: so much of a module's run a crash may cost.
    """

    def __init__(
        self, store: BlobStore, folder: Path, box: Sandbox | None = None, part_s: float = PART_S
    ) -> None:
        self.store = store
        self.box = box or Sandbox(store, folder)
        self.ends = Ends(store)
        self._native = Native(store, self.box)
        self._modules = Modules(store, self.box, part_s)

    async def perform(
        self,
        spec: JobSpec,
        *,
        self_checks: int = 1,
        leash: Leash | None = None,
        on_log: Log | None = None,
        on_segment: OnSegment | None = None,
        logbook: Logbook | None = None,
    ) -> Performed:
        """To the end, from the last checkpoint that an earlier process left.

        Args:
            self_checks: how many segments of a verifiable job are run a second time before anything is claimed.
            logbook: where `on_log` writes: it is rewound to where the job goes on.
        """
        log = SegmentLog(self.store, spec.digest(), logbook)
        try:
            if spec.check == "wasm":
                done = await self._perform_module(spec, log, leash, on_log, on_segment)
            else:
                done = await self._perform_native(spec, log, leash, on_log, on_segment)
        except (NoSuchBlob, Damaged, canonical.Malformed, CannotSandbox) as error:
            return _nothing(Ended.REFUSED, str(error))
        if spec.check != "unverified" and done.is_payable:
            done = await self._self_checked(spec, done, self_checks, leash)
        return done

    async def bait(
        self, spec: JobSpec, secret: Digest, segments: int, leash: Leash | None = None
    ) -> list[Segment]:
        """State 0 and each segment of a lease that is planted for auditors who copy; only its first segment is run.

        Raises:
            CannotSandbox: of a job that is no module, too.
            Stopped, Foreign, NoSuchBlob, Damaged, canonical.Malformed, StoreFull.
        """
        if spec.check != "wasm":
            raise CannotSandbox("bait is made of modules only")
        return await self._modules.baited(spec, secret, segments, leash)

    async def start(self, spec: JobSpec, leash: Leash | None = None) -> Digest:
        """h_0, as the spec alone decides it: what every commitment has to begin with.

        Raises:
            Stopped: a module's own beginning can't be run here.
            NoSuchBlob, Damaged, canonical.Malformed: of an input.
        """
        return (
            await self._modules.start(spec, leash) if spec.check == "wasm" else self._native.begin(spec).state
        )

    async def rerun(self, spec: JobSpec, start: Digest, leash: Leash | None = None) -> Segment:
        """One segment again, from the state before it.

        Raises:
            Stopped: it can't be done here.
            Foreign: what lies at the start is no state of this job, or nobody can go on from it.
            NoSuchBlob, Damaged: the state before isn't here, or isn't whole.
        """
        try:
            if spec.check == "wasm":
                return (await self._modules.again(spec, start, leash=leash))[-1]
            return await self._native.advance(spec, start, leash)
        except Stopped as stopped:
            raise _blamed(spec, stopped) from None

    async def trace(
        self, spec: JobSpec, start: Digest, points: Sequence[int], leash: Leash | None = None
    ) -> list[Segment]:
        """The same segment's states at so many units of it, to be bisected in a dispute: behind the last step that had ended by then,
        with what had been spent (`protocol.bisection.metered`). A native segment is one process, of which there is the end only.

        It takes as long as running it once, or twice where steps are very unequal, however many there are: whoever is accused has not
        much more time than that.

        Args:
            points: in their order; `END` and beyond is its end.

        Raises:
            As `rerun`.
        """
        try:
            if spec.check == "wasm":
                return await self._modules.again(spec, start, points, leash)
            return [await self._native.advance(spec, start, leash)] * len(points)
        except Stopped as stopped:
            raise _blamed(spec, stopped) from None

    async def check(
        self,
        spec: JobSpec,
        root: Digest,
        segments: int,
        start: Opening,
        before: Opening,
        after: Opening,
        leash: Leash | None = None,
    ) -> Checked:
        """What an auditor does: is what was opened what was committed to, did the work begin with this job's inputs, and does doing the
        segment again give the same?

        The start is looked at whatever segment is drawn: else the states of another job, done honestly, would pass all draws
        but one.

        Args:
            start, before, after: the openings of 0, j - 1 and j.
        """
        opened = all(is_opened(root, segments, it) for it in (start, before, after))
        if not opened or start.index != 0 or after.index != before.index + 1:
            return Checked("unopened", why="the proofs don't lead to what was committed to")
        try:
            first = await self.start(spec, leash)
            if start.state != first:
                return Checked("start", first, why="the work didn't begin with this job's inputs")
            again = await self.rerun(spec, before.state, leash)
        except Foreign as error:
            return Checked("differs", why=f"state {before.index} is {error}")
        except (NoSuchBlob, Damaged) as error:
            return Checked("missing", why=str(error))
        except (Stopped, CannotSandbox, canonical.Malformed, StoreFull) as error:
            return Checked("unable", why=str(error))
        if again.state != after.state:
            return Checked("differs", again.state, again.units)
        claimed = after.units - before.units
        if again.units != claimed:
            return Checked(
                "units", again.state, again.units, f"{claimed} units were claimed, {again.units} used"
            )
        return Checked("matched", again.state, again.units)

    def forget(self, spec: JobSpec) -> None:
        """The job is settled: nothing of it will be resumed."""
        SegmentLog(self.store, spec.digest()).forget()
        self._modules.forget(spec)

    # --- inside ---

    async def _perform_native(
        self,
        spec: JobSpec,
        log: SegmentLog,
        leash: Leash | None,
        on_log: Log | None,
        on_segment: OnSegment | None,
    ) -> Performed:
        lines = log.read() if spec.check != "unverified" else []
        if lines or spec.check != "unverified":
            log.resume(lines)
        else:
            log.restart()
        most_s = share_s(spec) if spec.check == "pinned" else None
        done = [line.segment for line in lines]
        resumed = max(0, len(done) - 1)
        if not done:
            done = [self._native.begin(spec)]
            log.add(done[0])
        tally = Tally()
        stopped: Stopped | None = None
        while len(done) <= spec.segments and not self._native.state(done[-1].state).has_ended:
            if tally.wall_ms >= spec.resources.time_s * 1000:
                stopped = Stopped(Reason.OUT_OF_TIME, f"its {spec.resources.time_s} s are over: ask for more")
                break
            try:
                segment = await self._native.advance(spec, done[-1].state, leash, on_log, tally, most_s)
            except Stopped as error:
                stopped = error
                break
            done.append(segment)
            log.add(segment)
            if on_segment is not None:
                on_segment(len(done) - 1, segment)
        last = self._native.state(done[-1].state)
        output = self.ends.outputs(spec, done[-1].state) if last.has_ended else EMPTY
        ended, why = _native_end(spec, last, output, stopped)
        trees.keep(output, self.store)
        return Performed(
            ended=ended,
            states=tuple(it.state for it in done),
            units=tuple(it.units for it in done[1:]),
            output=output,
            exit_code=last.exit_code if last.has_ended else None,
            why=why,
            wall_ms=tally.wall_ms,
            cpu_ms=tally.cpu_ms,
            lost=tally.lost,
            resumed_at=resumed,
        )

    async def _perform_module(
        self,
        spec: JobSpec,
        log: SegmentLog,
        leash: Leash | None,
        on_log: Log | None,
        on_segment: OnSegment | None,
    ) -> Performed:
        try:
            whole = await self._modules.run(spec, log, leash, on_log, on_segment)
        except Stopped as error:
            return _nothing(_stopped(error.reason), error.why)
        outcome = whole.outcome
        segments, ended, why = _module_end(spec, whole.segments, outcome.reason, outcome.why)
        output = whole.output if ended in (Ended.FINISHED, Ended.FAILED) else EMPTY
        if ended is Ended.FINISHED:
            ended, why = _outputs_end(spec, output)
        trees.keep(output, self.store)
        return Performed(
            ended=ended,
            states=tuple(it.state for it in segments),
            units=tuple(it.units for it in segments[1:]),
            output=output,
            exit_code=outcome.exit_code if outcome.reason in (Reason.FINISHED, Reason.FAILED) else None,
            why=why,
            wall_ms=outcome.usage.wall_ms,
            cpu_ms=outcome.usage.cpu_ms,
            steps=(len(whole.segments) - 1) * spec.steps,
            lost=outcome.skipped,
            resumed_at=whole.resumed,
        )

    async def _self_checked(
        self, spec: JobSpec, done: Performed, times: int, leash: Leash | None
    ) -> Performed:
        chosen = secrets.SystemRandom().sample(range(1, len(done.states)), min(times, len(done.units)))
        for j in sorted(chosen):
            try:
                again = await self.rerun(spec, done.states[j - 1], leash)
            except (Stopped, Foreign) as error:
                again = None
                why = str(error)
            else:
                why = "its state differs"
            if again is None or again.state != done.states[j] or again.units != done.units[j - 1]:
                return msgspec.structs.replace(
                    done,
                    ended=Ended.NOT_DETERMINISTIC,
                    why=f"segment {j} of {len(done.units)} was run twice, and the second time {why}: "
                    "seed what is random, and leave times and addresses out of what is written; or make it `class: unverified`",
                )
        return done


def _blamed(spec: JobSpec, stopped: Stopped) -> Stopped | Foreign:
    """Whose fault it is that a segment can't be run again.

    Whoever committed to a state behind it has come through it within the job's limits. Were it this machine's, a cheat would commit
    to states from which nobody can go on, and all its auditors be silent.
    """
    if stopped.reason in (Reason.CANCELLED, Reason.LEASE_ENDED, Reason.REFUSED):
        return stopped
    if stopped.reason in (Reason.OUT_OF_TIME, Reason.OUT_OF_CPU) and spec.check != "pinned":
        # It had no more time than the provider, and may be the slower one.
        return stopped
    return Foreign(f"one that nobody can go on from: {stopped.why}")


def _nothing(ended: Ended, why: str) -> Performed:
    return Performed(ended=ended, states=(), units=(), output=EMPTY, why=why)


def _stopped(reason: Reason) -> Ended:
    match reason:
        case Reason.CANCELLED | Reason.LEASE_ENDED:
            return Ended.CANCELLED
        case Reason.REFUSED:
            return Ended.REFUSED
        case Reason.FAILED | Reason.TRAPPED | Reason.FINISHED:
            return Ended.FAILED
        case _:
            return Ended.LIMIT


def _native_end(spec: JobSpec, last: Checkpoint, output: Tree, stopped: Stopped | None) -> tuple[Ended, str]:
    if stopped is not None:
        return _stopped(stopped.reason), stopped.why
    if not last.has_ended:
        return Ended.NOT_DONE, f"it wasn't done after {spec.segments} segments: declare more"
    if last.exit_code:
        return Ended.FAILED, f"the program ended with code {last.exit_code}"
    return _outputs_end(spec, output)


def _outputs_end(spec: JobSpec, output: Tree) -> tuple[Ended, str]:
    if gone := missing(output, spec.outputs):
        return Ended.OUTPUTS_MISSING, f"it finished without {', '.join(gone)}"
    if spec.expected is not None and output.digest() != spec.expected:
        return Ended.OUTPUT_DIFFERS, f"its outputs are 0x{output.digest().hex()}, not the expected ones"
    return Ended.FINISHED, ""


def _module_end(
    spec: JobSpec, segments: list[Segment], reason: Reason, why: str
) -> tuple[list[Segment], Ended, str]:
    """What of a module's run may be claimed: at most T segments, none with more than its share of the fuel.

    Without the second bound a provider could claim all fuel in one segment, and only one of T audits would see it.
    """
    share = unit_cap(spec.fuel, spec.segments)
    for at, segment in enumerate(segments[1:], 1):
        if at > spec.segments:
            undone = f"it wasn't done after {spec.segments} segments of {spec.steps} steps"
            return segments[:at], Ended.NOT_DONE, f"{undone}: raise `segments` or `steps`"
        if segment.units > share:
            most = f"segment {at} used {segment.units} fuel, and may use fuel / segments = {share}"
            return segments[:at], Ended.LIMIT, f"{most}: raise `fuel`, or lower `steps`"
    if reason is Reason.FINISHED:
        return segments, Ended.FINISHED, ""
    return segments, _stopped(reason), why
