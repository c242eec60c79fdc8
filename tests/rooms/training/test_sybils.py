"""A villain: a requester who fills a masked run with members of its own, to read the one vault among them. No vault takes part."""

import asyncio
from collections.abc import Generator, Sequence
from pathlib import Path

import msgspec
import pytest

from clusterai.ledger.core.standing import Standing
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.signing import Key
from clusterai.vault.core.policy import Policy
from clusterai.vault.core.secagg.cohort import Member, membership, objection, signed
from clusterai.work.training import KIND
from clusterai.work.training.adapters.packing import bundle_of
from clusterai.work.training.adapters.parties import VaultSaid, ask
from clusterai.work.training.spec import Begin, Good
from tests.rooms.training.studies import APP, NETWORK, Near, close_vaults, owner_of
from tests.rooms.training.test_training_villains import memberships, run_of
from tests.rooms.vault.registry import STAKE_WEI, Chain, Sybil

ADDRESSES = [Address(bytes([at]) * 20) for at in range(1, 6)]


@pytest.fixture(autouse=True)
def closed() -> Generator[None]:
    yield
    close_vaults()


@pytest.fixture
def chain() -> Chain:
    return Chain()


@pytest.fixture
def parties(chain: Chain, tmp_path: Path) -> list[Near]:
    made = [
        Near(tmp_path / name, name, slice(at * 20, at * 20 + 20), standings=chain.standings)
        for at, name in enumerate(("north", "south", "west"))
    ]
    for party in made:
        chain.lists(party.vault.key.address, party.vault.dataset, owner_of(party.name))
    return made


def sybil(at: int) -> Sybil:
    return Sybil(at, KIND.name, NETWORK)


def begun(party: Near, others: Sequence[Near | Sybil], shown: Sequence[bytes] | None = None) -> str:
    """What the vault says to a run with these others: empty where it begins."""
    told = [
        (bytes(it.subject), it.member if isinstance(it, Sybil) else it.service.member, brought(it))
        for it in (party, *others)
    ]
    subjects, members, papers = zip(*told, strict=True)
    run = run_of([party], subjects=subjects, members=members)

    async def main() -> str:
        begin = Begin(run, party.grant, bundle_of(APP).canonical(), tuple(shown or papers))
        try:
            await ask(party, begin, Good)
        except VaultSaid as said:
            return str(said)
        return ""

    return asyncio.run(main())


def brought(it: Near | Sybil) -> bytes:
    return it.membership if isinstance(it, Sybil) else memberships([it])[0]


def test_honest_vaults_of_three_owners_begin(parties: list[Near]) -> None:
    """Registered, staked, listed, each of its own owner: nobody is accused."""
    assert begun(parties[0], parties[1:]) == ""


def test_members_of_the_requesters_own_are_refused(parties: list[Near], chain: Chain) -> None:
    """Keys of nobody; owners that staked nothing; many data sets of one owner; one real vault more doesn't help."""
    victim, sybils = parties[0], [sybil(at) for at in range(4)]
    assert "isn't listed on chain" in begun(victim, sybils)
    assert "isn't listed on chain" in begun(victim, [*parties[1:], *sybils])
    for it in sybils:
        chain.lists(it.hot.address, it.dataset, it.owner, stake_wei=0)
    assert "at stake" in begun(victim, sybils)
    for it in sybils:
        chain.lists(it.hot.address, it.dataset, ADDRESSES[0])
    assert "two vaults of one owner" in begun(victim, sybils)
    for it in sybils:
        chain.lists(it.hot.address, it.dataset, it.owner, barred=True)
    assert "convicted" in begun(victim, sybils)


def test_papers_of_others_dont_make_a_member(parties: list[Near], chain: Chain) -> None:
    """A true membership shown for another key, one short, one signed by the member itself, and nonsense."""
    victim, (one, other) = parties[0], (sybil(0), sybil(1))
    true = memberships(parties)
    assert "another member" in begun(victim, [one, other], true)
    assert "memberships came" in begun(victim, [one, other], true[:1])
    assert "can't be read" in begun(victim, [one, other], [true[0], true[1], b"\x00"])
    dataset = parties[1].vault.dataset
    one.subject = parties[1].subject
    forged = membership(Key(b"\x77" * 32), NETWORK, dataset, one.member)
    assert "isn't listed on chain" in begun(victim, [one, parties[2]], [true[0], forged, true[2]])


def test_without_the_chain_nothing_is_summed(parties: list[Near], chain: Chain) -> None:
    """A vault that can't ask doesn't guess; it says so, and the next try may succeed."""
    chain.away = True
    assert "chain" in begun(parties[0], parties[1:])
    chain.away = False
    assert begun(parties[0], parties[1:]) == ""


def test_an_owner_may_want_more_or_leave_it_to_the_requester(parties: list[Near], chain: Chain) -> None:
    """`cohort.owners` and `cohort.stake` of the policy are what holds."""
    victim = parties[0]
    policy = victim.vault.folder.policy()
    for changes, why in (
        ({"cohort_owners": 4}, "4 are the least"),
        ({"cohort_stake_wei": 2 * STAKE_WEI}, "at stake"),
        ({"cohort_owners": 0}, ""),
    ):
        set_policy(victim, msgspec.structs.replace(policy, **changes))
        assert why in begun(victim, parties[1:])
    assert begun(victim, [sybil(0), sybil(1)]) == ""


def set_policy(party: Near, policy: Policy) -> None:
    import os

    from clusterai.vault.core.policy import write_policy

    place = party.vault.folder.policy_file
    before_ns = place.stat().st_mtime_ns
    place.write_bytes(write_policy(policy))
    os.utime(place, ns=(before_ns + 10**9, before_ns + 10**9))
    party.vault.tick()
    assert party.vault.policy == policy


def test_who_signed_a_membership_is_who_is_asked_about() -> None:
    """A signature of one network says nothing in another, and the judge names the first that isn't one."""
    key, dataset, member = Key(b"\x05" * 32), Digest(bytes(32)), ADDRESSES[0]
    found, signer = signed(membership(key, NETWORK, dataset, member), NETWORK)
    assert (found.dataset, found.member, signer) == (dataset, member, key.address)
    other = msgspec.structs.replace(NETWORK, chain_id=1)
    assert signed(membership(key, NETWORK, dataset, member), other)[1] != key.address
    none = Member(bytes(32), bytes(20), bytes(65))
    assert objection([], 1, 0) == "vaults of 0 owners, and 1 are the least"
    assert "isn't listed" in (objection([(none, Standing(Address(bytes(20))))], 1, 0) or "")
