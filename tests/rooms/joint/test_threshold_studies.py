"""The same statistics under a key that nobody holds: made link by link, used once, by everyone of the round."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from clusterai.protocol import canonical
from clusterai.vault.adapters.thresholdckks import CannotOpen, NoOpenFhe
from clusterai.vault.core.policy import MICRO
from clusterai.work.joint.adapters.asking import NoStatistic
from clusterai.work.joint.adapters.threshold import halved, whole
from clusterai.work.joint.spec import Encrypt, No, Open, decode_call, decode_reply
from tests.rooms.joint.clinics import ME, Clinic, asked, asking, clinics, pooled


def some(folder: Path, count: int = 3, epsilon_micro: int = 0) -> list[Clinic]:
    folder.mkdir(exist_ok=True)
    return clinics(folder, count, 60, epsilon_micro)


def test_moments_and_regression_are_those_under_masks(tmp_path: Path):
    """Exact ones are those of all rows; each vault is paid, and its key's process is gone afterwards."""
    of = some(tmp_path)
    came = asyncio.run(asked(of, "select count(*) as n, avg(age) as age", by="ckks"))
    assert came.values == pytest.approx({"n": 180, "age": pooled(of, "age").mean()}, rel=1e-6)
    line = asyncio.run(asked(of, "select regression(dose, age)", by="ckks")).values
    polyfit: Any = np.polyfit
    assert line["age"] == pytest.approx(polyfit(pooled(of, "age"), pooled(of, "dose"), 1)[0], rel=1e-3)


def test_noise_is_in_it_as_under_masks(tmp_path: Path):
    """ε is spent once at each vault, and the interval is told."""
    of = some(tmp_path, epsilon_micro=MICRO)
    came = asyncio.run(asked(of, "select avg(age) as age", MICRO, "ckks"))
    assert came.half["age"] > 0
    assert [it.spent_micro() for it in of] == [MICRO] * 3


@pytest.mark.parametrize("where", ["Join", "Encrypt", "Open"])
def test_who_leaves_takes_the_key_along_and_the_others_make_another(tmp_path: Path, where: str):
    """With noise, of four: three are left, and nothing more is spent."""
    of = some(tmp_path, 4, MICRO)
    of[1].dead_at = where
    came = asyncio.run(asked(of, "select count(*) as n, avg(age)", MICRO, "ckks"))
    assert came.vaults == ("clinic-0", "clinic-2", "clinic-3")
    assert "gone" in came.dropped["clinic-1"]
    assert [it.spent_micro() for it in of] == [MICRO] * 4


def test_without_noise_there_is_one_key_alone(tmp_path: Path):
    """A second sum with one vault less would tell what that vault gave: vaults refuse it, and so it isn't tried."""
    of = some(tmp_path, 4)
    of[1].dead_at = "Open"
    with pytest.raises(NoStatistic, match="one sum"):
        asyncio.run(asked(of, "select avg(age)", by="ckks"))


def test_without_openfhe_the_cure_is_named_before_anything_is_spent(tmp_path: Path):
    """At the requester, or at a vault: nobody has ordered anything."""

    def missing() -> str:
        raise NoOpenFhe(["nowhere"])

    of = some(tmp_path, 3, MICRO)
    mine = asking(of, "select avg(age)", MICRO, "ckks")
    mine._find_python = missing  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(NoStatistic, match="pip install openfhe=="):
        asyncio.run(mine.statistic())
    of[2].service._threshold._interpreter = missing  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(NoStatistic, match="2 of 3") as told:
        asyncio.run(asked(of, "select avg(age)", MICRO, "ckks"))
    assert "no_openfhe" in told.value.dropped["clinic-2"]
    assert [it.spent_micro() for it in of] == [0, 0, 0]


def test_sums_are_whole_whatever_their_size():
    """Integers to 2^61, of seven vaults: their halves' sums, off by what doubles are, come back exact."""
    drawn = np.random.default_rng(3)
    for bits in (1, 24, 31, 57, 61):
        values = drawn.integers(-(2**bits) // 7, 2**bits // 7, size=(7, 99))
        total = sum(halved(one) for one in values) + drawn.uniform(-1e-3, 1e-3, 198)
        assert (whole(total) == values.sum(axis=0)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.4, 2.0**46, 2.0**31])
def test_what_is_no_sum_of_integers_is_refused(bad: float):
    """No numbers, none that are whole, or larger than any study's: an error and no statistic."""
    with pytest.raises(CannotOpen, match="what came out"):
        whole(np.array([bad, 0.0]))


# --- requesters that lie about keys and sums ---


def caught(of: list[Clinic], victim: str, change: Callable[[Any], Any]) -> str:
    """Why the victim left, when calls to it were changed so on their way."""
    clinic = next(it for it in of if it.name == victim)
    plain = clinic.call

    async def call(data: bytes) -> bytes:
        return await plain(canonical.encode(change(decode_call(data))))

    clinic.call = call  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(NoStatistic) as told:
        asyncio.run(asked(of, "select avg(age)", MICRO, "ckks"))
    return told.value.dropped[victim]


def test_a_requester_that_puts_its_own_key_at_the_end_reads_nothing(tmp_path: Path):
    """The last link names another key: the vault encrypts nothing under it."""

    def own_key(call: Any) -> Any:
        return msgspec.structs.replace(call, public=b"\x01" * 99) if isinstance(call, Encrypt) else call

    of = some(tmp_path, epsilon_micro=MICRO)
    assert "isn't the one that the last link made" in caught(of, "clinic-1", own_key)


def test_a_requester_that_signs_links_for_others_is_refused(tmp_path: Path):
    """A chain whose last link is the requester's own, with a key to which it holds the secret."""

    def forged(call: Any) -> Any:
        if not isinstance(call, Encrypt):
            return call
        public = b"\x01" * 99
        last = msgspec.structs.replace(call.links[-1], after=canonical.content_digest(public)).signed(ME.key)
        return msgspec.structs.replace(call, links=(*call.links[:-1], last), public=public)

    of = some(tmp_path, epsilon_micro=MICRO)
    assert "link 2 isn't signed by the vault at that place" in caught(of, "clinic-0", forged)


def test_a_requester_that_has_one_vaults_part_opened_is_refused(tmp_path: Path):
    """Its victim's ciphertext at every place: the others don't open what isn't everyone's."""

    def thrice(call: Any) -> Any:
        if not isinstance(call, Open):
            return call
        return msgspec.structs.replace(call, blocks=(call.blocks[0],) * 3, claims=(call.claims[0],) * 3)

    of = some(tmp_path, epsilon_micro=MICRO)
    assert "claim 1 isn't signed" in caught(of, "clinic-2", thrice)


def test_a_requester_that_swaps_a_ciphertext_is_refused(tmp_path: Path):
    """Claims as they were signed, and another's ciphertext under one of them."""

    def swapped(call: Any) -> Any:
        if not isinstance(call, Open):
            return call
        return msgspec.structs.replace(call, blocks=(call.blocks[1], *call.blocks[1:]))

    of = some(tmp_path, epsilon_micro=MICRO)
    assert "aren't those that were claimed" in caught(of, "clinic-2", swapped)


def test_one_key_opens_one_sum(tmp_path: Path):
    """Asked again for the same it says the same; for other claims it refuses."""

    async def main() -> None:
        of = some(tmp_path, epsilon_micro=MICRO)
        try:
            await asking(of, "select avg(age)", MICRO, "ckks").statistic()
            call = next(it for it in map(decode_call, of[0].calls) if isinstance(it, Open))
            first = await of[0].call(canonical.encode(call))
            assert await of[0].call(canonical.encode(call)) == first
            other = msgspec.structs.replace(call.claims[1], blocks=b"\x02" * 32).signed(ME.key)
            again = msgspec.structs.replace(call, claims=(call.claims[0], other, call.claims[2]))
            told = decode_reply(await of[0].call(canonical.encode(again)))
            assert isinstance(told, No)
            assert told.code == "twice"
        finally:
            for clinic in of:
                await clinic.service.close()

    asyncio.run(main())
