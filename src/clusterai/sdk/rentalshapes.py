"""What a gateway is asked and tells about rentals, as structs. The server side answers exactly these shapes. Nothing but data.

Amounts are in the token's smallest unit, times in seconds since 1970.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from clusterai.sdk.offershapes import LEAST_S, MOST_S, PlanRequest

Hex32 = Annotated[str, Meta(pattern=r"\A0x[0-9a-f]{64}\Z")]
State = Literal["opening", "running", "paused", "ended"]
Phase = Literal["opening", "opened", "ready", "lost"]


class Setup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of each machine, what the tenant's processes get."""

    image: Annotated[str, Meta(max_length=64)] = "ray-2.60.0"
    cpu_milli: Annotated[int, Meta(ge=1000, le=1_024_000)] = 1000
    memory_bytes: Annotated[int, Meta(ge=512 << 20, le=4 << 40)] = 2 << 30
    disk_bytes: Annotated[int, Meta(ge=256 << 20, le=16 << 40)] = 2 << 30
    gpus: Annotated[int, Meta(ge=0, le=64)] = 0
    env: Annotated[dict[str, str], Meta(max_length=64)] = {}


class RentRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Book what is held.

    Attributes:
        hold: of the plan that was shown.
        plan: what was asked for it: a lost machine is replaced by one that satisfies it, at no higher price.
        key: of the renter's end of the mesh (WireGuard, public); it may be told later.
    """

    hold: Hex32
    plan: PlanRequest
    setup: Setup = Setup()
    key: Hex32 | None = None


class Extension(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    duration_s: Annotated[int, Meta(ge=LEAST_S, le=MOST_S)]


class Meeting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The renter's end of the mesh has this key."""

    key: Hex32


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One end of the mesh, as the renter's own end is to know it.

    Attributes:
        relay: host and port to which what is for it is sent.
        seen: where its packets come from, for the direct way; null until it was heard.
    """

    place: int
    key: str
    address: str
    relay: tuple[str, int] | None
    seen: tuple[str, int] | None


class RentedMachine(msgspec.Struct, frozen=True, kw_only=True):
    """Attributes:
    generation: how many machines had this place before.
    key, signature: of the mesh, signed by `node` (`MeshKey`): so a renter knows whom it talks to.
    proof: `measured` where a validator measured its sentinel, so that time is proven; else `unmeasured`: time is what passed.
    proven_s: paid so far, of all machines that had this place.
    """

    place: int
    generation: int
    node: str
    operator: str
    phase: Phase
    price_hour_wei: int
    key: str
    signature: str
    steps_ms: dict[str, int]
    proof: Literal["measured", "unmeasured"]
    proven_s: float


class RentalNote(msgspec.Struct, frozen=True, kw_only=True):
    at_s: int
    what: str
    detail: str


class Rental(msgspec.Struct, frozen=True, kw_only=True):
    """Attributes:
    began_s: when all machines were ready; nothing is charged for what was before.
    extendable_s: by how much `until_s` can be put off now; what its machines' owners allow counts from now, so it grows with time.
    runway_s: how long the account lasts at this price; null once it ended.
    token: opens Ray and the shell to whoever has it.
    members: the mesh; `place` and `address` are the renter's own.
    why: of what ended: released, over, no_credit, never_ready, not_replaced.
    """

    id: str
    state: State
    made_s: int
    began_s: int | None
    until_s: int
    extendable_s: int
    ended_s: int | None
    why: str
    detail: str
    price_hour_wei: int
    paid_wei: int
    runway_s: int | None
    setup: Setup
    machines: list[RentedMachine]
    network: str
    place: int
    address: str
    head: str
    token: str
    members: list[Member]
    notes: list[RentalNote]


class RentalList(msgspec.Struct, frozen=True, kw_only=True):
    """The newest first."""

    rentals: list[Rental]
