"""What an HTTP endpoint for paid work is: it reads a body into work requests, and tells what came of them."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec

from clusterai.gateway.adapters.catalog import Catalog, Served
from clusterai.gateway.adapters.exchange import Exchange
from clusterai.market.core.routing import Preference
from clusterai.work import Kind


class Asked(msgspec.Struct, frozen=True):
    """A body that was understood, before anybody has paid.

    Attributes:
        requests: of `kind`; each becomes an order, or several.
        tokens: the most that they can use, for the limits of keys.
        streamed: whether the client reads the answer as it comes.
        tell: answers, once the work has begun.
    """

    kind: Kind
    model: Served
    requests: Sequence[Any]
    tokens: int
    preference: Preference
    streamed: bool
    tell: Callable[[Exchange], Awaitable[None]]


class Endpoint(Protocol):
    """One path that takes POSTs."""

    path: str

    async def read(self, catalog: Catalog, raw: bytes) -> Asked:
        """
        Raises:
            Fault: what is wrong with the body, by what the client should change.
        """
        ...
