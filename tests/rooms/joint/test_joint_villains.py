"""Requesters who want one vault's part, more than their budget, or another's grant; vaults that lie. Honest ones aren't accused."""

import asyncio
import secrets
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterai.protocol.ids import Address
from clusterai.protocol.signing import Key
from clusterai.sdk.identity import Identity
from clusterai.vault.adapters.aggregation import Aggregation, NoSum, Unreachable
from clusterai.vault.core.policy import MICRO
from clusterai.vault.core.secagg import joint
from clusterai.vault.core.secagg.joint import Histogram, Moments, Range, Regression
from clusterai.vault.core.secagg.messages import Spec
from clusterai.vault.core.secagg.quantise import plan
from clusterai.work.engine import TokenEvent, Unfit
from clusterai.work.joint import KIND
from clusterai.work.joint.adapters.asking import NoStatistic, VaultSaid, ask
from clusterai.work.joint.adapters.noise import least_bits
from clusterai.work.joint.spec import (
    Frame,
    Hello,
    Hi,
    Masking,
    Met,
    Pledge,
    Refusal,
    Study,
    decode_said,
)
from clusterai.work.packed import bytes_of
from tests.rooms.joint.clinics import (
    DELTA_PICO,
    ME,
    Clinic,
    asked,
    clinics,
    meet,
    order_of,
    pledged,
    study_of,
)

AGE = Moments((Range("age", 0, 100_000_000),))
STRANGER = Identity(Key(b"\x70" * 32), b"\x71" * 32)


def some(folder: Path, count: int = 3, epsilon_micro: int = 0, **more: Any) -> list[Clinic]:
    return clinics(folder, count, 60, epsilon_micro, **more)


def spec_of(of: list[Clinic], study: Study, **more: Any) -> Spec:
    spec = plan(
        ME.address,
        tuple(it.service.member for it in of),
        length=joint.length(study.question),
        largest=joint.largest(joint.MAX_ROWS),
        nonce=secrets.token_bytes(32),
        beacon=bytes(32),
        purpose=study.digest,
        expires_s=study.expires_s,
    )
    bits = least_bits(study.question, study.epsilon_micro, study.delta_pico, len(of))
    return msgspec.structs.replace(spec, bits=bits, **more)


async def summed(of: list[Clinic], study: Study, spec: Spec) -> Any:
    """The sum over these, as a requester takes it who follows no rule of its own."""
    by = {it.service.member: it for it in of}

    async def send(to: Address, frame: bytes) -> bytes:
        if to not in by:
            raise Unreachable("the requester's own")
        try:
            return (await ask(by[to], Masking(study.digest, frame), Frame)).frame
        except VaultSaid as said:
            raise Unreachable(str(said)) from None

    return await Aggregation(ME.key, send, 20.0).sum(spec)


# --- one vault's part ---


def test_a_share_without_noise_goes_into_one_sum(tmp_path: Path):
    """The same four shares, once with all and once without one of them, would tell that one's: the second sum is refused, and so is the share to who orders it again of a vault
    that forgot the first."""

    async def main() -> None:
        of = some(tmp_path, 4)
        study = study_of(of, AGE)
        await pledged(of, study)
        await summed(of, study, spec_of(of, study))
        with pytest.raises(NoSum) as told:
            await summed(of[:3], study, spec_of(of[:3], study))
        assert set(told.value.failed.gone.values()) == {"twice: this share went into another sum already"}
        again = await of[0].order(order_of(of[0], study), None)
        assert isinstance(decode_said(again.answer), Pledge)
        of[0].restart()
        await ask(of[0], meet(of[0], of, study), Met)
        refusal = decode_said((await of[0].order(order_of(of[0], study), None)).answer)
        assert isinstance(refusal, Refusal)
        assert refusal.code == "once"

    asyncio.run(main())


def test_a_sum_in_other_company_than_was_ordered_is_refused(tmp_path: Path):
    """Members of the requester's own in the round, fewer than a quorum, a narrower modulus, another length."""

    async def main() -> None:
        of = some(tmp_path, 4)
        study = study_of(of, AGE)
        await pledged(of, study)
        sybils = tuple(sorted((of[0].service.member, Key(b"\x01" * 32).address, Key(b"\x02" * 32).address)))
        fair = spec_of(of, study)
        for spec, why in (
            (msgspec.structs.replace(fair, cohort=sybils, threshold=2), "company"),
            (msgspec.structs.replace(fair, bits=24), "shape"),
            (msgspec.structs.replace(fair, length=fair.length + 1), "shape"),
            (msgspec.structs.replace(fair, cohort=fair.cohort[:2], threshold=1), "few"),
        ):
            with pytest.raises(NoSum) as told:
                await summed(of, study, spec)
            assert any(it.startswith(why) for it in told.value.failed.gone.values()), told.value.failed.gone
        assert (await summed(of, study, fair)).values[0] == 240 << joint.FRACTION

    asyncio.run(main())


# --- whose grant, how much ---


def test_strangers_cannot_use_a_grant_or_anothers_study(tmp_path: Path):
    """Orders that the grant's holder didn't sign, another's key in the study, frames of somebody else's study."""

    async def main() -> None:
        of = some(tmp_path, 3, MICRO)
        study = study_of(of, AGE, MICRO)
        await pledged(of, study)
        spent = of[0].spent_micro()
        stolen = study_of(of, AGE, MICRO, requester=STRANGER.address)
        with pytest.raises(Unfit, match="signature"):
            await of[0].order(order_of(of[0], study, STRANGER), None)
        with pytest.raises(Unfit, match="requester"):
            await of[0].order(order_of(of[0], stolen, STRANGER), None)
        other = study_of(
            of, AGE, MICRO, 2, members=tuple(bytes(Key(bytes([at]) * 32).address) for at in (1, 2, 3))
        )
        with pytest.raises(Unfit, match="company"):
            await of[0].order(order_of(of[0], other), None)
        with pytest.raises(Unfit, match="other_snapshot"):
            await of[0].order(order_of(of[0], study, snapshot=bytes(32)), None)

        class Thief:
            async def call(self, data: bytes) -> bytes:
                return await of[0].call(data, STRANGER)

        thief: Any = Thief()
        with pytest.raises(VaultSaid, match="unknown_study"):
            await ask(thief, Masking(study.digest, b"\x80"), Frame)
        assert of[0].spent_micro() == spent == MICRO

    asyncio.run(main())


def test_exact_sums_need_a_grant_without_epsilon_and_noised_ones_a_budget(tmp_path: Path):
    """Refused when asked, so nothing is spent or paid; then the budget ends."""
    of = some(tmp_path, 3, 2 * MICRO)
    with pytest.raises(NoStatistic, match="0 of 3 vaults are ready") as told:
        asyncio.run(asked(of, "select avg(age)"))
    assert all("noised sums" in why for why in told.value.dropped.values())
    for _ in range(2):
        asyncio.run(asked(of, "select avg(age)", MICRO))
    with pytest.raises(NoStatistic):
        asyncio.run(asked(of, "select avg(age)", MICRO))
    assert [it.spent_micro() for it in of] == [2 * MICRO] * 3


def test_many_studies_at_once_spend_no_more_than_there_is(tmp_path: Path):
    """Eight orders race for a budget of three: three are pledged, five refused."""

    async def main() -> None:
        of = some(tmp_path, 3, 3 * MICRO)
        studies = [study_of(of, AGE, MICRO, at + 1) for at in range(8)]
        for study in studies:
            await ask(of[0], meet(of[0], of, study), Met)
        paid = await asyncio.gather(*(of[0].order(order_of(of[0], it), None) for it in studies))
        assert sorted(it.charged_wei > 0 for it in paid) == [False] * 5 + [True] * 3
        assert of[0].spent_micro() == 3 * MICRO

    asyncio.run(main())


@pytest.mark.parametrize(
    "question",
    [
        Moments((Range("note", 0, 10),)),
        Moments((Range("patient", 0, 10),)),
        Moments((Range("nowhere", 0, 10),)),
        Moments((Range("age", 10, 10),)),
        Histogram(Range("age", 10, -10), 4),
        Regression((Range("patient", 0, 10),), Range("age", 0, 10)),
    ],
)
def test_questions_about_people_text_or_no_range_are_refused(tmp_path: Path, question: Any):
    """Whatever the requester's own program lets through."""

    async def main() -> None:
        of = some(tmp_path, 1, MICRO)
        hello = Hello(of[0].grant, of[0].snapshot, question, "masks", MICRO, DELTA_PICO)
        with pytest.raises(VaultSaid, match=r"column|range"):
            await ask(of[0], hello, Hi)

    asyncio.run(main())


# --- vaults that lie ---


def test_a_pledge_that_another_key_signed_is_no_pledge(tmp_path: Path):
    """A provider that answers in a vault's place: it isn't summed, and is named."""
    of = some(tmp_path, 4, MICRO)
    of[1].signer = Key(b"\x55" * 32).address
    came = asyncio.run(asked(of, "select avg(age)", MICRO))
    assert "isn't signed by the key" in came.dropped["clinic-1"]
    assert len(came.vaults) == 3


def test_a_vault_that_answers_nonsense_has_dropped_out(tmp_path: Path):
    """Frames that can't be read, and a reply of another kind."""
    of = some(tmp_path, 4, MICRO)
    plain = of[2].call

    async def call(data: bytes) -> bytes:
        return b"\x00\x01" if b"Dealt" in data or b"Neighbours" in data else await plain(data)

    of[2].call = call  # pyright: ignore[reportAttributeAccessIssue]
    came = asyncio.run(asked(of, "select avg(age)", MICRO))
    assert "clinic-2" in came.dropped
    assert len(came.vaults) == 3


def test_refusals_are_free(tmp_path: Path):
    """A grant that ended after the vault said that it would: the refusal is shown, and nothing is charged."""

    async def main() -> None:
        of = some(tmp_path, 3, MICRO)
        study = study_of(of, AGE, MICRO)
        await ask(of[0], meet(of[0], of, study), Met)
        order = order_of(of[0], study)
        stream = of[0].service.submit(order)
        of[0].vault.revoke(of[0].grant, 2)

        tokens = tuple([it.token async for it in stream if isinstance(it, TokenEvent)])
        said = decode_said(bytes_of(tokens))
        assert isinstance(said, Refusal)
        assert said.code == "revoked"
        assert KIND.recount(order, tokens) == (0, 0)

    asyncio.run(main())
