"""Two toy machines for the simulator's own tests: a teller pays numbered notes into a vault until each is acknowledged.

`Vault(careless=True)` answers before it saved, which is the bug that a crash between two effects must find.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from clusterai.protocol.ids import Address
from clusterai.runtime.machine import Linked, Received, Save, Send, Started, Tick

TELLER = Address(b"teller".ljust(20))
VAULT = Address(b"vault".ljust(20))


class Note(msgspec.Struct, frozen=True, tag=True):
    number: int
    amount: int


class Thanks(msgspec.Struct, frozen=True, tag=True):
    number: int


Toys = Note | Thanks


class Teller:
    """Sends notes 0 to `notes` - 1, one at a time, again until thanked."""

    RECORDS = Thanks

    def __init__(self, notes: int) -> None:
        self._notes = notes
        self.next = 0

    def restore(self, records: Iterable[Any]) -> None:
        for record in records:
            self.next = record.number + 1

    def step(self, event: Any, now_s: float) -> list[Any]:
        match event:
            case Received(_, Thanks(number)) if number == self.next:
                self.next += 1
                return [Save(Thanks(number)), *self._send()]
            case Started() | Linked() | Tick():
                return self._send()
            case _:
                return []

    def _send(self) -> list[Any]:
        return [Send(VAULT, Note(self.next, 10 + self.next))] if self.next < self._notes else []

    def snapshot(self) -> list[msgspec.Struct]:
        return [Thanks(self.next - 1)] if self.next else []


class Vault:
    """Takes each note once; thanks for every copy."""

    RECORDS = Note

    def __init__(self, careless: bool = False) -> None:
        self._careless = careless
        self.notes: dict[int, int] = {}

    def restore(self, records: Iterable[Any]) -> None:
        for record in records:
            self.notes[record.number] = record.amount

    def step(self, event: Any, now_s: float) -> list[Any]:
        match event:
            case Received(sender, Note(number, amount) as note):
                thanks = Send(sender, Thanks(number))
                if number in self.notes:
                    return [thanks]
                self.notes[number] = amount
                return [thanks, Save(note)] if self._careless else [Save(note), thanks]
            case _:
                return []

    def snapshot(self) -> list[msgspec.Struct]:
        return [Note(number, amount) for number, amount in self.notes.items()]
