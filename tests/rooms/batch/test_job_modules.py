"""WASM jobs: fuel as the meter, and any segment again."""

import asyncio
from itertools import accumulate
from typing import Any

import msgspec
import pytest

from clusterai.protocol.bisection import metered
from clusterai.protocol.ids import Digest
from clusterai.sandbox import BlobStore
from clusterai.sandbox.adapters.wasm import sample, wat
from clusterai.work.batch.adapters.perform import END, Performer
from clusterai.work.batch.core.outcome import Ended, Performed, Segment
from clusterai.work.batch.core.prices import billable_wei
from clusterai.work.batch.core.tree import Tree
from clusterai.work.batch.spec import MIB, Image, JobSpec, Resources
from tests.rooms.batch.conftest import MakeRoot

COPY = """(module
  (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "in/data/a.txt")
  (func (export "clusterai_step") (param i64) (result i32)
    (drop (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 13) (i32.const 0)
      (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 0)))
    (i32.store (i32.const 8) (i32.const 256))
    (i32.store (i32.const 12) (i32.const 16))
    (drop (call $read (i32.load (i32.const 0)) (i32.const 8) (i32.const 1) (i32.const 4)))
    (i32.store (i32.const 12) (i32.load (i32.const 4)))
    (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 4)))
    (i32.const 1)))"""


@pytest.fixture(scope="module")
def sieve(store: BlobStore) -> JobSpec:
    image = Image("wasm", store.put(sample("sieve")))
    return JobSpec(
        name="sieve",
        check="wasm",
        image=image,
        argv=("8",),
        fuel=10**9,
        segments=20,
        resources=Resources(time_s=60),
    )


def run(performer: Performer, spec: JobSpec, **fields: Any) -> Performed:
    return asyncio.run(performer.perform(msgspec.structs.replace(spec, **fields)))


def contents(store: BlobStore, tree: Tree) -> dict[str, str]:
    return {it.path: store.read(Digest(it.digest)).decode().strip() for it in tree.entries}


def test_a_module_is_run_in_segments(performer: Performer, store: BlobStore, sieve: JobSpec):
    """A state per step, fuel as units, files and what is printed as outputs; the last state holds the files too."""
    done = run(performer, sieve, stdout=True)
    assert (done.ended, done.exit_code, len(done.units), done.steps) == (Ended.FINISHED, 0, 9, 9)
    assert min(done.units) > 0
    assert contents(store, done.output) == {"primes.txt": "43390", "stdout": "43390"}
    assert contents(store, performer.ends.outputs(sieve, done.states[-1])) == {"primes.txt": "43390"}
    assert 300 < billable_wei(sieve, 1000, sum(done.units)) < 350
    assert run(performer, sieve, stdout=True).states == done.states


def test_steps_make_segments(performer: Performer, sieve: JobSpec):
    """Three steps a segment are a third of the segments and the same fuel."""
    fine, coarse = run(performer, sieve), run(performer, sieve, steps=3)
    assert len(coarse.units) == 3
    assert sum(coarse.units) == sum(fine.units)


def test_a_segment_again_and_finer(performer: Performer, sieve: JobSpec):
    """From the state before it alone; as a trace that a dispute is bisected on."""
    spec = msgspec.structs.replace(sieve, steps=4)
    done = asyncio.run(performer.perform(spec))
    again = asyncio.run(performer.rerun(spec, done.states[1]))
    assert again == Segment(done.states[2], done.units[1])
    finest = run(performer, sieve)
    ends = list(accumulate(finest.units[4:8]))
    assert ends[-1] == again.units
    parts = list(zip(finest.units[4:8], map(Digest, finest.states[5:9]), strict=True))
    states = metered(done.states[1], parts, ends[-1], again.state)
    points = [0, 1, ends[0] - 1, ends[0], ends[0] + 1, ends[2], ends[3] - 1, ends[3], END]
    found = asyncio.run(performer.trace(spec, done.states[1], points))
    assert [it.state for it in found] == [states(point) for point in points]
    assert [it.units for it in found] == [0, 0, 0, ends[0], ends[0], ends[2], ends[2], ends[3], ends[3]]


@pytest.mark.parametrize(
    ("fields", "ended", "word", "units"),
    [
        ({"segments": 5}, Ended.NOT_DONE, "raise `segments` or `steps`", 5),
        ({"fuel": 10**7}, Ended.LIMIT, "fuel / segments = 500000", 0),
        ({"argv": ("0",)}, Ended.FAILED, "unreachable", 0),
        ({"outputs": ("gone",)}, Ended.OUTPUTS_MISSING, "without gone", 9),
        ({"expected": bytes(32)}, Ended.OUTPUT_DIFFERS, "not the expected", 9),
        ({"image": Image("wasm", bytes([1] * 32))}, Ended.REFUSED, "no blob", 0),
    ],
)
def test_how_a_module_ends(
    performer: Performer, sieve: JobSpec, fields: dict[str, Any], ended: Ended, word: str, units: int
):
    """Each with its own reason; no segment may claim more than its share of the fuel."""
    done = run(performer, sieve, **fields)
    assert (done.ended, len(done.units)) == (ended, units)
    assert word in done.why


def test_a_module_reads_its_inputs(performer: Performer, store: BlobStore, root: MakeRoot):
    """Read-only under `in`."""
    spec = JobSpec(
        name="copy",
        check="wasm",
        image=Image("wasm", store.put(wat(COPY))),
        inputs=(root(data__a_txt="hello"),),
        stdout=True,
        outputs=("stdout",),
        fuel=10**9,
    )
    done = asyncio.run(performer.perform(spec))
    assert done.ok, done.why
    assert contents(store, done.output) == {"stdout": "hello"}


def test_a_segment_of_many_short_steps_is_traced_in_time(performer: Performer):
    """An accused provider answers about a segment of 66,000 steps, of which nobody could digest every state in time."""
    module = wat("""(module (memory (export "memory") 16)
      (func (export "clusterai_step") (param $step i64) (result i32)
        (i64.store (i32.const 8) (i64.add (i64.load (i32.const 8)) (local.get $step)))
        (i64.ge_u (local.get $step) (i64.const 66000))))""")
    spec = JobSpec(
        name="many",
        check="wasm",
        image=Image("wasm", performer.store.put(module)),
        resources=Resources(memory_bytes=16 * MIB, disk_bytes=16 * MIB, time_s=60),
        segments=1,
        steps=2**20,
        fuel=10**8,
    )
    done = run(performer, spec)
    assert done.ended is Ended.FINISHED
    (units,) = done.units
    points = [units * part // 16 for part in range(1, 16)]
    found = asyncio.run(performer.trace(spec, Digest(done.states[0]), [*points, END]))
    assert found[-1] == Segment(done.states[1], units)
    assert len({it.state for it in found}) == 16
    assert all(0 <= point - it.units < 100 for point, it in zip(points, found, strict=False))
