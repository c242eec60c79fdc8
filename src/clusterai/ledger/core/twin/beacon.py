"""ChainBeacon.sol: the chain's own randomness, once an epoch."""

from clusterai.ledger.core.events import BeaconRecorded
from clusterai.ledger.core.twin.state import Revert, Transaction, World
from clusterai.protocol.ids import Digest
from clusterai.protocol.keccak import keccak


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
        """The round that draws from what is committed in this transaction."""
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
