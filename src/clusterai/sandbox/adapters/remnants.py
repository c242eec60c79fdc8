"""Who is left of a sandbox when bubblewrap itself is dead, and how that ends.

bubblewrap's child dies with it, but only once it has asked the kernel for that. Killed between `clone` and `prctl`, it leaves a child that waits
for its parent's word for ever and holds our pipes meanwhile, so that whoever reads them to their end waits as long. Its control group knows it;
where there is none, those pipes do.
"""

import asyncio
import contextlib
import os
import signal
import stat
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

AGAIN_S = 0.001


async def swept(left: Callable[[], list[int]]) -> None:
    """Kill whoever is left, until nobody is."""
    while found := left():
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                try:
                    # Looked at again with the descriptor in hand: a number may have been given to another meanwhile.
                    if pid in left():
                        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                finally:
                    os.close(descriptor)
        await asyncio.sleep(AGAIN_S)


def writers(*pipes: int) -> list[int]:
    """Processes other than this one that can write into these pipes."""
    wanted = {(found.st_dev, found.st_ino) for found in map(os.fstat, pipes)}
    return [
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if process.name != str(os.getpid()) and _writes(process, wanted)
    ]


def _writes(process: Path, wanted: set[tuple[int, int]]) -> bool:
    try:
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                # What the link allows is what the descriptor is open for.
                writes = descriptor.lstat().st_mode & stat.S_IWUSR
                found = descriptor.stat()
                if writes and (found.st_dev, found.st_ino) in wanted:
                    return True
    except OSError:
        return False  # gone meanwhile, or another user's
    return False


async def to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """What must not be left half done: who waits may be cancelled, and again, and hears of it when it is over."""
    task, cancelled = asyncio.ensure_future(work), None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


__all__ = ["swept", "to_its_end", "writers"]
