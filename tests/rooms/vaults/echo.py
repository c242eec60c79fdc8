"""A kind of work over a vault for tests: it says back what it was asked, in capitals, for ε that it is told to spend."""

import asyncio
from typing import Any

import msgspec

from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.vaults import subject
from clusterai.work import KINDS
from clusterai.work.engine import Finish, Stats, TokenEvent, Unfit
from clusterai.work.kind import Kind
from clusterai.work.packed import MOST_BYTES, Unpackable, bytes_of, tokens_of
from clusterai.work.request import OutOfRange, Usage, within
from clusterai.work.service import Declined
from clusterai.work.streams import QueueStream


class Echo(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="echo.1"):
    """
    Attributes:
        epsilon_milli: thousandths of ε.
        wait_ms: before it answers.
    """

    model: bytes
    text: bytes
    epsilon_milli: int = 0
    wait_ms: int = 0

    def __post_init__(self) -> None:
        within("length of model in bytes", len(self.model), 32, 32)
        within("epsilon_milli", self.epsilon_milli, 0, 10**6)
        within("wait_ms", self.wait_ms, 0, 60_000)


def decode(raw: bytes) -> Echo:
    try:
        return canonical.decode(raw, Echo)
    except OutOfRange as error:
        raise Malformed(str(error)) from None


def recount(request: Echo, tokens: tuple[int, ...]) -> tuple[int, int]:
    """ε in thousandths, and one use where an answer came."""
    return request.epsilon_milli, int(bool(tokens))


def wrong(request: Echo, tokens: tuple[int, ...], reason: str) -> str | None:
    try:
        bytes_of(tokens)
    except Unpackable as error:
        return str(error)
    return None


KIND = Kind(
    name="echo",
    decode=decode,
    cap_wei=lambda request, input_wei, output_wei: request.epsilon_milli * input_wei + output_wei,
    recount=recount,
    wrong=wrong,
    hosts="tests.rooms.vaults.echo",
    first_s=30.0,
)


def register() -> None:
    """For a process of a test: the kind is known there."""
    KINDS[KIND.name] = KIND


class Engine:
    """Answers with what it was asked, in capitals, once for each distinct request: `done` counts them as a vault would."""

    def __init__(self, model: Digest) -> None:
        self.model = bytes(model)
        self.done: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, generation: Any, /) -> QueueStream:
        if generation.text == b"refuse me":
            raise Unfit("denied: the grant's budget is spent; ask for a new one")
        task: asyncio.Task[None]

        def stop() -> None:
            task.cancel()

        stream = QueueStream(stop)
        task = asyncio.get_running_loop().create_task(self._answer(generation, stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return stream

    async def _answer(self, request: Echo, stream: QueueStream) -> None:
        try:
            await asyncio.sleep(request.wait_ms / 1000)
        except asyncio.CancelledError:
            stream.put(Finish("cancelled", Usage(0, 0, 0)))
            return
        if request.text not in self.done:
            self.done.append(request.text)
        tokens = tokens_of(request.text.upper())
        for token in tokens:
            stream.put(TokenEvent(token))
        stream.put(Finish("stop", Usage(request.epsilon_milli, 0, len(tokens))))

    def stats(self) -> Stats:
        return Stats(0, len(self._tasks), 0.0, 1, 1)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()


class Service:
    """A vault's service of this kind. What it is told decides what it does with a call."""

    def __init__(self, dataset: Digest) -> None:
        self.engine: Engine | None = Engine(subject(dataset, KIND.name))

    async def answer(self, sender: Address, body: bytes) -> bytes:
        if body == b"deny":
            raise Declined("denied", "you have no grant: ask for one")
        if body == b"break":
            raise ZeroDivisionError("secret words")
        if body == b"wait":
            await asyncio.Event().wait()
        if body.startswith(b"much "):
            return bytes(int(body[5:]))
        return bytes(sender) + body[::-1]


def host(vault: Any) -> Service:
    return Service(vault.dataset)


__all__ = ["KIND", "MOST_BYTES", "Echo", "host", "register"]
