"""Locks of open files: held by one process until it closes the file or dies, so they can't be stale.

Unix has `flock` for it. Windows locks ranges of bytes and keeps others from reading them, so one far behind the end is taken.
"""

import importlib
import os
import time
from typing import Any, Protocol

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FAR = 2**30
AGAIN_S = 0.02


class Opened(Protocol):
    def fileno(self) -> int: ...


def hold(file: Opened | int, patience_s: float = 0.0) -> bool:
    """Take it; False where another process has it, and goes on having it for `patience_s`.

    Who only looks (`is_free`) has it for a moment, and so has a child between its fork and its exec.
    """
    number = file if isinstance(file, int) else file.fileno()
    until_s = time.monotonic() + patience_s
    while not (_windows(number) if fcntl is None else _unix(number, fcntl.LOCK_EX)):
        if time.monotonic() >= until_s:
            return False
        time.sleep(AGAIN_S)
    return True


def is_free(file: Opened | int) -> bool:
    """Whether nobody has it; `file` may be open for reading alone, and is to be closed afterwards."""
    number = file if isinstance(file, int) else file.fileno()
    return _windows(number) if fcntl is None else _unix(number, fcntl.LOCK_SH)


def _unix(number: int, how: int) -> bool:
    assert fcntl is not None, "there is a way for systems without"
    try:
        fcntl.flock(number, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _windows(number: int) -> bool:
    msvcrt: Any = importlib.import_module("msvcrt")
    at = os.lseek(number, 0, os.SEEK_CUR)
    os.lseek(number, FAR, os.SEEK_SET)
    try:
        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    finally:
        os.lseek(number, at, os.SEEK_SET)
    return True
