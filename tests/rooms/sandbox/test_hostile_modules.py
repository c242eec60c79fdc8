"""WASM modules that attack: without end, without bottom, malformed, or asking for what is not theirs."""

import asyncio
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterai.sandbox import Leash, Limits, Outcome, Reason, Task, Wasm
from clusterai.sandbox.adapters.wasm import Segmented, sample, wat
from clusterai.sandbox.adapters.wasmbox import WasmRunner
from clusterai.sandbox.core.module import BadModule
from tests.rooms.sandbox.boxes import folder, store
from tests.rooms.sandbox.guests import MEMORY, run, start, task


@cache
def runner() -> WasmRunner:
    return WasmRunner(store(), folder())


def boxed(module: bytes, *, leash: Leash | None = None, **limits: int) -> Outcome:
    wanted = Task(
        image=Wasm(store().put(module)), limits=Limits(**{"memory_bytes": 16 << 20, "wall_s": 20, **limits})
    )
    return asyncio.run(runner().run(wanted, leash=leash))


LOOP = start("(loop $l (br $l))")


def test_a_loop_without_end_burns_its_fuel() -> None:
    """It ends when its fuel does, to the unit."""
    result = run(LOOP, fuel=10**6)
    assert (result.reason, result.fuel) == (Reason.OUT_OF_FUEL, 10**6)


def test_time_ends_what_fuel_would_not() -> None:
    """With fuel for years, the wall clock ends it, from outside; and so does the end of the lease."""
    assert boxed(LOOP, fuel=2**62, wall_s=2).reason is Reason.OUT_OF_TIME
    leash = Leash()
    leash.end()
    assert boxed(LOOP, fuel=2**62, leash=leash).reason is Reason.LEASE_ENDED


def test_memory_grows_to_its_limit_and_no_further() -> None:
    """Growing is refused at memory_bytes, and a module that gives up there is told that memory was why."""
    greedy = start("(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)")
    result = run(greedy, memory_bytes=16 << 20)
    assert result.reason is Reason.OUT_OF_MEMORY
    assert result.memory_bytes <= 16 << 20
    wide = start("", memory='(memory (export "memory") 4096)')
    assert run(wide, memory_bytes=16 << 20).reason is Reason.OUT_OF_MEMORY


def test_recursion_without_bottom_is_a_trap() -> None:
    """The stack is the module's own, and its end is told."""
    result = run(wat(f'(module {MEMORY} (func $f (export "_start") (call $f)))'), fuel=10**8)
    assert (result.reason, result.why) == (Reason.TRAPPED, "stack overflow")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("(unreachable)", "unreachable"),
        ("(drop (i32.load (i32.const -1)))", "memory out of bounds"),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "integer division by zero"),
    ],
)
def test_a_trap_is_named(body: str, why: str) -> None:
    """What no module may do ends it, by its name."""
    result = run(start(body))
    assert (result.reason, result.why) == (Reason.TRAPPED, why)


@pytest.mark.parametrize(
    "module",
    [
        b"",
        b"\0asm",
        b"\0asm\1\0\0\0",
        b"\x7fELF" + bytes(100),
        b"\0asm\2\0\0\0" + bytes(10),
        sample()[:-7],
        sample()[:60] + bytes(40) + sample()[100:],
        b"\0asm\1\0\0\0\x0a\xff\xff\xff\xff\x0f",
        b"\0asm\1\0\0\0\x07\x05\xff\xff\xff\xff\x0f",
    ],
)
def test_what_is_no_module_is_refused(module: bytes) -> None:
    """Noise, half a module, another format and lying sizes are refused before anything runs."""
    with pytest.raises(BadModule):
        Segmented(module, task(module))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(8, 2000), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(8, 2000),
)
def test_a_bent_module_is_refused_or_runs_to_an_end(bends: list[tuple[int, int]], cut: int) -> None:
    """Whatever bytes of a good module are changed or cut off, it is refused by name, or ends for a reason of the list."""
    module = bytearray(sample())
    for place, byte in bends:
        if place < len(module):
            module[place] = byte
    for bent in (bytes(module), bytes(module[:cut])):
        try:
            job = Segmented(bent, task(bent, ("sieve", "1"), memory_bytes=16 << 20, fuel=10**7))
            assert job.run(1).result.reason in Reason
        except BadModule:
            continue


@pytest.mark.parametrize(
    "text",
    [
        '(import "env" "system" (func (param i32) (result i32)))',
        '(import "wasi_snapshot_preview1" "no_such_call" (func))',
        '(import "wasi_snapshot_preview1" "fd_write" (func (param i32) (result i32)))',
        '(import "env" "memory" (memory 1))',
        '(import "wasi_unstable" "fd_write" (func (param i32 i32 i32 i32) (result i32)))',
        "(memory 1 2 shared)",
        "(memory i64 1)",
        "(func (result i32) (return_call 0))",
    ],
)
def test_unknown_imports_and_proposals_are_refused(text: str) -> None:
    """Host functions that are not WASI's, other shapes of them, and features that differ between machines."""
    module = wat(f'(module {text} (func (export "_start")))')
    job_or_error: object
    try:
        job_or_error = Segmented(module, task(module)).execute().reason
    except BadModule as error:
        job_or_error = str(error)
    assert isinstance(job_or_error, str)
    assert job_or_error not in (Reason.FINISHED, Reason.FAILED)


def test_a_hostile_module_is_refused_behind_the_walls() -> None:
    """The tenant reads why, and the node has run nothing."""
    outcome = boxed(b"\0asm garbage")
    assert outcome.reason is Reason.REFUSED
    assert "module" in outcome.why
    bad = wat('(module (import "env" "system" (func)) (func (export "_start")))')
    assert "env.system" in boxed(bad).why


def test_a_start_function_is_metered_as_well() -> None:
    """A loop in the start section ends by fuel, before the first step."""
    module = wat(f'(module {MEMORY} (func $s (loop $l (br $l))) (start $s) (func (export "_start")))')
    result = run(module, fuel=10**6)
    assert (result.reason, result.fuel) == (Reason.OUT_OF_FUEL, 10**6)


def test_the_host_s_work_is_paid_for() -> None:
    """Asking for gigabytes of chance costs fuel by the byte, so that few instructions can't buy much work."""
    module = start(
        "(loop $l (drop (call $random_get (i32.const 0) (i32.const 65536))) (br $l))", "random_get"
    )
    result = run(module, fuel=10**7)
    assert result.reason is Reason.OUT_OF_FUEL


def test_a_flood_of_output_is_cut() -> None:
    """Printing without end ends the module at output_bytes."""
    module = start(
        "(i32.store (i32.const 4) (i32.const 60000))"
        "(loop $l (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 60004))) (br $l))",
        "fd_write",
    )
    outcome = boxed(module, output_bytes=1 << 20)
    assert outcome.reason is Reason.TOO_MUCH_OUTPUT
    assert outcome.truncated


def test_the_host_s_files_do_not_exist_for_it() -> None:
    """Paths of the host, ways out and links open nothing."""
    for path in ("/etc/shadow", "../../etc/shadow", "proc/self/environ", "in/../../etc/shadow"):
        module = wat(f"""(module
          (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          {MEMORY} (data (i32.const 100) "{path}")
          (func (export "_start") (call $exit (call $open (i32.const 3) (i32.const 1) (i32.const 100) (i32.const {len(path)})
            (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 0)))))""")
        result = run(module)
        assert (result.reason, result.exit_code) in ((Reason.FAILED, 44), (Reason.FAILED, 76)), path


def test_the_walls_give_the_same_as_the_engine_alone() -> None:
    """Segments proven in a process behind the walls have the digests of the engine alone, and can be done again there."""
    module = sample()
    job = Task(image=Wasm(store().put(module)), argv=("sieve", "6"), limits=Limits(memory_bytes=16 << 20))

    async def test() -> None:
        proof = await runner().prove(job, 2, keep=True)
        assert proof.outcome.ok, proof.outcome
        alone = Segmented(module, job).run(2)
        assert (proof.digests, proof.meter) == (alone.digests, alone.fuel)
        assert (
            store().read(proof.outcome.outputs[0].digest) == b"33335\n" == alone.result.outputs["primes.txt"]
        )
        again = await runner().rerun(job, proof.digests[1], 2, every=1)
        assert again.outcome.ok, again.outcome
        assert again.digests[-1] == proof.digests[2]
        assert sum(again.meter) == proof.meter[1]
        forged = await runner().rerun(job, store().put(b"forged"), 2)
        assert forged.outcome.reason is Reason.TRAPPED, (
            "whoever names such a state is at fault, not this machine"
        )

    asyncio.run(test())
