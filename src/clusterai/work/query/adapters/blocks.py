"""A requester's program over blocks of rows, behind the sandbox's walls: no network, nothing kept, nothing told but its numbers.

    a slot of time for each block, whatever happens in it:  |--- program ---|...waiting...|--- program ---|...

Blocks run one after another in fixed slots, and the answer leaves when the last slot ends: neither how long a program took nor whether it
crashed shows outside. Each run sees its block alone: a fresh volume in memory, a fresh process tree, no clock that it could share.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from clusterai.sandbox import (
    LeaseStore,
    Limits,
    NativeRunner,
    Outcome,
    RootFs,
    Runner,
    Task,
    Wasm,
    WasmRunner,
)
from clusterai.sandbox.core.spec import MiB
from clusterai.vault.core.disclosure import MOST_OUTPUT_BYTES
from clusterai.vault.core.schema import Schema
from clusterai.work.query.adapters.computing import Columns, rows_of
from clusterai.work.query.core.blocks import (
    MOST_RESULT_BYTES,
    RESULT,
    ROWS,
    blocks_of,
    csv_of,
    noisy_sums,
    steps_of,
)
from clusterai.work.query.core.stream import Stream
from clusterai.work.query.spec import SPARE_S, Averaged, QuerySpec

PROGRAM = "program.py"
MOST_SAID_BYTES = 4096
"""Of what a program that failed wrote to stderr: its end."""
_WASM = b"\0asm"
_LIMITS = Limits(
    memory_bytes=512 * MiB,
    processes=32,
    disk_bytes=64 * MiB,
    files=256,
    output_bytes=1 * MiB,
    wall_s=1,
    cpu_s=1,
)


class RunsPrograms(Protocol):
    """What `averaged` needs: `Programs` is one, tests have another."""

    def store(self) -> contextlib.AbstractContextManager[LeaseStore]: ...

    async def run(
        self, program: bytes, args: tuple[str, ...], rows: bytes, wall_s: int, seed: int, store: LeaseStore
    ) -> Outcome: ...


class Programs:
    """Runs programs of requesters; where no walls can be had, there is none (`CannotSandbox`)."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            CannotSandbox.
        """
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._store = LeaseStore(folder / "nothing")
        self._native = NativeRunner(self._store, folder / "native")
        self._wasm: Runner | None = None

    @contextlib.contextmanager
    def store(self) -> Generator[LeaseStore]:
        """A store for one run, whose key dies with it."""
        with tempfile.TemporaryDirectory(dir=self._folder, prefix="run-") as place:
            store = LeaseStore(Path(place) / "store")
            try:
                yield store
            finally:
                store.end()

    async def run(
        self, program: bytes, args: tuple[str, ...], rows: bytes, wall_s: int, seed: int, store: LeaseStore
    ) -> Outcome:
        """One run of a program over these rows. Python, or WASM where it begins so."""
        is_wasm = program.startswith(_WASM)
        code = await asyncio.to_thread(store.put, program)
        inputs = {ROWS: await asyncio.to_thread(store.put, rows)}
        limits = msgspec.structs.replace(_LIMITS, wall_s=wall_s, cpu_s=wall_s * 4)
        if is_wasm:
            self._wasm = self._wasm or WasmRunner(self._store, self._folder)
            task = Task(image=Wasm(code), argv=("program", *args), inputs=inputs, limits=limits, seed=seed)
            return await self._wasm.run(task, store=store)
        argv = ("python", "-I", f"/job/in/{PROGRAM}", *args)
        task = Task(
            image=RootFs("python"), argv=argv, inputs=inputs | {PROGRAM: code}, limits=limits, seed=seed
        )
        return await self._native.run(task, store=store)


async def averaged(
    programs: RunsPrograms,
    spec: QuerySpec,
    schema: Schema,
    columns: Columns,
    seed: bytes,
    program: bytes,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Averaged:
    """The noisy mean of a program's numbers over blocks of people.

    Args:
        columns: all that the schema has.
    """
    units = await asyncio.to_thread(units_of, schema, columns)
    where = await asyncio.to_thread(blocks_of, seed, units, spec.blocks)
    bounds = [(it.low_micro, it.high_micro) for it in spec.bounds]
    names = [
        column.name for column in schema.columns if column.kind != "array" and column.name != schema.unit
    ]
    given: list[tuple[int, ...]] = []
    clock = asyncio.get_running_loop().time
    began_s = clock()
    for block in range(spec.blocks):
        rows = await asyncio.to_thread(
            csv_of, names, [columns[name] for name in names], np.flatnonzero(where == block)
        )
        said = await _block(programs, spec, program, rows, Stream(seed, f"block {block}").bits(63))
        given.append(steps_of(said, bounds))
        ends_s = began_s + (block + 1) * (spec.block_s + SPARE_S)
        await sleep(max(0.0, ends_s - clock()))
    return Averaged(noisy_sums(given, spec.epsilon_micro, Stream(seed, "noise")))


async def reviewed(
    programs: RunsPrograms,
    spec: QuerySpec,
    schema: Schema,
    columns: Columns,
    seed: bytes,
    program: bytes,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> bytes:
    """What a program made of all rows, for the vault's owner to read; where it failed, why, and what it wrote to stderr, which may be rows too. It
    takes its time whatever it does."""
    names = [
        column.name for column in schema.columns if column.kind != "array" and column.name != schema.unit
    ]
    clock = asyncio.get_running_loop().time
    ends_s = clock() + spec.block_s + SPARE_S
    every = np.arange(rows_of(columns))
    rows = await asyncio.to_thread(csv_of, names, [columns[name] for name in names], every)
    with programs.store() as store:
        outcome = await programs.run(
            program, spec.args, rows, spec.block_s, Stream(seed, "all").bits(63), store
        )
        left = next((it for it in outcome.outputs if it.name == RESULT), None)
        made = (
            b""
            if not outcome.ok or left is None or left.size > MOST_OUTPUT_BYTES
            else await asyncio.to_thread(store.read, left.digest)
        )
    await sleep(max(0.0, ends_s - clock()))
    return made or _failure(outcome).encode()


def _failure(outcome: Outcome) -> str:
    """In words that its owner can read, and disclosure control with it."""
    why = (
        f"it left no {RESULT} of 1 to {MOST_OUTPUT_BYTES} bytes"
        if outcome.ok
        else f"{outcome.reason.value}, exit code {outcome.exit_code}. {outcome.why}"
    )
    said = outcome.stderr[-MOST_SAID_BYTES:].decode("utf-8", "replace")
    plain = "".join(it for it in said if it in "\n\t" or it.isprintable()).strip()
    return f"the program made nothing: {why}\n\n{plain}".strip() + "\n"


async def _block(
    programs: RunsPrograms, spec: QuerySpec, program: bytes, rows: bytes, seed: int
) -> bytes | None:
    """What the program left as its result; None for whatever else happened."""
    with programs.store() as store:
        outcome = await programs.run(program, spec.args, rows, spec.block_s, seed, store)
        if not outcome.ok:
            return None
        left = next((it for it in outcome.outputs if it.name == RESULT), None)
        if left is None or left.size > MOST_RESULT_BYTES:
            return None
        return await asyncio.to_thread(store.read, left.digest)


def units_of(schema: Schema, columns: Columns) -> list[str]:
    """Whose each row is; a row that names nobody is its own person."""
    if not schema.unit:
        return [f"row {at}" for at in range(rows_of(columns))]
    found = columns[schema.unit]
    return [f"row {at}" if it is None or it != it else f"unit {it}" for at, it in enumerate(found.tolist())]
