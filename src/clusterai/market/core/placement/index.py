"""All offers that stand, as columns: 100,000 machines, each change a few microseconds, each filter one pass over an array.

Rows of gone offers are used again. An offer that expired is out of every answer at once, whether or not it was swept out;
what is taken (held or rented) is out until it is given back, even if its operator offers it anew meanwhile.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clusterai.market.core.placement.offers import NEWCOMER_RELIABILITY_PPM, Coordinate, Offer
from clusterai.market.core.placement.problem import Flags, Ints
from clusterai.market.core.placement.request import Need, Request
from clusterai.protocol.ids import Address
from clusterai.protocol.offers import MILLION, MOST_PRICE_WEI, Field

FIRST_ROWS = 1_024

Constraint = Literal[
    "standing",
    "free",
    "hardware",
    "cpu",
    "memory",
    "disk",
    "gpu",
    "bandwidth",
    "reliability",
    "measured",
    "region",
    "attested",
    "duration",
    "near",
    "link",
    "placed",
]
"""What one machine is asked by itself. `standing`: neither expired nor from the future. `link`: its round trip to whoever keeps this
index. `placed`: it has a coordinate, which counts only where closeness matters."""


class Columns(NamedTuple):
    """Parallel arrays; rows where `alive` is false mean nothing."""

    alive: Flags
    taken: Flags
    placed: Flags
    hardware: NDArray[np.int32]
    region: NDArray[np.int32]
    gpu: NDArray[np.int32]
    operator: NDArray[np.int32]
    counts_as: NDArray[np.int32]
    """whose machine it is, in the numbers of `operator`"""
    gpus: NDArray[np.int32]
    cpu: Ints
    memory: Ints
    disk: Ints
    bandwidth: Ints
    reliability: Ints
    price: Ints
    measured: NDArray[np.int32]
    issued: Ints
    expires: Ints
    longest: Ints
    link: Ints
    """round trip to whoever keeps the index, in microseconds; 0 is unknown"""
    place: NDArray[np.float32]
    """(rows, 4): x, y, z and height in microseconds"""
    tie: NDArray[np.uint64]
    """the first bytes of the node's id: an order that doesn't depend on who came when"""


def _columns(rows: int) -> Columns:
    def flags() -> Flags:
        return np.zeros(rows, np.bool_)

    def small() -> NDArray[np.int32]:
        return np.zeros(rows, np.int32)

    def large() -> Ints:
        return np.zeros(rows, np.int64)

    return Columns(
        alive=flags(),
        taken=flags(),
        placed=flags(),
        hardware=small(),
        region=small(),
        gpu=small(),
        operator=small(),
        counts_as=small(),
        gpus=small(),
        cpu=large(),
        memory=large(),
        disk=large(),
        bandwidth=large(),
        reliability=large(),
        price=large(),
        measured=small(),
        issued=large(),
        expires=large(),
        longest=large(),
        link=large(),
        place=np.zeros((rows, 4), np.float32),
        tie=np.zeros(rows, np.uint64),
    )


class _Names:
    """Small numbers for strings and addresses; one that no offer has any more is used again, since strangers choose the names."""

    def __init__(self) -> None:
        self._number: dict[object, int] = {}
        self._names: list[object] = []
        self._offers: list[int] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._number)

    def hold(self, name: object) -> int:
        number = self._number.get(name)
        if number is None:
            if self._free:
                number = self._free.pop()
                self._names[number] = name
            else:
                number = len(self._names)
                self._names.append(name)
                self._offers.append(0)
            self._number[name] = number
        self._offers[number] += 1
        return number

    def release(self, number: int) -> None:
        self._offers[number] -= 1
        if not self._offers[number]:
            del self._number[self._names[number]]
            self._names[number] = None
            self._free.append(number)

    def find(self, name: object) -> int:
        """-1 for a name that no offer has."""
        return self._number.get(name, -1)

    def copy(self) -> "_Names":
        """For `find` alone."""
        other = _Names()
        other._number = dict(self._number)
        return other


class Index:
    """Put offers in, take them out, ask for masks. `offers` gives back what was put in, with all its sources."""

    def __init__(self) -> None:
        self.columns = _columns(FIRST_ROWS)
        self._free = list(range(FIRST_ROWS - 1, -1, -1))
        self._rows: dict[Address, int] = {}
        self._offers: list[Offer | None] = [None] * FIRST_ROWS
        self._taken: set[Address] = set()
        # Rows in the order of their nodes' ids, and the rows whose node changed since it was made.
        self._ordered = np.zeros(0, np.int64)
        self._changed: set[int] = set()
        self._hardware, self._regions, self._gpus, self._operators = _Names(), _Names(), _Names(), _Names()
        self._attested: dict[Address, dict[tuple[str, Address], int]] = {}
        """by operator: label and attestor to when it is over"""

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, node: Address) -> bool:
        return node in self._rows

    def copy(self) -> "Index":
        """What stands now, to be planned with elsewhere while this one goes on changing."""
        if self._changed:
            self._order_anew()
        other = Index.__new__(Index)
        other.columns = Columns._make(it.copy() for it in self.columns)
        other._free, other._taken, other._changed = [], set(), set()
        other._rows, other._offers = self._rows.copy(), self._offers.copy()
        other._ordered = self._ordered
        other._hardware, other._regions = self._hardware.copy(), self._regions.copy()
        other._gpus, other._operators = self._gpus.copy(), self._operators.copy()
        other._attested = self._attested.copy()
        return other

    # --- changes ---

    def put(self, offer: Offer, now_s: float) -> None:
        """A new offer, or one in place of the node's last."""
        row = self._rows.get(offer.node)
        fresh = row is None
        if row is None:
            if not self._free:
                self._grow()
            row = self._rows[offer.node] = self._free.pop()
            self._changed.add(row)
        else:
            self._release(row)
        assert 0 <= offer.price_wei <= MOST_PRICE_WEI, "decoding bounds the price"
        self._offers[row] = offer
        measured = offer.measured(now_s)
        c = self.columns
        c.alive[row] = True
        c.taken[row] = offer.node in self._taken
        c.hardware[row] = self._hardware.hold(offer.hardware)
        c.region[row] = self._regions.hold(offer.region)
        c.gpu[row] = self._gpus.hold(offer.gpu)
        c.operator[row] = self._operators.hold(offer.operator)
        c.counts_as[row] = self._operators.hold(offer.counts_as)
        c.gpus[row] = offer.gpus
        c.cpu[row] = offer.cpu_milli
        c.memory[row] = offer.memory_bytes
        c.disk[row] = offer.disk_bytes
        c.bandwidth[row] = offer.bandwidth_kbps
        # What a machine says of its own reliability and place is worth nothing.
        known = measured & Field.RELIABILITY
        c.reliability[row] = (
            offer.reliability_ppm if known else min(offer.reliability_ppm, NEWCOMER_RELIABILITY_PPM)
        )
        c.price[row] = offer.price_wei
        c.measured[row] = measured
        c.issued[row] = offer.issued_s
        c.expires[row] = offer.expires_s
        c.longest[row] = offer.longest_s
        if fresh:
            c.link[row] = 0
        at = offer.coordinate if measured & Field.COORDINATE else None
        c.placed[row] = at is not None
        c.place[row] = (at.x_us, at.y_us, at.z_us, at.height_us) if at is not None else 0.0
        c.tie[row] = int.from_bytes(offer.node[:8])

    def remove(self, node: Address) -> bool:
        row = self._rows.pop(node, None)
        if row is None:
            return False
        self._release(row)
        self.columns.alive[row] = False
        self._offers[row] = None
        self._free.append(row)
        self._changed.add(row)
        return True

    def _release(self, row: int) -> None:
        c = self.columns
        self._hardware.release(int(c.hardware[row]))
        self._regions.release(int(c.region[row]))
        self._gpus.release(int(c.gpu[row]))
        self._operators.release(int(c.operator[row]))
        self._operators.release(int(c.counts_as[row]))

    def sweep(self, now_s: float) -> list[Address]:
        """Take out what expired, and say what it was."""
        c = self.columns
        gone = [self.offer(int(row)).node for row in np.flatnonzero(c.alive & (c.expires <= now_s))]
        for node in gone:
            self.remove(node)
        return gone

    def take(self, nodes: tuple[Address, ...]) -> None:
        """These are held or rented; they stay so until given back, offered or not."""
        self._mark(nodes, taken=True)

    def take_far(self, places: Iterable[Coordinate], most_us: int) -> None:
        """Whoever is further than that from any of these, as predicted, or is nowhere, is taken in this index: for one that was copied."""
        c = self.columns
        for at in places:
            apart = c.place[:, :3] - np.array((at.x_us, at.y_us, at.z_us), np.float32)
            rtt = np.sqrt((apart**2).sum(axis=1)) + c.place[:, 3] + at.height_us
            c.taken[~c.placed | (rtt > most_us)] = True

    def take_of(self, owners: Iterable[Address]) -> None:
        """All machines of these, as operators are counted, are taken in this index: for one that was copied."""
        numbers = [self._operators.find(it) for it in owners]
        c = self.columns
        c.taken[c.alive & np.isin(c.counts_as, numbers)] = True

    def give_back(self, nodes: tuple[Address, ...]) -> None:
        self._mark(nodes, taken=False)

    def heard(self, node: Address, link_us: int) -> None:
        """The round trip to this machine, as measured by whoever keeps the index."""
        row = self._rows.get(node)
        if row is not None:
            self.columns.link[row] = link_us

    def attest(self, operator: Address, attested: dict[tuple[str, Address], int]) -> None:
        """What holds of an operator from now on, in place of what did."""
        if attested:
            self._attested[operator] = attested
        else:
            self._attested.pop(operator, None)

    def _operators_with(self, label: str, attestors: tuple[Address, ...], now_s: float) -> list[int]:
        return [
            self._operators.find(operator)
            for operator, attested in self._attested.items()
            if any(
                name == label and until_s > now_s and (not attestors or attestor in attestors)
                for (name, attestor), until_s in attested.items()
            )
        ]

    def _mark(self, nodes: tuple[Address, ...], *, taken: bool) -> None:
        for node in nodes:
            (self._taken.add if taken else self._taken.discard)(node)
            row = self._rows.get(node)
            if row is not None:
                self.columns.taken[row] = taken

    def _grow(self) -> None:
        before = len(self._offers)
        wider = _columns(2 * before)
        for new, old in zip(wider, self.columns, strict=True):
            new[:before] = old
        self.columns = wider
        self._offers.extend([None] * before)
        self._free = list(range(2 * before - 1, before - 1, -1))

    # --- answers ---

    def offer(self, row: int) -> Offer:
        offer = self._offers[row]
        assert offer is not None, "a row of a mask is alive"
        return offer

    def row(self, node: Address) -> int | None:
        return self._rows.get(node)

    def rows(self, mask: Flags) -> Ints:
        """Rows of a mask in the order of their ids, the same whatever came and went before."""
        if self._changed:
            self._order_anew()
        return self._ordered[mask[self._ordered]]

    def _order_anew(self) -> None:
        """Merge in what changed: a sort of the few, one pass over the many."""
        c = self.columns
        moved = np.zeros(len(c.alive), np.bool_)
        changed = np.fromiter(self._changed, np.int64, len(self._changed))
        moved[changed] = True
        kept = self._ordered[~moved[self._ordered]]
        fresh = changed[c.alive[changed]]
        fresh = fresh[np.argsort(c.tie[fresh], kind="stable")]
        self._ordered = np.insert(kept, np.searchsorted(c.tie[kept], c.tie[fresh]), fresh)
        self._changed.clear()

    def masks(self, need: Need, request: Request, now_s: float) -> Iterator[tuple[Constraint, Flags]]:
        """Each thing that is asked of one machine by itself, with all rows that satisfy it; what isn't asked is left out."""
        c = self.columns
        yield "standing", c.alive & (c.expires > now_s) & (c.issued <= now_s)
        yield "free", ~c.taken
        if need.hardware:
            yield "hardware", c.hardware == self._hardware.find(need.hardware)
        if need.cpu_milli:
            yield "cpu", c.cpu >= need.cpu_milli
        if need.memory_bytes:
            yield "memory", c.memory >= need.memory_bytes
        if need.disk_bytes:
            yield "disk", c.disk >= need.disk_bytes
        if need.gpu or need.gpus:
            kind = c.gpu == self._gpus.find(need.gpu) if need.gpu else True
            yield "gpu", (c.gpus >= max(1, need.gpus)) & kind
        if need.bandwidth_kbps:
            yield "bandwidth", c.bandwidth >= need.bandwidth_kbps
        if need.reliability_ppm:
            yield "reliability", c.reliability >= need.reliability_ppm
        if need.measured:
            yield "measured", (c.measured & need.measured) == need.measured
        if request.regions:
            wanted = [self._regions.find(it) for it in request.regions]
            yield "region", np.isin(c.region, wanted)
        if request.attested:
            proven = [
                np.isin(c.operator, self._operators_with(label, attestors, now_s))
                for label, attestors in request.attested
            ]
            yield "attested", np.logical_and.reduce(proven)
        if request.duration_s:
            yield "duration", c.longest >= request.duration_s
        if request.close:
            yield "placed", c.placed
        if request.near is not None and request.near_us is not None:
            at = request.near
            away = c.place - np.array((at.x_us, at.y_us, at.z_us, 0), np.float32)
            rtt = np.sqrt((away[:, :3] ** 2).sum(axis=1)) + c.place[:, 3] + at.height_us
            yield "near", rtt <= request.near_us
        if request.most_link_us is not None:
            yield "link", (c.link > 0) & (c.link <= request.most_link_us)

    def able(self, need: Need, request: Request, now_s: float) -> Flags:
        result: Flags | None = None
        for _, mask in self.masks(need, request, now_s):
            result = mask if result is None else result & mask
        assert result is not None, "that it stands is always asked"
        return result

    def burden(self, rows: Ints, ppm_wei: int) -> Ints:
        """Price and what unreliability costs the renter."""
        c = self.columns
        return c.price[rows] + (MILLION - c.reliability[rows]) * ppm_wei
