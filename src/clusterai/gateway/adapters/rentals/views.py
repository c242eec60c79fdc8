"""A rental as its renter sees it."""

import time

from clusterai.gateway.core.rentbooks import extendable_s, price_wei
from clusterai.gateway.core.rentdesk import RentDesk
from clusterai.gateway.core.rentstate import Rental, Stay
from clusterai.mesh import net_of
from clusterai.protocol.ids import Address, checksummed, hex0x
from clusterai.sdk import rentalshapes as shapes
from clusterai.work.cluster.price import UNITS_A_SECOND
from clusterai.work.cluster.spec import decode_spec


def rental(desk: RentDesk, it: Rental, left_wei: int) -> shapes.Rental:
    net, mine = net_of(it.lease), it.renter_place
    hour_wei = price_wei(it)
    spec = decode_spec(it.rented.spec)
    state: shapes.State = "opening"
    if it.ended is not None:
        state = "ended"
    elif it.unpaid_s is not None:
        state = "paused"
    elif it.began_s is not None:
        state = "running"
    return shapes.Rental(
        id=hex0x(it.lease),
        state=state,
        made_s=it.rented.at_s,
        began_s=it.began_s,
        until_s=it.until_s,
        extendable_s=0 if it.ended is not None else extendable_s(it, time.time()),
        ended_s=None if it.ended is None else it.ended.at_s,
        why="" if it.ended is None else it.ended.why.value,
        detail="" if it.ended is None else it.ended.detail,
        price_hour_wei=hour_wei,
        paid_wei=it.paid_wei,
        runway_s=None if it.ended is not None else left_wei * 3600 // max(1, hour_wei),
        setup=shapes.Setup(
            image=spec.image,
            cpu_milli=spec.cpu_milli,
            memory_bytes=spec.memory_bytes,
            disk_bytes=spec.disk_bytes,
            gpus=spec.gpus,
            env=spec.env,
        ),
        machines=[_machine(it, stay) for _, stay in sorted(it.stays.items())],
        network=net.prefix,
        place=mine,
        address=net.address(mine),
        head=net.address(0),
        token="" if it.ended is not None else desk.token(it).hex(),
        members=[
            shapes.Member(
                place=member.place,
                key=hex0x(member.key),
                address=net.address(member.place),
                relay=member.relay,
                seen=it.outside.get(member.place),
            )
            for member in (() if it.ended is not None else desk.members(it, mine))
        ],
        notes=[shapes.RentalNote(at_s=at_s, what=what, detail=detail) for at_s, what, detail in it.notes],
    )


def _machine(it: Rental, stay: Stay) -> shapes.RentedMachine:
    return shapes.RentedMachine(
        place=stay.place,
        generation=stay.generation,
        node=checksummed(Address(stay.seat.node)),
        operator=checksummed(Address(stay.seat.operator)),
        phase=stay.phase,
        price_hour_wei=stay.seat.price_wei,
        key=hex0x(stay.key) if stay.key else "",
        signature=hex0x(stay.signature) if stay.signature else "",
        steps_ms=dict(stay.steps),
        proof="measured" if stay.seat.links_per_s_milli else "unmeasured",
        proven_s=it.units.get(stay.place, 0) / UNITS_A_SECOND,
    )
