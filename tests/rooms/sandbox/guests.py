"""Small WASM modules for tests, in the text form, and a short way to run one."""

from typing import Any

from blake3 import blake3

from clusterai.protocol.ids import Digest
from clusterai.sandbox import Limits, Task, Wasm
from clusterai.sandbox.adapters.wasm import Result, Segmented, wat

MEMORY = '(memory (export "memory") 1)'


def calls(*names: str) -> str:
    """Imports of WASI functions."""
    types = {
        "fd_write": "i32 i32 i32 i32",
        "random_get": "i32 i32",
        "clock_time_get": "i32 i64 i32",
        "proc_exit": "i32",
        "path_open": "i32 i32 i32 i32 i32 i64 i64 i32 i32",
        "fd_read": "i32 i32 i32 i32",
        "path_symlink": "i32 i32 i32 i32 i32",
        "path_link": "i32 i32 i32 i32 i32 i32 i32",
        "sock_accept": "i32 i32 i32",
    }
    return "\n".join(
        f'(import "wasi_snapshot_preview1" "{name}" (func ${name} (param {types[name]})'
        f"{'' if name == 'proc_exit' else ' (result i32)'}))"
        for name in names
    )


def start(body: str, *imports: str, memory: str = MEMORY) -> bytes:
    """A command whose `_start` is `body`."""
    return wat(f'(module {calls(*imports)} {memory} (func (export "_start") {body}))')


def task(module: bytes, argv: tuple[str, ...] = (), **limits: Any) -> Task:
    return Task(
        image=Wasm(Digest(blake3(module).digest())),
        argv=argv,
        seed=7,
        clock_s=1_000_000,
        limits=Limits(**limits),
    )


def run(module: bytes, inputs: dict[str, bytes] | None = None, **limits: Any) -> Result:
    return Segmented(
        module, task(module, (), **{"memory_bytes": 16 << 20, "fuel": 10**7, **limits}), inputs
    ).execute()
