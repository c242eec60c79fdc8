"""The marketplace under what can go wrong: floods, crashes between hold and confirm, machines that vanish, clocks that differ."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterai.gateway.adapters.cards import Cards
from clusterai.gateway.adapters.marketplace import OFFERS_A_MINUTE, PLANS_WAITING, Busy, Marketplace, Reserved
from clusterai.gateway.config import MarketConfig
from clusterai.ledger.core.events import (
    Barred,
    BeaconRecorded,
    Block,
    Bonded,
    Delegated,
    Registered,
    Revoked,
    RolledBack,
)
from clusterai.market.core.directory import Directory
from clusterai.market.core.placement import (
    Answered,
    Booked,
    Freed,
    Holding,
    Index,
    Refused,
    Request,
    WhyNot,
    single,
)
from clusterai.market.core.placement.book import HOLD_S
from clusterai.market.core.placement.feed import SKEW_S
from clusterai.protocol import canonical
from clusterai.protocol.cards import Attestation, Card
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest, Role, hex0x
from clusterai.protocol.measuring import Claims
from clusterai.protocol.offering import Carded, Offered, OfferTurned
from clusterai.protocol.offers import Field, MachineMeasurement, MachineOffer, signed_digest
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.runtime.machine import Received, Unlinked

NETWORK = network_domain(31415, Address(b"r" * 20))
START_S = 1_000_000
TOKEN = 10**9
STAKE_PER_MACHINE = 100
ONE = Request(parts=single(1), us_wei=0)
RENTER, OTHER = Address(b"R" * 20), Address(b"O" * 20)


def key(number: int) -> Key:
    return Key(number.to_bytes(32))


VALIDATOR = key(9)


class Operator:
    """An owner with some machines' keys."""

    def __init__(self, number: int, machines: int = 1, stake: int = 10 * STAKE_PER_MACHINE) -> None:
        self.owner = key(1_000 * number).address
        self.machines = [key(1_000 * number + at) for at in range(1, machines + 1)]
        self.stake = stake

    def events(self) -> list[Any]:
        return [
            Registered(self.owner, int(Role.PROVIDER), ZERO_DIGEST),
            Bonded(self.owner, self.stake, self.stake),
            *(Delegated(self.owner, it.address) for it in self.machines),
        ]


class World:
    """A marketplace with a clock of its own, its links played by the test."""

    def __init__(self, folder: Path, *operators: Operator) -> None:
        self.path = folder / "market.db"
        self.operators = operators
        self.now_s = float(START_S)
        self.directory = Directory()
        self.sent: list[tuple[Address, Any]] = []
        self.serial = 0
        self.told: tuple[Any, ...] = (
            Registered(VALIDATOR.address, int(Role.VALIDATOR), ZERO_DIGEST),
            Bonded(VALIDATOR.address, 1, 1),
            *(event for it in operators for event in it.events()),
            Block(1, START_S - 20),
            BeaconRecorded(0, Digest(bytes(32))),
            Block(2, START_S),
        )
        for event in self.told:
            self.directory.apply(event)
        self.market = self.fresh()

    def fresh(self) -> Marketplace:
        market = Marketplace(
            self.path,
            self.directory,
            NETWORK,
            MarketConfig(machine_stake_wei=STAKE_PER_MACHINE),
            "NORMAL",
            lambda peer, frame: self.sent.append((peer, frame)),
            lambda peer: 5.0,
            lambda: self.now_s,
        )
        market.driver.start()
        for event in self.told:
            market.follow(event)
        return market

    def crash(self) -> None:
        """The process dies; what is in the journal is all that is left."""
        self.market.close()
        self.market = self.fresh()

    def statement(self, operator: Operator, at: int = 0, **changes: Any) -> MachineOffer:
        self.serial += 1
        fields: dict[str, Any] = {
            "node": operator.machines[at].address,
            "operator": operator.owner,
            "serial": self.serial,
            "hardware": "x86-64-v3",
            "cpu_milli": 4_000,
            "memory_bytes": 2**33,
            "disk_bytes": 2**36,
            "gpu": "",
            "gpus": 0,
            "region": "eu",
            "bandwidth_kbps": 100_000,
            "price_wei": TOKEN,
            "issued_s": int(self.now_s),
            "expires_s": int(self.now_s) + 600,
        }
        return MachineOffer(**(fields | changes))

    def offer(self, operator: Operator, at: int = 0, **changes: Any) -> OfferTurned | None:
        """Over the operator's own link; what the gateway answered."""
        return self.say(operator.owner, self.statement(operator, at, **changes), operator.machines[at])

    def say(self, peer: Address, statement: MachineOffer, by: Key) -> OfferTurned | None:
        frame = Offered(canonical.encode(statement), by.sign(signed_digest(statement, NETWORK)))
        self.sent.clear()
        assert self.market.hear(Received(peer, frame)), "nobody else is concerned"
        assert all(to == peer for to, _ in self.sent)
        return self.sent[0][1] if self.sent else None

    def reserve(self, number: int, renter: Address = RENTER, request: Request = ONE) -> Any:
        return asyncio.run(self.market.reserve(request, renter, name(number)))

    def standing(self) -> list[Address]:
        index = self.market.index
        mask = index.able(ONE.parts[0].need, ONE, self.now_s)
        return [index.offer(int(row)).node for row in index.rows(mask)]


def name(number: int) -> Digest:
    return Digest(number.to_bytes(32))


ANN, BOB, CID = Operator(1), Operator(2), Operator(3)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, ANN, BOB, CID)


# --- floods ---


def test_a_flood_of_offers_costs_its_sender_alone(world: World):
    """Beyond so many a minute they aren't looked at; others are heard, and a minute later the flooder is, too."""
    for _ in range(OFFERS_A_MINUTE):
        assert world.offer(ANN) is None
    turned = world.offer(ANN)
    assert turned is not None
    assert (turned.reason, turned.now_s) == ("full", START_S)
    assert "offers a minute" in turned.detail
    assert world.offer(BOB) is None
    world.now_s += 60
    assert world.offer(ANN) is None


def test_an_operator_lists_no_more_machines_than_its_stake_carries(tmp_path: Path):
    """The rest is told why; so is who offers for somebody else, or says what isn't an offer."""
    many = Operator(4, machines=12)
    world = World(tmp_path, many, ANN)
    answers = [world.offer(many, at) for at in range(12)]
    assert [it is None for it in answers] == [True] * 10 + [False] * 2
    assert answers[-1] is not None
    assert answers[-1].reason == "staked"
    assert len(world.standing()) == 10
    foreign = world.say(many.owner, world.statement(ANN), ANN.machines[0])
    assert foreign is not None
    assert foreign.reason == "unknown"
    world.sent.clear()
    world.market.hear(Received(many.owner, Offered(b"\xc0", bytes(65))))
    assert world.sent[0][1].reason == "malformed"


def test_no_more_plans_are_waited_for_than_can_be_worked_out(world: World):
    """The next is told to come again; those that wait are answered."""
    world.offer(ANN)

    async def test() -> None:
        asked = [asyncio.ensure_future(world.market.plan(ONE)) for _ in range(PLANS_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await world.market.plan(ONE)
        assert {type(it) for it in await asyncio.gather(*asked)} == {Answered}
        assert isinstance(await world.market.plan(ONE), Answered)

    asyncio.run(test())


# --- crashes ---


def test_a_hold_survives_a_crash_and_is_confirmed(world: World):
    """Killed between hold and confirm: the machine is the renter's, at the price that was shown, and nobody else's."""
    world.offer(ANN)
    reserved = world.reserve(1)
    assert isinstance(reserved, Reserved)
    world.crash()
    world.offer(ANN, price_wei=5 * TOKEN)
    assert isinstance(world.reserve(2, OTHER), WhyNot)
    booked = world.market.confirm(name(1), START_S + 7_200)
    assert isinstance(booked, Booked)
    assert [(it.node, it.price_wei) for it in booked.seats] == [(ANN.machines[0].address, TOKEN)]
    world.crash()
    assert world.market.seats(name(1)) == booked.seats
    assert world.market.confirm(name(1), START_S + 7_200) == booked
    assert isinstance(world.reserve(3, OTHER), WhyNot)


def test_a_hold_that_nobody_confirmed_ends_though_the_gateway_was_away(world: World):
    """After a restart past its time the machine is free, and the late confirmation is refused."""
    world.offer(ANN)
    assert isinstance(world.reserve(1), Reserved)
    world.crash()
    freed: list[Freed] = []
    world.market.freed.append(freed.append)
    world.now_s += HOLD_S + 1
    world.market.sweep(world.now_s)
    assert [(it.hold, it.why) for it in freed] == [(name(1), "expired")]
    assert world.market.confirm(name(1), START_S + 7_200) == Refused(name(1), "gone")
    world.offer(ANN)
    assert isinstance(world.reserve(2, OTHER), Reserved)


def test_bookings_that_nobody_wants_any_more_are_given_back(world: World):
    """Those that are wanted stay, and so does what is just held."""
    for operator in (ANN, BOB, CID):
        world.offer(operator)
    for number in range(3):
        assert isinstance(world.reserve(number), Reserved)
    for number in range(2):
        assert isinstance(world.market.confirm(name(number), START_S + 3_600), Booked)
    world.market.keep_only({name(1)})
    assert [bool(world.market.seats(name(it))) for it in range(3)] == [False, True, True]


# --- races and machines that vanish ---


def test_of_many_who_race_for_one_machine_one_gets_it(world: World):
    """All plan at once with the same offer; the book decides, the rest hear that nothing stands free."""
    world.offer(ANN)

    async def test() -> list[Any]:
        return await asyncio.gather(*(world.market.reserve(ONE, RENTER, name(at)) for at in range(10)))

    answers = asyncio.run(test())
    assert [type(it) for it in answers].count(Reserved) == 1
    assert [type(it) for it in answers].count(WhyNot) == 9


def test_a_plan_is_worked_out_anew_when_its_machine_was_taken_meanwhile(world: World):
    """Two free machines, two who want the cheapest: both are served, with different machines."""
    world.offer(ANN)
    world.offer(BOB, price_wei=2 * TOKEN)

    async def test() -> list[Any]:
        return await asyncio.gather(*(world.market.reserve(ONE, RENTER, name(at)) for at in range(2)))

    first, second = asyncio.run(test())
    assert isinstance(first, Reserved)
    assert isinstance(second, Reserved)
    assert first.answered.plan.nodes != second.answered.plan.nodes


def test_a_machine_that_vanished_after_the_hold_is_replaced_at_no_higher_price(world: World):
    """By one that is no dearer and wasn't tried; where there is none, the price that would do is told."""
    world.offer(ANN)
    world.offer(BOB, price_wei=2 * TOKEN)
    reserved = world.reserve(1)
    assert isinstance(reserved, Reserved)
    world.market.hear(Unlinked(ANN.owner))
    assert isinstance(world.market.confirm(name(1), START_S + 3_600), Booked)
    lost = ANN.machines[0].address

    def another(number: int) -> Any:
        return asyncio.run(world.market.another(ONE, RENTER, name(number), TOKEN, (lost,)))

    assert isinstance(another(2), WhyNot)
    world.offer(CID)
    replaced = another(3)
    assert isinstance(replaced, Reserved)
    assert replaced.answered.plan.nodes == (CID.machines[0].address,)
    assert replaced.answered.plan.price_wei <= reserved.answered.plan.price_wei
    assert isinstance(world.market.confirm(name(3), START_S + 3_600), Booked)
    world.market.release(name(1))
    assert world.market.seats(name(1)) == ()


def test_what_is_refused_before_the_hold_holds_nothing(world: World):
    """Whoever asks may look at the plan first and say no."""
    world.offer(ANN)

    def no(found: Answered) -> None:
        assert found.plan.price_wei == TOKEN
        raise PermissionError

    with pytest.raises(PermissionError):
        asyncio.run(world.market.reserve(ONE, RENTER, name(1), no))
    assert world.market.renter(name(1)) is None
    assert isinstance(world.reserve(2), Reserved)


def test_a_machine_stands_only_while_its_operator_is_linked_and_may_offer(world: World):
    """Gone with the link, with the key, with the conviction; and looked at anew when the chain rolls back."""
    for operator in (ANN, BOB, CID):
        world.offer(operator)
    world.market.hear(Unlinked(ANN.owner))
    assert ANN.machines[0].address not in world.standing()
    for event in (Revoked(BOB.owner, BOB.machines[0].address), Block(2, START_S)):
        world.directory.apply(event)
        world.market.follow(event)
    assert world.standing() == [CID.machines[0].address]
    barred = Barred(CID.owner)
    world.directory.apply(barred)
    world.market.follow(barred)
    assert world.standing() == []
    world.directory.apply(RolledBack(1))
    world.market.follow(RolledBack(1))
    assert world.offer(BOB) is None
    assert world.offer(CID) is None


# --- clocks ---


@pytest.mark.parametrize(
    ("ahead_s", "taken"), [(0, True), (SKEW_S, True), (SKEW_S + 1, False), (-599, True), (-600, False)]
)
def test_clocks_may_differ_a_little(world: World, ahead_s: int, taken: bool):
    """A machine that is a little ahead can be rented at once; one too far off is told our time."""
    issued_s = START_S + ahead_s
    turned = world.offer(ANN, issued_s=issued_s, expires_s=issued_s + 600)
    assert (turned is None) == taken
    if turned is not None:
        assert (turned.reason, turned.now_s) == ("stale", START_S)
    assert isinstance(world.reserve(1), Reserved if taken else WhyNot)


def test_a_hold_ends_with_the_offer_that_it_holds(world: World):
    """An offer with ten seconds left is held for ten."""
    world.offer(ANN, issued_s=START_S - 590, expires_s=START_S + 10)
    reserved = world.reserve(1)
    assert isinstance(reserved, Reserved)
    assert reserved.holding == Holding(name(1), START_S + 10)


# --- measurements ---


def measurement(node: Address, by: Key = VALIDATOR, **changes: Any) -> MachineMeasurement:
    fields: dict[str, Any] = {
        "node": node,
        "validator": by.address,
        "serial": 1,
        "fields": int(Field.CPU),
        "hardware": "",
        "cpu_milli": 3_500,
        "memory_bytes": 0,
        "gpu": "",
        "gpus": 0,
        "region": "",
        "bandwidth_kbps": 0,
        "reliability_ppm": 0,
        "x_us": 0,
        "y_us": 0,
        "z_us": 0,
        "height_us": 0,
        "links_per_s_milli": 0,
        "links_at_once_per_s_milli": 0,
        "findings": bytes(32),
        "at_s": START_S,
    }
    return MachineMeasurement(**(fields | changes))


def test_a_validators_finding_stands_in_place_of_the_claim(world: World):
    """From its own link alone, and told whole to whoever asks; another's, a forged one or a provider's isn't."""
    world.offer(ANN)
    node = ANN.machines[0].address
    found = measurement(node)
    raw = canonical.encode(found)
    signature = VALIDATOR.sign(signed_digest(found, NETWORK))
    assert world.market.measured(node, Field.CPU) is None

    def reason(peer: Address, data: bytes, signed: bytes) -> str:
        turned = world.market.measurement(peer, data, signed)
        return "" if turned is None else turned.reason

    assert reason(BOB.owner, raw, signature) == "unknown"
    assert reason(VALIDATOR.address, raw, bytes(65)) == "forged"
    assert reason(VALIDATOR.address, b"\xc0", signature) == "malformed"
    assert reason(VALIDATOR.address, raw, signature) == ""
    assert world.market.measured(node, Field.CPU) == found
    assert world.market.measured(node, Field.GPU) is None
    reserved = world.reserve(1)
    assert reserved.answered.plan.offers[0].cpu_milli == 3_500
    own = measurement(node, BOB.machines[0])
    signed = BOB.machines[0].sign(signed_digest(own, NETWORK))
    assert reason(BOB.machines[0].address, canonical.encode(own), signed) == "forged"


def test_a_replacement_keeps_to_the_groups_limit_on_round_trips(world: World):
    """The cheaper machine is too far from one that stayed, and one that nobody measured is nowhere: the near one is taken."""
    dan = Operator(5)
    for event in (
        *dan.events(),
        Block(2, START_S),
        BeaconRecorded(1, Digest(b"1" * 32)),
        Block(3, START_S + 1),
    ):
        world.directory.apply(event)
        world.market.follow(event)
    places = {ANN: 0, BOB: 500_000, CID: 9_000}
    for operator in (ANN, BOB, CID, dan):
        assert world.offer(operator, price_wei=TOKEN if operator is not CID else 2 * TOKEN) is None
    for operator, x_us in places.items():
        found = measurement(operator.machines[0].address, fields=int(Field.COORDINATE), x_us=x_us)
        signature = VALIDATOR.sign(signed_digest(found, NETWORK))
        assert world.market.measurement(VALIDATOR.address, canonical.encode(found), signature) is None
    stayed = ANN.machines[0].address
    close = Request(parts=single(2), us_wei=0, most_rtt_us=10_000)

    def another(number: int, request: Request) -> Any:
        return asyncio.run(world.market.another(request, RENTER, name(number), 2 * TOKEN, (stayed,)))

    found = another(1, close)
    assert isinstance(found, Reserved)
    assert found.answered.plan.nodes == (CID.machines[0].address,)
    assert isinstance(another(2, close), WhyNot)
    assert isinstance(another(3, Request(parts=single(2), us_wei=0)), Reserved)


# --- what is attested ---


def card_of(operator: Operator, *labels: str, by: Key = VALIDATOR) -> bytes:
    """An operator's card with attestations that hold for a day."""
    bare = [
        Attestation(by.address, operator.owner, it, bytes(32), START_S - 60, START_S + 86_400, bytes(65))
        for it in labels
    ]
    signed = tuple(msgspec.structs.replace(it, signature=by.sign(it.signing_digest(NETWORK))) for it in bare)
    claims = Claims(1, "x86-64-v3", "", 4, 4_000, 2**33, 0, (), "eu", 0)
    return canonical.encode(Card(operator.owner, operator.machines[0].address, claims, (), signed, START_S))


def test_renters_choose_operators_by_whom_they_trust(world: World) -> None:
    """A label counts by the attestors that are named, several labels together, and for nobody once the card says it no more."""

    def placed(*asked: tuple[str, tuple[Address, ...]]) -> set[Address]:
        index, wish = world.market.index, msgspec.structs.replace(ONE, attested=asked)
        mask = index.copy().able(ONE.parts[0].need, wish, world.now_s)
        return {index.offer(int(row)).operator for row in index.rows(mask)}

    for operator in (ANN, BOB, CID):
        assert world.offer(operator) is None
    for operator, card in (
        (ANN, card_of(ANN, "soc2", "iso27001")),
        (BOB, card_of(BOB, "soc2", by=BOB.machines[0])),
    ):
        assert world.market.hear(Received(operator.owner, Carded(card)))
    assert placed(("soc2", ())) == {ANN.owner, BOB.owner}
    assert placed(("soc2", (VALIDATOR.address,))) == {ANN.owner}
    assert placed(("soc2", ()), ("iso27001", ())) == {ANN.owner}
    assert placed(("hipaa", ())) == set()
    world.market.hear(Received(ANN.owner, Carded(card_of(ANN))))
    assert placed(("soc2", ())) == {BOB.owner}
    world.now_s += 86_400
    assert placed(("soc2", ())) == set()


def test_nobody_tells_anothers_card(world: World) -> None:
    """Not over one's own link, and not of a machine whose card another told; what isn't a card is passed over."""
    node = ANN.machines[0].address
    world.market.hear(Received(BOB.owner, Carded(card_of(ANN, "soc2"))))
    world.market.hear(Received(ANN.owner, Carded(b"nothing")))
    assert world.market.cards.view(node, world.now_s) is None
    world.market.hear(Received(ANN.owner, Carded(card_of(ANN, "soc2"))))
    view = world.market.cards.view(node, world.now_s)
    assert view is not None
    assert view.proven == (f"soc2@{hex0x(VALIDATOR.address)}",)


def test_cards_are_bounded() -> None:
    """Those that were told longest ago go."""
    cards = Cards(Index(), NETWORK, most_bytes=2 * len(card_of(ANN, "soc2")))
    for operator in (ANN, BOB, CID):
        assert cards.hear(operator.owner, card_of(operator, "soc2"), START_S) == ""
    assert [cards.view(it.machines[0].address, START_S) is None for it in (ANN, BOB, CID)] == [
        True,
        False,
        False,
    ]
