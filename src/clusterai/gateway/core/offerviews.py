"""Machines and plans as clients see them: each field with whose word it is and how old that is."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from clusterai.market.core.placement import Answered, Field, Offer, Request, WhyNot
from clusterai.market.core.placement.listing import Page, Place
from clusterai.market.core.placement.offers import Source
from clusterai.market.core.placement.request import Need, single
from clusterai.protocol.ids import Address, address, checksummed
from clusterai.protocol.offers import MachineMeasurement
from clusterai.protocol.units import counted
from clusterai.sdk import offershapes as shapes

HOUR_S = 3_600
_shown = lru_cache(8_192)(checksummed)
"""A machine's operator stands beside each of its fields, and a checksum is a hash."""
Profile = Callable[[Address], MachineMeasurement | None]
"""Of a machine, who measured its sentinel last."""
PLACE = re.compile(r"([0-9]{1,16})-([0-9a-f]{40})", re.ASCII)


def price_of(hour_wei: int, duration_s: int) -> int:
    """Of so many seconds; a part of a unit is a whole one."""
    return -(-hour_wei * duration_s // HOUR_S)


def request_of(wish: shapes.PlanRequest) -> Request:
    return Request(
        parts=single(wish.nodes, need_of(wish.need)),
        regions=wish.regions,
        attested=attested_of(wish.attested),
        most_link_us=wish.near_us,
        most_rtt_us=wish.max_rtt_us,
        most_price_wei=wish.max_price_wei,
        most_per_operator=wish.max_per_operator,
        duration_s=wish.duration_s,
        us_wei=wish.us_wei,
        ppm_wei=wish.ppm_wei,
    )


def attested_of(names: Sequence[str]) -> tuple[tuple[str, tuple[Address, ...]], ...]:
    """`label` and `label@0x…` by label: who is believed. A label without an attestor believes anybody."""
    found: dict[str, tuple[Address, ...]] = {}
    anybody: set[str] = set()
    for name in names:
        label, at, attestor = name.partition("@")
        found.setdefault(label, ())
        if at:
            found[label] += (address(attestor),)
        else:
            anybody.add(label)
    return tuple((label, () if label in anybody else attestors) for label, attestors in found.items())


def need_of(wanted: shapes.Wanted) -> Need:
    measured = 0
    for name in wanted.measured:
        measured |= Field[name.upper()]
    return Need(
        hardware=wanted.hardware,
        cpu_milli=wanted.cpu_milli,
        memory_bytes=wanted.memory_bytes,
        disk_bytes=wanted.disk_bytes,
        gpu=wanted.gpu,
        gpus=wanted.gpus,
        bandwidth_kbps=wanted.bandwidth_kbps,
        reliability_ppm=wanted.reliability_ppm,
        measured=measured,
    )


def machine(
    offer: Offer, link_us: int, profile: MachineMeasurement | None, me: Address, now_s: float
) -> shapes.Machine:
    """
    Args:
        profile: who measured its sentinel last, if anybody did.
    """

    def told(value: object, source: Source) -> shapes.Said:
        age_s = max(0, int(now_s) - source.at_s)
        return shapes.Said(value=value, says=source.kind, by=_shown(source.by), age_s=age_s)

    def of(field: Field, value: object) -> shapes.Said:
        return told(value, offer.source(field, now_s))

    at = offer.coordinate if offer.measured(now_s) & Field.COORDINATE else None
    return shapes.Machine(
        node=_shown(offer.node),
        operator=_shown(offer.operator),
        price_wei=told(offer.price_wei, offer.price_source),
        hardware=of(Field.HARDWARE, offer.hardware),
        cpu_milli=of(Field.CPU, offer.cpu_milli),
        memory_bytes=of(Field.MEMORY, offer.memory_bytes),
        disk_bytes=told(offer.disk_bytes, Source("claimed", offer.operator, offer.issued_s)),
        gpu=of(Field.GPU, offer.gpu),
        gpus=of(Field.GPU, offer.gpus),
        region=of(Field.REGION, offer.region),
        bandwidth_kbps=of(Field.BANDWIDTH, offer.bandwidth_kbps),
        reliability_ppm=_reliability(of(Field.RELIABILITY, offer.reliability_ppm), me),
        round_trip_us=told(link_us, Source("measured", me, int(now_s))) if link_us else None,
        coordinate=of(Field.COORDINATE, (at.x_us, at.y_us, at.z_us, at.height_us))
        if at is not None
        else None,
        links_per_s_milli=None
        if profile is None
        else told(profile.links_per_s_milli, Source("measured", Address(profile.validator), profile.at_s)),
        longest_s=told(offer.longest_s, offer.price_source),
        expires_in_s=max(0, offer.expires_s - int(now_s)),
        belongs_to=None if offer.belongs_to is None else _shown(offer.belongs_to),
    )


def _reliability(said: shapes.Said, me: Address) -> shapes.Said:
    """An operator isn't asked how reliable it is: without a measurement a newcomer's is assumed."""
    if said.says == "measured":
        return said
    return shapes.Said(value=said.value, says="assumed", by=_shown(me), age_s=0)


def offers(page: Page, why: WhyNot | None, profile: Profile, me: Address, now_s: float) -> shapes.OfferList:
    return shapes.OfferList(
        offers=[machine(it, link_us, profile(it.node), me, now_s) for it, link_us in page.offers],
        suitable=page.suitable,
        standing=page.standing,
        taken=page.taken,
        next="" if page.next is None else f"{page.next.price_wei}-{page.next.node.hex()}",
        why_not=None if why is None else why_not(why),
    )


def place_of(text: str) -> Place | None:
    """Where a page ended, from its `next`; None for anything else."""
    found = PLACE.fullmatch(text)
    return None if found is None else Place(int(found[1]), Address(bytes.fromhex(found[2])))


def why_not(why: WhyNot) -> shapes.WhyNot:
    return shapes.WhyNot(
        suitable=why.suitable,
        failing=list(why.failing),
        narrowings=[shapes.Narrowed(constraint=it.constraint, offers=it.offers) for it in why.narrowings],
        relaxations=[
            shapes.Relaxed(
                constraints=list(it.constraints),
                text=it.text,
                nodes=len(it.plan.nodes),
                operators=len({offer.counts_as for offer in it.plan.offers}),
                price_hour_wei=it.plan.price_wei,
                diameter_us=it.plan.diameter_us,
            )
            for it in why.relaxations
        ],
    )


def plan(
    found: Answered,
    links_us: dict[Address, int],
    profile: Profile,
    hold: str,
    held_s: int,
    duration_s: int,
    me: Address,
    now_s: float,
) -> shapes.RentalPlan:
    it = found.plan
    return shapes.RentalPlan(
        hold=hold,
        held_s=held_s,
        machines=[
            machine(offer, links_us.get(offer.node, 0), profile(offer.node), me, now_s) for offer in it.offers
        ],
        duration_s=duration_s,
        price_hour_wei=it.price_wei,
        price_wei=price_of(it.price_wei, duration_s),
        seat_hour_wei=it.seat_wei,
        diameter_us=None if found.is_blind else it.diameter_us,
        pairs_measured=0 if found.is_blind else it.pairs_measured,
        pairs=it.pairs,
        tolls=[
            shapes.Toll(
                constraint=toll.constraint,
                price_hour_wei=toll.price_wei,
                without_hour_wei=toll.price_without_wei,
                diameter_us=toll.diameter_us,
                diameter_without_us=toll.diameter_without_us,
                saved_wei=toll.saved_wei,
            )
            for toll in found.tolls
        ],
    )


def unplaced(why: WhyNot) -> str:
    """The sentence for a person: what fails, and the cheapest way out."""
    if not why.relaxations:
        return f"{_suit(why.suitable)}, and nothing that could be given up, alone or in pairs, makes a group of them"
    cheapest = why.relaxations[0]
    return f"{_suit(why.suitable)} each wish; the cheapest way out ({', '.join(cheapest.constraints)}): {cheapest.text}"


def _suit(suitable: int) -> str:
    return f"{counted(suitable, 'machine')} suit{'s' * (suitable == 1)}"
