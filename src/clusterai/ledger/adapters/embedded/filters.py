"""`eth_newFilter` and its family: a cursor kept for a client that polls.

At most 256, each forgotten five minutes after its last use, so that clients that vanish cost nothing.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from clusterai.ledger.adapters.embedded.chain import Chain
from clusterai.ledger.adapters.embedded.journal import LogQuery
from clusterai.ledger.adapters.embedded.views import log_view
from clusterai.protocol.ids import hex0x

MAX_FILTERS = 256
LIFETIME_S = 300


class NoFilter(ValueError):
    """filter not found: it was removed, or not asked for five minutes; make a new one."""


class TooManyFilters(ValueError):
    """256 filters are open: uninstall some, or poll eth_getLogs."""


class _Filter(msgspec.Struct):
    query: LogQuery | None
    blocks: bool
    next: int
    used_s: float


class Filters:
    def __init__(self, chain: Chain, clock: Callable[[], float]) -> None:
        self._chain = chain
        self._clock = clock
        self._filters: dict[int, _Filter] = {}
        self._count = 0

    def add_logs(self, query: LogQuery | None) -> str:
        return self._add(query or LogQuery(0, 2**62), blocks=False)

    def add_blocks(self) -> str:
        return self._add(None, blocks=True)

    def changes(self, number: int) -> list[Any]:
        found, first = self._find(number), 0
        first, found.next = found.next, self._chain.head.header.number + 1
        if found.blocks:
            # a client that slept long gets the newest; the older ones it can ask for by number
            blocks = (self._chain.block(n) for n in range(max(first, found.next - 1024), found.next))
            return [hex0x(block.hash) for block in blocks if block]
        assert found.query is not None
        query = msgspec.structs.replace(found.query, first=max(first, found.query.first))
        return [log_view(row) for row in self._chain.logs(query)]

    def all_logs(self, number: int) -> list[Any]:
        query = self._find(number).query
        if query is None:
            raise NoFilter(NoFilter.__doc__)
        return [log_view(row) for row in self._chain.logs(query)]

    def remove(self, number: int) -> bool:
        return self._filters.pop(number, None) is not None

    def _add(self, query: LogQuery | None, *, blocks: bool) -> str:
        now_s = self._clock()
        self._filters = {n: one for n, one in self._filters.items() if now_s - one.used_s < LIFETIME_S}
        if len(self._filters) >= MAX_FILTERS:
            raise TooManyFilters(TooManyFilters.__doc__)
        self._count += 1
        self._filters[self._count] = _Filter(query, blocks, self._chain.head.header.number + 1, now_s)
        return hex(self._count)

    def _find(self, number: int) -> _Filter:
        found, now_s = self._filters.get(number), self._clock()
        if found is None or now_s - found.used_s >= LIFETIME_S:
            raise NoFilter(NoFilter.__doc__)
        found.used_s = now_s
        return found
