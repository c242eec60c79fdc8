"""Which validators measure a machine: drawn by a beacon that came after its owner had registered, anew each day.

    lot k = keccak("clusterai measures" || beacon || owner || uint32 k)      the seat at lot mod (sum of weights), without those drawn before

    registered            beacon                 midnight        beacon
        |                   |                       |               |
        |                   |--- drawn by this ---------------------|--- by this ---
        `- nobody yet

The owner's address stood before anyone knew the beacon, so it can't be chosen to suit a friend among the validators; of three that
are drawn by stake, a friend with a share r of it is one with 1 - (1 - r)^3, and is alone with r^3. The weights are the panel's, as for
audits. The machine itself doesn't enter: all machines of one owner are measured by the same validators, who can call them at once.

A projection of chain events, so that gateways, validators and nodes come to the same without asking each other. At the turn of a
draw some are a block ahead of others: whoever takes measurements takes those of the last draw too.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

from clusterai.ledger.core.events import (
    Barred,
    BeaconRecorded,
    Block,
    Bonded,
    Enlisted,
    Registered,
    RolledBack,
    Slashed,
    Unbonding,
)
from clusterai.market.core.directory import Directory
from clusterai.protocol.ids import Address, Digest, Role
from clusterai.protocol.keccak import keccak

DAY_S = 86_400
PER_OWNER = 3
KEPT_BEACONS = 32_768
"""Two days of one each 5 s."""


_CHANGES = (BeaconRecorded, Registered, Enlisted, RolledBack, Slashed, Barred, Bonded, Unbonding)


class Drawn(NamedTuple):
    """`validators` were drawn by the beacon of `round`, at `time_s`."""

    validators: tuple[Address, ...]
    round: int
    beacon: Digest
    time_s: int


class _Said(NamedTuple):
    block: int
    time_s: int
    event: Any


class Draws:
    """Apply events in order, behind the directory; then ask."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._unnamed: list[Any] = []
        self._beacons: list[_Said] = []
        self._others: list[_Said] = []
        self._joined: dict[Address, int] = {}
        self._known: dict[tuple[Address, int], list[Drawn]] = {}
        """by owner and day, until something happens that may change it: daemons ask of every owner, every second"""

    def apply(self, event: object) -> None:
        if isinstance(event, _CHANGES):
            self._known.clear()
        match event:
            case BeaconRecorded() | Registered() | Enlisted():
                self._unnamed.append(event)
            case Block(number, time_s) if self._unnamed:
                for one in self._unnamed:
                    kept = self._beacons if isinstance(one, BeaconRecorded) else self._others
                    kept.append(_Said(number, time_s, one))
                    if isinstance(one, Registered):
                        self._joined.setdefault(one.owner, time_s)
                self._unnamed.clear()
                self._known.clear()
                if len(self._beacons) > 2 * KEPT_BEACONS:
                    del self._beacons[:KEPT_BEACONS]
            case RolledBack(number):
                self._unnamed.clear()
                self._beacons = [it for it in self._beacons if it.block <= number]
                self._others = [it for it in self._others if it.block <= number]
                self._joined = {}
                for it in self._others:
                    if isinstance(it.event, Registered):
                        self._joined.setdefault(it.event.owner, it.time_s)
            case _:
                pass

    def joined_s(self, owner: Address) -> int | None:
        """When it registered; None before."""
        return self._joined.get(owner)

    def drawn(self, owner: Address, now_s: float) -> Drawn | None:
        """Who measures `owner`'s machines now; None while no beacon came since it registered."""
        draws = self._draws(owner, now_s)
        return draws[0] if draws else None

    def may_measure(self, owner: Address, validator: Address, now_s: float) -> bool:
        """Whether a measurement by `validator` counts: it was drawn, now or the time before."""
        return any(validator in it.validators for it in self._draws(owner, now_s))

    def _draws(self, owner: Address, now_s: float) -> list[Drawn]:
        """This day's and the last's, the newest first."""
        key = (owner, int(now_s) // DAY_S)
        if key not in self._known:
            self._known[key] = self._computed(owner, now_s)
        return self._known[key]

    def _computed(self, owner: Address, now_s: float) -> list[Drawn]:
        joined = self.joined_s(owner)
        if joined is None:
            return []
        midnight = int(now_s) // DAY_S * DAY_S
        found: list[_Said] = []
        for since in (midnight, midnight - DAY_S):
            at = bisect_right(self._beacons, max(since, joined), key=lambda it: it.time_s)
            if at < len(self._beacons) and self._beacons[at] not in found:
                found.append(self._beacons[at])
        if not found and self._beacons and self._beacons[-1].time_s > joined:
            found.append(self._beacons[-1])
        seats = self._seats()
        return [
            Drawn(
                draw(it.event.beacon, owner, seats),
                it.event.round,
                it.event.beacon,
                it.time_s,
            )
            for it in found
        ]

    def _seats(self) -> list[tuple[Address, int]]:
        """The panel; all validators with stake where nobody has enlisted yet."""
        seats: dict[int, tuple[Address, int]] = {}
        for it in self._others:
            if isinstance(it.event, Enlisted):
                seats[it.event.seat] = (it.event.auditor, it.event.weight)
        panel = [seats[at] for at in sorted(seats)]
        if not any(weight for _, weight in panel):
            panel = [(it, self._directory.stake(it)) for it in self._directory.holders(Role.VALIDATOR)]
        return [
            (who, weight)
            for who, weight in panel
            if self._directory.roles(who) & Role.VALIDATOR and not self._directory.barred(who)
        ]


def draw(
    beacon: Digest, owner: Address, seats: Sequence[tuple[Address, int]], count: int = PER_OWNER
) -> tuple[Address, ...]:
    """`count` of them at most, each once, with a chance in proportion to its weight; never `owner` itself."""
    left: list[tuple[Address, int]] = [it for it in seats if it[1] and it[0] != owner]
    found: list[Address] = []
    while left and len(found) < count:
        seed = keccak(b"clusterai measures" + beacon + owner + len(found).to_bytes(4))
        point = int.from_bytes(seed) % sum(weight for _, weight in left)
        for who, weight in left:
            if point < weight:
                found.append(who)
                break
            point -= weight
        taken = found[-1]
        left = [(who, weight) for who, weight in left if who != taken]
    return tuple(found)
