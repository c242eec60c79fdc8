"""The ServerApp's process at the requester's: started in Flower's environment, and heard frame by frame."""

import asyncio
import contextlib
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clusterai.work.training.adapters.studio import INSIDE, NoFlower, flower_environment
from clusterai.work.training.inside import pipe

ENDS_S = 10.0


class AppFailed(RuntimeError):
    """The ServerApp ended with {code}; its last words: {words}."""


class ServerProcess:
    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    async def start(cls, app: Path, settings: dict[str, Any], folder: Path) -> "ServerProcess":
        """
        Args:
            folder: what the app writes without saying where, it writes here; its log too.

        Raises:
            NoFlower.
        """
        python = flower_environment() / "bin" / "python"
        if not python.exists():
            raise NoFlower(python.parent.parent)
        log = folder / "server.log"
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                str(python),
                str(INSIDE / "server.py"),
                str(app),
                json.dumps(settings),
                cwd=folder,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=1 << 20,
            )
        return cls(process, log)

    async def hear(self) -> tuple[dict[str, Any], list[bytes]]:
        """
        Raises:
            AppFailed: it ended without a last word.
        """
        assert self._process.stdout is not None
        try:
            (length,) = struct.unpack(">I", await self._process.stdout.readexactly(4))
            if length > pipe.MOST_HEAD:
                raise AppFailed("the ServerApp's process wrote what is no frame")
            head, sizes = pipe.head_of(await self._process.stdout.readexactly(length))
            return head, [await self._process.stdout.readexactly(size) for size in sizes]
        except asyncio.IncompleteReadError:
            code = await self._process.wait()
            words = self._log.read_text(errors="replace").strip().splitlines()[-3:]
            raise AppFailed(f"the ServerApp ended with {code}: {' / '.join(words)}") from None

    async def say(self, head: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(pipe.packed(head, blobs))
            await self._process.stdin.drain()

    async def close(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), ENDS_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        # The pipes' ends, or asyncio warns of them later.
        transport = getattr(self._process, "_transport", None)
        if transport is not None:
            transport.close()
