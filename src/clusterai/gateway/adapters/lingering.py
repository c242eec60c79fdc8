"""A refusal reaches also who is still sending: the rest of the body is read and dropped, within limits, before the connection ends.

A client that asks for `Connection: close` writes its whole body before it reads. Were the connection closed under it, its
system would answer the rest with a reset and throw the refusal away unread. (nginx: `lingering_close`; RFC 9112, 9.6.)
"""

import asyncio
from contextlib import suppress

from clusterai.gateway.adapters.asgi import Message, Receive, Scope, Send, more

MOST_DROPPED = 64 << 20
"""bytes: as many as the largest body that is taken anywhere"""
MOST_S = 30.0
PAUSE_S = 5.0


def lingering(scope: Scope, receive: Receive, send: Send) -> tuple[Receive, Send]:
    """`receive` and `send` for one request: plain ones, unless its connection ends with the answer and a body may be on its way."""
    headers = dict[bytes, bytes](scope["headers"])
    closes = headers.get(b"connection", b"").lower() == b"close" or scope["http_version"] == "1.0"
    if not closes or headers.keys().isdisjoint((b"content-length", b"transfer-encoding")):
        return receive, send
    rest = _Rest(receive, send, invited=b"expect" not in headers)
    return rest.receive, rest.send


class _Rest:
    """What of a request's body is still to come."""

    def __init__(self, receive: Receive, send: Send, *, invited: bool) -> None:
        self._receive = receive
        self._send = send
        self._coming = invited
        """False also before a client that waits for `100 Continue` was told to go on, and is told a refusal instead"""

    async def receive(self) -> Message:
        message = await self._receive()
        self._coming = message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if not self._coming or message["type"] != "http.response.body" or message.get("more_body", False):
            await self._send(message)
            return
        await self._send({**message, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(MOST_S):
                await self._drop()
        await more(self._send, b"", last=True)

    async def _drop(self) -> None:
        dropped = 0
        while self._coming and dropped <= MOST_DROPPED:
            async with asyncio.timeout(PAUSE_S):
                message = await self.receive()
            dropped += len(message.get("body", b""))
