"""Heartbeats signed by both sides: receipts by the machine, all of a stay's by its gateway; neither forges nor denies one alone."""

import msgspec
import pytest

from clusterai.gateway.core import rentstate
from clusterai.gateway.core.rentstate import Release
from clusterai.node.core.staybook import Came
from clusterai.protocol import canonical
from clusterai.protocol.eip712 import typed_digest
from clusterai.protocol.ids import Digest
from clusterai.protocol.messages import Answer
from clusterai.protocol.rentals import Countersign, Heartbeats, head_of, stay_model
from clusterai.protocol.signing import Key, signed_by
from clusterai.protocol.statements import Order, Receipt
from clusterai.runtime.machine import Received
from clusterai.work.cluster.core.heartbeats import wrong
from clusterai.work.cluster.price import recount
from clusterai.work.cluster.spec import Interval
from tests.rooms.rentals.stage import GATEWAY, HOT, LEASE, NETWORK, Machine, Stage, honest

ZEROS = bytes(32)
OTHER = Digest(b"\x6f" * 32)


class Shown(msgspec.Struct, frozen=True):
    """An interval as either side can show it: with the gateway's order and the machine's receipt, both signed."""

    interval: Interval
    answer: Answer
    order: Order
    ordered: bytes
    receipt: Receipt
    receipted: bytes


def shown(interval: Interval, tokens: tuple[int, ...], machine: Machine, gateway: Key = HOT) -> Shown:
    answer, request = Answer(tokens, "stop"), canonical.digest(interval)
    order = Order(GATEWAY, machine.operator, interval.model, request, ZEROS, 0, 1, 10**9, 2**32, ZEROS)
    tenths = recount(interval, tokens)[1]
    receipt = Receipt(
        canonical.digest(order),
        machine.operator,
        GATEWAY,
        interval.model,
        answer.digest(),
        0,
        tenths,
        tenths,
        1,
    )
    return Shown(
        interval,
        answer,
        order,
        gateway.sign(typed_digest(NETWORK.separator(), order.struct())),
        receipt,
        machine.key.sign(typed_digest(NETWORK.separator(), receipt.struct())),
    )


def judge(machine: Machine, evidence: list[Shown], said: Heartbeats, signature: bytes) -> str:
    """Somebody who believes neither side: why this isn't what both signed of a stay, or nothing."""
    if not signed_by(HOT.address, said.signing_digest(NETWORK), signature):
        return "not countersigned by the gateway"
    head, tenths = Digest(ZEROS), 0
    for it in evidence:
        if not signed_by(HOT.address, typed_digest(NETWORK.separator(), it.order.struct()), it.ordered):
            return "not ordered by the gateway"
        if not signed_by(
            machine.key.address, typed_digest(NETWORK.separator(), it.receipt.struct()), it.receipted
        ):
            return "not the machine's receipt"
        if {it.order.model, it.interval.model, it.receipt.model} != {said.stay}:
            return "of another stay"
        if it.order.request != canonical.digest(it.interval) or it.receipt.order != canonical.digest(
            it.order
        ):
            return "an order for something else"
        if it.receipt.answer != it.answer.digest() or wrong(it.interval, it.answer.tokens, it.answer.reason):
            return "not the heartbeats of the receipt"
        if it.interval.before != head:
            return "it doesn't hang on the interval before"
        head = head_of(it.order.request, it.receipt.answer)
        tenths += it.receipt.output_units
    return "" if (head, tenths) == (said.head, said.tenths) else "more or less than was countersigned"


class Rented:
    """A rental of two machines after some intervals, and what its worker can show."""

    def __init__(self) -> None:
        self.stage = Stage(2)
        self.rental = self.stage.rent(2)
        self.worker = self.stage.machines[1]
        self.stay = stay_model(LEASE, 1, 0)
        self.stage.run(100)
        self.evidence = [
            shown(interval, honest(interval), self.worker)
            for interval in self.stage.came
            if interval.model == self.stay
        ]

    @property
    def held(self) -> tuple[Heartbeats, bytes]:
        signed = self.worker.signed[self.stay]
        return signed.said, signed.signature

    def told(self, said: Heartbeats, key: Key = HOT) -> bool:
        """Whether the worker keeps this, if its gateway sends it."""
        signature = key.sign(said.signing_digest(NETWORK))
        self.worker.tell(Received(GATEWAY, Countersign(said, signature)))
        return self.held == (said, signature)


def test_one_signature_covers_all_that_came_of_a_stay():
    """After each interval its machine holds the gateway's word for all of them, and with its receipts it convinces a stranger."""
    it = Rented()
    said, signature = it.held
    assert len(it.evidence) == 3
    assert said.tenths == sum(one.receipt.output_units for one in it.evidence) == 900
    assert judge(it.worker, it.evidence, said, signature) == ""
    assert it.rental.stays[1].head == said.head
    assert it.rental.stays[1].tenths == said.tenths


def test_heartbeats_invented_after_the_tenant_left_are_nobodys():
    """The chain goes on for whoever makes it up, but no gateway ordered it and none countersigned it."""
    it = Rented()
    it.stage.ask(Release(LEASE))
    said, signature = it.held
    last = it.evidence[-1]
    more = msgspec.structs.replace(
        last.interval, number=last.interval.number + 1, before=bytes(said.head), seed=b"\x11" * 32
    )
    invented = shown(more, honest(more), it.worker, gateway=it.worker.key)
    assert judge(it.worker, [*it.evidence, invented], said, signature) == "not ordered by the gateway"
    # It may have the order of an interval that it never did, too: nobody signed what it says came of it.
    ordered = shown(more, honest(more), it.worker)
    assert judge(it.worker, [*it.evidence, ordered], said, signature) == "more or less than was countersigned"
    longer = Heartbeats(said.stay, said.tenths + 300, head_of(ordered.order.request, ordered.receipt.answer))
    mine = it.worker.key.sign(longer.signing_digest(NETWORK))
    assert judge(it.worker, [*it.evidence, ordered], longer, mine) == "not countersigned by the gateway"
    assert judge(it.worker, [*it.evidence, ordered], longer, signature) == "not countersigned by the gateway"


def test_heartbeats_that_were_changed_afterwards_show():
    """Neither a beat nor the terms of its interval can be another's: the head is of both."""
    it = Rented()
    said, signature = it.held
    first = it.evidence[0]
    softer = msgspec.structs.replace(first.interval, slack_ppm=13_000)
    for interval, tokens in (
        (softer, first.answer.tokens),
        (first.interval, (first.answer.tokens[0] - 1, *first.answer.tokens[1:])),
    ):
        forged = [shown(interval, tokens, it.worker), *it.evidence[1:]]
        assert judge(it.worker, forged, said, signature) == "it doesn't hang on the interval before"
    assert judge(it.worker, it.evidence[:-1], said, signature) == "more or less than was countersigned"


def test_a_tenant_can_not_deny_an_interval_that_it_signed():
    """What would leave it out isn't kept in the newer one's place, and no interval is begun that hangs on what came before it."""
    it = Rented()
    newest, _ = it.held
    last = it.evidence[-1]
    shorter = Heartbeats(newest.stay, newest.tenths - last.receipt.output_units, Digest(last.interval.before))
    assert not it.told(shorter)
    assert not it.worker.book.follows(it.stay, last.interval.before)
    assert not it.worker.book.follows(it.stay, ZEROS)
    assert it.worker.book.follows(it.stay, newest.head)
    assert it.told(newest)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"stay": stay_model(OTHER, 1, 0)}, id="another lease"),
        pytest.param({"stay": stay_model(LEASE, 0, 0)}, id="another place"),
        pytest.param({"stay": stay_model(LEASE, 1, 1)}, id="another generation"),
        pytest.param({"tenths": 901}, id="another time"),
        pytest.param({"head": ZEROS[1:] + b"\x01"}, id="another chain"),
    ],
)
def test_a_statement_of_another_stay_is_not_kept(changed: dict[str, object]):
    """Replayed from another lease, or about what never came, it counts for nothing here."""
    it = Rented()
    said, signature = it.held
    other = msgspec.structs.replace(said, **changed)
    assert not it.told(other)
    assert it.held == (said, signature)
    assert judge(it.worker, it.evidence, other, signature) == "not countersigned by the gateway"


def test_an_interval_of_another_lease_proves_nothing_here():
    """Its heartbeats are right and its order is signed, but it names the stay that it is of."""
    it = Rented()
    said, signature = it.held
    first = it.evidence[0]
    foreign = msgspec.structs.replace(first.interval, model=stay_model(OTHER, 1, 0))
    replayed = shown(foreign, honest(foreign), it.worker)
    assert judge(it.worker, [replayed, *it.evidence[1:]], said, signature) == "of another stay"
    assert not it.worker.book.follows(stay_model(OTHER, 1, 0), ZEROS)


def test_who_is_not_its_gateway_countersigns_nothing():
    """By another key, or on another link."""
    it = Rented()
    said, signature = it.held
    assert not it.told(said, Key(b"\x77" * 32))
    kept = len(it.worker.signed)
    it.worker.tell(Received(it.worker.operator, Countersign(said, signature)))
    assert (it.held, len(it.worker.signed)) == ((said, signature), kept)


def test_the_last_interval_is_countersigned_after_the_end():
    """Cut short by the release it came all the same: the stay is over, and its machine still takes the gateway's word for it."""
    it = Rented()
    errand, (order, _) = next(
        (errand, running) for errand, running in it.stage.running.items() if running[0].model == it.stay
    )
    it.stage.ask(Release(LEASE))
    assert it.worker.book.stay is None
    tokens = honest(order.interval)[: len(honest(order.interval)) // 15]
    head = head_of(canonical.digest(order.interval), Answer(tokens, "cancelled").digest())
    tenths = recount(order.interval, tokens)[1]
    before = it.held[0]
    it.worker.tell(Came(it.stay, order.interval.before, head, tenths))
    it.stage.tell(rentstate.Done(errand, head, tokens, tenths))
    it.stage.settle()
    assert it.held[0] == Heartbeats(it.stay, before.tenths + tenths, head)
    assert tenths > 0


def test_a_gateway_that_was_killed_countersigns_on():
    """What was charged and not written down when it was killed is left out, and ordered anew from where both agree."""
    it = Rented()
    before = it.held[0]
    it.stage.restart()
    it.stage.run(70)
    said = it.held[0]
    assert said.tenths > before.tenths
    assert it.rental.stays[1].head == before.head
    assert it.stage.rental().stays[1].head == said.head
