"""Measuring machines of both sides against each other: who is drawn measures, says it signed, and nobody else can."""

import msgspec
import pytest

from clusterai.ledger.core.calls import Submit, Tick
from clusterai.node.core.proving import MOST_A_DAY, Asked, Decline, Exercise, Exercised
from clusterai.protocol import canonical
from clusterai.protocol.canonical import content_digest
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.measuring import Echo, Examine, Measured, Run, Shown, decode_findings
from clusterai.protocol.messages import Relay
from clusterai.protocol.offers import Field, MachineMeasurement, decode_measurement, signed_digest
from clusterai.protocol.signing import recover
from clusterai.runtime.machine import Linked, Received, Started, Unlinked
from clusterai.validator.core.measurer import Kept, Measurer, Watched
from tests.rooms.measuring.machine_played import Played, claims
from tests.rooms.measuring.measured_world import GATEWAY, NETWORK, World


def statement(measured: Measured) -> MachineMeasurement:
    return decode_measurement(measured.measurement)


def test_a_machine_that_joins_is_measured_and_the_gateway_hears_it() -> None:
    """From the beacon on it takes some seconds; what is said is signed, and its findings are those whose digest stands in it."""
    world = World(1, [Played(claims())])
    world.beacon()
    world.run(20)
    ((sender, measured),) = world.measured
    said = statement(measured)
    assert sender == said.validator == world.validators[0].owner.address
    assert recover(signed_digest(said, NETWORK), measured.signature) == world.validators[0].hot.address
    assert said.node == world.nodes[0].hot.address
    assert said.fields & (Field.CPU | Field.PROFILE) == Field.CPU | Field.PROFILE
    assert said.cpu_milli == 2_000
    assert said.serial == 7
    assert content_digest(measured.findings) == said.findings
    assert decode_findings(measured.findings).claims == claims()
    assert world.nodes[0].shown == [measured], "the node hears it too, for its card"


def test_it_is_kept_before_it_is_told_and_told_again_to_who_links() -> None:
    """A crash after the examination loses nothing; the examination itself is begun again."""
    world = World(1, [Played(claims())])
    world.beacon()
    world.run(20)
    measurer = world.validators[0].measurer
    (kept,) = [it for it in world.validators[0].saved if isinstance(it, Kept)]
    again = Measurer(measurer.settings, measurer.directory)
    again.restore(measurer.snapshot())
    again.step(Started(), world.now_s)
    (send,) = again.step(Linked(GATEWAY), world.now_s)
    assert send.frame == kept.measured


def test_nobody_is_measured_before_a_beacon_drew_for_it() -> None:
    """Without one that came after it registered nobody is drawn; the validator has the chain record one."""
    world = World(1, [Played(claims())])
    world.run(10)
    assert world.measured == []
    world.now_s += 15
    world.chain()
    world.run(1)
    assert any(isinstance(it, Submit) and it.call == Tick() for it in world.validators[0].asked)


def test_each_day_it_is_measured_anew() -> None:
    """By those whom the day's first beacon draws."""
    world = World(1, [Played(claims())])
    world.beacon()
    world.run(20)
    world.now_s += 86_400
    world.beacon(b"another day")
    world.run(60)
    assert len(world.measured) == 2


def test_validators_who_come_together_measure_one_after_the_other() -> None:
    """One has the machine for itself; the others come when it is done."""
    world = World(3, [Played(claims())])
    world.beacon()
    world.run(120)
    assert {sender for sender, _ in world.measured} == {it.owner.address for it in world.validators}
    assert all(statement(it).cpu_milli == 2_000 for _, it in world.measured)


def test_only_the_drawn_measure() -> None:
    """Of eight validators three are drawn; no other asks anything."""
    world = World(8, [Played(claims())])
    world.beacon()
    world.run(120)
    drawn = world.nodes[0].draws.drawn(world.nodes[0].owner.address, world.now_s)
    assert drawn is not None
    assert {sender for sender, _ in world.measured} == set(drawn.validators)
    assert len(world.measured) == 3


def test_a_rented_machine_is_left_alone() -> None:
    """No test runs beside a tenant; when it is over, the machine is measured."""
    world = World(1, [Played(claims())])
    world.nodes[0].engaged = "it is rented"
    world.beacon()
    world.run(60)
    assert world.measured == []
    world.nodes[0].engaged = ""
    world.run(300)
    assert len(world.measured) == 1


def test_a_machine_that_is_away_is_measured_when_it_comes() -> None:
    """That it isn't linked says nothing of it."""
    world = World(1, [Played(claims())])
    world.linked.clear()
    world.beacon()
    world.run(60)
    assert world.measured == []
    world.linked.add(world.nodes[0].owner.address)
    world.run(300)
    assert len(world.measured) == 1


def test_echoes_make_its_reliability() -> None:
    """Of the echoes that were asked for, those that came; a validator that is itself away counts none."""
    world = World(1, [Played(claims())])
    world.beacon()
    world.run(20)
    validator, owner = world.validators[0], world.nodes[0].owner.address
    world.run(3_600)
    seen = validator.measurer.watched[owner]
    assert seen.asked == seen.answered >= 59
    world.linked.clear()
    world.run(1_200)
    half = validator.measurer.watched[owner]
    assert half.asked - seen.asked >= 19
    assert half.answered == seen.answered
    validator.measurer.step(Unlinked(GATEWAY), world.now_s)
    world.run(600)
    assert validator.measurer.watched[owner].asked <= half.asked + 1
    assert isinstance(half, Watched)


# --- hostile ---


def ask(world: World, by: int = 0, **changes: object) -> Examine:
    validator = world.validators[by]
    asked = Examine(
        validator.owner.address,
        world.nodes[0].owner.address,
        Digest(b"\x05" * 32),
        int(world.now_s),
        Run((0,), 1_000),
        bytes(65),
    )
    asked = msgspec.structs.replace(asked, **changes)
    return msgspec.structs.replace(asked, signature=validator.hot.sign(asked.signing_digest(NETWORK)))


def hears(world: World, asked: Examine) -> list[object]:
    return world.nodes[0].prover.step(Asked(GATEWAY, asked, ""), world.now_s)


def test_a_node_works_for_nobody_else() -> None:
    """Not for one who wasn't drawn, a forger, an old ask, one for another node; not twice for the same."""
    world = World(8, [Played(claims())])
    world.beacon()
    drawn = world.nodes[0].draws.drawn(world.nodes[0].owner.address, world.now_s)
    assert drawn is not None
    inside = next(at for at, it in enumerate(world.validators) if it.owner.address in drawn.validators)
    outside = next(at for at, it in enumerate(world.validators) if it.owner.address not in drawn.validators)
    assert hears(world, ask(world, outside)) == []
    assert hears(world, msgspec.structs.replace(ask(world, inside), signature=bytes(65))) == []
    assert hears(world, msgspec.structs.replace(ask(world, outside), validator=drawn.validators[0])) == []
    assert hears(world, ask(world, inside, at_s=int(world.now_s) - 31)) == []
    assert hears(world, ask(world, inside, provider=world.validators[0].owner.address)) == []
    first = ask(world, inside)
    assert isinstance(hears(world, first)[0], Exercise)
    assert hears(world, first) == [], "replayed"


def test_a_drawn_validator_does_not_work_a_node_to_death() -> None:
    """So many heavy tests a day; a day later it may again."""
    world = World(1, [Played(claims())])
    world.beacon()
    codes: list[str] = []
    for number in range(MOST_A_DAY + 3):
        world.now_s += 1
        asked = ask(world, seed=Digest(number.to_bytes(32)))
        (effect,) = hears(world, asked)
        codes.append(effect.answer.code if isinstance(effect, Decline) else "done")
        world.nodes[0].prover.step(Exercised(Digest(asked.seed)), world.now_s)
    assert codes == ["done"] * MOST_A_DAY + ["too_often"] * 3
    world.now_s += 86_400
    world.beacon()
    assert isinstance(hears(world, ask(world))[0], Exercise)


def test_answers_that_are_not_the_machines_are_passed_over() -> None:
    """Forged, by another owner's key, of another seed, or relayed by another sender: none ends or feeds an examination."""
    world = World(1, [Played(claims()), Played(claims())])
    world.beacon()
    validator, (node, other) = world.validators[0], world.nodes
    world.perform(validator, validator.measurer.step(Linked(GATEWAY), world.now_s))
    world.run(0.4)
    session = validator.measurer.sessions[node.owner.address]
    before = (session.seed, session.number)
    honest = Shown(node.owner.address, node.hot.address, session.seed, node.machine.said, bytes(65))
    for shown, sender in (
        (honest, node),
        (msgspec.structs.replace(honest, signature=other.hot.sign(honest.signing_digest(NETWORK))), node),
        (world.signed(other, msgspec.structs.replace(honest, node=other.hot.address)), node),
        (world.signed(node, msgspec.structs.replace(honest, seed=bytes(32))), node),
        (world.signed(node, honest), other),
    ):
        relay = Relay(sender.owner.address, validator.owner.address, canonical.encode(shown))
        assert validator.measurer.step(Received(GATEWAY, relay), world.now_s) == []
    assert (session.seed, session.number) == before


@pytest.mark.parametrize("body", [b"", b"\xc1", bytes(1_000), canonical.encode(Echo())])
def test_bytes_that_mean_nothing_do_no_harm(body: bytes) -> None:
    """A relayed body may be anything."""
    world = World(1, [Played(claims())])
    world.beacon()
    relay = Relay(world.nodes[0].owner.address, world.validators[0].owner.address, body)
    assert world.validators[0].measurer.step(Received(GATEWAY, relay), world.now_s) == []
    assert Address(world.nodes[0].owner.address) in world.linked
