"""Machines that are parted from their cluster's head alone: what is paid, who is exchanged, and what a liar can do to others."""

import pytest

from clusterai.gateway.core.rentstate import Release, Rental
from clusterai.protocol.ids import Address
from clusterai.protocol.rentals import StayHears, stay_model
from clusterai.runtime.machine import Received
from clusterai.work.cluster.price import unit_price_wei
from tests.rooms.rentals.stage import LEASE, PRICE_WEI, Stage


class Mesh:
    """A rental's machines, each of which says every two seconds whom it hears; and between which packets may be lost.

    Attributes:
        cut: (from, to) places whose packets are lost.
        says: of a villain's place, since when it claims to have heard nobody; None says nothing at all.
    """

    def __init__(self, machines: int, spares: int = 0) -> None:
        self.stage = Stage(machines, spares)
        self.rental: Rental = self.stage.rent(machines)
        self.cut: set[tuple[int, int]] = set()
        self.says: dict[int, float | None] = {}
        self.heard_s: dict[tuple[int, bytes, bytes], float] = {}
        self.run(40)

    def part(self, place: int) -> None:
        others = [it for it in self.rental.stays if it != place]
        self.cut |= {(place, it) for it in others} | {(it, place) for it in others}

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.stage.run(1)
            self._hear()
            if int(self.stage.now_s) % 2 == 0:
                self.stage.beat()
                self._say()
                self.stage.settle()

    def _hear(self) -> None:
        for listener in self.rental.stays.values():
            for speaker in self.rental.stays.values():
                pair = listener.place, listener.key, speaker.key
                if (speaker.place, listener.place) not in self.cut or pair not in self.heard_s:
                    self.heard_s[pair] = self.stage.now_s

    def _say(self) -> None:
        for stay in self.rental.stays.values():
            since_s = self.says.get(stay.place, 0.0)
            if stay.phase != "ready" or since_s is None:
                continue
            silent = tuple(
                (it.place, int(1000 * (self.stage.now_s - self.heard_s[stay.place, stay.key, it.key])))
                for it in self.rental.stays.values()
                if it.place != stay.place
            )
            if since_s:
                claimed_ms = max(0, int(1000 * (self.stage.now_s - since_s)))
                silent = tuple((place, claimed_ms) for place, _ in silent)
            frame = StayHears(LEASE, stay.generation, silent)
            self.stage.tell(Received(Address(stay.seat.operator), frame))

    def paid_s(self, place: int, generation: int = 0) -> float:
        model = stay_model(LEASE, place, generation)
        tenth_wei = unit_price_wei(PRICE_WEI)
        return sum(amount for it, amount in self.stage.charged if it == model) / tenth_wei / 10

    def earned_s(self, place: int) -> float:
        """With what is under way."""
        stay = self.rental.stays[place]
        return self.paid_s(place) + (self.stage.now_s - stay.ordered_s if stay.errand is not None else 0.0)

    def said(self, what: str) -> list[str]:
        return [it.detail for it in self.stage.notes if it.what == what]


def test_a_parted_machine_is_paid_for_no_second_in_which_the_head_could_not_reach_it():
    """Its interval ends with the last heartbeat before; the others go on; it is exchanged after half a minute."""
    mesh = Mesh(3, spares=1)
    mesh.run(15)
    before_s = mesh.stage.now_s
    began_s = mesh.rental.began_s
    assert began_s is not None
    mesh.part(1)
    mesh.run(28)
    assert mesh.said("parted") == ["place 1: it and the head don't hear each other; its time doesn't count"]
    assert before_s - began_s - 4 <= mesh.paid_s(1) <= before_s - began_s + 5, (
        "an interval was over after 5 s"
    )
    mesh.run(8)
    assert mesh.rental.stays[1].seat == mesh.stage.spares[0].seat
    assert mesh.said("lost") == ["place 1: it wasn't heard in the mesh for 31 s"]
    mesh.cut.clear()
    mesh.run(40)
    assert mesh.paid_s(1, 1) >= 30
    assert {it.generation for it in mesh.rental.stays.values() if it.place != 1} == {0}
    assert mesh.rental.paid_wei == sum(amount for _, amount in mesh.stage.charged)
    mesh.stage.ask(Release(LEASE))
    assert mesh.paid_s(0) >= mesh.stage.now_s - began_s - 31


@pytest.mark.parametrize("into_s", range(0, 30, 6))
def test_wherever_in_an_interval_a_short_parting_falls_it_is_not_paid(into_s: int):
    """What was paid before anybody knew is worked off: twenty seconds apart are twenty seconds less than the head has."""
    mesh = Mesh(3)
    mesh.run(20 + into_s)
    mesh.part(2)
    mesh.run(20)
    mesh.cut.clear()
    mesh.run(100)
    assert mesh.rental.stays[2].generation == 0
    assert 20 - 1 <= mesh.earned_s(0) - mesh.earned_s(2) <= 20 + 6, "it says so every two seconds"
    assert mesh.said("parted")[1:] == ["place 2: it is in the mesh again; its time counts"]


def test_packets_that_are_lost_for_a_few_seconds_cost_nobody_anything():
    """What Ray works over is billed."""
    mesh = Mesh(2)
    for _ in range(5):
        mesh.part(1)
        mesh.run(6)
        mesh.cut.clear()
        mesh.run(4)
    assert mesh.said("parted") == []
    assert mesh.paid_s(1) == mesh.paid_s(0)


@pytest.mark.parametrize("before_s", [0, 4_000])
def test_a_lying_head_takes_nobodys_pay(before_s: int):
    """Villain: "I hear none of them", perhaps "for an hour". That hurts none but itself: it isn't paid, and another is the head."""
    mesh = Mesh(3, spares=1)
    mesh.run(5)
    mesh.says[0] = mesh.stage.now_s - before_s
    mesh.run(28)
    assert mesh.said("parted") == ["place 0: no other machine hears it; its time doesn't count"]
    assert mesh.paid_s(0) <= 50
    assert mesh.paid_s(1) == mesh.paid_s(2) == 60
    mesh.run(8)
    assert [it.split(":")[0] for it in mesh.said("lost")] == ["place 0"]
    assert mesh.rental.stays[0].seat == mesh.stage.spares[0].seat


def test_a_head_that_lies_about_one_machine_loses_it_nothing_that_it_worked_for():
    """Villain, with one machine beside it: that one is paid until another has its place; done again, the head is exchanged."""
    mesh = Mesh(2, spares=2)
    mesh.says[0] = mesh.stage.now_s
    mesh.run(33)
    assert mesh.rental.stays[1].generation == 1
    assert mesh.paid_s(1) >= 30
    assert mesh.said("parted") == []
    mesh.run(40)
    assert [it.split(":")[0] for it in mesh.said("lost")] == ["place 1", "place 0"]


def test_a_lying_machine_takes_nobodys_pay():
    """Villains: one says that it hears nobody, one claims to hear all while it is cut off, one says nothing at all."""
    for is_apart, says, most_s in ((False, 1.0, 10.0), (True, 2e9, 40.0), (True, None, 10.0)):
        mesh = Mesh(3)
        mesh.run(20)
        before_s = mesh.paid_s(2)
        if is_apart:
            mesh.part(2)
        mesh.says[2] = says
        mesh.run(35)
        assert mesh.rental.stays[2].phase == "lost" or mesh.rental.stays[2].generation == 1
        assert mesh.paid_s(2) - before_s <= most_s
        assert mesh.paid_s(1) == mesh.paid_s(0) >= 85 - 31


def test_of_two_machines_neither_can_be_blamed_and_the_one_beside_the_head_goes():
    """Both say that they don't hear the other: it isn't paid, the head is."""
    mesh = Mesh(2)
    mesh.part(1)
    mesh.run(28)
    assert mesh.paid_s(1) <= 40
    assert mesh.paid_s(0) >= 60
    assert mesh.rental.stays[0].generation == 0


def test_a_head_that_is_cut_off_is_exchanged_and_not_its_machines():
    """All of them say so, and it says so itself."""
    mesh = Mesh(3, spares=1)
    mesh.part(0)
    mesh.run(36)
    assert [it.split(":")[0] for it in mesh.said("lost")] == ["place 0"]
    assert mesh.rental.stays[0].seat == mesh.stage.spares[0].seat
    mesh.cut.clear()
    mesh.run(60)
    assert mesh.rental.is_complete
    assert mesh.paid_s(0, 1) >= 30


def test_machines_that_never_say_whom_they_hear_are_paid_as_ever():
    """Nobody's silence is held against another."""
    mesh = Mesh(3)
    mesh.says = {0: None, 1: None, 2: None}
    mesh.part(1)
    mesh.run(60)
    assert mesh.said("parted") == mesh.said("lost") == []
    assert mesh.paid_s(1) == mesh.paid_s(0)
