"""What the sandbox's tests share: one prepared runner and short ways to run a program in it."""

import asyncio
import atexit
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from clusterai.protocol.ids import Digest
from clusterai.sandbox import BlobStore, Leash, Limits, Log, NativeRunner, Outcome, RootFs, Runner, Task


@cache
def folder() -> Path:
    """One for the whole test run, as a node has one for its life."""
    made = Path(mkdtemp(prefix="clusterai-sandbox-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@cache
def store() -> BlobStore:
    return BlobStore(folder() / "store")


@cache
def native() -> NativeRunner:
    return NativeRunner(store(), folder() / "node")


@cache
def uncounted() -> NativeRunner:
    """The same as on a machine that lends no control groups: held by rlimits and by our own looking."""
    found = NativeRunner(store(), folder() / "uncounted")
    found.groups = None
    return found


def python(
    code: str,
    *,
    runner: Runner | None = None,
    inputs: dict[str, Digest] | None = None,
    env: dict[str, str] | None = None,
    leash: Leash | None = None,
    on_log: Log | None = None,
    limits: dict[str, Any] | None = None,
) -> Outcome:
    """Run Python source behind the walls; limits as in `Limits`, and at most 20 seconds."""
    task = Task(
        image=RootFs("python"),
        argv=("/usr/bin/env", "python3", "-I", "-S", "-c", code),
        inputs=inputs or {},
        env=env or {},
        limits=Limits(**{"wall_s": 20, **(limits or {})}),
    )
    return asyncio.run((runner or native()).run(task, leash=leash, on_log=on_log))
