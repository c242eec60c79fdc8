"""State with an undo log, and what a contract sees of the transaction that calls it.

All state of all contracts is one dictionary of immutable values. Every write notes what it replaced: a revert, a
reorganisation and a torn write are the same operation, rolling back to a mark, at a cost of the writes undone.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from clusterai.ledger.core.deploy import Addresses
from clusterai.ledger.core.events import Event
from clusterai.ledger.core.rules import DrandRules, Rules
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.statements import channels_domain, court_domain, network_domain

T = TypeVar("T")
Key = tuple[str | bytes | int, ...]
Recover = Callable[[Digest, bytes], Address]
"""Who signed a digest; raises `signing.BadSignature`. The simulator may hand in a cheaper one."""

Verify = Callable[[DrandRules, int, bytes], bool | None]
"""Whether 96 bytes, x and y, are a drand network's signature of a round; None: no point of the group. `audit.core.drand`
has it: this room knows no curves."""

UINT104_MAX = 2**104 - 1
UINT128_MAX = 2**128 - 1
UINT256_MAX = 2**256 - 1

_ABSENT: Final = object()


class BlockContext(msgspec.Struct, frozen=True):
    """The block that a call stands in."""

    number: int
    timestamp_s: int
    prevrandao: bytes


class Refused(msgspec.Struct, frozen=True):
    """The call reverted and changed nothing; `reason` is the custom error's name."""

    reason: str


class Revert(Exception):
    """Raised inside the twins where the contract would revert; never leaves `TwinChain`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def require(condition: bool, reason: str) -> None:
    if not condition:
        raise Revert(reason)


def checked(value: int, most: int = UINT128_MAX) -> int:
    """Solidity's checked arithmetic: the value, or Panic(0x11)."""
    if not 0 <= value <= most:
        raise Revert("Panic")
    return value


class Store:
    """A dictionary that can go back."""

    __slots__ = ("_data", "_undo")

    def __init__(self) -> None:
        self._data: dict[Key, Any] = {}
        self._undo: list[tuple[Key, Any]] = []

    def get(self, key: Key, default: T) -> T:
        return self._data.get(key, default)

    def put(self, key: Key, value: object) -> None:
        self._undo.append((key, self._data.get(key, _ABSENT)))
        self._data[key] = value

    def mark(self) -> int:
        """Name the present state, to `rollback` to later; `forget` ends the life of all marks."""
        return len(self._undo)

    def rollback(self, mark: int) -> None:
        while len(self._undo) > mark:
            key, before = self._undo.pop()
            if before is _ABSENT:
                del self._data[key]
            else:
                self._data[key] = before

    def forget(self) -> None:
        self._undo.clear()

    def copy(self) -> "Store":
        """An independent state with the same content and no marks."""
        other = Store()
        other._data = self._data.copy()
        return other

    def items(self) -> list[tuple[Key, Any]]:
        """Everything that is not absent, for checkers and comparisons."""
        return list(self._data.items())


class World:
    """What the contracts share: where they stand, the rules, the state."""

    __slots__ = (
        "addresses",
        "channels_domain",
        "court_domain",
        "governor",
        "ids",
        "network_domain",
        "recover",
        "rules",
        "store",
        "verify",
    )

    def __init__(
        self,
        chain_id: int,
        addresses: Addresses,
        rules: Rules,
        governor: Address,
        recover: Recover,
        store: Store,
        verify: Verify,
    ) -> None:
        self.addresses = addresses
        self.rules = rules
        self.governor = governor
        self.recover = recover
        self.store = store
        self.verify = verify
        self.channels_domain = channels_domain(chain_id, addresses.channels)
        self.court_domain = court_domain(chain_id, addresses.court)
        self.network_domain = network_domain(chain_id, addresses.registry)
        self.ids: dict[object, Digest] = {}
        """Channel ids by config: three hashes saved on each call."""


class Transaction:
    """One call as the contracts see it; events pile up here and count only if it doesn't revert."""

    __slots__ = ("block", "events", "now_s", "sender")

    def __init__(self, sender: Address, block: BlockContext) -> None:
        self.sender = sender
        self.block = block
        self.now_s = block.timestamp_s
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)
