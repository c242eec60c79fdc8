"""Validators who want an honest provider convicted of serving nothing: they choose when the others hear of it, or wait for a gateway that is away."""

import pytest

from clusterai.ledger.core import events
from clusterai.ledger.core.lease_calls import CommitAudit, Enlist, ReportWithheld
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import CloseReason
from clusterai.runtime.machine import Linked, Unlinked
from tests.simulation.leases.world import AT, World, honest, key

PANEL = tuple(f"val-{n}" for n in range(20))


def drawn(world: World) -> list[events.AuditorDrawn]:
    return [it for it in world.history if isinstance(it, events.AuditorDrawn)]


def name_of(owner: Address) -> str:
    return next(name for name in PANEL if key(name).address == owner)


def first_two(seed: int) -> list[str]:
    """Who is drawn where nobody moves: the lots don't depend on what anyone says."""
    world = World(seed, {"bob": honest}, PANEL, lets=lambda name, call: not isinstance(call, CommitAudit))
    world.lease("bob")
    while len(drawn(world)) < 2:
        world.turn()
    return [name_of(it.auditor) for it in drawn(world)]


@pytest.mark.parametrize("left_s", [4, 2])
@pytest.mark.parametrize("seed", range(2))
def test_a_report_in_the_last_seconds_convicts_nobody(seed: int, left_s: int) -> None:
    """Drawn, a liar says that nothing is served and commits at once, so that nobody looks for long, and its friends say the same.
    What the others asked for once is lost. When one of the liars is drawn as well, the last of them says so just before the end."""
    pair = first_two(seed)
    others = [name for name in PANEL if name not in pair]
    liars = [*dict.fromkeys(pair), *others[: 6 - len(set(pair))]]
    world = World(
        seed, {"bob": honest}, PANEL, lets=lambda name, call: name not in liars or isinstance(call, Enlist)
    )
    lease = world.lease("bob")

    def say(name: str, call: ReportWithheld | CommitAudit) -> None:
        world.must(call, key(name + " hot").address)

    last, said = liars[-1], 0
    while lease not in world.closed:
        world.loss = 1.0 if said == 1 and len(drawn(world)) == 1 else 0.0
        world.turn()
        lots = drawn(world)
        if len(lots) == 1 and not said:
            for name in liars[:-1]:
                say(name, ReportWithheld(lease))
            say(liars[0], CommitAudit(lease, Digest(keccak(b"anything"))))
            said = 1
        if len(lots) == 2 and said == 1 and world.now_s >= lots[1].commit_by_s - left_s:
            say(last, ReportWithheld(lease))
            said = 2
    assert said == 2, "what it is about happened"
    assert world.reason(lease) is CloseReason.COMPLETED
    assert not world.slashed
    assert world.balance(AT.audits) == 0


@pytest.mark.parametrize("back_s", [12, 4])
def test_a_gateway_that_is_back_in_the_last_seconds_convicts_nobody(back_s: int) -> None:
    """A liar is drawn and says that nothing is served; the one gateway is away until the others' time is all but over."""
    liar = first_two(1)[0]
    worlds: list[World] = []
    by_s: list[int] = []

    def shows(name: str) -> bool:
        # The provider is linked again a little later than they.
        return not by_s or worlds[0].now_s > by_s[0] - back_s + 3

    world = World(
        1,
        {"bob": honest},
        PANEL,
        shows=shows,
        lets=lambda name, call: name != liar or isinstance(call, Enlist),
    )
    worlds.append(world)
    lease = world.lease("bob")
    gateway, is_back = world.gateway.address, False
    while lease not in world.closed:
        world.turn()
        if not by_s and drawn(world):
            for auditor in world.auditors.values():
                auditor.hear(Unlinked(gateway))
            world.must(ReportWithheld(lease), key(liar + " hot").address)
            by_s += [it.report_by_s for it in world.history if isinstance(it, events.WithheldReported)]
        if by_s and not is_back and world.now_s >= by_s[0] - back_s:
            is_back = True
            for auditor in world.auditors.values():
                auditor.hear(Linked(gateway))
    assert is_back, "what it is about happened"
    assert world.reason(lease) is CloseReason.COMPLETED
    assert not world.slashed
