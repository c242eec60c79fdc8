"""ASGI by its bare words: what the hot path needs of HTTP, and no framework around it."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from clusterai.gateway.core.faults import Fault

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

JSON: Header = (b"content-type", b"application/json")
EVENTS: list[Header] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
]


class Gone(Exception):
    """The client closed its connection; nobody is left to answer."""


async def body_of(headers: dict[bytes, bytes], receive: Receive, most: int) -> bytes:
    """
    Raises:
        Gone: the client left. Fault: it is longer than `most` bytes.
    """
    length = headers.get(b"content-length", b"")
    size = int(length) if length.isdigit() else 0
    if size <= most:
        parts: list[bytes] = []
        size, unfinished = 0, True
        while unfinished and size <= most:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            part: bytes = message.get("body", b"")
            parts.append(part)
            size += len(part)
            unfinished = message.get("more_body", False)
        if size <= most:
            return parts[0] if len(parts) == 1 else b"".join(parts)
    raise Fault(
        413, "invalid_request_error", "request_too_large", f"the body is larger than {most} bytes: send less"
    )


async def start(send: Send, status: int, headers: list[Header]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def more(send: Send, body: bytes, *, last: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": not last})
