"""A lock file: held by one process, until it lets go or dies; so it can't be stale."""

import os
from pathlib import Path

from clusterai.runtime.adapters import filelock


class Lock:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: int | None = None

    def take(self) -> bool:
        """False where another process has it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        if not filelock.hold(descriptor):
            os.close(descriptor)
            return False
        self._held = descriptor
        return True

    @property
    def is_ours(self) -> bool:
        return self._held is not None

    def let_go(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def is_held(self) -> bool:
        """Whether any process has it."""
        try:
            descriptor = os.open(self._path, os.O_RDWR)
        except OSError:
            return False
        try:
            return not filelock.is_free(descriptor)
        finally:
            os.close(descriptor)
