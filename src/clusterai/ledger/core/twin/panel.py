"""Panel.sol: who can be drawn, and with what weight at which time."""

from collections.abc import Collection

from clusterai.ledger.core.events import Enlisted
from clusterai.ledger.core.twin.registry import Registry
from clusterai.ledger.core.twin.state import Transaction, World, require
from clusterai.protocol.ids import ZERO_ADDRESS, Address

SEATS = 64
_UINT64_MAX = 2**64 - 1
Sitting = tuple[int, Address, int]
"""Since when, who, with what weight."""


class Panel:
    def __init__(self, world: World, registry: Registry) -> None:
        self._store = world.store
        self._registry = registry

    # --- public ---

    def enlist(self, tx: Transaction) -> None:
        owner = self._registry.owner_of(tx.sender)
        stake = self._registry.validator_stake(owner)
        require(stake != 0, "NotValidator")
        seat = self._seat_of(owner)
        if seat == 0:
            taken = self.taken()
            if taken < SEATS:
                seat = taken + 1
                self._store.put(("seats_taken",), seat)
            else:
                seat = self._vacate(stake)
            self._store.put(("seat_of", owner), seat)
        self._weigh(tx, seat, owner, stake)

    def weigh(self, tx: Transaction, auditor: Address) -> None:
        seat = self._seat_of(auditor)
        if seat:
            self._weigh(tx, seat, auditor, self._registry.validator_stake(auditor))

    # --- views ---

    def taken(self) -> int:
        return self._store.get(("seats_taken",), 0)

    def pick(self, lot: int, time_s: int, excluded: Collection[Address]) -> Address:
        """Zero where there is nobody."""
        seats = self.before(time_s, excluded)
        total = sum(weight for _, weight in seats)
        if total == 0:
            return ZERO_ADDRESS
        point = lot % total
        for owner, weight in seats:
            if point < weight:
                return owner
            point -= weight
        raise AssertionError("the point lies below the sum")

    def shares(self, owner: Address, time_s: int, excluded: Collection[Address]) -> tuple[int, int]:
        """What `owner` weighs, and all together."""
        seats = self.before(time_s, excluded)
        return sum(weight for who, weight in seats if who == owner), sum(weight for _, weight in seats)

    def before(self, time_s: int, excluded: Collection[Address] = ()) -> list[tuple[Address, int]]:
        """The panel as it stood before `time_s`, in the order of seats; those of the excluded weigh nothing."""
        found: list[tuple[Address, int]] = []
        for seat in range(1, self.taken() + 1):
            past = [one for one in self._history(seat) if one[0] < time_s]
            owner, weight = past[-1][1:] if past else (ZERO_ADDRESS, 0)
            found.append((owner, 0 if owner in excluded else weight))
        return found

    def seat_at(self, seat: int) -> tuple[Address, int]:
        """Who has it now (counted from 0), and with what weight."""
        history = self._history(seat + 1)
        return history[-1][1:] if history else (ZERO_ADDRESS, 0)

    # --- internal ---

    def _seat_of(self, owner: Address) -> int:
        """Plus one; 0 for none."""
        return self._store.get(("seat_of", owner), 0)

    def _history(self, seat: int) -> tuple[Sitting, ...]:
        return self._store.get(("seat", seat), ())

    def _weigh(self, tx: Transaction, seat: int, owner: Address, stake: int) -> None:
        weight = min(stake, _UINT64_MAX)
        history = self._history(seat)
        if history and history[-1][0] == tx.now_s:
            history = history[:-1]
        self._store.put(("seat", seat), (*history, (tx.now_s, owner, weight)))
        tx.emit(Enlisted(seat - 1, owner, weight))

    def _vacate(self, stake: int) -> int:
        seat = min(range(1, SEATS + 1), key=lambda one: self.seat_at(one - 1)[1])
        former, least = self.seat_at(seat - 1)
        require(stake > least, "PanelFull")
        self._store.put(("seat_of", former), 0)
        return seat
