"""Participants as the chain's events describe them: which key acts for whom, in which role, with what stake.

A projection: feed it every chain event in order and ask. Events stand before the `Block` that closes their block;
`RolledBack(n)` undoes all above block n from an undo log of the newest blocks. A daemon rebuilds it by reading
the chain from its first block, so it needs no journal.

A key stays bound to its owner after it is revoked: it may no longer act, but what it signed stays its owner's.
"""

from collections import deque
from typing import Any

import msgspec

from clusterai.ledger.core.events import (
    Barred,
    Block,
    Bonded,
    CardUpdated,
    Delegated,
    Registered,
    Revoked,
    RolledBack,
    Slashed,
    Unbonding,
    Withdrawn,
)
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest, Role

UNDO_BLOCKS = 256
"""How deep a reorganisation may go; deeper ones need a fresh read of the chain."""


class Participant(msgspec.Struct, frozen=True):
    roles: Role = Role(0)
    stake_wei: int = 0
    unbonding_wei: int = 0
    barred: bool = False
    card: Digest = ZERO_DIGEST


class Binding(msgspec.Struct, frozen=True):
    """Whom a key belongs to; `active` while it may act."""

    owner: Address
    active: bool


NOBODY = Participant()


class TooDeep(ValueError):
    """The chain rolled back to block {to}, but the undo log begins at {first}: read the chain anew."""

    def __init__(self, to: int, first: int) -> None:
        super().__init__(
            f"the chain rolled back to block {to}, but the undo log begins at {first}: read the chain anew"
        )


class Directory:
    """Apply events in order, then ask. Unknown keys and owners are nobody: no roles, no stake."""

    def __init__(self) -> None:
        self._participants: dict[Address, Participant] = {}
        self._bindings: dict[Address, Binding] = {}
        self.block = -1
        self.time_s = 0
        self._undo: deque[tuple[int, dict[Address, Any], Address, Any]] = deque()
        # Events come before the block that they stand in is named, and blocks without any may be left out.
        self._unnamed: list[tuple[dict[Address, Any], Address, Any]] = []
        self._forgotten = -1

    # --- events ---

    def apply(self, event: object) -> None:
        """Take one chain event; those that don't concern participants are passed over.

        Raises:
            TooDeep: a rollback past the undo log.
        """
        match event:
            case Registered(owner, roles, card):
                self._put(self._bindings, owner, Binding(owner, active=True))
                self._change(owner, roles=Role(roles), card=card)
            case CardUpdated(owner, card):
                self._change(owner, card=card)
            case Delegated(owner, hot):
                self._put(self._bindings, hot, Binding(owner, active=True))
            case Revoked(owner, hot):
                self._put(self._bindings, hot, Binding(owner, active=False))
            case Bonded(owner, _, stake):
                self._change(owner, stake_wei=stake)
            case Unbonding(owner, amount, _):
                was = self.participant(owner)
                self._change(
                    owner, stake_wei=was.stake_wei - amount, unbonding_wei=was.unbonding_wei + amount
                )
            case Withdrawn(owner, _):
                self._change(owner, unbonding_wei=0)
            case Slashed(owner):
                self._change(owner, stake_wei=0, unbonding_wei=0, barred=True)
            case Barred(receiver):
                self._change(receiver, barred=True)
            case Block(number, timestamp_s):
                self.block, self.time_s = number, timestamp_s
                self._undo.extend((number, *change) for change in self._unnamed)
                self._unnamed.clear()
                while self._undo and self._undo[0][0] <= number - UNDO_BLOCKS:
                    self._forgotten = self._undo.popleft()[0]
            case RolledBack(number):
                self._roll_back(number)
            case _:
                pass

    def _change(self, owner: Address, **changes: object) -> None:
        self._put(self._participants, owner, msgspec.structs.replace(self.participant(owner), **changes))

    def _put(self, table: dict[Address, Any], key: Address, value: object) -> None:
        self._unnamed.append((table, key, table.get(key)))
        table[key] = value

    def _roll_back(self, number: int) -> None:
        if number < self._forgotten:
            raise TooDeep(number, self._forgotten)
        undone = self._unnamed[::-1]
        self._unnamed.clear()
        while self._undo and self._undo[-1][0] > number:
            undone.append(self._undo.pop()[1:])
        for table, key, before in undone:
            if before is None:
                del table[key]
            else:
                table[key] = before
        self.block = min(self.block, number)

    # --- answers ---

    def participant(self, owner: Address) -> Participant:
        return self._participants.get(owner, NOBODY)

    def owner_of(self, key: Address) -> Address | None:
        """Whom `key` may act for now: itself if it registered, its owner while delegated."""
        binding = self._bindings.get(key)
        return binding.owner if binding is not None and binding.active else None

    def ever_owner_of(self, key: Address) -> Address | None:
        """Whose signature `key`'s is, revoked or not: for judging what was signed in the past."""
        binding = self._bindings.get(key)
        return binding.owner if binding is not None else None

    def acts_for(self, key: Address, owner: Address, role: Role) -> bool:
        """Whether `key` may now act for `owner` in `role`, and the owner wasn't barred."""
        participant = self.participant(owner)
        return self.owner_of(key) == owner and bool(participant.roles & role) and not participant.barred

    def roles(self, owner: Address) -> Role:
        return self.participant(owner).roles

    def stake(self, owner: Address) -> int:
        """What counts in votes and against the least stake; what is unbonding doesn't."""
        return self.participant(owner).stake_wei

    def barred(self, owner: Address) -> bool:
        return self.participant(owner).barred

    def holders(self, role: Role) -> tuple[Address, ...]:
        """Owners in good standing that hold `role`, in the order in which they first appeared."""
        return tuple(owner for owner, it in self._participants.items() if it.roles & role and not it.barred)

    def hot_keys(self, owner: Address) -> tuple[Address, ...]:
        """Keys that may act for `owner` now, its own included."""
        return tuple(
            key for key, binding in self._bindings.items() if binding.owner == owner and binding.active
        )
