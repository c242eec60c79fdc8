"""All offers that stand, as columns: 100,000 machines, each change a few microseconds, each filter one pass over an array.

Rows of gone offers are used again. An offer that expired is out of every answer at once, whether or not it was swept out;
what is taken (held or rented) is out until it is given back, even if its operator offers it anew meanwhile.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clusterai.market.core.placement.offers import NEWCOMER_RELIABILITY_PPM, Offer
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
    "gpu",
    "bandwidth",
    "reliability",
    "measured",
    "region",
    "near",
    "placed",
]
"""What one machine is asked by itself. `standing`: neither expired nor from the future. `placed`: it has a coordinate, which
counts only where closeness matters."""


class Columns(NamedTuple):
    """Parallel arrays; rows where `alive` is false mean nothing."""

    alive: Flags
    taken: Flags
    placed: Flags
    hardware: NDArray[np.int32]
    region: NDArray[np.int32]
    gpu: NDArray[np.int32]
    operator: NDArray[np.int32]
    gpus: NDArray[np.int32]
    cpu: Ints
    memory: Ints
    bandwidth: Ints
    reliability: Ints
    price: Ints
    measured: NDArray[np.int32]
    issued: Ints
    expires: Ints
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
        gpus=small(),
        cpu=large(),
        memory=large(),
        bandwidth=large(),
        reliability=large(),
        price=large(),
        measured=small(),
        issued=large(),
        expires=large(),
        place=np.zeros((rows, 4), np.float32),
        tie=np.zeros(rows, np.uint64),
    )


class _Names:
    """Small numbers for strings and addresses, kept for good: kinds and regions are few, operators return."""

    def __init__(self) -> None:
        self._number: dict[object, int] = {}

    def number(self, name: object) -> int:
        return self._number.setdefault(name, len(self._number))

    def find(self, name: object) -> int:
        """-1 for a name that no offer ever had."""
        return self._number.get(name, -1)


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

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, node: Address) -> bool:
        return node in self._rows

    # --- changes ---

    def put(self, offer: Offer, now_s: float) -> None:
        """A new offer, or one in place of the node's last."""
        row = self._rows.get(offer.node)
        if row is None:
            if not self._free:
                self._grow()
            row = self._rows[offer.node] = self._free.pop()
            self._changed.add(row)
        assert 0 <= offer.price_wei <= MOST_PRICE_WEI, "decoding bounds the price"
        self._offers[row] = offer
        measured = offer.measured(now_s)
        c = self.columns
        c.alive[row] = True
        c.taken[row] = offer.node in self._taken
        c.hardware[row] = self._hardware.number(offer.hardware)
        c.region[row] = self._regions.number(offer.region)
        c.gpu[row] = self._gpus.number(offer.gpu)
        c.operator[row] = self._operators.number(offer.operator)
        c.gpus[row] = offer.gpus
        c.cpu[row] = offer.cpu_milli
        c.memory[row] = offer.memory_bytes
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
        at = offer.coordinate if measured & Field.COORDINATE else None
        c.placed[row] = at is not None
        c.place[row] = (at.x_us, at.y_us, at.z_us, at.height_us) if at is not None else 0.0
        c.tie[row] = int.from_bytes(offer.node[:8])

    def remove(self, node: Address) -> bool:
        row = self._rows.pop(node, None)
        if row is None:
            return False
        self.columns.alive[row] = False
        self._offers[row] = None
        self._free.append(row)
        self._changed.add(row)
        return True

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

    def give_back(self, nodes: tuple[Address, ...]) -> None:
        self._mark(nodes, taken=False)

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
        if request.close:
            yield "placed", c.placed
        if request.near is not None and request.near_us is not None:
            at = request.near
            away = c.place - np.array((at.x_us, at.y_us, at.z_us, 0), np.float32)
            rtt = np.sqrt((away[:, :3] ** 2).sum(axis=1)) + c.place[:, 3] + at.height_us
            yield "near", rtt <= request.near_us

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
