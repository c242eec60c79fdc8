"""ChainBeacon.sol, the chain's own randomness, and DrandBeacon.sol, drand's: Court and Audits ask either."""

from hashlib import sha256
from typing import Protocol

from clusterai.ledger.core.calls import G1Point
from clusterai.ledger.core.events import BeaconRecorded
from clusterai.ledger.core.rules import DrandRules
from clusterai.ledger.core.twin.state import Revert, Transaction, World, require
from clusterai.protocol.ids import Digest
from clusterai.protocol.keccak import keccak

P = 0x1A0111EA397FE69A4B1BA7B6434BACD764774B84F38512BF6730D2A0F6B0F6241EABFFFEB153FFFFB9FEFFFFFFFFAAAB
"""The order of BLS12-381's field."""


class Beacon(Protocol):
    def next(self, tx: Transaction) -> int:
        """The round that draws from what is committed in this transaction."""
        ...

    def beacon(self, number: int) -> Digest:
        """A round's word, or `Revert`."""
        ...

    def is_recorded(self, number: int) -> bool: ...


class ChainBeacon:
    def __init__(self, world: World) -> None:
        self._store = world.store
        self._epoch_s = world.rules.epoch_s

    # --- public: anyone ---

    def tick(self, tx: Transaction) -> None:
        epoch = tx.now_s // self._epoch_s
        ticked_until: int = self._store.get(("ticked_until",), 0)
        if epoch < ticked_until:
            return
        self._store.put(("ticked_until",), epoch + 1)
        beacon = Digest(keccak(tx.block.prevrandao + epoch.to_bytes(8)))
        rounds = self.rounds()
        self._store.put(("beacon", rounds), beacon)
        self._store.put(("rounds",), rounds + 1)
        tx.emit(BeaconRecorded(rounds, beacon))

    def next(self, tx: Transaction) -> int:
        self.tick(tx)
        return self.rounds()

    # --- views ---

    def beacon(self, number: int) -> Digest:
        beacon: Digest | None = self._store.get(("beacon", number), None)
        if beacon is None:
            raise Revert("BeaconPending")
        return beacon

    def is_recorded(self, number: int) -> bool:
        return number < self.rounds()

    def rounds(self) -> int:
        return self._store.get(("rounds",), 0)


class DrandBeacon:
    def __init__(self, world: World, given: DrandRules) -> None:
        self._store = world.store
        self._verify = world.verify
        self._given = given
        self._span_s = world.rules.epoch_s

    # --- public: anyone ---

    def record_pulse(self, tx: Transaction, number: int, signature: G1Point) -> None:
        time_s = self._open(number)
        require(tx.now_s >= time_s, "TooEarly")
        require(tx.now_s <= time_s + self._span_s, "TooLate")
        x, y = (
            int.from_bytes(a + b) for a, b in ((signature.x_a, signature.x_b), (signature.y_a, signature.y_b))
        )
        require(max(x, y) < P, "PairingFailed")
        signed = self._verify(self._given, number, x.to_bytes(48) + y.to_bytes(48))
        require(signed is not None, "PairingFailed")
        require(signed is True, "FalsePulse")
        flags = 0xA0 if y > P // 2 else 0x80
        compressed = (flags << 376 | x).to_bytes(48)
        self._record(tx, number, sha256(compressed).digest())

    def record_lapsed(self, tx: Transaction, number: int) -> None:
        require(tx.now_s > self._open(number) + self._span_s, "TooEarly")
        self._record(tx, number, tx.block.prevrandao)

    def next(self, tx: Transaction) -> int:
        return self.round_of(tx.now_s // self._span_s)

    # --- views ---

    def beacon(self, number: int) -> Digest:
        word: Digest | None = self._store.get(("beacon", number), None)
        if word is None:
            raise Revert("BeaconPending")
        return word

    def is_recorded(self, number: int) -> bool:
        return self._store.get(("beacon", number), None) is not None

    def round_of(self, epoch: int) -> int:
        return self._given.round_of(epoch, self._span_s)

    # --- internal ---

    def _open(self, number: int) -> int:
        require(number != 0, "DrawsNothing")
        require(not self.is_recorded(number), "AlreadyRecorded")
        time_s = self._given.time_of(number)
        ends = (time_s - 1 - self._given.margin_s) // self._span_s
        require(ends != 0 and self.round_of(ends - 1) == number, "DrawsNothing")
        return time_s

    def _record(self, tx: Transaction, number: int, randomness: bytes) -> None:
        word = Digest(keccak(randomness + number.to_bytes(8)))
        self._store.put(("beacon", number), word)
        tx.emit(BeaconRecorded(number, word))
