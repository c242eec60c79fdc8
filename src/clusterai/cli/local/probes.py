"""Is it ready? Questions to ports and endpoints that answer within a second or count as no."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection

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


def serves(api: str, provider: str, models: Collection[str]) -> Probe:
    """Whether a gateway gives a provider work for all these models, or never will again: who is barred isn't waited for."""

    async def ask() -> bool:
        return any(it.is_done(models) for it in await _nodes(api) if it.provider == provider)

    return ask


async def barred(api: str) -> set[str]:
    """Providers that a gateway will never again give work; none when it doesn't answer."""
    return {it.provider for it in await _nodes(api) if it.state == "barred"}


async def _nodes(api: str) -> "list[_Node]":
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(ANSWER_S)) as session,
            session.get(f"{api}/v1/clusterai/nodes") as response,
        ):
            return msgspec.json.decode(await response.read(), type=_Nodes).nodes
    except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError):
        return []


async def unserved(api: str) -> list[str]:
    """Models of a gateway that nobody can be hired for now; none when it doesn't answer."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(ANSWER_S)) as session,
            session.get(f"{api}/v1/clusterai/status") as response,
        ):
            told = msgspec.json.decode(await response.read(), type=_Status)
    except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError):
        return []
    return [name for name, providers in told.models.items() if not providers]


class _Model(msgspec.Struct):
    name: str


class _Node(msgspec.Struct):
    provider: str
    state: str
    models: list[_Model]

    def is_done(self, wanted: Collection[str]) -> bool:
        serving = self.state == "ready" and set(wanted) <= {it.name for it in self.models}
        return serving or self.state == "barred"


class _Nodes(msgspec.Struct):
    nodes: list[_Node]


class _Status(msgspec.Struct):
    models: dict[str, int]
