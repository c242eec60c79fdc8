"""WASM jobs cut at their steps: any segment can be done again by somebody else, to the same digest and the same meter."""

from bisect import bisect_right
from itertools import accumulate

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterai.protocol import canonical
from clusterai.protocol.canonical import content_digest
from clusterai.protocol.ids import Digest
from clusterai.sandbox import Reason
from clusterai.sandbox.adapters.wasm import Engine, Segmented, Trace, sample, wat
from clusterai.sandbox.core.module import BadModule
from clusterai.sandbox.core.state import decode_state
from clusterai.sandbox.core.wasi import Descriptor
from tests.rooms.sandbox.guests import MEMORY, calls, task

BLOCKS = 12
UNEQUAL = f"""(module {MEMORY}
  (func (export "clusterai_step") (param $step i64) (result i32) (local $n i64)
    (local.set $n (i64.rem_u (i64.mul (local.get $step) (i64.const 7919)) (i64.const 13)))
    (local.set $n (i64.mul (i64.mul (local.get $n) (local.get $n)) (local.get $n)))
    (i64.store (i32.const 8) (local.get $step))
    (block $end (loop $again
      (br_if $end (i64.eqz (local.get $n)))
      (local.set $n (i64.sub (local.get $n) (i64.const 1)))
      (br $again)))
    (i64.ge_u (local.get $step) (i64.const 40))))"""
"""Steps of very different lengths, in no order."""


def sieve(engine: Engine = "native", blocks: int = BLOCKS) -> Segmented:
    module = sample()
    return Segmented(module, task(module, ("sieve", str(blocks)), memory_bytes=16 << 20), engine=engine)


def kept(job: Segmented, steps: int) -> tuple[Trace, dict[Digest, bytes]]:
    states: dict[Digest, bytes] = {}
    return job.run(steps, states.__setitem__), states


def primes_below(most: int) -> int:
    flags = bytearray(b"\1") * most
    flags[0] = flags[1] = 0
    for p in range(2, int(most**0.5) + 1):
        if flags[p]:
            flags[p * p :: p] = bytes(len(range(p * p, most, p)))
    return sum(flags)


def test_the_sample_counts_primes() -> None:
    """It does real work, and the answer is right."""
    trace = sieve().run(5)
    expected = f"{primes_below(65536 * BLOCKS)}\n".encode()
    assert trace.result.reason is Reason.FINISHED
    assert trace.result.outputs == {"primes.txt": expected}
    assert trace.result.fuel == sum(trace.fuel) + decode_state(sieve().start()).fuel
    assert len(trace.digests) == len(trace.fuel) + 1 == 4


def test_any_segment_can_be_done_again() -> None:
    """From the preimage of each state alone, a fresh machine gets the next digest and the same fuel."""
    trace, states = kept(sieve(), 3)
    assert all(content_digest(preimage) == digest for digest, preimage in states.items())
    again = [sieve().rerun(states[digest], 3) for digest in trace.digests[:-1]]
    assert [(segment.digest, segment.fuel) for segment in again] == list(
        zip(trace.digests[1:], trace.fuel, strict=True)
    )
    assert again[-1].ended is Reason.FINISHED


def test_a_segment_splits_into_steps() -> None:
    """The finer trace of a segment ends where the segment does: what a dispute is bisected on."""
    trace, states = kept(sieve(), 4)
    fine = sieve().run(1)
    steps = sieve().trace(states[trace.digests[1]], 4)
    assert [step.digest for step in steps] == list(fine.digests[5:9])
    assert steps[-1].digest == trace.digests[2]
    assert sum(step.fuel for step in steps) == trace.fuel[1]


@pytest.mark.parametrize("unequal", [False, True])
def test_a_state_at_any_unit_is_that_behind_the_last_step(unequal: bool) -> None:
    """However long steps are, and however many points are asked for at once: as if every step had been digested."""
    module = wat(UNEQUAL)
    job = Segmented(module, task(module, memory_bytes=16 << 20)) if unequal else sieve()
    whole, states = kept(job, 1)
    start = states[whole.digests[0]]
    ends = [0, *accumulate(whole.fuel)]
    points = sorted(
        {max(0, end + more) for end in ends for more in (-1, 0, 1)} | {ends[-1] // 3, 2 * ends[-1]}
    )
    wanted = [bisect_right(ends, point) - 1 for point in points]
    found = job.at_units(start, len(whole.fuel), points)
    assert found == [(whole.digests[at], ends[at]) for at in wanted]
    for point, at in zip(points, wanted, strict=True):
        assert job.at_units(start, len(whole.fuel), [point]) == [(whole.digests[at], ends[at])]


def test_an_interpreter_agrees_with_the_compiler() -> None:
    """Native code and a portable interpreter burn the same fuel and reach the same digests: nothing of the processor shows."""
    native, portable = sieve(blocks=3).run(1), sieve("portable", blocks=3).run(1)
    assert native == portable


def test_nans_do_not_show_the_processor() -> None:
    """Arithmetic on NaNs gives one NaN, in memory and in globals, compiled and interpreted."""
    module = wat(f"""(module {MEMORY} (global $g (mut f64) (f64.const nan:0x4000000000123)) (global $h (mut f32) (f32.const 0))
      (func (export "clusterai_step") (param i64) (result i32)
        (f64.store (i32.const 0) (f64.add (global.get $g) (f64.const 1)))
        (f64.store (i32.const 8) (f64.div (f64.const 0) (f64.const 0)))
        (global.set $h (f32.sqrt (f32.const -1)))
        (i64.eq (local.get 0) (i64.const 1))))""")
    engines: tuple[Engine, Engine] = ("native", "portable")
    traces = [Segmented(module, task(module), engine=engine).run(1) for engine in engines]
    assert traces[0] == traces[1]
    job = Segmented(module, task(module))
    first = decode_state(job.start())
    assert first.globals_ == (0x7FF4000000000123, 0)
    _, states = kept(job, 1)
    assert job.rerun(canonical.encode(first)).digest == traces[0].digests[1]
    assert decode_state(states[traces[0].digests[1]]).globals_[1] == 0x7FC00000


def test_the_host_side_is_part_of_the_state() -> None:
    """Files, chance, clock and log go on in a re-run where they were."""
    module = wat(f"""(module {calls("random_get", "clock_time_get", "fd_write", "path_open")} {MEMORY}
      (data (i32.const 100) "out/x") (global $fd (mut i32) (i32.const 0))
      (func (export "clusterai_step") (param i64) (result i32)
        (if (i64.eqz (local.get 0)) (then
          (drop (call $path_open (i32.const 3) (i32.const 0) (i32.const 100) (i32.const 5) (i32.const 1) (i64.const 64)
            (i64.const 0) (i32.const 0) (i32.const 0)))
          (global.set $fd (i32.load (i32.const 0)))))
        (drop (call $random_get (i32.const 200) (i32.const 8)))
        (drop (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 208)))
        (i32.store (i32.const 8) (i32.const 200)) (i32.store (i32.const 12) (i32.const 16))
        (drop (call $fd_write (global.get $fd) (i32.const 8) (i32.const 1) (i32.const 16)))
        (drop (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16)))
        (i64.eq (local.get 0) (i64.const 3))))""")
    job = Segmented(module, task(module))
    trace, states = kept(job, 1)
    written = trace.result.outputs["x"]
    assert len(written) == 64
    assert len({written[at : at + 8] for at in range(0, 64, 16)}) == 4
    clocks = [int.from_bytes(written[at + 8 : at + 16], "little") for at in range(0, 64, 16)]
    assert clocks == sorted(set(clocks))
    assert clocks[0] // 10**9 == 1_000_000
    for j in range(4):
        assert Segmented(module, task(module)).rerun(states[trace.digests[j]]).digest == trace.digests[j + 1]


def test_another_seed_is_another_run() -> None:
    """Every digest is of one task: seed, arguments and inputs included."""
    module = sample()
    one = Segmented(module, task(module, ("sieve", "1"))).run(1)
    other = Segmented(module, task(module, ("sieve", "2"))).run(1)
    assert not set(one.digests) & set(other.digests)


def test_a_forged_preimage_is_refused() -> None:
    """Noise, another task's state, a wrong size, a wrong number of globals and a bad page are no states."""
    job = sieve(blocks=1)
    good = decode_state(job.start())
    for wrong in (
        b"",
        b"noise",
        canonical.encode(msgspec.structs.replace(good, task=bytes(32))),
        canonical.encode(msgspec.structs.replace(good, size=1, pages=())),
        canonical.encode(msgspec.structs.replace(good, size=60_000)),
        canonical.encode(msgspec.structs.replace(good, globals_=(1,))),
        canonical.encode(msgspec.structs.replace(good, globals_=(2**40, 0))),
        canonical.encode(msgspec.structs.replace(good, pages=((7, bytes(65536)),))),
    ):
        with pytest.raises(canonical.Malformed):
            job.rerun(wrong)


def test_a_forged_host_side_overflows_nothing() -> None:
    """Counters near the end of 64 bits, and descriptors of nothing, are refused or run; the host raises nothing else."""
    module = wat(f"""(module {calls("random_get", "clock_time_get", "fd_write", "fd_read", "path_open")} {MEMORY}
      (func (export "clusterai_step") (param i64) (result i32)
        (drop (call $random_get (i32.const 0) (i32.const 64)))
        (drop (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 0)))
        (i32.store (i32.const 4) (i32.const 64))
        (drop (call $fd_write (i32.const 9) (i32.const 0) (i32.const 1) (i32.const 100)))
        (drop (call $fd_read (i32.const 9) (i32.const 0) (i32.const 1) (i32.const 100)))
        (drop (call $path_open (i32.const 9) (i32.const 0) (i32.const 100) (i32.const 5) (i32.const 1) (i64.const 64)
            (i64.const 0) (i32.const 0) (i32.const 0)))
        (i32.const 0)))""")
    job = Segmented(module, task(module))
    good = decode_state(job.start())
    for most in (2**62, 2**63 - 1, 2**64 - 1):
        for opened in (
            Descriptor("file", "out/gone", most),
            Descriptor("dir", "../../x"),
            Descriptor("file", "in/none", most, 1),
            Descriptor("stdin", "", most),
        ):
            system = msgspec.structs.replace(
                good.system,
                clock_ns=most,
                random_at=most,
                printed=most,
                descriptors=((9, opened),),
                files={"out/gone": b"x"},
            )
            for wrong in (system, msgspec.structs.replace(system, clock_ns=0, random_at=0, printed=0)):
                forged = msgspec.structs.replace(
                    good, system=wrong, fuel=min(most, 2**62), step=min(most, 2**62)
                )
                try:
                    assert job.rerun(canonical.encode(forged), 2).ended in (
                        None,
                        Reason.TOO_MUCH_OUTPUT,
                        Reason.OUT_OF_FUEL,
                    )
                except canonical.Malformed:
                    continue


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 400)
)
def test_a_bent_preimage_is_refused_or_runs(bends: list[tuple[int, int]], cut: int) -> None:
    """Whatever a prover sends as a state, a re-run answers with a segment or says that it is none."""
    job = sieve(blocks=1)
    good = job.start()
    tail = bytearray(good[-400:])
    for place, byte in bends:
        if place < len(tail):
            tail[place] = byte
    for bent in (good[:-400] + bytes(tail), good[: 400 - cut], bytes(tail) + good[400:]):
        try:
            assert len(job.rerun(bent).digest) == 32
        except canonical.Malformed:
            continue


def test_a_cheat_in_one_byte_shows() -> None:
    """Changing one bit of a state changes where its segment ends."""
    job = sieve(blocks=2)
    trace, states = kept(job, 1)
    good = decode_state(states[trace.digests[1]])
    bent = msgspec.structs.replace(good, globals_=(good.globals_[0], good.globals_[1] + 1))
    assert job.rerun(canonical.encode(bent)).digest != trace.digests[2]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("(memory 1)", "memory is not exported"),
        (
            MEMORY + "(table $t 2 funcref) (func (drop (table.grow $t (ref.null func) (i32.const 1))))",
            "table.grow",
        ),
        (MEMORY + "(table $t 2 funcref) (func (table.set $t (i32.const 0) (ref.null func)))", "table.set"),
        (MEMORY + '(data $d "x") (func (data.drop $d))', "data.drop"),
        (MEMORY + "(global (mut externref) (ref.null extern))", "no number"),
    ],
)
def test_state_that_can_not_be_seen_is_refused(body: str, why: str) -> None:
    """A module that could remember something where no host can look is not cut into segments."""
    module = wat(f'(module {body} (func (export "clusterai_step") (param i64) (result i32) (i32.const 1)))')
    with pytest.raises(BadModule, match=why):
        Segmented(module, task(module))


def test_ordinary_modules_are_one_segment() -> None:
    """A `_start` is one step: its state before and after, and marks of fuel between, run from the start."""
    module = wat(f"""(module {MEMORY} (func (export "_start") (local $i i32)
      (loop $l (i32.store (i32.const 0) (local.get $i)) (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $l (i32.lt_u (local.get $i) (i32.const 10000))))))""")
    job = Segmented(module, task(module))
    trace, states = kept(job, 1)
    assert len(trace.digests) == 2
    assert job.rerun(states[trace.digests[0]]).digest == trace.digests[1]
    marks = [job.at_fuel(mark) for mark in (10_000, 20_000, 30_000)]
    assert len(set(marks)) == 3
    assert marks == [
        Segmented(module, task(module), engine="portable").at_fuel(mark) for mark in (10_000, 20_000, 30_000)
    ]


def test_a_state_that_leads_beyond_what_may_be_burnt_is_none() -> None:
    """Put into a state is a loop of hours, under a fuel set back: whoever does the segment again is done at once, and says so."""
    module = wat(f"""(module {MEMORY} (func (export "clusterai_step") (param $step i64) (result i32) (local $n i64)
      (local.set $n (i64.load (i32.const 0)))
      (loop $again
        (local.set $n (i64.sub (local.get $n) (i64.const 1)))
        (br_if $again (i64.gt_s (local.get $n) (i64.const 0))))
      (i64.ge_u (local.get $step) (i64.const 40))))""")
    job = Segmented(module, task(module, fuel=1 << 50))
    trace, states = kept(job, 1)
    good, each = decode_state(states[trace.digests[2]]), trace.fuel[2]
    assert job.trace(canonical.encode(good), 1, burn=each)[-1].digest == trace.digests[3]
    endless = canonical.encode(
        msgspec.structs.replace(good, fuel=0, pages=((0, b"\xff" * 7 + bytes(65_529)),))
    )
    with pytest.raises(canonical.Malformed, match="more than"):
        job.trace(endless, 1, burn=each)
    with pytest.raises(canonical.Malformed, match="more than"):
        job.at_units(endless, 1, (each // 2, each), burn=each)
    with pytest.raises(canonical.Malformed, match="more than"):
        job.trace(canonical.encode(good), 1, burn=each - 1)


def test_fuel_ends_at_the_same_place_again() -> None:
    """A job that runs out of fuel in segment j does so in the re-run of segment j."""
    module = sample()
    short = task(module, ("sieve", "9"), fuel=8_000_000, memory_bytes=16 << 20)
    trace, states = kept(Segmented(module, short), 1)
    assert trace.result.reason is Reason.OUT_OF_FUEL
    assert trace.result.fuel == 8_000_000
    last = Segmented(module, short).rerun(states[trace.digests[-2]])
    assert (last.digest, last.ended) == (trace.digests[-1], Reason.OUT_OF_FUEL)
