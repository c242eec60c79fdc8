"""Where a requester's ClientApp is run: in the sandbox, in Flower's environment, beside one folder of rows.

Each message, and each block of rows, gets a process of its own behind walls of its own: no network, nothing that can be written but a
volume that is gone with it. What one run could leave for the next is the state that Flower's `Context` has, and that we carry.
"""

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from clusterai.sandbox import (
    Bind,
    BlobStore,
    CannotSandbox,
    Limits,
    NativeRunner,
    Outcome,
    Root,
    RootFs,
    Task,
    host_python,
)
from clusterai.work.training.core.bundle import Bundle
from clusterai.work.training.inside import records

INSIDE = Path(records.__file__).resolve().parent
DATA = "/data"
"""Where an app finds the vault's rows; `data-path` in its node configuration says so."""
MOST_REPLY_BYTES = 60 << 20
MOST_STATE_BYTES = 16 << 20
MOST_WHY = 400

LIMITS = Limits(
    memory_bytes=2 << 30,
    cpu_milli=2000,
    processes=64,
    disk_bytes=256 << 20,
    wall_s=900,
    cpu_s=1800,
    open_files=1024,
    output_bytes=1 << 20,
)


class NoFlower(RuntimeError):
    """Flower's environment isn't at {folder}: make install-peers, or name it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"Flower's environment isn't at {folder}: make install-peers, or name another folder"
        )


def flower_environment() -> Path:
    """By variable, or where `make install-peers` puts it."""
    named = os.environ.get("CLUSTERAI_FLOWER")
    return Path(named) if named else Path(sys.prefix) / "peers" / "flower"


class Performed(msgspec.Struct, frozen=True):
    """What one run of a ClientApp left.

    Attributes:
        reply: None where there is none: `why` says the reason, in words that the requester's program may have chosen.
    """

    reply: records.Records | None
    state: bytes = b""
    why: str = ""


class Studio:
    """Runs ClientApps, so many at once."""

    def __init__(
        self, folder: Path, environment: Path | None = None, limits: Limits = LIMITS, at_once: int = 0
    ) -> None:
        """
        Args:
            folder: ours, and emptied.

        Raises:
            NoFlower, CannotSandbox.
        """
        self.environment = (environment or flower_environment()).resolve()
        if not (self.environment / "bin" / "python").exists():
            raise NoFlower(self.environment)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        self._limits = limits
        self._folder = folder
        self._root = self._shown()
        self._runner = NativeRunner(BlobStore(folder / "store"), folder / "cells", {"flower": self._root})
        self._turns = asyncio.Semaphore(at_once or max(1, (os.cpu_count() or 1) // 2))

    def _shown(self) -> Root:
        root = host_python()
        binds = list(root.binds)
        for place in (str(self.environment), str(INSIDE)):
            if not any(place == bind.dest or place.startswith(bind.dest + "/") for bind in binds):
                binds.append(Bind(place, place))
        return msgspec.structs.replace(root, name="flower", binds=tuple(binds))

    @property
    def walls(self) -> str:
        return self._runner.name

    async def perform(
        self,
        bundle: Bundle,
        message: bytes,
        about: Mapping[str, Any],
        node: Mapping[str, Any],
        config: Mapping[str, Any],
        data: Path,
        state: bytes = b"",
    ) -> Performed:
        """
        Args:
            about: of the message: run, id, node, type, group.
            node: the node configuration; `data-path` is added to it.
            data: the folder that is shown as `DATA`.
        """
        job = {
            "message": {**about, "created": time.time()},
            "node": {**node, "data-path": DATA, "dataset-path": DATA},
            "config": dict(config),
        }
        async with self._turns:
            with tempfile.TemporaryDirectory(prefix="run-", dir=self._folder) as own:
                # All of it is a stranger's, or follows from rows: a store for each run, gone with it.
                store = BlobStore(Path(own))
                contents = {f"app/{file.path}": file.data for file in bundle.files}
                contents |= {"job.json": json.dumps(job).encode(), "message": message}
                contents |= {"state": state} if state else {}
                task = Task(
                    image=RootFs("flower"),
                    argv=(str(self.environment / "bin" / "python"), "-I", str(INSIDE / "client.py")),
                    inputs={name: store.put(content) for name, content in contents.items()},
                    env={"PYTHONDONTWRITEBYTECODE": "1"},
                    limits=self._limits,
                )
                root = msgspec.structs.replace(self._root, binds=(*self._root.binds, Bind(str(data), DATA)))
                outcome = await self._runner.run(task, store=store, root=root)
                return _performed(outcome, store)


def _performed(outcome: Outcome, store: BlobStore) -> Performed:
    left = {output.name: output for output in outcome.outputs}
    if not outcome.ok:
        said = outcome.stderr.decode("utf-8", "replace").strip().splitlines()
        words = f"{outcome.reason.value}: {outcome.why} {said[-1] if said else ''}"
        return Performed(None, why=words[:MOST_WHY])
    if "error" in left and left["error"].size <= 4096:
        told = store.read(left["error"].digest, 4096).decode("utf-8", "replace")
        return Performed(None, why=told[:MOST_WHY])
    if "reply" not in left or left["reply"].size > MOST_REPLY_BYTES:
        return Performed(None, why="it left no reply, or one that is too large")
    try:
        reply = records.decode(store.read(left["reply"].digest, MOST_REPLY_BYTES))
    except records.BadRecords as error:
        return Performed(None, why=str(error)[:MOST_WHY])
    state = b""
    if "state" in left and left["state"].size <= MOST_STATE_BYTES:
        state = store.read(left["state"].digest, MOST_STATE_BYTES)
    return Performed(reply, state)


__all__ = ["DATA", "LIMITS", "CannotSandbox", "NoFlower", "Performed", "Studio", "flower_environment"]
