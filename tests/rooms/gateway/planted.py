"""The gateway with a bug that a request's header chooses: what must be caught, so that we know it would be.

python -m tests.rooms.gateway.planted --config FILE
"""

import asyncio
import sys
from typing import Any

from clusterai.gateway import __main__ as program
from clusterai.gateway import main
from clusterai.gateway.adapters.asgi import EVENTS, JSON, Header, Receive, Scope, Send

BUG = b"x-planted-bug"
HONEST = main.Gateway.__call__


async def _planted(self: main.Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """A bug shows where its field is in the body; everything else goes to the gateway."""
    bug = dict(scope["headers"]).get(BUG)
    if bug is None:
        await HONEST(self, scope, receive, send)
        return
    messages: list[Any] = []
    while not messages or messages[-1].get("more_body"):
        messages.append(await receive())
    body = b"".join(it.get("body", b"") for it in messages)
    if b'"stop"' in body:
        match bug:
            case b"crash":
                raise ZeroDivisionError("planted")
            case b"hang":
                await asyncio.Event().wait()
            case b"status":
                await _answer(send, 418, b"{}", JSON)
            case b"chunk":
                await _answer(send, 200, b'data: {"id": 7}\n\n', *EVENTS)
            case _:
                await _answer(send, 200, b'{"id": 7}', JSON)
        return

    async def again() -> Any:
        return messages.pop(0) if messages else await receive()

    await HONEST(self, scope, again, send)


async def _answer(send: Send, status: int, body: bytes, *headers: Header) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [*headers]})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    main.Gateway.__call__ = _planted
    sys.exit(program.main())
