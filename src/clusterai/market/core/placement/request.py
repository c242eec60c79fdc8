"""What a renter asks of placement: how many machines, of what kind, how close, how dear, and what closeness is worth.

What the choice minimises is money per hour, so that nothing has to be weighed in abstract units:

    sum of prices  +  us_wei x diameter  +  ppm_wei x sum of (1,000,000 - reliability)

`us_wei` says what a microsecond of the slowest round trip in the group is worth to the renter in an hour, `ppm_wei` what a
millionth of unreliability is. All are integers, so equal inputs have equal outcomes on every machine.
"""

from collections.abc import Iterator

import msgspec

from clusterai.market.core.placement.offers import Coordinate
from clusterai.protocol.ids import Address
from clusterai.protocol.offers import MOST_PRICE_WEI

MOST_NODES = 100
MOST_US_WEI = 10**8
MOST_PPM_WEI = 10**8
MOST_RTT_US = 2_000_000


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What one machine has to be; an empty string and zero ask nothing.

    Attributes:
        measured: bits of `Field`: these must have been measured by somebody, not just claimed.
    """

    hardware: str = ""
    cpu_milli: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    gpu: str = ""
    gpus: int = 0
    bandwidth_kbps: int = 0
    reliability_ppm: int = 0
    measured: int = 0


class Part(msgspec.Struct, frozen=True):
    nodes: int
    need: Need


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A group to rent.

    Attributes:
        parts: mostly one; several for mixed groups, such as one head and eight workers with GPUs.
        regions: any of these; none asks nothing.
        near, near_us: each machine at most so far from this place, as predicted.
        most_link_us: each machine at most so far from whoever places, by its own measurement.
        most_rtt_us: between any two of the group.
        most_price_wei: of the whole group, an hour.
        most_per_operator: machines of one owner, as operators are counted.
        duration_s: each machine must let itself be rented for so long; 0 asks nothing.
        attested: labels that must have been attested of each operator, each with the attestors who are believed; none believes anybody.
    """

    parts: tuple[Part, ...]
    regions: tuple[str, ...] = ()
    near: Coordinate | None = None
    near_us: int | None = None
    most_link_us: int | None = None
    most_rtt_us: int | None = None
    most_price_wei: int | None = None
    most_per_operator: int | None = None
    attested: tuple[tuple[str, tuple[Address, ...]], ...] = ()
    duration_s: int = 0
    us_wei: int = 1_000
    ppm_wei: int = 100

    @property
    def nodes(self) -> int:
        return sum(part.nodes for part in self.parts)

    @property
    def close(self) -> bool:
        """Whether it matters where the machines are."""
        return (
            self.nodes > 1 and (self.us_wei > 0 or self.most_rtt_us is not None)
        ) or self.near_us is not None


def faults(request: Request) -> Iterator[str]:
    """What of a request makes no sense, in words; a placement takes none that has a fault."""
    if not request.parts or any(part.nodes < 1 for part in request.parts):
        yield "a group has at least one part, and each part at least one machine"
    if request.nodes > MOST_NODES:
        yield f"a group has at most {MOST_NODES} machines, this one {request.nodes}: rent several"
    if request.near_us is not None and request.near is None:
        yield "near what? Give the place from which round trips count"
    if not 0 <= request.us_wei <= MOST_US_WEI or not 0 <= request.ppm_wei <= MOST_PPM_WEI:
        yield f"a microsecond and a millionth are worth 0 to {MOST_US_WEI} of the smallest unit an hour"
    for name, limit, most in (
        ("most_rtt_us", request.most_rtt_us, MOST_RTT_US),
        ("near_us", request.near_us, MOST_RTT_US),
        ("most_link_us", request.most_link_us, MOST_RTT_US),
        ("most_price_wei", request.most_price_wei, MOST_NODES * MOST_PRICE_WEI),
        ("most_per_operator", request.most_per_operator, MOST_NODES),
    ):
        if limit is not None and not 0 < limit <= most:
            yield f"{name} is 1 to {most}, not {limit}"


def single(nodes: int, need: Need | None = None) -> tuple[Part, ...]:
    return (Part(nodes, need or Need()),)
