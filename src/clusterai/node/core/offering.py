"""This machine's offer to be rented whole: made anew before it is over, withdrawn while it mustn't be rented.

    Linked ─────────────────────┐
    Tick, half of its life over ┼─> Save(SerialUsed) ─> Send(Offered) to every gateway
    Withhold(cause, why) ───────┘      with nothing in between: the offer of that serial stands, or was never said

Serials are durable and never below the clock's seconds: a machine whose folder was lost isn't taken for one that says old things.
A withdrawal is an offer that expires as it is issued. Several causes may withhold at once (its owner, its drain, a renter).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from clusterai.node.core.leases import Noted
from clusterai.protocol import canonical
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.offering import Offered, OfferTurned
from clusterai.protocol.offers import MachineOffer
from clusterai.protocol.statements import U63
from clusterai.runtime.machine import Linked, Received, Save, Send, Started, Tick, Unlinked


class SerialUsed(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True, array_like=True):
    """An offer of this serial may have been said."""

    serial: U63


class Withhold(msgspec.Struct, frozen=True):
    """Event: don't be rented, for this reason, until the same cause says none."""

    cause: str
    why: str = ""


class OfferBook:
    """A machine as in `runtime/machine.py`.

    Args:
        machine: what is offered; serial and times are filled in.
        life_s: how long an offer stands.
        sign: by the machine's hot key, of the offer's digest.
    """

    RECORDS = SerialUsed

    def __init__(
        self,
        machine: MachineOffer,
        life_s: int,
        digest: Callable[[MachineOffer], Digest],
        sign: Callable[[Digest], bytes],
    ) -> None:
        self._machine, self._life_s = machine, life_s
        self._digest, self._sign = digest, sign
        self._serial = 0
        self._gateways: dict[Address, None] = {}
        self._causes: dict[str, str] = {}
        self.offer: MachineOffer | None = None
        """the newest that was said"""
        self.turned: dict[Address, OfferTurned] = {}
        """by gateway, why it doesn't list the newest offer"""

    # --- machine ---

    def restore(self, records: Iterable[SerialUsed]) -> None:
        for record in records:
            self._serial = max(self._serial, record.serial)

    def snapshot(self) -> Sequence[SerialUsed]:
        return [SerialUsed(self._serial)] if self._serial else []

    def step(self, event: Any, now_s: float) -> list[Any]:
        match event:
            case Linked(peer):
                self._gateways[peer] = None
                self.turned.pop(peer, None)
                return self._renewed(now_s) or ([] if self.withheld else [self._said(peer)])
            case Unlinked(peer):
                self._gateways.pop(peer, None)
                self.turned.pop(peer, None)
                return []
            case Withhold(cause, why):
                if why:
                    self._causes[cause] = why
                else:
                    self._causes.pop(cause, None)
                return self._renewed(now_s)
            case Received(peer, OfferTurned() as turned):
                if self.offer is None or turned.serial not in (0, self.offer.serial):
                    return []
                self.turned[peer] = turned
                apart = round(now_s) - turned.now_s
                clocks = f"; its clock and ours are {abs(apart)} s apart" if abs(apart) > 5 else ""
                return [Noted("not_listed", f"{turned.reason}: {turned.detail}{clocks}", peer)]
            case Started() | Tick():
                return self._renewed(now_s)
            case _:
                return []

    # --- answers ---

    @property
    def withheld(self) -> tuple[str, ...]:
        """Why this machine isn't offered now; empty if it is."""
        return tuple(self._causes.values())

    # --- rules ---

    def _renewed(self, now_s: float) -> list[Any]:
        """A new offer where one is due, or the withdrawal of one that still stands."""
        standing = self.offer is not None and self.offer.issued_s <= now_s < self.offer.expires_s
        if self.withheld:
            return self._make(now_s, 0) if standing else []
        if not self._gateways:
            return []
        assert self.offer is not None or not standing
        young = standing and self.offer is not None and now_s < self.offer.issued_s + self._life_s / 2
        return [] if young else self._make(now_s, self._life_s)

    def _make(self, now_s: float, life_s: int) -> list[Any]:
        self._serial = max(self._serial + 1, int(now_s))
        self.offer = msgspec.structs.replace(
            self._machine, serial=self._serial, issued_s=int(now_s), expires_s=int(now_s) + life_s
        )
        self.turned.clear()
        return [Save(SerialUsed(self._serial)), *map(self._said, self._gateways)]

    def _said(self, gateway: Address) -> Send:
        assert self.offer is not None, "it was made before it is said"
        signature = self._sign(self._digest(self.offer))
        return Send(gateway, Offered(canonical.encode(self.offer), signature))
