"""Requests of several parts, as transcripts: charged as a whole, or not at all, or for what reached the client."""

from typing import Any

import pytest

from clusterai.gateway.core.errands import Abandon, Done, Failed, Refunded, Settled, Terms
from clusterai.gateway.core.meter import Meter
from clusterai.gateway.core.moneystate import Ended
from clusterai.ledger.core import events
from clusterai.market.core.routing import Preference, Routing
from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.protocol.messages import Announce, Cancel, ModelOffer, Pay, Refused
from clusterai.runtime.machine import Received, Save

World = Any
FUNDED = 10**9
MODEL = Digest(b"m" * 32)


def finish(world: World, work: Any, *tokens: int) -> list[Any]:
    provider, order = work
    world.step(provider.tokens(order, *tokens))
    return world.step(provider.finished(order, *tokens))


def refuse(world: World, work: Any) -> None:
    """Whoever it is asked of won't do it."""
    provider, order = work
    frame = Refused(canonical.digest(order.order), "bad_request", "not this one", 0)
    world.step(Received(provider.owner, frame))
    if (again := world.work()) is not None:
        refuse(world, again)


def spent(world: World) -> tuple[int, int, int]:
    """(charged, held, borne)"""
    return world.account().charged_wei, world.account().held_wei, world.meter.book.borne_wei


def ended(world: World) -> list[tuple[int, int]]:
    records = [it.record for it in world.last if isinstance(it, Save)]
    return [(len(it.billed), len(it.borne)) for it in records if isinstance(it, Ended)]


def test_charges_wait_for_the_last_part_and_providers_do_not(opened: World):
    """Each provider is paid for its part at once; the account is charged when all are done, before it hears so."""
    _, (first, second) = opened.ask_all(2)
    finish(opened, first, 7)
    assert opened.sent(Pay)[0].voucher.amount_wei == 12
    assert spent(opened) == (0, 12 + 33, 0)
    finish(opened, second, 7, 8)
    assert ended(opened) == [(2, 0)]
    assert opened.last.index(Save(Ended((first_of(first), first_of(second)), ()))) < opened.last.index(
        opened.of(Done)[0]
    )
    assert spent(opened) == (27, 0, 0)
    assert opened.meter.bills.calls == {}


def first_of(work: Any) -> bytes:
    return canonical.digest(work[1].order)


def test_a_request_that_fails_costs_nothing_and_its_right_providers_are_paid(opened: World):
    """One part is done, another can't be: the gateway bears the first, and its channel's money pays for it."""
    call, (first, second) = opened.ask_all(2)
    finish(opened, first, 7)
    refuse(opened, second)
    assert opened.of(Failed)
    opened.step(Abandon(call, ()))
    assert opened.of(Settled) == [Settled(call, 0)]
    assert [it.refund.amount_wei for it in opened.of(Refunded)] == [12]
    assert spent(opened) == (0, 0, 12)
    assert opened.account().credit_wei == FUNDED
    assert opened.meter.bills.calls == {}


def test_of_a_failed_stream_the_choices_that_ended_are_charged(opened: World):
    """What reached the client to its end is its; a choice that was cut off is stopped, and borne when its receipt comes."""
    call, (first, second, third) = opened.ask_all(3, streamed=True)
    finish(opened, first, 7)
    provider, order = third
    opened.step(provider.tokens(order, 9))
    refuse(opened, second)
    opened.step(Abandon(call, (1,)))
    assert opened.of(Settled) == [Settled(call, 12)]
    assert opened.sent(Cancel)
    assert ended(opened) == [(1, 0)]
    opened.step(provider.finished(order, 9, reason="cancelled"))
    assert [it.voucher.amount_wei for it in opened.sent(Pay)]
    assert ended(opened) == [(0, 1)]
    assert [type(it) for it in opened.last][-2:] == [Done, Refunded]
    assert spent(opened) == (12, 0, 12)
    assert opened.meter.bills.calls == {}


def test_a_client_that_leaves_pays_for_all_parts_that_are_made(opened: World):
    """Walking away is no failure: done parts and begun ones are charged, what wasn't begun isn't."""
    call, (first, second, _) = opened.ask_all(3)
    finish(opened, first, 7)
    provider, order = second
    opened.step(provider.tokens(order, 9))
    opened.step(Abandon(call))
    assert opened.of(Settled) == []
    opened.step(provider.finished(order, 9, reason="cancelled"))
    opened.wait(11)
    assert spent(opened) == (24, 0, 0)
    assert opened.meter.bills.calls == {}
    assert opened.meter.errands == {}


def test_a_part_that_is_free_is_a_part_that_is_done(opened: World):
    """A lost receipt costs nothing, and the others are charged."""
    _, (first, second) = opened.ask_all(2, most=2)
    other = first if first[0] is not second[0] else None
    opened.step(second[0].tokens(second[1], 7, 8))
    opened.unlink(opened.providers.index(second[0]))
    assert opened.of(Done)[0].charged is None
    work = opened.work() if other is None else other
    finish(opened, work, 7)
    assert spent(opened) == (12, 0, 0)


def test_a_gateway_that_dies_between_the_parts_bears_what_was_done(opened: World):
    """Its client heard nothing, so it pays nothing, also not after another restart."""
    _, (first, _) = opened.ask_all(2)
    finish(opened, first, 7)
    for _ in range(2):
        opened.crash()
        assert spent(opened) == (0, 0, 12)
        assert opened.account().credit_wei == FUNDED
    assert opened.meter.book.waiting == {}


def test_all_parts_must_be_affordable_before_any_begins(make_world: Any):
    """An account that can pay for two of three gets none, and is told what it would take."""
    world = make_world()
    world.open(funded=90)
    world.errands = 1
    world.step(world.asked(1, 8, call=9, rest=(world.asked(0, 8).request,) * 2))
    assert world.work() is None
    assert world.failed().code == "insufficient_credit"
    assert "99 wei" in world.failed().detail
    assert spent(world) == (0, 0, 0)


def test_what_is_kept_for_later_parts_cannot_be_spent_elsewhere(make_world: Any):
    """Parts that wait for their turn have their money held."""
    world = make_world()
    world.open(funded=100)
    request = world.asked(0, 8).request
    world.errands = 2
    world.step(world.asked(1, 8, call=9, rest=(request,)))
    first = world.work()
    world.step(world.asked(2, 8, 5, 6, 7, 8, 9, 10, 11))
    assert world.failed().code == "insufficient_credit"
    finish(world, first, 7)
    world.step(world.asked(3, 8, call=9))
    finish(world, world.work(), 7)
    assert spent(world) == (24, 0, 0)


def test_a_dear_provider_is_not_hired_for_a_part_that_the_account_cannot_pay(make_world: Any):
    """Parts go where their money suffices; it doesn't fail because of the dearest offer."""
    world = make_world()
    world.open(funded=70)
    dear = world.providers[1]
    world.step(Received(dear.owner, Announce((ModelOffer(MODEL, "tiny", 9, 9, 4),), 0, 0, False)))
    call, works = world.ask_all(2)
    assert [work[0] for work in works] == [world.providers[0]] * 2
    world.unlink(0)
    assert world.failed().code == "insufficient_credit"
    world.step(Abandon(call, ()))
    assert spent(world) == (0, 0, 0)


def test_what_the_gateway_bears_in_a_day_is_bounded(make_world: Any):
    """A client whose requests fail on purpose, one paid part each, soon pays for those parts itself."""
    world = make_world()
    world.terms = Terms(bear_wei=20)
    world.meter = world.fresh()
    world.open()
    charged: list[int] = []
    for _ in range(4):
        call, (first, second) = world.ask_all(2)
        finish(world, first, 7)
        refuse(world, second)
        world.step(Abandon(call, ()))
        charged += [it.charged_wei for it in world.of(Settled)]
    assert charged == [0, 0, 12, 12]
    assert world.meter.book.borne_wei == 24


def test_a_conviction_while_a_charge_waits_costs_the_account_nothing(opened: World):
    """What the chain forfeits of it is the gateway's again."""
    opened.unlink(1)
    _, (first, second) = opened.ask_all(2)
    finish(opened, first, 7)
    channel = opened.meter.book.by_provider[first[0].owner]
    opened.chain(events.Barred(channel.provider))
    opened.chain(events.Reclaimed(channel.channel_id, 0, 0))
    assert spent(opened)[0] == 0
    assert opened.meter.book.waiting == {}
    opened.link(1)
    finish(opened, opened.work() or second, 7)
    assert spent(opened) == (12, 0, 12)


@pytest.mark.parametrize("parts", [1, 3])
def test_abandoning_what_is_not_known_changes_nothing(opened: World, parts: int):
    """A request that is over, or one that never was."""
    call, works = opened.ask_all(parts)
    for work in works:
        finish(opened, work, 7)
    before = spent(opened)
    assert opened.step(Abandon(call, ())) == []
    assert opened.step(Abandon(77)) == []
    assert spent(opened) == before == (12 * parts, 0, 0)


def test_a_snapshot_keeps_what_waits(opened: World):
    """Compacted between two parts, the journal still charges both when the second ends."""
    call, (first, second) = opened.ask_all(2)
    finish(opened, first, 7)
    opened.journal = [canonical.encode(record) for record in opened.meter.snapshot()]
    finish(opened, second, 7)
    restored = opened.fresh()
    assert isinstance(restored, Meter)
    assert restored.book.account(Digest(b"A" * 32)).charged_wei == 24
    assert restored.book.waiting == {}
    assert call not in opened.meter.bills.calls


def test_the_cheapest_offer_that_is_wanted_sets_the_reserve():
    """Offers that the preference rules out don't count; nobody is no price."""
    routing = Routing()
    assert routing.cheapest(MODEL, Preference()) == (0, 0)
    for name, price in ((b"a", 5), (b"b", 2), (b"c", 9)):
        owner: Any = name * 20
        routing.linked(owner)
        routing.announced(owner, Announce((ModelOffer(MODEL, "m", price, price + 1, 4),), 0, 0, False))
    ignored: Any = b"b" * 20
    assert routing.cheapest(MODEL, Preference()) == (2, 3)
    assert routing.cheapest(MODEL, Preference(ignore=(ignored,))) == (5, 6)
    assert routing.cheapest(MODEL, Preference(most_input_wei=1)) == (0, 0)
