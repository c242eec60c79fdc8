"""A villain: a requester who asks one vault and makes up the others of the study. The vault meets them on chain first, and gives no share."""

import asyncio
from collections.abc import Generator
from pathlib import Path

import pytest

from clusterai.protocol.ids import Address
from clusterai.work.engine import Unfit
from clusterai.work.joint import KIND
from clusterai.work.joint.adapters.asking import NoStatistic, VaultSaid, ask
from clusterai.work.joint.core.question import question_of
from clusterai.work.joint.spec import Again, Hi, Meet, Met, ShareOrder, Study
from tests.rooms.joint.clinics import DELTA_PICO, ME, NETWORK, Clinic, asked, patients
from tests.rooms.vault.registry import Chain, Sybil

SQL = "select avg(age) from clinics"


@pytest.fixture
def chain() -> Chain:
    return Chain()


@pytest.fixture
def clinics(chain: Chain, tmp_path: Path) -> Generator[list[Clinic]]:
    names = ("alder", "birch", "cedar")
    made = [
        Clinic(tmp_path / name, name, patients(at, 200), 0, standings=chain.standings)
        for at, name in enumerate(names)
    ]
    for it in made:
        chain.lists(it.signer, it.dataset, it.vault.owner)
    yield made
    for it in made:
        it.vault.close()


def study_of(victim: Clinic, sybils: list[Sybil], epsilon_micro: int = 0) -> Study:
    return Study(
        ME.address,
        question_of(SQL, {victim.name: victim.schema}).question,
        "masks",
        epsilon_micro,
        DELTA_PICO if epsilon_micro else 0,
        (bytes(victim.subject), *(it.subject for it in sybils)),
        (victim.service.member, *(it.member for it in sybils)),
        int(victim.service._clock()) + 600,  # pyright: ignore[reportPrivateUsage]  the vault's own time
        bytes(32),
    )


def test_clinics_of_three_owners_are_summed(clinics: list[Clinic]) -> None:
    """Registered, staked and listed, each by another owner: they meet, and answer."""
    found = asyncio.run(asked(clinics, SQL))
    assert len(found.vaults) == 3


def test_a_study_of_made_up_vaults_gets_no_share(clinics: list[Clinic], chain: Chain) -> None:
    """Unmet, they are refused unpaid; met, the chain says what they aren't: of anybody, staked, of different owners."""
    victim, sybils = clinics[0], [Sybil(at, KIND.name, NETWORK) for at in range(3)]
    study = study_of(victim, sybils)
    order = ShareOrder(
        victim.subject, victim.dataset, victim.snapshot, victim.grant, study, bytes(65)
    ).signed(ME.key, NETWORK)
    own = victim.vault.cohorts.membership(victim.service.member)
    papers = (own, *(it.membership for it in sybils))

    async def met() -> str:
        try:
            await ask(victim, Meet(victim.grant, study.subjects, study.members, papers), Met)
        except VaultSaid as said:
            return str(said)
        return ""

    async def main() -> None:
        with pytest.raises(Unfit, match="wasn't told who"):
            await victim.order(order, None)
        assert "isn't listed on chain" in await met()
        for it in sybils:
            chain.lists(it.hot.address, it.dataset, it.owner, stake_wei=0)
        assert "at stake" in await met()
        for it in sybils:
            chain.lists(it.hot.address, it.dataset, Address(b"\x01" * 20))
        assert "two vaults of one owner" in await met()
        with pytest.raises(Unfit, match="wasn't told who"):
            await victim.order(order, None)
        with pytest.raises(VaultSaid, match=r"once|cohort"):
            await ask(victim, Again(order), Hi)

    asyncio.run(main())


def test_one_convicted_clinic_spoils_the_company_and_is_named(clinics: list[Clinic], chain: Chain) -> None:
    """Nobody gives a share, nobody is paid, and who asks learns for whom."""
    bad = clinics[1]
    chain.lists(bad.signer, bad.dataset, bad.vault.owner, barred=True)
    with pytest.raises(NoStatistic) as none:
        asyncio.run(asked(clinics, SQL))
    assert any(bad.dataset.hex()[:16] in why and "convicted" in why for why in none.value.dropped.values())
    assert not any(clinic.orders for clinic in clinics)
