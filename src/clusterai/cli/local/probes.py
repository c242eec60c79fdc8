"""Is it ready? Questions to ports and endpoints that answer within a second or count as no."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import aiohttp
import msgspec

from clusterai.cli.local.ports import HOST

ANSWER_S = 1.0
POLL_S = 0.05

Probe = Callable[[], Awaitable[bool]]


def listens(port: int) -> Probe:
    """Whether something accepts connections there."""

    async def ask() -> bool:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(HOST, port), ANSWER_S)
        except (OSError, TimeoutError):
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True

    return ask


def answers(url: str, headers: dict[str, str] | None = None) -> Probe:
    """Whether a GET there is answered with 200."""

    async def ask() -> bool:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(ANSWER_S)) as session,
                session.get(url, headers=headers) as response,
            ):
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    return ask


def serves(api: str, provider: str) -> Probe:
    """Whether a gateway gives work to this provider, or never will again: a barred one is no reason to wait."""

    async def ask() -> bool:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(ANSWER_S)) as session,
                session.get(f"{api}/v1/clusterai/nodes") as response,
            ):
                told = msgspec.json.decode(await response.read(), type=_Nodes)
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError):
            return False
        return any(it.provider == provider and it.state in ("ready", "barred") for it in told.nodes)

    return ask


class _Node(msgspec.Struct):
    provider: str
    state: str


class _Nodes(msgspec.Struct):
    nodes: list[_Node]
