"""Carries calls between HTTP and links: a body out in parts, as fast as the provider reads; the answer's parts back, within bounds."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
import structlog
from msgspec import Meta

from clusterai.gateway.core.flow import Flow, FlowLimits, Full, Held
from clusterai.gateway.core.posted import Posted
from clusterai.gateway.core.shelf import Shelf
from clusterai.market.core.routing import Routing
from clusterai.protocol.calls import CallPart, CallRefused, Gathered, OfferData, ReplyPart, cut
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Address, Digest
from clusterai.runtime.adapters.config import Part, Seconds
from clusterai.runtime.machine import Received, Unlinked

MOST_LOGGED = 3
"""Reasons of one frame's listings that are logged."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("calls")


class CallConfig(Part, frozen=True, kw_only=True):
    """Calls to vaults: nobody pays for them, so they are bounded.

    Attributes:
        timeout_s: from the first byte of a call to the last of its answer; also what an answer's reader may take.
        most_bytes: held for all calls at once.
        account_bytes: of that, for one account.
        account_calls: one account's at once.
        bytes_a_minute: one account's, in and out.
    """

    timeout_s: Seconds = 300.0
    most_bytes: Annotated[int, Meta(ge=1 << 20, le=1 << 40)] = 512 << 20
    account_bytes: Annotated[int, Meta(ge=1 << 20, le=1 << 40)] = 192 << 20
    account_calls: Annotated[int, Meta(ge=1, le=10_000)] = 16
    bytes_a_minute: Annotated[int, Meta(ge=1 << 20, le=1 << 40)] = 1 << 30


class Lost(Exception):
    """The provider's link ended, or it can't be given anything more."""


class Refused(Exception):
    """The provider, or the gateway in its place, refuses the call."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class _Open(msgspec.Struct, eq=False):
    provider: Address
    held: Held
    gathered: Gathered
    answer: "asyncio.Future[bytes]"


class Calling:
    """One gateway's calls.

    Args:
        send: gives a peer a frame; False where it isn't linked.
        drained: waits until a peer reads on.
    """

    def __init__(
        self,
        shelf: Shelf,
        routing: Routing,
        config: CallConfig,
        send: Callable[[Address, Any], bool],
        drained: Callable[[Address], Awaitable[None]],
    ) -> None:
        self.shelf = shelf
        self.posted = Posted(shelf)
        self.timeout_s = config.timeout_s
        self.flow = Flow(
            FlowLimits(config.most_bytes, config.account_bytes, config.account_calls, config.bytes_a_minute)
        )
        self._routing = routing
        self._send = send
        self._drained = drained
        self._open: dict[bytes, _Open] = {}

    @property
    def running(self) -> int:
        return len(self._open)

    def answerers(self, subject: Digest) -> list[Address]:
        """Linked providers that answer calls about it, or take its orders."""
        said = self.shelf.answerers(subject)
        return said + [it for it, _ in self._routing.offers(subject) if it not in said]

    def hear(self, event: Any) -> bool:
        """Take an event of links; whether it was of no concern to anyone else."""
        match event:
            case Received(peer, ReplyPart() as part):
                self._replied(peer, part)
            case Received(peer, CallRefused(call, code, detail)):
                opened = self._of(peer, call)
                if opened is not None:
                    _fail(opened, Refused(code, detail))
            case Received(peer, OfferData() as offer):
                for why in self.shelf.heard(peer, offer)[:MOST_LOGGED]:
                    log.info("not_listed", provider=peer.hex(), why=why)
            case Received(_, CallPart()):
                pass  # these go the other way
            case Unlinked(peer):
                self.shelf.unlinked(peer, time.time())
                for opened in self._open.values():
                    if opened.provider == peer:
                        _fail(opened, Lost())
                return False
            case _:
                return False
        return True

    def _of(self, peer: Address, call: bytes) -> _Open | None:
        opened = self._open.get(call)
        return opened if opened is not None and opened.provider == peer else None

    def _replied(self, peer: Address, part: ReplyPart) -> None:
        opened = self._of(peer, part.call)
        if opened is None or opened.answer.done():
            return
        try:
            opened.held.take(len(part.body))
            whole = opened.gathered.add(part.part, part.parts, part.body)
        except Full as error:
            _fail(opened, error)
        except Malformed as error:
            _fail(opened, Refused("failed", f"its answer isn't one: {error}"))
        else:
            if whole is not None:
                opened.answer.set_result(whole)

    async def call(
        self, provider: Address, subject: Digest, sender: Address, body: bytes, held: Held
    ) -> bytes:
        """The answer of one provider.

        Args:
            held: what this call may hold; the body is counted already.

        Raises:
            Lost, Refused, Full, TimeoutError.
        """
        name = secrets.token_bytes(16)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._open[name] = _Open(provider, held, Gathered(), answer)
        try:
            async with asyncio.timeout(self.timeout_s):
                parts = cut(body)
                for at, part in enumerate(parts):
                    if answer.done():
                        break  # it is refused before it was told: the rest needn't be sent
                    if not self._send(provider, CallPart(name, subject, sender, at, len(parts), part)):
                        raise Lost
                    await self._drained(provider)
                return await answer
        finally:
            del self._open[name]
            if not answer.done() or answer.cancelled() or isinstance(answer.exception(), Full | Refused):
                self._send(provider, CallRefused(name, "gone", "nobody waits for the answer"))
            answer.cancel()


def _fail(opened: _Open, error: Exception) -> None:
    if not opened.answer.done():
        opened.answer.set_exception(error)
        # Whoever waited may be gone by now; asked once, it isn't told of as forgotten.
        opened.answer.exception()
