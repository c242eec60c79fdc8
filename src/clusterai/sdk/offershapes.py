"""What a gateway is asked and tells about machines that are rented whole, as structs. The server side answers exactly these shapes.

Of every field of a machine it is said who says so: its operator (`claimed`, and the price `offered`, which binds it), a validator or
this gateway (`measured`), and since when. Amounts are in the token's smallest unit, round trips in microseconds. Nothing but data.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

MOST_NODES = 100
MOST_S = 30 * 86_400
LEAST_S = 60
MOST_LISTED = 500

Name = Annotated[str, Meta(max_length=32, pattern=r"\A[a-z0-9.-]*\Z")]
U63 = Annotated[int, Meta(ge=0, le=2**53)]
FieldName = Literal[
    "hardware", "cpu", "memory", "gpu", "region", "bandwidth", "reliability", "coordinate", "profile"
]


# --- what is asked ---


class Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What each machine has to be; empty and zero ask nothing.

    Attributes:
        measured: these fields have to be measured by somebody, not just claimed.
    """

    hardware: Name = ""
    cpu_milli: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0
    memory_bytes: U63 = 0
    disk_bytes: U63 = 0
    gpu: Name = ""
    gpus: Annotated[int, Meta(ge=0, le=255)] = 0
    bandwidth_kbps: Annotated[int, Meta(ge=0, le=2**40 - 1)] = 0
    reliability_ppm: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    measured: Annotated[tuple[FieldName, ...], Meta(max_length=9)] = ()


ATTESTED = r"\A[a-z0-9.-]{1,32}(@0x[0-9a-fA-F]{40})?\Z"
Attested = Annotated[str, Meta(pattern=ATTESTED)]
"""A label, whoever attests it, or `label@0x…` of this attestor; several of one label are alternatives."""


class PlanRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group of machines to rent.

    Attributes:
        duration_s: for how long; the price in all is of that.
        max_price_wei: of the whole group, an hour.
        regions: any of these; none asks nothing.
        attested: what somebody must have attested of each machine's operator.
        near_us: each machine at most so far from the gateway, by the pings of its link.
        max_rtt_us: between any two of the group.
        max_per_operator: machines of one owner (`Machine.belongs_to`, else `operator`); 1 is of as many operators as machines.
        us_wei, ppm_wei: what a microsecond of the longest round trip, and a millionth of unreliability, is worth in an hour.
        pricing: `posted` pays each machine what its offer says; `uniform` buys a group at one price, the lowest that lost, of as many
            operators as machines: then `max_price_wei` is needed, and a share of it is the reserve.
        hold: whether the machines are held for a minute; without it a plan is just shown, and may be gone.
    """

    nodes: Annotated[int, Meta(ge=1, le=MOST_NODES)]
    duration_s: Annotated[int, Meta(ge=LEAST_S, le=MOST_S)]
    need: Wanted = Wanted()
    max_price_wei: Annotated[int, Meta(ge=1, le=MOST_NODES * 10**15)] | None = None
    regions: Annotated[tuple[Name, ...], Meta(max_length=16)] = ()
    attested: Annotated[tuple[Attested, ...], Meta(max_length=16)] = ()
    near_us: Annotated[int, Meta(ge=1, le=2_000_000)] | None = None
    max_rtt_us: Annotated[int, Meta(ge=1, le=2_000_000)] | None = None
    max_per_operator: Annotated[int, Meta(ge=1, le=MOST_NODES)] | None = None
    us_wei: Annotated[int, Meta(ge=0, le=10**8)] = 1_000
    ppm_wei: Annotated[int, Meta(ge=0, le=10**8)] = 100
    pricing: Literal["posted", "uniform"] = "posted"
    hold: bool = True


# --- what is told ---


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """A value, and whose word it is: `by` an operator's, a validator's, or this gateway's address. `assumed`: nobody's."""

    value: Any
    says: Literal["claimed", "offered", "measured", "assumed"]
    by: str
    age_s: int


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """One machine that can be placed now.

    Attributes:
        price_wei: of an hour, in force until the offer expires.
        disk_bytes: of a renter's volume at most.
        longest_s: it can't be rented for longer.
        round_trip_us: from the gateway over the machine's link; null until that was measured.
        coordinate: x, y, z, height in microseconds of round trip; null until somebody measured it.
        links_per_s_milli: how fast its cores do the sentinel's links, thousandths of one a second, against which rented time is proven;
            null until somebody measured it: such a machine is rented unproven.
        belongs_to: whose machine the operator's is, as both of them signed; operators are counted by this, and where it is null by `operator`.
    """

    node: str
    operator: str
    price_wei: Said
    hardware: Said
    cpu_milli: Said
    memory_bytes: Said
    disk_bytes: Said
    gpu: Said
    gpus: Said
    region: Said
    bandwidth_kbps: Said
    reliability_ppm: Said
    round_trip_us: Said | None
    coordinate: Said | None
    links_per_s_milli: Said | None
    longest_s: Said
    expires_in_s: int
    belongs_to: str | None = None


class Relaxed(msgspec.Struct, frozen=True, kw_only=True):
    """What to give up, and what comes of it: it was tried, and gave this group."""

    constraints: list[str]
    text: str
    nodes: int
    operators: int
    price_hour_wei: int
    diameter_us: int


class Narrowed(msgspec.Struct, frozen=True, kw_only=True):
    """How many of all machines satisfy one constraint by itself."""

    constraint: str
    offers: int


class WhyNot(msgspec.Struct, frozen=True, kw_only=True):
    """Attributes:
    failing: each of these is enough to give up; if empty, no single one is.
    relaxations: the cheapest first.
    """

    suitable: int
    failing: list[str]
    narrowings: list[Narrowed]
    relaxations: list[Relaxed]


class OfferList(msgspec.Struct, frozen=True, kw_only=True):
    """Machines that can be placed now, the cheapest first.

    Attributes:
        suitable: how many fit, on this page or not.
        standing, taken: machines that are offered; of them, held or rented.
        next: asks for the page behind this one; empty at the end.
        why_not: where nothing fits, what to give up; null where that wasn't worked out.
    """

    offers: list[Machine]
    suitable: int
    standing: int
    taken: int
    next: str = ""
    why_not: WhyNot | None = None


class Toll(msgspec.Struct, frozen=True, kw_only=True):
    """What a constraint costs: price an hour and diameter with it and without it."""

    constraint: str
    price_hour_wei: int
    without_hour_wei: int
    diameter_us: int
    diameter_without_us: int
    saved_wei: int


class RentalPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A group that is held for whoever asked, or was just looked up.

    Attributes:
        hold: names the held machines, for whoever confirms them; empty without a hold.
        held_s: how long it is held from now on.
        seat_hour_wei: what each machine is paid an hour where that is one price for all; null is each its own.
        diameter_us: the longest round trip between two of the group; null where too few places are known.
        pairs_measured: round trips within the group that somebody measured, of `pairs`; the rest is predicted.
    """

    hold: str
    held_s: int
    machines: list[Machine]
    duration_s: int
    price_hour_wei: int
    price_wei: int
    seat_hour_wei: int | None = None
    diameter_us: int | None
    pairs_measured: int
    pairs: int
    tolls: list[Toll]


# --- cards ---


class CardLine(msgspec.Struct, frozen=True, kw_only=True):
    """One field: `claimed` by the owner, `measured` by a validator, or `attested` by somebody; `note` says more."""

    name: str
    value: str
    kind: str
    by: str
    at_s: int
    note: str


class CardView(msgspec.Struct, frozen=True, kw_only=True):
    """A machine's card as a gateway has it.

    Attributes:
        card: its bytes, in base64: BLAKE3 of them is `digest`, which the Registry has for the owner's present one.
        lines: what the gateway read in it; whoever doesn't believe that reads the bytes.
        proven: those of its attestations that are signed and not over, as `label@0x…`.
        belongs_to: whose machine it is, if the operator and that owner both signed so and it isn't over.
    """

    digest: str
    node: str
    operator: str
    card: str
    lines: tuple[CardLine, ...]
    proven: tuple[str, ...]
    belongs_to: str | None = None
