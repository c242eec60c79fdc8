"""A vault and the contract that keeps its grants, byte for byte: nothing holds before the chain has it, and no honest log convicts."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from clusterai.ledger.core import calls
from clusterai.ledger.core.calls import Mined, Reverted, Submit
from clusterai.ledger.core.events import Block
from clusterai.ledger.core.twin.state import Refused
from clusterai.ledger.core.vault_calls import (
    BuyCopy,
    EndGrant,
    Piece,
    ProveOmission,
    ProveSpending,
    ProveSums,
    Shown,
)
from clusterai.protocol.ids import ZERO_DIGEST, Digest
from clusterai.protocol.signing import Key
from clusterai.protocol.vaults import Operation, Revoked, log_proof
from clusterai.sdk.identity import Identity
from clusterai.vault.core.policy import MICRO
from clusterai.vault.core.terms import Denied, Entry
from tests.contracts.cast import DEPLOYER, EVERYONE, HOTS, NETWORK_DOMAIN, OWNERS
from tests.contracts.vaultcast import WINDOW_S, VaultPair
from tests.rooms.vault.vaultbed import POLICY, Bed


class World:
    """A vault of ann's, the chain (contract and twin, compared at each call), and the node between them.

    Attributes:
        waiting: calls that are on their way.
        seen: all events, told again after a restart.
    """

    def __init__(self, root: Path) -> None:
        self.chain = VaultPair()
        self.chain.populate()
        self.waiting: dict[str, Submit] = {}
        self.seen: list[object] = []
        self.refusals: list[str] = []
        self.bed = Bed(
            root,
            POLICY,
            owner=OWNERS["ann"].address,
            hot=HOTS["ann"],
            network=NETWORK_DOMAIN,
            submit=self.submit,
            start_s=self.chain.now_s,
        )
        self.bed.identity = Identity(EVERYONE["payer"], b"p" * 32)
        self.pass_time(3)

    def submit(self, submit: Submit) -> None:
        """As the outbox: a second call of one name is dropped."""
        self.waiting.setdefault(submit.key, submit)

    def pass_time(self, seconds: int) -> None:
        """A tick, and all that it asked the chain for is mined."""
        self.chain.advance(seconds)
        self.bed.now_s = self.chain.now_s
        self.bed.vault.tick()
        self.mine()

    def mine(self) -> None:
        while self.waiting:
            submit = self.waiting.pop(next(iter(self.waiting)))
            outcome = self.chain.do(submit.call, HOTS["ann"])
            if isinstance(outcome, Refused):
                self.refusals.append(outcome.reason)
                self.bed.vault.hear(Reverted(submit.key, outcome.reason))
            else:
                self.bed.vault.hear(Mined(submit.key, Digest(b"t" * 32), self.chain.number))
                self.hear(outcome)

    def hear(self, told: tuple[object, ...]) -> None:
        for event in (*told, Block(self.chain.number, self.chain.now_s)):
            self.seen.append(event)
            self.bed.vault.hear(event)

    def restart(self) -> None:
        self.waiting.clear()
        self.bed.restart()
        for event in self.seen:
            self.bed.vault.hear(event)

    def use(self, grant: Digest, order: int, epsilon_micro: int) -> None:
        named = Digest(order.to_bytes(32))
        self.bed.vault.spend(grant, named, epsilon_micro)
        self.bed.vault.used(named, Digest(b"r" * 32))

    def live(self, grant: Digest, who: Key) -> bool:
        return self.chain.twin.vaults.is_live(grant, who.address, self.chain.now_s)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.bed.close()


def test_a_grant_holds_when_the_chain_has_it(world: World) -> None:
    """Listed first; pending until it is mined; then a licence of the requester's."""
    vault, me = world.bed.vault, world.bed.identity
    assert world.chain.twin.vaults.listing(vault.dataset).terms.budget_micro == 5 * MICRO
    grant = world.bed.grant()
    with pytest.raises(Denied, match="pending"):
        vault.permit(grant, me.address, Operation.QUERY, ZERO_DIGEST)
    world.mine()
    vault.permit(grant, me.address, Operation.QUERY, ZERO_DIGEST)
    assert world.live(grant, me.key)
    assert world.refusals == []


def test_a_grant_waits_for_the_listing(world: World) -> None:
    """Before the chain is known to have the data set, nothing is granted there; from then on at once."""
    world.bed.restart()
    grant = world.bed.grant()
    assert not world.waiting
    for event in world.seen:
        world.bed.vault.hear(event)
    world.mine()
    assert world.live(grant, world.bed.identity.key)
    assert world.refusals == []


def test_what_died_on_its_way_is_asked_for_again(world: World) -> None:
    """A grant and a revocation whose calls were lost with the process reach the chain after the restart."""
    grant = world.bed.grant()
    world.restart()
    world.pass_time(31)
    assert world.live(grant, world.bed.identity.key)
    world.bed.vault.revoke(grant, Revoked.TERMS)
    world.restart()
    world.pass_time(31)
    world.pass_time(31)
    assert not world.live(grant, world.bed.identity.key)
    assert world.refusals == []
    world.restart()
    world.pass_time(61)
    assert world.waiting == {}


def test_who_gives_its_licence_back_has_none(world: World) -> None:
    """The holder ends it on chain: the vault hears of it, permits nothing, and keys anew."""
    grant = world.bed.grant()
    world.mine()
    me = world.bed.identity
    world.hear(world.chain.expect(EndGrant(grant, int(Revoked.ASKED)), me.key))
    with pytest.raises(Denied, match="revoked: this grant was revoked: asked"):
        world.bed.vault.permit(grant, me.address, Operation.QUERY, ZERO_DIGEST)
    world.pass_time(1)
    assert world.bed.vault.key_epoch == 1


def test_an_honest_log_convicts_nobody(world: World) -> None:
    """Uses of two grants, one that is open still, a restart: every leaf is anchored, and each accusation of its keeper fails."""
    vault = world.bed.vault
    grants = [world.bed.grant(), world.bed.grant()]
    world.mine()
    for order in range(4):
        world.use(grants[order % 2], order, 100_000 + order)
    world.pass_time(61)
    vault.spend(grants[0], Digest(b"9" * 32), 50_000)
    world.restart()
    vault = world.bed.vault
    world.use(grants[1], 7, 1)
    world.pass_time(61)
    assert vault.anchored == 5
    uses = [row.signed for row in vault.uses() if row.signed is not None]
    uses.sort(key=lambda it: it.use.index)
    leaves = [it.use.struct() for it in uses]
    last = world.chain.twin.vaults.anchors(vault.dataset) - 1
    shown = [Shown(it.use, last, log_proof(leaves, it.use.index)) for it in uses]
    stranger = EVERYONE["stranger"]
    for at, it in enumerate(uses):
        assert world.chain.refused(ProveSpending(shown[at]), stranger) == "NoBreach"
        piece = Piece(last, leaves[at], log_proof(leaves, at))
        assert world.chain.refused(ProveOmission(it.use, it.signature, piece), stranger) == "NoBreach"
        if at:
            assert world.chain.refused(ProveSums(shown[at - 1], shown[at]), stranger) == "NoBreach"
    assert world.refusals == []


def test_a_richer_policy_spends_no_more_than_was_listed(world: World) -> None:
    """The budget on chain is for ever; the listing says the new policy, the old budget."""
    world.bed.set_policy(
        msgspec.structs.replace(POLICY, total_epsilon_micro=50 * MICRO, requester_epsilon_micro=50 * MICRO)
    )
    world.pass_time(31)
    listed = world.chain.twin.vaults.listing(world.bed.vault.dataset).terms
    assert listed.policy == world.bed.vault.policy.digest()
    assert listed.budget_micro == 5 * MICRO
    grants = [world.bed.grant(epsilon_micro=2 * MICRO) for _ in range(3)]
    world.mine()
    world.use(grants[0], 1, 2 * MICRO)
    world.use(grants[1], 2, 2 * MICRO)
    with pytest.raises(Denied, match="the 1 left to this vault"):
        world.use(grants[2], 3, 2 * MICRO)
    assert world.refusals == []


def bought(world: World, pays: bool = True) -> Entry:
    """The requester asked for a copy, the owner approved, and the money is in escrow."""
    me = world.bed.identity
    entry = world.bed.ask(
        operation=Operation.COPY, epsilon_micro=0, uses=1, expires_s=world.chain.now_s + 80 * 86_400
    )
    if pays:
        world.bed.vault.approve(entry.request)
        world.pass_time(31)
        [waiting] = world.bed.vault.entries()
        assert waiting.state == "approved"
    price = POLICY.copy_wei
    world.chain.expect(calls.Transfer(me.address, price), DEPLOYER)
    buy = BuyCopy(world.bed.vault.dataset, entry.request, me.address, price, world.chain.now_s + 10_000)
    world.hear(world.chain.expect(buy, me.key))
    world.mine()
    [entry] = world.bed.vault.entries()
    return entry


def test_a_copy_is_granted_when_it_is_paid(world: World) -> None:
    """Approved, it waits for the money; then the licence is delivered to who asked, and after the window the seller is paid, also one that died."""
    entry = bought(world)
    assert entry.state == "granted"
    assert entry.grant is not None
    assert world.live(entry.grant, world.bed.identity.key)
    ann = OWNERS["ann"].address
    before = world.chain.twin.token.balance(ann)
    world.pass_time(61)
    world.restart()
    world.pass_time(WINDOW_S)
    world.pass_time(61)
    assert world.chain.twin.token.balance(ann) - before == POLICY.copy_wei
    world.pass_time(61)
    assert world.refusals == []


@pytest.mark.parametrize("how", ["revoked", "denied", "slept over"])
def test_who_gets_no_copy_gets_its_money_back(world: World, how: str) -> None:
    """Revoked within the window, denied although it was paid, or never decided: the vault itself gives the escrow back."""
    entry = bought(world, pays=how == "revoked")
    me = world.bed.identity.address
    before = world.chain.twin.token.balance(me)
    match how:
        case "revoked":
            assert entry.grant is not None
            world.bed.vault.revoke(entry.grant, Revoked.TERMS)
            world.pass_time(1)
            world.pass_time(WINDOW_S + 61)
        case "denied":
            world.bed.vault.deny(entry.request, "no")
        case _:
            world.pass_time(10_000)
    world.pass_time(61)
    assert world.chain.twin.token.balance(me) - before == POLICY.copy_wei


def test_a_vault_made_anew_under_an_old_name_is_told(world: World, tmp_path: Path) -> None:
    """Its noise key is another: nothing of it can stand on chain, and its owner reads why."""
    again = Bed(
        tmp_path / "again",
        owner=OWNERS["ann"].address,
        hot=HOTS["ann"],
        network=NETWORK_DOMAIN,
        submit=world.submit,
        start_s=world.chain.now_s,
    )
    again.now_s += 100
    again.vault.tick()
    old, world.bed.vault = world.bed.vault, again.vault
    world.mine()
    world.bed.vault = old
    assert world.refusals == ["TermsFixed"]
    with pytest.raises(ValueError, match="give the vault another name"):
        again.vault.tick()
    again.close()
