"""WASM by wasmtime, so that the same task gives the same bytes on every machine, and any part of it can be run again.

What could differ between machines is switched off (threads, relaxed vectors) or pinned (NaNs, fuel, clock, chance).
Fuel is a count of instructions by wasmtime's own table, so the engine's version is part of the determinism class.

A module that exports `clusterai_step(i64) -> i32` is cut at its steps: 0 asks for the next, 1 says done, anything else is
its exit code. `_initialize`, if it is there, runs before the first and is not metered as one. A module with `_start` alone is
a single step: wasmtime can't take a running stack apart, and we don't pretend that it can. `at_fuel` still compares two
machines in the middle of such a step, at the price of running it from its start.

This is the engine alone. It is safe against a hostile module's code, not against a fault in wasmtime's compiler, and it
can't be stopped while it compiles: `wasmbox` runs it in a process of its own behind the native walls.
"""

import ctypes
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import msgspec
import wasmtime
from wasmtime import FuncType, TrapCode, ValType
from wasmtime import _ffi as ffi  # The values of globals as bits are nowhere else.

from clusterai.protocol import canonical
from clusterai.protocol.canonical import content_digest
from clusterai.protocol.ids import Digest
from clusterai.sandbox.core import module as modules
from clusterai.sandbox.core import wasi
from clusterai.sandbox.core.module import PAGE, BadModule
from clusterai.sandbox.core.spec import KiB, Reason, Task
from clusterai.sandbox.core.state import State, decode_state, memory_of, pages_of

STEP, BEGIN, START = "clusterai_step", "_initialize", "_start"
STACK_BYTES = 512 * KiB
CALL_FUEL = 500
"""Of each call to the host, and one more for each byte it touches: or a program could make us work for nothing."""

MOST_COPIES = 4
"""Of a state, for each point at which one is asked for: beyond, running the segment once more is cheaper."""

SPARE_FUEL = 1_000_000
"""Beyond a bound on what may be burnt, some milliseconds: who runs just up to the bound isn't stopped by it."""

_one_at_a_time = threading.Lock()
"""The binding keeps a host function's exception in a global of the process: two calls at once could swap theirs."""

OnLog = Callable[[Literal["stdout", "stderr"], bytes], None]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    reason: Reason
    exit_code: int = 0
    why: str = ""
    fuel: int = 0
    memory_bytes: int = 0
    outputs: dict[str, bytes] = {}


class Segment(msgspec.Struct, frozen=True):
    digest: Digest
    """Of the state after it."""
    fuel: int
    steps: int
    ended: Reason | None


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider commits to: h_0 … h_T, and the meter log."""

    digests: tuple[Digest, ...]
    fuel: tuple[int, ...]
    """Of each segment, so one less than the digests."""
    result: Result


class Part(msgspec.Struct, frozen=True):
    """Some segments in a row: the states (h_0 too, where it begins), the fuel of each, and how the job ended, if it did."""

    digests: tuple[Digest, ...]
    fuel: tuple[int, ...]
    burnt: int
    """Since the job's beginning."""
    result: Result | None


class _Over(BaseException):
    """It printed more than it may."""


class _View:
    """A module's memory with its bounds checked; before there is one, every pointer is beyond it."""

    def __init__(self, store: wasmtime.Store) -> None:
        self._store = store
        self.memory: wasmtime.Memory | None = None

    def _check(self, at: int, size: int) -> wasmtime.Memory:
        if self.memory is None or at + size > self.memory.data_len(self._store):
            raise wasi.Fault
        return self.memory

    def read(self, at: int, size: int) -> bytes:
        memory = self._check(at, size)
        return (
            ctypes.string_at(ctypes.addressof(memory.data_ptr(self._store).contents) + at, size)
            if size
            else b""
        )

    def whole(self) -> memoryview:
        """All of it, as it is now: to be read before anything runs again."""
        if self.memory is None or not (size := self.memory.data_len(self._store)):
            return memoryview(b"")
        start = ctypes.addressof(self.memory.data_ptr(self._store).contents)
        return memoryview((ctypes.c_ubyte * size).from_address(start)).cast("B")

    def write(self, at: int, data: bytes) -> None:
        memory = self._check(at, len(data))
        if data:
            ctypes.memmove(ctypes.addressof(memory.data_ptr(self._store).contents) + at, data, len(data))


Engine = Literal["native", "portable"]


def configuration(engine: Engine = "native") -> wasmtime.Config:
    """`portable` interprets instead of compiling: some 20 times slower, on any processor, with the same digests and fuel."""
    config = wasmtime.Config()
    if engine == "portable":
        config.target = "pulley64"
    config.consume_fuel = True
    config.epoch_interruption = True
    config.cranelift_nan_canonicalization = True
    config.max_wasm_stack = STACK_BYTES
    config.parallel_compilation = False
    config.wasm_threads = False
    config.wasm_relaxed_simd = False
    config.wasm_memory64 = False
    config.wasm_multi_memory = False
    config.wasm_tail_call = False
    config.wasm_function_references = False
    config.wasm_gc = False
    config.wasm_exceptions = False
    return config


def wat(source: str) -> bytes:
    """Compile the text form."""
    return bytes(wasmtime.wat2wasm(source))


def sample(name: str = "sieve") -> bytes:
    """A module that comes with us: `sieve` counts primes, a block of 65536 numbers a step."""
    return wat((Path(__file__).parents[1] / "modules" / f"{name}.wat").read_text())


def determinism_class() -> str:
    """Machines that name the same class give the same digests and the same fuel."""
    from importlib.metadata import version  # 40 ms that a worker doesn't need.

    return f"wasm/wasmtime-{version('wasmtime')}"


class _Instance:
    """One module instantiated, with its host side."""

    def __init__(
        self,
        engine: wasmtime.Engine,
        compiled: wasmtime.Module,
        task: Task,
        inputs: dict[str, bytes],
        system: wasi.System | None,
        on_log: OnLog | None,
    ) -> None:
        self.store = wasmtime.Store(engine)
        self.store.set_epoch_deadline(1)
        limits = task.limits
        self.store.set_limits(limits.memory_bytes, 1_000_000, 1, 16, 1)
        self.view = _View(self.store)
        self.wasi = wasi.Wasi(task, inputs, system, on_log)
        linker = wasmtime.Linker(engine)
        i32, i64 = ValType.i32(), ValType.i64()
        for wanted in compiled.imports:
            if wanted.module != modules.WASI or wanted.name not in wasi.FUNCTIONS:
                raise BadModule(f"it imports {wanted.module}.{wanted.name}: only WASI preview 1 is here")
            kinds = wasi.FUNCTIONS[wanted.name][1]
            params = [i32 if kind == "i" else i64 for kind in kinds]
            results = [] if wanted.name == "proc_exit" else [i32]
            linker.define_func(modules.WASI, wanted.name, FuncType(params, results), self._host(wanted.name))
        self._instance: wasmtime.Instance | None = None
        self._linker, self._compiled = linker, compiled
        self.globals_: list[wasmtime.Global] = []

    def instantiate(self) -> None:
        """Raises: what the module's own start function raises."""
        self._instance = self._linker.instantiate(self.store, self._compiled)
        memory = self._instance.exports(self.store).get(modules.MEMORY)
        self.view.memory = memory if isinstance(memory, wasmtime.Memory) else None

    def _host(self, name: str) -> Callable[..., int | None]:
        def call(*args: int) -> int | None:
            answer = self.wasi.call(name, self.view, args)
            cost = CALL_FUEL + self.wasi.touched
            self.store.set_fuel(max(0, self.store.get_fuel() - cost))
            if self.wasi.over:
                raise _Over
            return answer

        return call

    def export(self, name: str) -> Any:
        assert self._instance is not None
        return self._instance.exports(self.store).get(name)

    def memory_bytes(self) -> int:
        return self.view.memory.data_len(self.store) if self.view.memory is not None else 0


class Segmented:
    """One task on one module, run as segments of steps, or again from the preimage of any state.

    Raises:
        BadModule: not valid, imports what is not here, or keeps state where it can't be seen.
    """

    def __init__(
        self,
        module: bytes,
        task: Task,
        inputs: Mapping[str, bytes] | None = None,
        on_log: OnLog | None = None,
        engine: Engine = "native",
    ) -> None:
        """
        Args:
            inputs: the content of the task's inputs, by name; its caller has verified it.
        """
        self.task = task
        self._digest = canonical.digest(task)
        self._inputs = dict(inputs or {})
        self._on_log = on_log
        self._facts = modules.read(module)
        self._kinds = [kind for kind, mutable in self._facts.globals_ if mutable]
        self.stepped = STEP in self._facts.exports
        if not self.stepped and START not in self._facts.exports:
            raise BadModule(f"it exports neither {STEP} nor {START}")
        if self.stepped and self._facts.unseen:
            raise BadModule(f"its state can't be seen between steps: {'; '.join(self._facts.unseen)}")
        self._engine = wasmtime.Engine(configuration(engine))
        opened = modules.opened(module)
        try:
            self._compiled = wasmtime.Module(self._engine, opened)
        except wasmtime.WasmtimeError as error:
            raise BadModule(_first_line(error)) from None
        self._check_signatures()

    def _check_signatures(self) -> None:
        wanted: dict[str, tuple[list[str], list[str]]] = {
            STEP: (["i64"], ["i32"]),
            BEGIN: ([], []),
            START: ([], []),
        }
        for export in self._compiled.exports:
            kind = export.type
            if export.name in wanted:
                if not isinstance(kind, FuncType):
                    raise BadModule(f"{export.name} is no function")
                found = ([str(param) for param in kind.params], [str(result) for result in kind.results])
                if found != wanted[export.name]:
                    raise BadModule(
                        f"{export.name} takes {found[0]} and returns {found[1]}, not {wanted[export.name]}"
                    )

    def interrupt(self) -> None:
        """End a call that runs in another thread; it ends as out of time."""
        self._engine.increment_epoch()

    # -- running ------------------------------------------------------------------------------------------------------

    def run(self, steps: int = 1, keep: Callable[[Digest, bytes], None] | None = None) -> Trace:
        """Run to the end, with a digest after every `steps` steps.

        Args:
            keep: called with each state's digest and preimage, should somebody ask for it later.
        """
        whole = self.part(steps, keep)
        assert whole.result is not None
        return Trace(digests=whole.digests, fuel=whole.fuel, result=whole.result)

    def part(
        self,
        steps: int,
        keep: Callable[[Digest, bytes], None] | None = None,
        preimage: bytes | None = None,
        enough: Callable[[int], bool] = lambda _: False,
    ) -> Part:
        """The same from any state on, until `enough` says so of a number of segments.

        Args:
            preimage: of the state to go on from; without it from the beginning, with h_0.

        Raises:
            canonical.Malformed: the preimage is not a state of this task, or of its end.
        """
        assert steps > 0
        with _one_at_a_time:
            digests, log = list[Digest](), list[int]()
            if preimage is None:
                live = self._begin()
                digests.append(self._kept(self._snapshot(live), keep))
            else:
                live = self._restore(decode_state(preimage))
                if live.ended is not None:
                    raise canonical.Malformed("nothing follows the end")
            while live.ended is None and not enough(len(log)):
                before = live.fuel
                self._advance(live, steps)
                digests.append(self._kept(self._snapshot(live), keep))
                log.append(live.fuel - before)
            result = None if live.ended is None else self._result(live)
            return Part(tuple(digests), tuple(log), live.fuel, result)

    def execute(self) -> Result:
        """Run to the end without a digest."""
        with _one_at_a_time:
            live = self._begin()
            while live.ended is None:
                self._advance(live, 1 << 20)
            return self._result(live)

    def start(self) -> bytes:
        """The preimage of h_0."""
        with _one_at_a_time:
            return canonical.encode(self._snapshot(self._begin()))

    def rerun(self, preimage: bytes, steps: int = 1) -> Segment:
        """Do one segment again from the state before it.

        Raises:
            canonical.Malformed: the preimage is not a state of this task.
        """
        return self.trace(preimage, steps, every=steps)[-1]

    def trace(self, preimage: bytes, steps: int, every: int = 1, burn: int = 0) -> list[Segment]:
        """The same with a digest after every `every` steps: the finer trace that a dispute is bisected on.

        Args:
            burn: the most fuel that all of them may take; 0: what the task allows.

        Raises:
            canonical.Malformed: the preimage is not a state of this task, or more would be burnt.
        """
        assert 0 < every <= steps
        with _one_at_a_time:
            live = self._restore(decode_state(preimage), burn)
            found: list[Segment] = []
            done = 0
            while done < steps and (live.ended is None or not found):
                before, first = live.fuel, live.step
                self._advance(live, min(every, steps - done))
                done += every
                digest = content_digest(canonical.encode(self._snapshot(live)))
                found.append(Segment(digest, live.fuel - before, live.step - first, live.ended))
            live.hold()
            return found

    def at_units(
        self, preimage: bytes, steps: int, points: Sequence[int], burn: int = 0
    ) -> list[tuple[Digest, int]]:
        """The states of the segment at so many units: behind the last step that had ended by then; and what it had spent.

        Digested are these alone: a digest takes as long as memory is large, however short a step is. Whether a step leads beyond a
        point is known when it has, so a copy is taken before each that may, as long as steps go; where one was longer than
        all before it, the segment is run once more.

        Args:
            points: in their order; beyond the segment's end it is its end.
            burn: as `trace`.

        Raises:
            As `trace`.
        """
        state = decode_state(preimage)
        with _one_at_a_time:
            found = {0: (content_digest(preimage), 0)}
            live = self._restore(state, burn)
            counts = self._run_by(live, steps, points, found)
            live.hold()
            missed = sorted(set(counts) - found.keys())
            if missed:
                live = self._restore(state)
                first = live.fuel
                for before, count in pairwise((0, *missed)):
                    self._advance(live, count - before)
                    found[count] = self._digested(self._snapshot(live)), live.fuel - first
            return [found[count] for count in counts]

    def _run_by(
        self, live: "_Live", steps: int, points: Sequence[int], found: dict[int, tuple[Digest, int]]
    ) -> list[int]:
        """How many steps have ended by each of these units; `found`: the states behind so many steps, where a copy was there."""
        first, done, spent, longest = live.fuel, 0, 0, 0
        copies = MOST_COPIES * len(points)
        counts: list[int] = []
        while done < steps and live.ended is None and len(counts) < len(points):
            copy: State | None = None
            if done and copies and spent + 2 * longest >= points[len(counts)]:
                copy, copies = self._snapshot(live), copies - 1
            before = spent
            self._advance(live, 1)
            spent = live.fuel - first
            longest = max(longest, spent - before)
            while len(counts) < len(points) and points[len(counts)] < spent:
                counts.append(done)
                if copy is not None and done not in found:
                    found[done] = self._digested(copy), before
            done += 1
        if len(counts) < len(points):
            found[done] = self._digested(self._snapshot(live)), spent
        return counts + [done] * (len(points) - len(counts))

    @staticmethod
    def _digested(state: State) -> Digest:
        return content_digest(canonical.encode(state))

    def at_fuel(self, fuel: int) -> Digest:
        """The state at which `fuel` is spent, run from the start: what two machines compare inside one long step.

        The stack is not in it, so nobody can go on from there.
        """
        with _one_at_a_time:
            live = self._begin()
            live.cap = fuel
            while live.ended is None:
                self._advance(live, 1 << 20)
            return content_digest(canonical.encode(self._snapshot(live)))

    # -- inside -------------------------------------------------------------------------------------------------------

    def _new(self, system: wasi.System | None, on_log: OnLog | None) -> "_Live":
        return _Live(
            _Instance(self._engine, self._compiled, self.task, self._inputs, system, on_log),
            self.task.limits.fuel,
        )

    def _begin(self) -> "_Live":
        live = self._new(None, self._on_log)
        self._metered(live, live.instance.instantiate)
        if live.ended is None:
            self._find_globals(live)
        if live.ended is None and self.stepped and (begin := live.instance.export(BEGIN)) is not None:
            self._metered(live, lambda: begin(live.instance.store))
        return live

    def _find_globals(self, live: "_Live") -> None:
        names = [
            f"{modules.GLOBAL}{index}" for index, (_, mutable) in enumerate(self._facts.globals_) if mutable
        ]
        live.instance.globals_ = [live.instance.export(name) for name in names]

    def _advance(self, live: "_Live", steps: int) -> None:
        name = STEP if self.stepped else START
        for _ in range(steps):
            if live.ended is not None:
                return
            function, store = live.instance.export(name), live.instance.store
            answer = self._metered(live, partial(function, store, *([live.step] if self.stepped else [])))
            live.step += 1
            if live.ended is not None:
                return
            if not self.stepped or answer == 1:
                live.ended = Reason.FINISHED
            elif answer != 0:
                live.ended, live.exit_code = Reason.FAILED, int(answer) & 0xFFFFFFFF

    def _metered(self, live: "_Live", call: Callable[[], Any]) -> Any:
        """Call into the module with what fuel is left, and say how it ended if it did."""
        store = live.instance.store
        left = max(0, min(live.cap, self.task.limits.fuel) - live.fuel)
        store.set_fuel(left)
        try:
            return call()
        except wasi.Exit as exit_:
            live.ended = Reason.FINISHED if exit_.code == 0 else Reason.FAILED
            live.exit_code = exit_.code
        except _Over:
            live.ended = Reason.TOO_MUCH_OUTPUT
        except wasmtime.Trap as trap:
            live.ended, live.why = self._trapped(live, trap)
        except wasmtime.WasmtimeError as error:
            text = _first_line(error)
            live.ended = Reason.OUT_OF_MEMORY if "memory" in text and "limit" in text else Reason.TRAPPED
            live.why = text
        finally:
            live.fuel += left - store.get_fuel() if live.ended is not Reason.OUT_OF_FUEL else left
        return None

    def _trapped(self, live: "_Live", trap: wasmtime.Trap) -> tuple[Reason, str]:
        code = trap.trap_code
        if code is TrapCode.OUT_OF_FUEL:
            return Reason.OUT_OF_FUEL, ""
        if code is TrapCode.INTERRUPT:
            return Reason.OUT_OF_TIME, ""
        name = code.name.lower().replace("_", " ") if code is not None else _first_line(trap)
        held, most = live.instance.memory_bytes(), self.task.limits.memory_bytes
        # A refused memory.grow is only seen by the program, which then gives up. Allocators double what they hold.
        if code is TrapCode.UNREACHABLE and 2 * held > most:
            return (
                Reason.OUT_OF_MEMORY,
                f"it gave up holding {held} bytes of memory_bytes = {most}: ask for more",
            )
        return Reason.TRAPPED, name

    def _snapshot(self, live: "_Live") -> State:
        instance = live.instance
        memory = instance.view.whole()
        return State(
            task=self._digest,
            step=live.step,
            fuel=live.fuel,
            ended=live.ended,
            exit_code=live.exit_code,
            size=len(memory) // PAGE,
            pages=pages_of(memory),
            globals_=tuple(
                _bits(instance.store, global_, kind)
                for global_, kind in zip(instance.globals_, self._kinds, strict=False)
            ),
            system=instance.wasi.snapshot(),
        )

    def _kept(self, state: State, keep: Callable[[Digest, bytes], None] | None) -> Digest:
        preimage = canonical.encode(state)
        digest = content_digest(preimage)
        if keep is not None:
            keep(digest, preimage)
        return digest

    def _restore(self, state: State, burn: int = 0) -> "_Live":
        """Raises: canonical.Malformed."""
        if state.task != self._digest:
            raise canonical.Malformed("it is a state of another task")
        if state.size * PAGE > self.task.limits.memory_bytes:
            raise canonical.Malformed("its memory has a size that this module's can't have")
        memory = memory_of(state)
        live = self._new(None, None)
        self._metered(live, live.instance.instantiate)
        store = live.instance.store
        if live.ended is not None and state.ended is None:
            raise canonical.Malformed("this module ends before its first step")
        self._find_globals(live)
        if len(state.globals_) != len(live.instance.globals_):
            raise canonical.Malformed("it has another number of globals")
        held = live.instance.view.memory
        if held is not None:
            more = state.size - held.size(store)
            if more < 0:
                raise canonical.Malformed("its memory has a size that this module's can't have")
            try:
                held.grow(store, more)
            except wasmtime.WasmtimeError:
                raise canonical.Malformed("its memory has a size that this module's can't have") from None
            if memory:
                held.write(store, memory, 0)
        elif state.size:
            raise canonical.Malformed("it has a memory, the module has none")
        for global_, kind, bits in zip(live.instance.globals_, self._kinds, state.globals_, strict=True):
            _set_bits(store, global_, kind, bits)
        live.instance.wasi = wasi.Wasi(self.task, self._inputs, state.system, self._on_log)
        live.step, live.fuel = state.step, state.fuel
        live.ended, live.exit_code = state.ended, state.exit_code
        if burn:
            live.burn, live.most = burn, state.fuel + burn
            live.cap = min(live.cap, live.most + SPARE_FUEL)
        return live

    def _result(self, live: "_Live") -> Result:
        assert live.ended is not None
        return Result(
            reason=live.ended,
            exit_code=live.exit_code,
            why=live.why,
            fuel=live.fuel,
            memory_bytes=live.instance.memory_bytes(),
            outputs=live.instance.wasi.outputs(),
        )


class _Live:
    """A run in the middle."""

    def __init__(self, instance: _Instance, cap: int) -> None:
        self.instance = instance
        self.cap = cap
        self.burn = self.most = 0
        """what may be burnt from the state that it went on from, and up to where; 0: all"""
        self.step = 0
        self.fuel = 0
        self.ended: Reason | None = None
        self.exit_code = 0
        self.why = ""

    def hold(self) -> None:
        """
        Raises:
            canonical.Malformed: more was burnt than may be.
        """
        if self.burn and self.fuel > self.most:
            raise canonical.Malformed(f"from it more than {self.burn} fuel is burnt")


def _first_line(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())[:300]


def _bits(store: wasmtime.Store, global_: wasmtime.Global, kind: int) -> int:
    """A global's bits; as a Python float a NaN would lose its own."""
    held = _raw(store, global_).of
    return held.i64 & wasi.U64 if kind in _WIDE else held.i32 & wasi.U32


def _set_bits(store: wasmtime.Store, global_: wasmtime.Global, kind: int, bits: int) -> None:
    """Raises: Malformed."""
    if not 0 <= bits <= (wasi.U64 if kind in _WIDE else wasi.U32):
        raise canonical.Malformed("a global has more bits than its type")
    value = _raw(store, global_)
    if kind in _WIDE:
        value.of.i64 = bits - (1 << 64) if bits >> 63 else bits
    else:
        value.of.i32 = bits - (1 << 32) if bits >> 31 else bits
    context, place = store._context(), global_._global  # pyright: ignore[reportPrivateUsage]
    wrong = bool(ffi.wasmtime_global_set(context, ctypes.byref(place), ctypes.byref(value)))  # pyright: ignore[reportUnknownArgumentType]
    assert not wrong


_WIDE = (0x7E, 0x7C)
"""i64 and f64."""


def _raw(store: wasmtime.Store, global_: wasmtime.Global) -> Any:
    value = ffi.wasmtime_val_t()
    context, place = store._context(), global_._global  # pyright: ignore[reportPrivateUsage]
    ffi.wasmtime_global_get(context, ctypes.byref(place), ctypes.byref(value))
    return value
