"""Licences as projected from events are live exactly where the contract says so, and go back with undone blocks."""

import msgspec
import pytest

from clusterai.ledger.core import calls
from clusterai.ledger.core.events import Block, Event, LicenceMoved, RolledBack
from clusterai.ledger.core.licences import Licences
from clusterai.ledger.core.twin import Refused
from clusterai.protocol.ids import ZERO_DIGEST, Digest
from clusterai.protocol.signing import Key
from clusterai.protocol.vaults import Operation, Revoked
from tests.contracts.cast import HOTS, PAYER, STRANGER
from tests.contracts.vaultcast import Log, VaultPair, dataset, digest, grant, signed

ANN = HOTS["ann"]


class Followed(VaultPair):
    """A chain whose events a projection reads as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.licences = Licences()

    def do(self, call: calls.Call, sender: Key) -> tuple[Event, ...] | Refused:
        outcome = super().do(call, sender)
        if not isinstance(outcome, Refused):
            for event in outcome:
                self.licences.apply(event)
            self.licences.apply(Block(self.number, self.now_s))
        return outcome

    def live(self, one: Digest) -> bool:
        """As the projection says; the contract says the same of everyone."""
        for who in (PAYER, STRANGER):
            said = self.licences.may_use(one, who.address, self.now_s)
            assert said == self.twin.vaults.is_live(one, who.address, self.now_s)
        return self.licences.live(one, self.now_s) is not None


@pytest.fixture
def pair() -> Followed:
    made = Followed()
    made.populate()
    return made


def test_a_grant_is_live_until_it_expires(pair: Followed) -> None:
    """From the grant to its last second, for its holder alone."""
    one = grant("ann", "payer", expires_s=pair.now_s + 10)
    assert not pair.live(one.struct())
    pair.granted(one)
    assert pair.live(one.struct())
    pair.advance(10)
    assert pair.live(one.struct())
    pair.advance(1)
    assert not pair.live(one.struct())


def test_a_revoked_grant_is_not_live_until_its_block_is_undone(pair: Followed) -> None:
    """A reorganisation takes the revocation back, as it does the grant itself."""
    before = pair.number
    one = pair.granted(grant("ann", "payer")).struct()
    granted = pair.number
    pair.expect(calls.EndGrant(one, Revoked.CONSENT), ANN)
    assert not pair.live(one)
    ended = pair.licences.grant(one)
    assert ended is not None
    assert ended.ended == Revoked.CONSENT
    pair.licences.apply(RolledBack(granted))
    assert pair.licences.live(one, pair.now_s) is not None
    pair.licences.apply(RolledBack(before))
    assert pair.licences.grant(one) is None
    assert pair.licences.of(dataset("ann")) == []


def test_a_convicted_vault_has_no_live_grants(pair: Followed) -> None:
    """The dataset is frozen, its owner barred, and what it granted is worth nothing; another vault's grants stay."""
    one, other = pair.granted(grant("ann", "payer")), pair.granted(grant("bob", "payer"), "bob")
    log = Log("ann")
    use = log.use(one, 100, pair.now_s)
    pair.anchored(log)
    anchored = pair.licences.anchor(dataset("ann"))
    assert anchored is not None
    assert (anchored.number, anchored.count, anchored.spent_micro) == (0, 1, 100)
    changed = msgspec.structs.replace(use, result=ZERO_DIGEST)
    pair.expect(calls.ProveEquivocation(use, signed(use, ANN), changed, signed(changed, ANN)), STRANGER)
    assert not pair.live(one.struct())
    assert pair.live(other.struct())
    listed = pair.licences.listed(dataset("ann"))
    assert listed is not None
    assert listed.frozen
    assert pair.licences.is_barred(listed.owner)


def test_a_moved_copy_is_its_holders(pair: Followed) -> None:
    """Whoever got a transferable copy may use it, and who gave it away may not."""
    one = grant("ann", "payer", operation=int(Operation.COPY))
    pair.expect(calls.GrantAccess(one, True), ANN)
    pair.licences.apply(LicenceMoved(one.struct(), PAYER.address, STRANGER.address))
    assert pair.licences.may_use(one.struct(), STRANGER.address, pair.now_s)
    assert not pair.licences.may_use(one.struct(), PAYER.address, pair.now_s)
    pair.licences.apply(LicenceMoved(digest("unknown"), PAYER.address, STRANGER.address))
