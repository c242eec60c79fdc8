"""The one shape of everything that decides: `step(event, now_s) -> [Effect]`, synchronous and pure.

    event ──> step ──> [Save(record), Send(to, frame), Submit(call), Start(…), …]
                          │ durable before anything behind it in the list happens
    crash ──> restore(records in order) ──> step(Started()) ──> what was left undone, again

Rules:
1. State that must outlive a crash changes through records alone: `step` computes a record, applies it with the same
   function that `restore` uses, and returns `Save(record)` *before* the effects that tell the world.
2. A request effect comes back as an event, failure included. After `Started` a machine asks again for all that is
   unanswered; whoever answers must therefore tolerate being asked twice.
3. No clock, no randomness: `now_s` and nonces come from outside. Dicts iterate in insertion order; sets never decide.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import msgspec

from clusterai.protocol.ids import Address


class Save(msgspec.Struct, frozen=True):
    """Effect: append to the journal, durably, before the effects behind it."""

    record: msgspec.Struct


class Send(msgspec.Struct, frozen=True):
    """Effect: give the peer a frame. It may be lost, repeated, late; the machine must not depend on one delivery."""

    to: Address
    frame: msgspec.Struct


class Received(msgspec.Struct, frozen=True):
    """Event: a peer, authenticated by its link or by the gateway that relayed, sent a decoded frame."""

    sender: Address
    frame: msgspec.Struct


class Linked(msgspec.Struct, frozen=True):
    """Event: an authenticated connection with `peer` (its owner's address) is up."""

    peer: Address


class Unlinked(msgspec.Struct, frozen=True):
    """Event: the last connection with `peer` is gone."""

    peer: Address


class Started(msgspec.Struct, frozen=True, tag=True):
    """Event: the first after construction and `restore`."""


class Tick(msgspec.Struct, frozen=True, tag=True):
    """Event: time went on; drivers send one at least every second."""


class Machine(Protocol):
    """What drivers and the simulator run."""

    RECORDS: Any
    """The tagged union of this machine's journal records, for decoding."""

    def restore(self, records: Iterable[Any]) -> None:
        """Rebuild the state from a journal's records, in order. Called once, before any step."""
        ...

    def step(self, event: Any, now_s: float) -> Sequence[Any]: ...

    def snapshot(self) -> Sequence[msgspec.Struct]:
        """The fewest records that `restore` to the present state: the journal is compacted to them."""
        ...


class Journal(Protocol):
    """Records that survive `kill -9`. `append` returns only when they would."""

    def append(self, records: Sequence[bytes]) -> None: ...

    def load(self) -> list[bytes]: ...

    def replace(self, records: Sequence[bytes]) -> None:
        """Compact: atomically, these records instead of all before."""
        ...
