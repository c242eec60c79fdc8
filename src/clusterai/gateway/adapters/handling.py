"""What the handlers of quiet endpoints share: reading a request's parts, and answering."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from clusterai.gateway.core.faults import Fault


async def body_of(request: Request, most: int) -> bytes:
    """
    Raises:
        Fault: 413, it is longer than anything that is asked for here.
    """
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > most:
            raise Fault(413, "invalid_request_error", "request_too_large", f"send at most {most} bytes")
    return bytes(found)


def number(request: Request, name: str, default: int, low: int, high: int) -> int:
    """A whole number of the query.

    Raises:
        Fault: 400, it isn't one, or out of range.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 17 and low <= int(text) <= high):
        raise Fault(
            400,
            "invalid_request_error",
            "out_of_range",
            f"{name} is a whole number from {low} to {high}",
            name,
        )
    return int(text)


def missing(why: str) -> Fault:
    return Fault(404, "invalid_request_error", "not_found", why)


def json_of(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
