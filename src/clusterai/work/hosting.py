"""What the vault's sides of kinds of work share: orders that are answered whole, and sealed calls beside them.

Engines of models decode token by token, many sequences at once; what a vault says of an order it says at once, as bytes.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from blake3 import blake3

from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.signing import Key
from clusterai.vault.adapters.hosting import Vault
from clusterai.vault.core.terms import Denied
from clusterai.work.calls import No
from clusterai.work.engine import Busy, EngineFailed, Finish, Stats, TokenEvent
from clusterai.work.packed import tokens_of
from clusterai.work.request import Usage
from clusterai.work.streams import QueueStream

log: structlog.stdlib.BoundLogger = structlog.get_logger("work.hosting")


class Taken:
    """The orders that an engine has taken and not answered yet."""

    def __init__(self, most: int, retry_after_s: float = 1.0) -> None:
        self._most, self._retry_after_s = most, retry_after_s
        self._tasks: set[asyncio.Task[None]] = set()

    def room(self) -> None:
        """
        Raises:
            Busy: so many wait already.
        """
        if len(self._tasks) >= self._most:
            raise Busy(len(self._tasks), self._retry_after_s)

    def take(self, answer: Callable[[], Awaitable[bytes]], *, ends: bool = False) -> QueueStream:
        """
        Args:
            answer: lets nothing out but being cancelled; what fails is an answer, too.
            ends: whether it ends where its client goes away. Where ε is spent first, nothing is saved by that.
        """
        stream = QueueStream(lambda: stop())
        task = asyncio.get_running_loop().create_task(self._answer(answer, stream))

        def stop() -> None:
            if ends:
                task.cancel()

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            # Also where it was cancelled before it began: whoever reads the stream mustn't wait for ever.
            if task.cancelled():
                stream.put(EngineFailed("cancelled"))
            elif (error := task.exception()) is not None:
                log.error("order_failed", exc_info=error)
                stream.put(EngineFailed("the vault broke; its owner's log says why"))

        self._tasks.add(task)
        task.add_done_callback(done)
        return stream

    async def _answer(self, answer: Callable[[], Awaitable[bytes]], stream: QueueStream) -> None:
        tokens = tokens_of(await answer())
        for token in tokens:
            stream.put(TokenEvent(token))
        stream.put(Finish("stop", Usage(0, 0, len(tokens))))

    def stats(self) -> Stats:
        running = min(1, len(self._tasks))
        return Stats(len(self._tasks) - running, running, 0.0, 0, 0)

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Refused(Exception):
    """A call's answer is no; told to the requester, sealed."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


async def answered(
    vault: Vault,
    sender: Address,
    body: bytes,
    decode: Callable[[bytes], Any],
    answer: Callable[[Address, Any], Awaitable[msgspec.Struct]],
) -> bytes:
    """One sealed call, from its seal to the sealed answer.

    Args:
        answer: to who signed it. May raise `Denied` and `Refused`.

    Raises:
        Denied: the call's seal isn't right.
    """
    asked = vault.opened(sender, body)
    try:
        reply = await answer(asked.signer, decode(asked.body))
    except Malformed as error:
        reply = No("malformed", str(error)[:1_000])
    except (Denied, Refused) as error:
        reply = No(str(error.code)[:40], error.detail[:1_000])
    return vault.sealed(asked, canonical.encode(reply))


def member_key(kind: str, hot: Key, dataset: Digest) -> Key:
    """With which one vault signs in sums: several of one node take part in one sum, each as itself. That it is this vault's, the seal around
    `Hi` says."""
    return Key(blake3(hot.secret() + dataset, derive_key_context=f"clusterai {kind} member 1").digest())
