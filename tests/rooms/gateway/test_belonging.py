"""Whose a machine is: said by both sides it counts, said by one alone it doesn't; who belongs together is counted as one operator."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterai.market.core.placement import Request, WhyNot, single
from clusterai.protocol import canonical
from clusterai.protocol.belonging import MOST_BELONGING_S, SKEW_S, Belonging, belong, owner_of
from clusterai.protocol.cards import Card
from clusterai.protocol.ids import Address, checksummed, hex0x
from clusterai.protocol.measuring import Claims
from clusterai.protocol.offering import Carded
from clusterai.protocol.offers import Field, MachineMeasurement, signed_digest
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.runtime.machine import Received
from tests.rooms.gateway.test_marketplace import NETWORK, RENTER, START_S, TOKEN, VALIDATOR, Operator, World

DAY_S = 86_400
ANN, BOB, CID, DAN = (Operator(number) for number in (1, 2, 3, 4))
OTHER_NETWORK = network_domain(31415, Address(b"s" * 20))


def key_of(operator: Operator) -> Key:
    return next(key for n in (1, 2, 3, 4) if (key := Key((1_000 * n).to_bytes(32))).address == operator.owner)


ANNS = key_of(ANN)
SAID = belong(ANNS, key_of(BOB), NETWORK, START_S, START_S + DAY_S)


def pair(most: int | None = 1, nodes: int = 2) -> Request:
    return Request(parts=single(nodes), us_wei=0, most_per_operator=most)


def card(operator: Operator, belonging: Belonging | None) -> Received:
    claims = Claims(1, "x86-64-v3", "", 4, 4_000, 2**33, 0, (), "eu", 0)
    node = operator.machines[0].address
    return Received(
        operator.owner,
        Carded(canonical.encode(Card(operator.owner, node, claims, (), (), START_S, belonging))),
    )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    it = World(tmp_path, ANN, BOB, CID, DAN)
    yield it
    it.market.close()


def planned(world: World, request: Request) -> Any:
    return asyncio.run(world.market.plan(request))


def owners(world: World) -> dict[Address, Address]:
    index = world.market.index
    return {
        offer.operator: offer.counts_as
        for node in world.standing()
        if (row := index.row(node)) is not None
        for offer in [index.offer(row)]
    }


def test_two_machines_of_one_owner_are_no_two_operators(world: World) -> None:
    """Undeclared they are strangers and placed together; declared, only one of them is, until a stranger comes."""
    for operator in (ANN, BOB):
        assert world.offer(operator) is None
    assert not isinstance(planned(world, pair()), WhyNot)
    assert world.market.hear(card(BOB, SAID))
    found = planned(world, pair())
    assert isinstance(found, WhyNot)
    assert "all machines of one operator" in " ".join(it.text for it in found.relaxations)
    assert not isinstance(planned(world, pair(most=2)), WhyNot)
    assert not isinstance(planned(world, pair(most=None)), WhyNot)
    assert world.offer(CID, price_wei=3 * TOKEN) is None
    again = planned(world, pair())
    assert not isinstance(again, WhyNot)
    assert CID.machines[0].address in again.plan.nodes


def test_what_is_said_before_the_offer_counts_with_it(world: World) -> None:
    """A card comes first, or the offer does: it is the same; a card without it takes it back."""
    world.market.hear(card(BOB, SAID))
    for operator in (ANN, BOB):
        world.offer(operator)
    assert owners(world) == {ANN.owner: ANN.owner, BOB.owner: ANN.owner}
    world.offer(BOB, price_wei=2 * TOKEN)
    assert owners(world)[BOB.owner] == ANN.owner
    world.market.hear(card(BOB, None))
    assert owners(world)[BOB.owner] == BOB.owner


def test_it_ends_when_it_is_over(world: World) -> None:
    """The sweep after its end lets the machine count as its own."""
    world.market.hear(card(BOB, SAID))
    world.now_s = START_S + DAY_S - 300.0
    world.offer(BOB)
    assert owners(world)[BOB.owner] == ANN.owner
    world.now_s = float(START_S + DAY_S)
    world.market.sweep(world.now_s)
    assert owners(world)[BOB.owner] == BOB.owner


@pytest.mark.parametrize(
    "forged",
    [
        # Bob's machine claims to be the famous Ann's: it signs for both.
        msgspec.structs.replace(SAID, owner_signature=SAID.account_signature),
        msgspec.structs.replace(SAID, owner_signature=bytes(65)),
        # Ann claims the stranger Bob's machine.
        msgspec.structs.replace(SAID, account_signature=SAID.owner_signature),
        msgspec.structs.replace(SAID, account_signature=bytes(65)),
        # What Ann and Bob said, with another in the place of one of them.
        msgspec.structs.replace(SAID, owner=CID.owner),
        msgspec.structs.replace(SAID, account=DAN.owner),
        # A machine's own key, which acts for Bob on a link, doesn't say whose Bob is.
        msgspec.structs.replace(SAID, account_signature=BOB.machines[0].sign(SAID.signing_digest(NETWORK))),
        msgspec.structs.replace(SAID, expires_s=SAID.expires_s + 1),
        belong(ANNS, key_of(BOB), OTHER_NETWORK, START_S, START_S + DAY_S),
        belong(ANNS, key_of(BOB), NETWORK, START_S - DAY_S, START_S),
        belong(ANNS, key_of(BOB), NETWORK, START_S + SKEW_S + 1, START_S + DAY_S),
        belong(ANNS, key_of(BOB), NETWORK, START_S, START_S + MOST_BELONGING_S + 1),
        belong(key_of(BOB), key_of(BOB), NETWORK, START_S, START_S + DAY_S),
        belong(ANNS, key_of(CID), NETWORK, START_S, START_S + DAY_S),
    ],
)
def test_neither_side_says_it_alone(world: World, forged: Belonging) -> None:
    """A machine that claims a famous owner, an owner that claims a stranger's machine, another's statement, one of
    another network, over, not begun, without end, or of oneself: none of them counts, and the card is still shown."""
    for operator in (ANN, BOB):
        world.offer(operator)
    world.market.hear(card(BOB, forged))
    assert owners(world) == {ANN.owner: ANN.owner, BOB.owner: BOB.owner}
    assert not isinstance(planned(world, pair()), WhyNot)
    view = world.market.cards.view(BOB.machines[0].address, world.now_s)
    assert view is not None
    assert view.belongs_to is None


def test_nobody_says_it_over_anothers_link(world: World) -> None:
    """Ann holds what Bob once signed, and can't say it in Bob's place."""
    world.offer(BOB)
    frame = card(BOB, SAID).frame
    world.market.hear(Received(ANN.owner, frame))
    assert owners(world)[BOB.owner] == BOB.owner


def test_a_card_and_an_offer_show_whose_it_is(world: World) -> None:
    """Who looks sees the account, the owner, and that both said so."""
    world.market.hear(card(BOB, SAID))
    view = world.market.cards.view(BOB.machines[0].address, world.now_s)
    assert view is not None
    assert (view.operator, view.belongs_to) == (hex0x(BOB.owner), hex0x(ANN.owner))
    assert [(it.kind, it.value) for it in view.lines if it.name == "belongs_to"] == [
        ("declared", hex0x(ANN.owner))
    ]


def test_a_replacement_is_no_second_machine_of_one_owner(world: World) -> None:
    """With at most one of each, the machine in place of a lost one isn't a sibling of one that goes on."""
    world.market.hear(card(BOB, SAID))
    for operator in (ANN, BOB, CID):
        world.offer(operator, price_wei=TOKEN if operator is not CID else 2 * TOKEN)
    stayed = ANN.machines[0].address

    def another(number: int, request: Request) -> Any:
        name = canonical.Digest(number.to_bytes(32))
        found: Any = asyncio.run(
            world.market.another(request, RENTER, name, 2 * TOKEN, (stayed,), beside=(ANN.owner,))
        )
        nodes = found.answered.plan.nodes
        world.market.release(name)
        return nodes

    assert another(1, pair()) == (CID.machines[0].address,)
    assert another(2, pair(most=2)) == (BOB.machines[0].address,)
    assert another(3, pair(most=None)) == (BOB.machines[0].address,)


def test_an_owner_does_not_measure_what_it_says_is_its_own(world: World) -> None:
    """A validator's word on a machine that belongs to it counts for nothing."""
    said = belong(VALIDATOR, key_of(BOB), NETWORK, START_S, START_S + DAY_S)
    world.offer(BOB)
    found = MachineMeasurement(
        BOB.machines[0].address, VALIDATOR.address, 1, int(Field.RELIABILITY), "", 0, 0, "", 0, "", 0, 999_000,
        0, 0, 0, 0, 0, 0, bytes(32), START_S,
    )  # fmt: skip
    data, signature = canonical.encode(found), VALIDATOR.sign(signed_digest(found, NETWORK))
    world.market.hear(card(BOB, said))
    turned = world.market.measurement(VALIDATOR.address, data, signature)
    assert turned is not None
    assert turned.reason == "own"
    world.market.hear(card(BOB, None))
    assert world.market.measurement(VALIDATOR.address, data, signature) is None
    world.market.hear(card(BOB, said))
    row = world.market.index.row(BOB.machines[0].address)
    assert row is not None
    assert world.market.index.offer(row).measured(world.now_s) == 0


def test_it_holds_of_one_account_and_not_of_its_owner() -> None:
    """What is said is said of the account alone, and shown to people by its own address."""
    assert owner_of(SAID, BOB.owner, NETWORK, START_S) == ANN.owner
    assert owner_of(SAID, ANN.owner, NETWORK, START_S) is None
    assert owner_of(None, BOB.owner, NETWORK, START_S) is None
    assert checksummed(Address(SAID.owner)) == checksummed(ANN.owner)
