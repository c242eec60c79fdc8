"""The port: what every sandbox offers, whichever walls it is made of."""

import asyncio
from collections.abc import Callable
from typing import Literal, Protocol

from clusterai.sandbox.adapters.store import BlobStore
from clusterai.sandbox.core.spec import LOG_BYTES, Outcome, Reason, Task

Log = Callable[[Literal["stdout", "stderr"], bytes], None]
"""Called with each piece of output as it comes, at most `output_bytes` in all."""


class Leash:
    """Ends a task from outside, with the reason that its tenant will read. The first pull counts."""

    def __init__(self) -> None:
        self._reason: Reason | None = None
        self._pulled = asyncio.Event()

    def cancel(self) -> None:
        """The tenant asked for it."""
        self._pull(Reason.CANCELLED)

    def end(self) -> None:
        """The lease is over."""
        self._pull(Reason.LEASE_ENDED)

    def _pull(self, reason: Reason) -> None:
        if self._reason is None:
            self._reason = reason
            self._pulled.set()

    @property
    def reason(self) -> Reason | None:
        return self._reason

    async def pulled(self) -> None:
        await self._pulled.wait()


class Runner(Protocol):
    """Runs tenants' tasks behind walls, or refuses; it never runs one without."""

    @property
    def name(self) -> str:
        """Which walls, in words."""
        ...

    async def run(
        self,
        task: Task,
        *,
        leash: Leash | None = None,
        on_log: Log | None = None,
        store: BlobStore | None = None,
    ) -> Outcome:
        """Run to the end. When this coroutine is cancelled, every process of the task is dead before it returns.

        Args:
            store: where its inputs are and its outputs go; by default the runner's own.
        """
        ...


class Logs:
    """What a task prints: streamed out as it comes, counted, and its beginning kept."""

    def __init__(self, limit: int, on_log: Log | None) -> None:
        self._limit = limit
        self._on_log = on_log
        self._kept = {"stdout": bytearray(), "stderr": bytearray()}
        self.written = 0

    def take(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        room = max(0, self._limit - self.written)
        self.written += len(data)
        data = data[:room]
        if not data:
            return
        kept = self._kept[stream]
        kept += data[: max(0, LOG_BYTES - len(kept))]
        if self._on_log is not None:
            self._on_log(stream, data)

    @property
    def stdout(self) -> bytes:
        return bytes(self._kept["stdout"])

    @property
    def stderr(self) -> bytes:
        return bytes(self._kept["stderr"])

    @property
    def truncated(self) -> bool:
        return self.written > len(self._kept["stdout"]) + len(self._kept["stderr"])
