"""A machine's offer: said, renewed before it is over, withdrawn while it mustn't be rented, and never with a serial twice."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any, cast

import pytest

from clusterai.node.adapters.cardkeeping import keep_cards
from clusterai.node.adapters.offering import hardware_class
from clusterai.node.core.leases import Noted
from clusterai.node.core.offering import OfferBook, SerialUsed, Withhold
from clusterai.protocol.ids import Address
from clusterai.protocol.offering import Offered, OfferTurned
from clusterai.protocol.offers import MachineOffer, decode_offer, signed_digest
from clusterai.protocol.signing import Key, recover
from clusterai.protocol.statements import network_domain
from clusterai.runtime.machine import Linked, Received, Save, Send, Started, Tick, Unlinked
from clusterai.work.cluster.adapters.cards import Cards

NOW = 1_000_000
LIFE_S = 600
KEY = Key(b"n" * 32)
OPERATOR = Address(b"o" * 20)
NETWORK = network_domain(31415, Address(b"r" * 20))
GATEWAYS = [Address(bytes([n]) * 20) for n in (1, 2)]
MACHINE = MachineOffer(
    node=KEY.address,
    operator=OPERATOR,
    serial=0,
    hardware="x86-64-v3",
    cpu_milli=2_000,
    memory_bytes=2**32,
    gpu="",
    gpus=0,
    region="eu",
    bandwidth_kbps=100_000,
    price_wei=7,
    issued_s=0,
    expires_s=0,
)


class World:
    """Steps a book and keeps its journal."""

    def __init__(self) -> None:
        self.records: list[SerialUsed] = []
        self.book = self.fresh()
        self.now_s = float(NOW)

    def fresh(self) -> OfferBook:
        book = OfferBook(MACHINE, LIFE_S, lambda it: signed_digest(it, NETWORK), KEY.sign)
        book.restore(self.records)
        return book

    def step(self, event: Any) -> list[Any]:
        effects = self.book.step(event, self.now_s)
        self.records += [cast("SerialUsed", it.record) for it in effects if isinstance(it, Save)]
        return effects

    def said(self, event: Any) -> list[tuple[Address, MachineOffer]]:
        """What of it goes to whom, each signed by the machine."""
        found: list[tuple[Address, MachineOffer]] = []
        for effect in self.step(event):
            if isinstance(effect, Send) and isinstance(effect.frame, Offered):
                offer = decode_offer(effect.frame.offer)
                assert recover(signed_digest(offer, NETWORK), effect.frame.signature) == KEY.address
                assert any(it.serial >= offer.serial for it in self.records), (
                    "it was durable before it was said"
                )
                found.append((effect.to, offer))
        return found


def test_a_gateway_that_links_hears_the_offer():
    """The first makes it, the second hears the same."""
    world = World()
    world.step(Started())
    ((first, one),) = world.said(Linked(GATEWAYS[0]))
    ((second, other),) = world.said(Linked(GATEWAYS[1]))
    assert (first, second, one) == (*GATEWAYS, other)
    assert (one.issued_s, one.expires_s, one.price_wei) == (NOW, NOW + LIFE_S, 7)


def test_an_offer_is_renewed_at_half_of_its_life():
    """With a higher serial, to every gateway; not sooner, and not for nobody."""
    world = World()
    world.step(Linked(GATEWAYS[0]))
    world.step(Linked(GATEWAYS[1]))
    world.now_s += LIFE_S / 2 - 1
    assert world.said(Tick()) == []
    world.now_s += 1
    (_, one), (_, other) = world.said(Tick())
    assert one == other
    assert (one.serial > NOW, one.expires_s) == (True, NOW + LIFE_S * 3 // 2)
    for gateway in GATEWAYS:
        world.step(Unlinked(gateway))
    world.now_s += LIFE_S
    assert world.step(Tick()) == []


def test_what_must_not_be_rented_is_withdrawn_until_every_cause_is_gone():
    """Paused and rented: it comes back when both are over."""
    world = World()
    world.step(Linked(GATEWAYS[0]))
    ((_, gone),) = world.said(Withhold("owner", "paused by its owner"))
    assert gone.expires_s == gone.issued_s
    assert world.step(Withhold("renter", "rented")) == []
    assert world.book.withheld == ("paused by its owner", "rented")
    assert world.step(Linked(GATEWAYS[1])) == []
    assert world.step(Withhold("owner")) == []
    assert world.step(Tick()) == []
    back = world.said(Withhold("renter"))
    assert [(to, offer.expires_s - offer.issued_s) for to, offer in back] == [(it, LIFE_S) for it in GATEWAYS]
    assert back[0][1].serial > gone.serial


def test_a_serial_is_never_used_twice():
    """Not after a crash, not when the clock was set back, not when the folder was lost."""
    world = World()
    ((_, before),) = world.said(Linked(GATEWAYS[0]))
    world.book = world.fresh()
    world.now_s -= 5_000
    ((_, after),) = world.said(Linked(GATEWAYS[0]))
    assert after.serial == before.serial + 1
    world.records.clear()
    world.book = world.fresh()
    world.now_s += 10_000
    ((_, anew),) = world.said(Linked(GATEWAYS[0]))
    assert anew.serial > after.serial


def test_a_clock_that_is_set_back_does_not_leave_an_offer_from_the_future():
    """The offer is made anew by the clock as it is now."""
    world = World()
    world.step(Linked(GATEWAYS[0]))
    world.now_s -= 3_600
    ((_, offer),) = world.said(Tick())
    assert offer.issued_s == NOW - 3_600


def test_a_snapshot_restores_the_serial():
    """The journal shrinks to one record."""
    world = World()
    world.step(Linked(GATEWAYS[0]))
    world.now_s += LIFE_S
    world.step(Tick())
    assert world.book.snapshot() == [world.records[-1]]
    assert World().book.snapshot() == []


@pytest.mark.parametrize(("apart_s", "told"), [(0, False), (900, True), (-900, True)])
def test_why_it_is_not_listed_is_noted(apart_s: int, told: bool):
    """With how far the clocks are apart, if they are; of an older offer nothing is noted."""
    world = World()
    ((_, offer),) = world.said(Linked(GATEWAYS[0]))
    turned = OfferTurned(offer.serial, "stale", "over", NOW + apart_s)
    (noted,) = world.step(Received(GATEWAYS[0], turned))
    assert isinstance(noted, Noted)
    assert ("900 s apart" in noted.detail) == told
    assert world.book.turned == {GATEWAYS[0]: turned}
    assert world.step(Received(GATEWAYS[0], OfferTurned(offer.serial - 1, "stale", "", NOW))) == []


def test_the_class_of_a_processor_follows_its_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A level asks for the flags of all below it."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    info = tmp_path / "cpuinfo"
    second = "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3"
    third = "avx avx2 bmi1 bmi2 f16c fma abm movbe"
    for flags, level in ((second, "x86-64-v2"), (f"{second} {third}", "x86-64-v3"), (third, "x86-64")):
        info.write_text(f"processor: 0\nflags\t\t: {flags}\n")
        assert hardware_class(info) == level
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert hardware_class(info) == "arm64"


def test_cards_that_can_not_be_had_are_not_offered():
    """The cause is said when it changes, and taken back when it is cured; while they are rented, their use is no hindrance."""
    said: list[tuple[str, str]] = []
    asked: list[bool] = []
    answers = iter(["", "card 0 is used by miner", "card 0 is used by miner", ""])

    class Lent(Cards):
        def why_not(self, *, busy: bool) -> str:
            asked.append(busy)
            why = next(answers, None)
            if why is None:
                raise asyncio.CancelledError
            return why

    rented = iter([False, False, False, True, True])
    cards = Lent((), 1)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(
            keep_cards(cards, lambda cause, why: said.append((cause, why)), lambda: next(rented), 0.0)
        )
    assert said == [("cards", ""), ("cards", "card 0 is used by miner"), ("cards", "")]
    assert asked == [False, False, False, True, True]
