"""What a vault knows of its runs after its process was killed, so that a round goes on and no ε is spent twice.

    <run>            what it spent, in which order, and what the app's context holds         written before anything is computed, and after
    <run>.<number>   what a round put by for the sum                                          written before the round is answered

Without the first, a vault that was started anew would count rounds from one again, and charge more than they cost. Without the second it
couldn't say again what it committed to, and its ε would be spent for nothing. The keys of a secure sum aren't kept: a vault that
dies in the middle of one has dropped out of it. It takes part in another of that round, which may be over the same members only (`once.py`).
"""

import time
from typing import Annotated, Protocol

import msgspec
import numpy as np
from msgspec import Meta

from clusterai.protocol.ids import Digest
from clusterai.protocol.statements import DigestBytes
from clusterai.work.training.core import vector
from clusterai.work.training.spec import Round

KEPT_S = 24 * 3600.0
"""A run that nobody has touched for so long is forgotten."""


class Shelf(Protocol):
    """`vault.adapters.shelf.Shelf`."""

    def put(self, name: str, data: bytes) -> None: ...
    def get(self, name: str) -> bytes | None: ...
    def names(self) -> list[tuple[str, float]]: ...
    def drop(self, name: str) -> None: ...


class Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one run.

    Attributes:
        private: orders that spent ε, in their order.
        tries: how often each was begun: noise is never drawn twice alike.
        states: what the app's context holds, by block.
    """

    grant: DigestBytes
    private: tuple[DigestBytes, ...]
    tries: dict[DigestBytes, Annotated[int, Meta(ge=0)]]
    states: dict[int, bytes]


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one round.

    Attributes:
        cohort, sums, among: `Once`.
    """

    order: Round
    values: bytes
    metrics: tuple[str, ...]
    clipped: bool
    salt: DigestBytes
    cost: int
    cohort: bytes = b""
    sums: tuple[bytes, ...] = ()
    among: bytes = b""

    def contribution(self) -> vector.Contribution:
        return vector.Contribution(
            np.frombuffer(self.values, "<i8").astype(np.int64), self.metrics, self.clipped
        )


class Notes:
    """All runs' of one vault."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def sweep(self) -> None:
        """What nobody has touched for a day."""
        old = time.time() - KEPT_S
        for name, at_s in self._shelf.names():
            if at_s < old:
                self._shelf.drop(name)

    def find(self, run: Digest) -> tuple[Note | None, list[Kept]]:
        """
        Raises:
            BadVault, msgspec.MsgspecError: it isn't what was written.
        """
        raw = self._shelf.get(run.hex())
        if raw is None:
            return None, []
        rounds = [self._shelf.get(name) for name in self._names(run) if name != run.hex()]
        return (
            msgspec.msgpack.decode(raw, type=Note),
            [msgspec.msgpack.decode(it, type=Kept) for it in rounds if it is not None],
        )

    def keep(self, run: Digest, note: Note) -> None:
        self._shelf.put(run.hex(), msgspec.msgpack.encode(note))

    def keep_round(self, run: Digest, kept: Kept) -> None:
        self._shelf.put(f"{run.hex()}.{kept.order.number}", msgspec.msgpack.encode(kept))

    def drop_round(self, run: Digest, number: int) -> None:
        self._shelf.drop(f"{run.hex()}.{number}")

    def forget(self, run: Digest) -> None:
        """Rounds first: a note alone does no harm."""
        for name in reversed(self._names(run)):
            self._shelf.drop(name)

    def _names(self, run: Digest) -> list[str]:
        return [name for name, _ in self._shelf.names() if name.partition(".")[0] == run.hex()]
