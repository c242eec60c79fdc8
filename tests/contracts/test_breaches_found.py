"""What requesters hold of a vault is enough to convict it where it lied, and accuses no honest one."""

from typing import Any

import msgspec
import pytest

from clusterai.ledger.core import calls
from clusterai.ledger.core.breaches import equivocation, first_wrong, missing, replaced
from clusterai.ledger.core.events import BreachProven, LogAnchored
from clusterai.protocol.ids import Digest
from clusterai.protocol.vaults import Breach, Grant, SignedUse, Use
from tests.contracts.cast import HOTS, STRANGER
from tests.contracts.vaultcast import BUDGET, Log, VaultPair, digest, grant, signed, told

ANN = HOTS["ann"]


@pytest.fixture
def pair() -> VaultPair:
    made = VaultPair()
    made.populate()
    return made


def held(use: Use) -> SignedUse:
    return SignedUse(use, signed(use, ANN))


def written(pair: VaultPair, **lie: Any) -> tuple[Log, dict[Digest, Grant], LogAnchored]:
    """Six uses of two grants, of which the fourth may lie, and their anchor."""
    one, two = pair.granted(grant("ann", "payer")), pair.granted(grant("ann", "gate", "other"))
    log = Log("ann")
    for index in range(6):
        log.use((one, two)[index % 2], 200_000, pair.now_s)
    log.uses[3] = msgspec.structs.replace(log.uses[3], **lie)
    pair.advance(5)
    anchor = log.anchor(pair.now_s, 1_200_000)
    return log, {one.struct(): one, two.struct(): two}, told(pair.expect(anchor, ANN), LogAnchored)


@pytest.mark.parametrize(
    ("lie", "kind"),
    [
        ({"grant_spent_micro": 0}, Breach.MISCOUNTED),
        ({"grant_spent_micro": 200_000}, Breach.MISCOUNTED),
        ({"total_spent_micro": 700_000}, Breach.MISCOUNTED),
        ({"grant_spent_micro": 2_000_001, "total_spent_micro": 2_000_001}, Breach.OVERSPENT),
        ({"grant": digest("never")}, Breach.OVERSPENT),
    ],
)
def test_a_false_log_is_found_and_convicted(pair: VaultPair, lie: dict[str, Any], kind: Breach) -> None:
    """Whoever was shown all of it finds the first use that can't be right, and the contract agrees."""
    log, grants, anchored = written(pair, **lie)
    call = first_wrong(log.uses, anchored, grants, BUDGET)
    assert call is not None
    assert told(pair.expect(call, STRANGER), BreachProven).kind == kind


def test_signed_uses_that_the_log_lacks_convict(pair: VaultPair) -> None:
    """A use beyond the log's end, another at its index, two for one place: each is found, and each convicts."""
    log, _, anchored = written(pair)
    late = held(msgspec.structs.replace(log.uses[5], index=6, result=digest("late")))
    other = held(msgspec.structs.replace(log.uses[2], result=digest("what I got")))
    found: list[calls.Call | None] = [
        missing(late, anchored),
        replaced(other, log.leaves, anchored),
        equivocation(held(log.uses[2]), other),
    ]
    kinds: list[int] = []
    for call in found:
        assert call is not None
        mark, number = pair.twin.mark(), pair.number
        events = pair.twin.execute(call, STRANGER.address, pair.block())
        assert isinstance(events, tuple), events
        kinds.append(told(events, BreachProven).kind)
        pair.twin.rollback(mark)
        assert pair.number == number
    assert kinds == [Breach.OMITTED, Breach.OMITTED, Breach.EQUIVOCATED]


def test_an_honest_vault_is_not_accused(pair: VaultPair) -> None:
    """Its own uses, a log that it never anchored, and uses after the anchor give nobody a call to make."""
    log, grants, anchored = written(pair)
    assert first_wrong(log.uses, anchored, grants, BUDGET) is None
    uses = [held(use) for use in log.uses]
    for one in uses:
        assert missing(one, anchored) is None
        assert replaced(one, log.leaves, anchored) is None
        assert all(equivocation(one, other) is None for other in uses)
    false = [log.uses[0], *log.uses[:5]]
    assert first_wrong(false, anchored, grants, BUDGET) is None
    assert replaced(uses[1], [use.struct() for use in false], anchored) is None
    after = held(msgspec.structs.replace(log.uses[5], index=6, at_s=anchored.as_of_s))
    assert missing(after, anchored) is None
