"""A module's job on a node that is killed: it goes on from its last durable state, to the same commitment."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from clusterai.protocol.ids import Digest
from clusterai.sandbox import BlobStore, LeaseStore
from clusterai.sandbox.adapters.wasm import sample, wat
from clusterai.work.batch.adapters.journal import SegmentLog
from clusterai.work.batch.adapters.perform import Performer
from clusterai.work.batch.core.outcome import Ended, Performed, Segment
from clusterai.work.batch.spec import Image, JobSpec, Resources

TALKER = """(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "clusterai_step") (param $step i64) (result i32)
    (i32.store8 (i32.const 64) (i32.add (i32.const 97) (i32.wrap_i64 (local.get $step))))
    (i32.store8 (i32.const 65) (i32.const 10))
    (i32.store (i32.const 8) (i32.const 64))
    (i32.store (i32.const 12) (i32.const 2))
    (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 4)))
    (i64.ge_u (local.get $step) (i64.const 7))))"""
"""Prints a letter a step, eight in all."""


class Killed(BaseException):
    pass


def talker(store: BlobStore) -> JobSpec:
    return JobSpec(
        name="talker",
        check="wasm",
        image=Image("wasm", store.put(wat(TALKER))),
        stdout=True,
        fuel=10**6,
        segments=20,
        resources=Resources(time_s=60),
    )


def perform(
    store: BlobStore, folder: Path, spec: JobSpec, die_at: int = 0, part_s: float = 0.0
) -> tuple[Performed, str]:
    """Done, with what it printed since it was started; a process that dies says `Killed`."""
    said: list[bytes] = []

    def on_segment(at: int, _: Segment) -> None:
        if at == die_at:
            raise Killed

    performer = Performer(store, folder, part_s=part_s)
    done = asyncio.run(
        performer.perform(spec, on_segment=on_segment, on_log=lambda _, data: said.append(data))
    )
    return done, b"".join(said).decode()


def text(store: BlobStore, done: Performed, name: str) -> str:
    (entry,) = [it for it in done.output.entries if it.path == name]
    return store.read(Digest(entry.digest)).decode()


@pytest.mark.parametrize("die_at", [1, 4, 8])
def test_the_commitment_is_that_of_a_run_in_one_go(tmp_path: Path, die_at: int):
    """Wherever it died: the same states, units, outputs and `stdout`, and no segment before that is run again."""
    whole_store, store = LeaseStore(tmp_path / "whole"), LeaseStore(tmp_path / "torn")
    spec = talker(whole_store)
    talker(store)
    whole, said = perform(whole_store, tmp_path / "a", spec, part_s=60)
    assert (whole.ended, len(whole.units), said) == (
        Ended.FINISHED,
        8,
        "".join(f"{it}\n" for it in "abcdefgh"),
    )
    with pytest.raises(Killed):
        perform(store, tmp_path / "b", spec, die_at)
    done, said = perform(store, tmp_path / "b", spec, part_s=60)
    assert done.commitment().root == whole.commitment().root
    assert (done.output, done.exit_code, done.steps) == (whole.output, 0, 8)
    # The part that met the end is done again, as only that tells how it ended.
    assert done.resumed_at == min(die_at, 7)
    assert said == "".join(f"{it}\n" for it in "abcdefgh"[done.resumed_at :])
    assert text(store, done, "stdout") == text(whole_store, whole, "stdout") == "a\nb\nc\nd\ne\nf\ng\nh\n"


def test_killed_for_real_in_the_middle(tmp_path: Path):
    """`kill -9` by the operating system, twice, at a segment each: the third process finishes, and its commitment is that of one run."""
    script = f"""
import asyncio, os, signal, sys
from pathlib import Path
from clusterai.protocol import canonical
from clusterai.sandbox import BlobStore
from clusterai.work.batch.adapters.perform import Performer
from clusterai.work.batch.spec import decode_spec
spec = decode_spec(Path({str(tmp_path / "spec")!r}).read_bytes())
die_at = int(sys.argv[1])
def on_segment(at, _):
    if at == die_at:
        os.kill(os.getpid(), signal.SIGKILL)
performer = Performer(BlobStore(Path({str(tmp_path / "store")!r})), Path({str(tmp_path / "run")!r}), part_s=0)
done = asyncio.run(performer.perform(spec, on_segment=on_segment))
print(done.resumed_at, done.commitment().root.hex())
"""
    store = BlobStore(tmp_path / "store")
    spec = msgspec.structs.replace(
        talker(store), image=Image("wasm", store.put(sample("sieve"))), argv=("8",), fuel=10**9
    )
    (tmp_path / "spec").write_bytes(spec.canonical())
    for die_at, code in ((3, -signal.SIGKILL), (5, -signal.SIGKILL), (0, 0)):
        ran = subprocess.run(
            [sys.executable, "-c", script, str(die_at)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=os.environ,
        )
        assert ran.returncode == code, ran.stderr
    elsewhere = BlobStore(tmp_path / "elsewhere")
    elsewhere.put(sample("sieve"))
    whole, _ = perform(elsewhere, tmp_path / "b", spec, part_s=60)
    assert ran.stdout.split() == ["5", whole.commitment().root.hex()]


def test_a_job_may_not_outlast_its_time_by_dying(tmp_path: Path):
    """Parts share one clock: when its seconds are over, the next part isn't begun."""
    store = BlobStore(tmp_path / "store")
    endless = wat(
        '(module (memory (export "memory") 1) (func (export "clusterai_step") (param i64) (result i32) i32.const 0))'
    )
    spec = msgspec.structs.replace(
        talker(store),
        image=Image("wasm", store.put(endless)),
        stdout=False,
        resources=Resources(time_s=1),
        segments=1000,
    )
    done, _ = perform(store, tmp_path / "run", spec)
    assert (done.ended, done.units) == (Ended.LIMIT, ())


def test_a_job_that_needs_too_many_segments_is_stopped_behind_them(tmp_path: Path):
    """One more than it may take is looked at, and no further one is run."""
    store = BlobStore(tmp_path / "store")
    spec = msgspec.structs.replace(talker(store), segments=3)
    done, said = perform(store, tmp_path / "run", spec, part_s=60)
    assert (done.ended, len(done.units), said) == (Ended.NOT_DONE, 3, "a\nb\nc\nd\n")


Bend = Callable[[BlobStore, SegmentLog, list[Digest]], object]
BENDS: list[Bend] = [
    lambda store, log, states: log.add(Segment(Digest(bytes(32)), 1)),
    lambda store, log, states: log.add(Segment(store.put(b"no state"), 1)),
    lambda store, log, states: store.delete(states[-1]),
]


@pytest.mark.parametrize("bend", BENDS)
def test_a_log_that_names_what_is_not_there_is_not_believed(tmp_path: Path, bend: Bend):
    """The job starts from what can be had, or says that its own store is broken; it never commits to a state that it didn't compute."""
    store = BlobStore(tmp_path / "store")
    spec = talker(store)
    with pytest.raises(Killed):
        perform(store, tmp_path / "run", spec, 3)
    log = SegmentLog(store, spec.digest())
    bend(store, log, [Digest(line.state) for line in log.read()])
    elsewhere = BlobStore(tmp_path / "elsewhere")
    talker(elsewhere)
    whole, _ = perform(elsewhere, tmp_path / "b", spec, part_s=60)
    done, _ = perform(store, tmp_path / "run", spec, part_s=60)
    assert done.ended is Ended.REFUSED or done.states == whole.states
