"""Rentals between a gateway and its machines: they come up, are paid while they are there, are replaced, and end for a reason."""

import os

import pytest

from clusterai.gateway.core.rentbooks import price_wei
from clusterai.gateway.core.rentdesk import MOST_TOLD, NEVER_S, RentDesk
from clusterai.gateway.core.rentstate import Close, Extend, Meet, Outside, Release, Rent
from clusterai.gateway.core.renttime import core_worth
from clusterai.node.core.staybook import Join, Lower, Path, Still
from clusterai.protocol import canonical
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.offers import MachineMeasurement
from clusterai.protocol.rentals import (
    EndStay,
    JoinStay,
    OpenStay,
    PauseStay,
    StayBroke,
    StayOpened,
    StayReady,
    StayTold,
    stay_model,
)
from clusterai.runtime.machine import Linked, Received, Send, Tick, Unlinked
from clusterai.work.cluster.price import unit_price_wei
from tests.rooms.rentals.stage import GATEWAY, HOT, LEASE, PRICE_WEI, SPEC, Machine, Stage

HOUR_WEI = PRICE_WEI


def signed_by_another(digest: Digest, signature: bytes) -> Address | None:
    return Address(b"\x66" * 20)


def said(stage: Stage, what: str) -> int:
    return sum(it.what == what for it in stage.notes)


def test_machines_become_a_cluster_and_are_paid_by_the_interval():
    """Nothing is charged before all are ready; then each machine's seconds, and no more than passed."""
    stage = Stage(3)
    stage.machines[2].raises = False
    rental = stage.rent(3)
    stage.run(20)
    assert rental.began_s is None
    assert stage.charged == []
    stage.machines[2].raises = True
    stage.machines[2].begin()
    stage.run(10)
    assert rental.is_complete
    stage.run(95)
    assert {model for model, _ in stage.charged} == {stay_model(LEASE, place, 0) for place in range(3)}
    assert rental.began_s is not None
    ready_s = stage.now_s - rental.began_s
    total_wei = sum(amount for _, amount in stage.charged)
    assert 3 * 60 * HOUR_WEI // 3600 <= total_wei <= 3 * ready_s * HOUR_WEI // 3600
    assert rental.paid_wei == total_wei


def test_what_a_machine_has_to_say_is_noted_for_its_renter_and_not_for_ever():
    """Villain: a machine that talks all the time, or of what it mustn't. Others' machines and ended stays say nothing."""
    stage = Stage(1)
    rental = stage.rent(1)
    stage.run(20)
    operator = Address(rental.stays[0].seat.operator)
    told = StayTold(LEASE, 0, "memory", "out of memory: rent with more")
    stage.tell(Received(Address(b"\x66" * 20), told))
    stage.tell(Received(operator, StayTold(LEASE, 0, "ended", "give up")))
    assert said(stage, "memory") == said(stage, "ended") == 0
    for _ in range(50):
        stage.tell(Received(operator, told))
    assert said(stage, "memory") == MOST_TOLD
    assert (rental.notes[-1][1], rental.notes[-1][2]) == (
        "memory",
        "place 0: out of memory: rent with more",
    )
    assert rental.stays[0].phase == "ready"


def test_a_given_back_cluster_leaves_nothing_behind():
    """Every machine lowers its stay, is freed once, the relay is closed; a second release changes nothing."""
    stage = Stage(2)
    rental = stage.rent(2)
    stage.run(40)
    stage.tell(Release(LEASE))
    stage.tell(Release(LEASE))
    stage.settle()
    assert rental.ended is not None
    assert rental.ended.why is Close.RELEASED
    assert [it.book.stay for it in stage.machines] == [None, None]
    assert all(it.count(Lower) == 1 and it.lent == {} for it in stage.machines)
    assert stage.freed == [it.key.address for it in stage.machines]
    assert stage.relays == {}
    charged = len(stage.charged)
    stage.run(60)
    assert len(stage.charged) == charged


def test_the_booked_time_is_the_end():
    """An interval never reaches beyond it, and the rental ends by itself."""
    stage = Stage(1)
    rental = stage.rent(1, hours=100 / 3600)
    stage.run(130)
    assert rental.ended is not None
    assert rental.ended.why is Close.OVER
    assert rental.paid_wei <= 100 * HOUR_WEI // 3600


def test_more_time_is_had_by_asking():
    """Extended, the same machines go on."""
    stage = Stage(1)
    rental = stage.rent(1, hours=100 / 3600)
    stage.run(50)
    stage.tell(Extend(LEASE, rental.until_s + 200))
    stage.tell(Extend(LEASE, rental.until_s - 100))
    stage.settle()
    assert len(stage.extended) == 1
    stage.run(150)
    assert rental.ended is None
    assert stage.machines[0].book.stay is not None
    assert stage.machines[0].book.stay.until_s == rental.until_s


def test_a_lost_worker_is_replaced_and_nobody_is_paid_twice():
    """The others go on and are told of the newcomer; the lost machine's interval isn't charged."""
    stage = Stage(3, spares=1)
    rental = stage.rent(3)
    stage.run(40)
    before = dict(rental.units)
    stage.machines[1].die()
    stage.run(5)
    assert rental.is_complete
    assert rental.stays[1].seat == stage.spares[0].seat
    assert rental.stays[1].generation == 1
    assert said(stage, "lost") == said(stage, "replaced") == 1
    assert stage.machines[0].count(Join) >= 2
    stage.run(60)
    assert rental.units[0] > before[0]
    models = [model for model, _ in stage.charged]
    assert stay_model(LEASE, 1, 1) in models
    assert rental.paid_wei == sum(amount for _, amount in stage.charged)


@pytest.mark.parametrize("place", [0, 1])
def test_a_lost_machine_that_is_back_takes_its_own_place_again(place: int):
    """It was down for longer than is waited for, and nobody else is there: it isn't kept booked by the others of its rental."""
    stage = Stage(2)
    rental = stage.rent(2)
    stage.run(40)
    machine = stage.machines[place]
    machine.die()
    stage.run(10)
    assert stage.freed == [machine.key.address]
    machine.comes()
    stage.run(40)
    assert rental.is_complete
    assert [it.generation for it in rental.stays.values()] == ([1, 1] if place == 0 else [0, 1])
    stage.ask(Release(LEASE))
    assert stage.booked == set()


def test_without_a_head_nobody_is_paid_and_a_new_head_gathers_all():
    """A new head knows nobody, so the others begin again as new stays."""
    stage = Stage(2)
    rental = stage.rent(2)
    stage.run(40)
    charged = len(stage.charged)
    stage.machines[0].die()
    stage.run(60)
    assert len(stage.charged) == charged
    assert rental.ended is None
    stage.spares = [stage.newcomer()]
    stage.run(30)
    assert rental.is_complete
    assert [stay.generation for stay in rental.stays.values()] == [1, 1]
    stage.run(40)
    assert len(stage.charged) > charged


@pytest.mark.parametrize("place", [0, 1])
def test_a_machine_that_was_started_again_begins_anew(place: int):
    """Back before it is missed, it is another stay of the same machine; of a head all others begin again with it."""
    stage = Stage(2)
    rental = stage.rent(2)
    stage.run(40)
    stage.machines[place].blink()
    stage.run(5)
    assert rental.is_complete
    assert [it.generation for it in rental.stays.values()] == ([1, 1] if place == 0 else [0, 1])
    assert rental.stays[place].seat == stage.machines[place].seat
    assert said(stage, "lost") == 1
    charged = len(stage.charged)
    stage.run(60)
    assert len(stage.charged) > charged
    assert rental.paid_wei == sum(amount for _, amount in stage.charged)


def test_a_lost_head_that_cannot_be_replaced_ends_it():
    """After five minutes, with that reason."""
    stage = Stage(2)
    rental = stage.rent(2)
    stage.run(40)
    stage.machines[0].die()
    stage.run(320)
    assert rental.ended is not None
    assert rental.ended.why is Close.NOT_REPLACED


def test_a_short_break_of_a_link_costs_no_machine():
    """Back within three seconds, it is the same stay."""
    stage = Stage(1, spares=1)
    rental = stage.rent(1)
    stage.run(10)
    stage.tell(Unlinked(stage.machines[0].operator))
    stage.run(2)
    stage.tell(Linked(stage.machines[0].operator))
    stage.settle()
    stage.run(20)
    assert rental.stays[0].generation == 0
    assert said(stage, "lost") == 0


def test_a_gateway_that_was_killed_goes_on_where_it_was():
    """The cluster stays up; a new relay is told to all; what was paid is remembered; the next interval is a fresh one."""
    stage = Stage(2)
    stage.rent(2)
    stage.tell(Meet(LEASE, b"\x55" * 32))
    stage.settle()
    stage.run(70)
    paid_wei, tried = stage.rental().paid_wei, stage.rental().stays[0].tried
    assert paid_wei > 0
    joins = stage.machines[0].count(Join)
    stage.restart()
    stage.run(40)
    rental = stage.rental()
    assert rental.is_complete
    assert rental.renter_key == b"\x55" * 32
    assert stage.machines[0].count(Join) > joins
    assert rental.stays[0].generation == 0
    assert rental.paid_wei > paid_wei
    # The interval that was under way wasn't saved: the next has its number, and not its seed.
    assert rental.stays[0].tried >= tried
    assert len(set(stage.seeds)) == len(stage.seeds)


def test_machines_that_dial_a_restarted_gateway_late_are_the_same_stays():
    """They waited longer from dial to dial while it was away; one that stays away is replaced after all."""
    stage = Stage(2, spares=1)
    stage.rent(2)
    stage.run(70)
    paid_wei = stage.rental().paid_wei
    stage.restart(away_s=15)
    stage.run(40)
    assert [it.generation for it in stage.rental().stays.values()] == [0, 0]
    assert stage.rental().paid_wei > paid_wei
    stage.machines[1].die()
    stage.restart()
    stage.run(40)
    assert [it.generation for it in stage.rental().stays.values()] == [0, 1]
    assert stage.rental().is_complete


def test_a_journal_can_be_compacted():
    """What the snapshot restores to goes on as the original would."""
    stage = Stage(2, spares=1)
    stage.rent(2)
    stage.run(40)
    stage.machines[1].die()
    stage.run(40)
    stage.tell(Extend(LEASE, stage.rental().until_s + 9))
    stage.settle()
    again = RentDesk(stage.desk.network, signed_by_another, stage.owners.get, HOT.sign, bytes(32))
    again.restore(stage.desk.snapshot())
    one, two = stage.rental(), again.rentals[LEASE]
    assert (one.paid_wei, one.intervals, one.units, one.until_s, one.began_s) == (
        two.paid_wei,
        two.intervals,
        two.units,
        two.until_s,
        two.began_s,
    )
    assert [it.seat for it in one.stays.values()] == [it.seat for it in two.stays.values()]
    assert [it.generation for it in one.stays.values()] == [it.generation for it in two.stays.values()]
    assert [canonical.encode(it) for it in again.snapshot()] == [
        canonical.encode(it) for it in stage.desk.snapshot()
    ]


def test_an_empty_account_pauses_and_a_filled_one_resumes():
    """Machines stand still, unpaid, and nothing is lost; the renter was warned before."""
    stage = Stage(2)
    stage.credit_wei = 2 * 100 * HOUR_WEI // 3600
    rental = stage.rent(2)
    stage.run(130)
    assert said(stage, "runway") == 1
    assert said(stage, "unpaid") == 1
    assert all(it.count(Still) == 1 for it in stage.machines)
    charged = len(stage.charged)
    stage.run(300)
    assert len(stage.charged) == charged
    assert rental.ended is None
    stage.credit_wei += 10**10
    stage.run(45)
    assert said(stage, "resumed") == 1
    assert len(stage.charged) > charged
    assert all(it.count(Still) == 2 for it in stage.machines)


def test_an_account_that_stays_empty_ends_it():
    """After a quarter of an hour, and the machines are free."""
    stage = Stage(1)
    stage.credit_wei = 10 * HOUR_WEI // 3600
    rental = stage.rent(1)
    stage.run(930)
    assert rental.ended is not None
    assert rental.ended.why is Close.NO_CREDIT
    assert stage.machines[0].book.is_vacant
    assert stage.charged == []


def test_machines_that_never_come_up_cost_nothing():
    """The reason says so, and the machines that did come up are free again."""
    stage = Stage(2)
    stage.machines[1].raises = False
    rental = stage.rent(2)
    stage.run(int(NEVER_S) + 5)
    assert rental.ended is not None
    assert rental.ended.why is Close.NEVER_READY
    assert stage.charged == []
    assert stage.machines[0].book.is_vacant


def test_a_clock_that_runs_ahead_is_found_out():
    """A machine that claims more time than passed is lost before it is paid for it."""
    stage = Stage(1)
    rental = stage.rent(1)
    stage.fast = 3.0
    stage.run(8)
    assert said(stage, "clock") >= 1
    assert sum(amount for _, amount in stage.charged) == 0
    assert rental.stays[0].phase == "lost"


def test_a_key_of_another_machine_is_not_taken():
    """Villain: a node that answers for a machine that isn't there."""
    stage = Stage(1)
    machine = stage.machines[0]
    machine.raises = False
    rental = stage.rent(1)
    forged = StayOpened(LEASE, 0, 0, bytes(32), bytes(65))
    stage.desk.signer = signed_by_another
    stage.tell(Received(machine.operator, forged))
    assert rental.stays[0].phase == "lost"
    assert rental.stays[0].key == b""


def test_words_of_machines_that_are_not_in_it_end_their_stays():
    """Villain: a stranger that says it is ready changes nothing and is told to stop."""
    stage = Stage(1)
    rental = stage.rent(1)
    stranger = Address(b"\x77" * 20)
    effects = stage.desk.step(Received(stranger, StayReady(LEASE, 0, ())), stage.now_s)
    assert [it.frame for it in effects] == [EndStay(LEASE, 0)]
    assert rental.stays[0].phase == "ready"


def test_the_renter_comes_into_the_mesh_with_a_key_of_its_own():
    """All machines are told; where it is seen is told as well; its own view has a relay port for each."""
    stage = Stage(2)
    rental = stage.rent(2)
    stage.tell(Meet(LEASE, b"\x55" * 32))
    stage.settle()
    members = stage.desk.members(rental, rental.renter_place)
    assert [it.place for it in members] == [0, 1, 2]
    assert members[2].key == b"\x55" * 32
    assert members[2].relay is None
    assert members[0].relay is not None
    stage.tell(Outside(LEASE, 2, ("203.0.113.9", 4000)))
    stage.tell(Outside(LEASE, 2, ("203.0.113.9", 4000)))
    stage.settle()
    assert [it.count(Path) for it in stage.machines] == [1, 1]
    assert price_wei(rental) == 2 * PRICE_WEI


STORY_EFFECTS = 152
"""So many has the story of a rental below."""
EVERY = bool(os.environ.get("CLUSTERAI_EVERY"))


def story(dies_before: int | None = None) -> Stage:
    """Rented, joined by its renter, prolonged; a machine lost and replaced; out of money, filled up, given back."""
    stage = Stage(2, spares=1)
    stage.dies_before = dies_before
    for machine in stage.machines:
        stage.tell(Linked(machine.operator))
    rented = stage.rented(2)
    stage.ask(Rent(rented))
    stage.ask(Meet(LEASE, b"\x55" * 32))
    stage.run(70)
    stage.ask(Extend(LEASE, rented.until_s + 100))
    stage.machines[1].die()
    stage.run(70)
    saved_wei, stage.credit_wei = stage.credit_wei, 0
    stage.run(70)
    stage.credit_wei = saved_wei
    stage.run(80)
    stage.ask(Release(LEASE))
    stage.run(5)
    return stage


def test_the_story_that_is_broken_off_below_has_that_many_effects():
    """So that no step of it is left out."""
    stage = story()
    assert stage.performed == STORY_EFFECTS
    assert {it.what for it in stage.notes} >= {"ready", "lost", "replaced", "unpaid", "resumed", "ended"}


@pytest.mark.parametrize("at", range(0, STORY_EFFECTS, 1 if EVERY else 9))
def test_a_gateway_killed_before_any_of_its_effects_loses_nothing(at: int):
    """A whole rental, killed once: the same machines, the lost one replaced, each interval charged once, all given back."""
    stage = story(at)
    assert stage.restarts == 1
    rental = stage.rental()
    assert rental.ended is not None
    assert rental.ended.why is Close.RELEASED
    assert rental.until_s == rental.rented.until_s + 100
    assert rental.renter_key == b"\x55" * 32
    assert [it.generation for it in rental.stays.values()] == [0, 1]
    assert all(it.book.is_vacant and it.lent == {} for it in stage.machines)
    assert stage.booked == set()
    assert stage.relays == {}
    # Also what the Meter charged when the gateway was killed before it wrote that down.
    charged_wei = sum(amount for _, amount in stage.charged)
    assert rental.paid_wei == charged_wei
    assert rental.intervals == len(stage.charged)
    assert sum(rental.units.values()) * unit_price_wei(PRICE_WEI) == charged_wei
    # A machine that begins a seed's chain twice has it done the second time.
    assert len(set(stage.seeds)) == len(stage.seeds)
    assert rental.began_s is not None
    assert 0 < charged_wei <= 2 * (stage.now_s - rental.began_s) * HOUR_WEI / 3600


def test_a_machine_without_its_gateway_frees_itself():
    """A minute without a link, and the machine may be offered again."""
    stage = Stage(1)
    stage.rent(1)
    stage.run(10)
    machine = stage.machines[0]
    machine.tell(Unlinked(GATEWAY))
    stage.desk.rentals.clear()
    stage.running.clear()
    stage.run(70)
    assert machine.book.is_vacant
    assert machine.lent == {}


def test_a_gateway_that_does_not_pay_gets_no_other_stay_for_a_while():
    """Villain: a gateway that opens machines and never orders an interval holds each of them once in ten minutes."""
    stage = Stage(1)
    stage.rent(1)
    machine = stage.machines[0]
    stage.desk.rentals.clear()
    stage.running.clear()
    stage.run(70)
    assert machine.book.is_vacant
    again = OpenStay(b"\x06" * 32, 0, 0, SPEC.canonical(), PRICE_WEI, int(stage.now_s) + 3600)
    assert refused(machine, stage, again) == "unpaid"
    stage.now_s += 600
    assert refused(machine, stage, again) is None


def test_who_is_ready_first_waits_for_the_others_and_shuns_nobody():
    """One machine never comes up and the one in its place takes its time: the first is ready for nearly two minutes before anything is ordered."""
    stage = Stage(2, spares=1)
    stage.machines[1].joins = stage.spares[0].joins = False
    rental = stage.rent(2)
    stage.run(110)
    assert rental.began_s is None
    stage.spares[0].joins = True
    stage.spares[0].begin()
    stage.run(20)
    assert rental.is_complete
    assert rental.stays[0].generation == 0
    stage.run(40)
    assert rental.units[0] > 0


def test_a_gateway_that_never_orders_holds_a_machine_once():
    """Villain: it opens a machine and orders no interval at all; after five minutes and a third it is shunned like one that stops."""
    stage = Stage(2)
    stage.machines[1].is_up = False
    stage.rent(2)
    machine = stage.machines[0]
    members = stage.desk.rentals[LEASE]
    machine.tell(Received(GATEWAY, JoinStay(LEASE, 0, 0, bytes(32), stage.desk.members(members, 0))))
    stage.settle()
    stage.desk.rentals.clear()
    stage.run(300)
    assert not machine.book.is_vacant
    stage.run(30)
    assert machine.book.is_vacant
    again = OpenStay(b"\x06" * 32, 0, 0, SPEC.canonical(), PRICE_WEI, int(stage.now_s) + 3600)
    assert refused(machine, stage, again) == "unpaid"


def refused(machine: Machine, stage: Stage, frame: OpenStay) -> str | None:
    """The code, if it doesn't open."""
    effects = machine.book.step(Received(GATEWAY, frame), stage.now_s)
    said = [it.frame for it in effects if isinstance(it, Send)]
    return said[0].code if said and isinstance(said[0], StayBroke) else None


def test_pauses_are_counted_together():
    """Villain: a gateway that pauses again and again holds a machine unpaid for fifteen minutes in all, not each time."""
    stage = Stage(1)
    stage.rent(1)
    machine = stage.machines[0]
    stage.desk.rentals.clear()
    stage.running.clear()
    for _ in range(4):
        machine.tell(Received(GATEWAY, PauseStay(LEASE, 0, paused=True)))
        for _ in range(300):
            stage.now_s += 1
            machine.tell(Tick())
        machine.tell(Received(GATEWAY, PauseStay(LEASE, 0, paused=False)))
    assert machine.book.stay is None


def found(**changes: int) -> MachineMeasurement:
    fields: dict[str, object] = dict.fromkeys(MachineMeasurement.__struct_fields__, 0)
    fields |= {"node": bytes(20), "validator": bytes(20), "fields": 256, "findings": bytes(32)}
    fields |= {"hardware": "", "gpu": "", "region": ""}
    return MachineMeasurement(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("measured", "worth"),
    [
        (None, 0),
        (found(links_per_s_milli=380_000), 380_000),
        (found(links_per_s_milli=380_000, links_at_once_per_s_milli=900_000, cpu_milli=4_000), 225_000),
        (found(links_per_s_milli=380_000, links_at_once_per_s_milli=1_600_000, cpu_milli=4_000), 380_000),
    ],
)
def test_a_core_is_held_to_what_it_does_beside_its_siblings(measured: MachineMeasurement | None, worth: int):
    """Hardware threads that share a core aren't taken for thieves of each other's time."""
    assert core_worth(measured) == worth
