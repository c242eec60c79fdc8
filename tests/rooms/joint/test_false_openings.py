"""Vaults that lie when a sum under a key that nobody holds is opened: what is caught at once, and what an audit names."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from clusterai.cli.querying import replaying
from clusterai.cli.querying.replaying import Asked, Known
from clusterai.ledger.core.standing import Standing
from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.protocol.signing import Key
from clusterai.vault.adapters.folder import VaultFolder
from clusterai.vault.core.policy import MICRO
from clusterai.vault.core.secagg.joint import FRACTION
from clusterai.work.engine import Unfit
from clusterai.work.joint.adapters import noise, threshold
from clusterai.work.joint.adapters.asking import NoStatistic, Statistic
from clusterai.work.joint.core.chain import MASK_BITS, MASKS, MOST_PARTIES, PRIME, tallied
from clusterai.work.joint.core.question import question_of
from clusterai.work.joint.spec import No, Pledge, ShareOrder, Tell, Told, decode_call, decode_reply
from tests.rooms.joint.clinics import NETWORK, Clinic, asked, clinics, order_of, pledged, study_of

LIAR = "clinic-1"
SLOT = 384 << FRACTION
"""What `lying_party.SHIFT` adds to the count: three of the upper half's units."""


def some(folder: Path, lie: str = "", epsilon_micro: int = MICRO) -> list[Clinic]:
    """Three vaults, whose second lies so."""
    of = clinics(folder, 3, 60, epsilon_micro)
    if lie:
        of[1].service._threshold._interpreter = lambda: lying(folder, lie, of[1])  # pyright: ignore[reportPrivateUsage]
    return of


def lying(folder: Path, lie: str, clinic: Clinic) -> str:
    script = folder / "lying-python"
    party = Path(__file__).with_name("lying_party.py")
    script.write_text(f'#!/bin/sh\nexec {clinic.python} {party} {lie} "$@"\n')
    script.chmod(0o755)
    return str(script)


def consistent(clinic: Clinic, shift: int) -> None:
    """Its tally covers the lie: signed as if the shift were of its own share."""
    desk: Any = clinic.service._threshold  # pyright: ignore[reportPrivateUsage]
    plain = desk.answer

    async def answer(given: Any, call: Any) -> Any:
        told = await plain(given, call)
        if not isinstance(told, Told):
            return told
        tally = told.tally
        moved = tallied([shift, *[0] * (len(given.values) - 1 + MASKS)], tally.seed)
        value = (tally.value + moved) % PRIME
        return Told(msgspec.structs.replace(tally, value=value).signed(desk._key))

    desk.answer = answer


def by_key(of: list[Clinic], epsilon_micro: int = MICRO) -> Statistic:
    return asyncio.run(asked(of, "select count(*) as n, avg(age) as age", epsilon_micro, "ckks"))


def test_garbage_ends_the_request(tmp_path: Path):
    """Decrypted with another key: no sum, and no name."""
    with pytest.raises(NoStatistic, match=r"doesn't decrypt") as told:
        by_key(some(tmp_path, "garbage"))
    assert told.value.dropped == {}


@pytest.mark.parametrize("epsilon_micro", [0, MICRO])
@pytest.mark.parametrize("lie", ["shift", "slot", "input"])
def test_a_shift_shows_in_the_tallies(tmp_path: Path, lie: str, epsilon_micro: int):
    """Of all slots or of one, added at the opening or to what was encrypted: the vaults' tallies don't come to that sum."""
    with pytest.raises(NoStatistic, match="one of them lies, and which doesn't show") as told:
        by_key(some(tmp_path, lie, epsilon_micro), epsilon_micro)
    assert told.value.dropped == {}


def test_an_opening_that_cannot_be_read_names_its_vault(tmp_path: Path):
    """No ciphertext at all."""
    with pytest.raises(NoStatistic) as told:
        by_key(some(tmp_path, "nonsense"))
    assert told.value.dropped[LIAR] == "its part of the opening can't be read"


def test_a_tally_that_another_signed_names_its_vault(tmp_path: Path):
    """The one that gave it."""
    of = some(tmp_path)
    desk: Any = of[1].service._threshold  # pyright: ignore[reportPrivateUsage]
    plain = desk.answer

    async def answer(given: Any, call: Any) -> Any:
        told = await plain(given, call)
        return Told(told.tally.signed(Key(b"\x55" * 32))) if isinstance(told, Told) else told

    desk.answer = answer
    with pytest.raises(NoStatistic) as told:
        by_key(of)
    assert "its tally isn't signed" in told.value.dropped[LIAR]


# --- afterwards: who made rows and noise key open ---


def files(came: Statistic) -> dict[str, Asked]:
    """What the requester keeps, by vault."""
    return {it.name: Asked(it.order, it.pledge.use, came.tallies.get(it.name)) for it in came.parts}


def again(clinic: Clinic, asked_: Asked, **on_chain: Any) -> str:
    said = (bytes(32), bytes(32), bytes(32), on_chain.pop("noise", clinic.vault.noise_commit))
    owner = clinic.vault.owner
    standing = Standing(owner, lister=owner, said=said, **on_chain)
    [done] = replaying.replay(VaultFolder(clinic.folder_of_vault), [asked_], Known(NETWORK, (standing,)))
    return done.wrong


@pytest.mark.parametrize("by", ["masks", "ckks"])
def test_an_audit_makes_the_shares_and_tallies_of_honest_vaults_again(tmp_path: Path, by: Any):
    """To the byte, from rows and noise key."""
    of = some(tmp_path)
    came = asyncio.run(asked(of, "select count(*) as n, avg(age) as age", MICRO, by))
    kept = files(came)
    assert [again(it, kept[it.name]) for it in of] == ["", "", ""]
    assert len(came.tallies) == (3 if by == "ckks" else 0)


@pytest.mark.parametrize("epsilon_micro", [0, MICRO])
def test_a_liar_whose_tally_covers_its_lie_is_named_by_the_audit(tmp_path: Path, epsilon_micro: int):
    """The shift passes when it is asked. The liar's signature stands under a number that its rows and noise key don't make; the others' are true."""
    of = some(tmp_path, "slot", epsilon_micro)
    consistent(of[1], SLOT)
    came = by_key(of, epsilon_micro)
    kept = files(came)
    found = {it.name: again(it, kept[it.name]) for it in of}
    assert found == {"clinic-0": "", LIAR: "pledged so, and not tallied so in the sum", "clinic-2": ""}


@pytest.mark.parametrize("how", ["key", "beacon", "none"])
def test_a_vault_that_gave_other_noise_is_named(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch):
    """Noise of another key, of a nonce that it chose, or none at all: the share that its rows and committed key make isn't the one that it signed."""
    of = some(tmp_path)
    plain = of[1].vault.noise_seed

    def seed(order: Digest, beacon: bytes) -> bytes:
        return (
            {"key": bytes(32), "beacon": plain(order, b"\x09" * 32)}[how]
            if len(beacon) == 32
            else plain(order, beacon)
        )

    def exact(order: ShareOrder) -> Any:
        question, vault = order.study.question, of[1].vault
        columns = vault.columns(noise.needed(question, vault.schema))
        return noise.share_of(question, 0, 0, vault.schema, columns, bytes(32))

    if how == "none":
        monkeypatch.setattr(of[1].service, "_values", exact)
    else:
        monkeypatch.setattr(of[1].vault, "noise_seed", seed)
    came = by_key(of)
    monkeypatch.undo()
    kept = files(came)
    assert [again(it, kept[it.name]) for it in of] == ["", "not what was answered", ""]


def test_a_folder_with_another_key_than_the_chain_has_is_refused_by_name(tmp_path: Path):
    """Whoever shows an auditor another noise key than it committed to."""
    of = some(tmp_path)
    kept = files(by_key(of))
    with pytest.raises(replaying.Failure, match="clinic-0 draws noise from another key"):
        again(of[0], kept["clinic-0"], noise=bytes(32))


def test_a_requester_cannot_make_a_vault_look_false(tmp_path: Path):
    """A use that another key signed, a tally with another number: nobody who speaks for the vault signed them, and the file is refused."""
    of = some(tmp_path)
    kept = files(by_key(of))["clinic-0"]
    assert kept.use is not None
    assert kept.tally is not None
    forged = msgspec.structs.replace(kept, use=msgspec.structs.replace(kept.use, signature=bytes(65)))
    with pytest.raises(replaying.Failure, match="isn't signed for clinic-0"):
        again(of[0], forged)
    other = msgspec.structs.replace(kept.tally, value=kept.tally.value ^ 1)
    with pytest.raises(replaying.Failure, match="tally in the file isn't signed"):
        again(of[0], msgspec.structs.replace(kept, tally=other))
    # A vault that began anew could be ordered the same study by another grant, and would sign another share's tally.
    order = msgspec.structs.replace(kept.tally, order=bytes(32)).signed(
        of[0].service._key  # pyright: ignore[reportPrivateUsage]
    )
    with pytest.raises(replaying.Failure, match="tally in the file isn't signed"):
        again(of[0], msgspec.structs.replace(kept, tally=order))


# --- the arithmetic ---


def test_a_tally_of_a_sum_is_the_sum_of_tallies():
    """Whatever the numbers' signs and sizes."""
    draw = np.random.default_rng(4)
    for at in range(50):
        seed = at.to_bytes(32)
        parts = draw.integers(-(2**57), 2**57, size=(5, 9))
        total = sum(tallied(it.tolist(), seed) for it in parts)
        assert (total - tallied(parts.sum(axis=0).tolist(), seed)) % PRIME == 0


def test_whatever_a_share_is_a_mask_gives_it_any_tally():
    """A tally tells nothing: for each share and each tally there are masks by which the one has the other."""
    for share in ([0, 0], [2**57, -5]):
        for wanted in (0, 1, PRIME - 1):
            lacking = (wanted - tallied([*share, *[0] * MASKS], b"s")) % PRIME
            mask = [lacking % 2**MASK_BITS, lacking >> MASK_BITS, *[0] * (MASKS - 2)]
            assert tallied([*share, *mask], b"s") == wanted


def test_a_mask_is_another_for_each_key_and_its_sum_is_still_one(tmp_path: Path):
    """Two tallies by one mask would tell of a share; the masks of the largest company stay whole numbers."""
    [clinic, *_] = some(tmp_path)
    one, other = (noise.mask(clinic.vault.noise_seed(Digest(bytes(32)), it)) for it in (b"a", b"b"))
    assert (one != other).all()
    most = np.full(MASKS, MOST_PARTIES * ((1 << MASK_BITS) - 1))
    assert (threshold.whole(threshold.halved(most)) == most).all()


def test_a_second_seed_is_refused(tmp_path: Path):
    """The difference of two tallies of one mask would tell of a share."""
    of = some(tmp_path)
    plain, told = of[1].call, list[bytes]()

    async def call(data: bytes) -> bytes:
        call = decode_call(data)
        reply = await plain(data)
        if isinstance(call, Tell):
            told.extend(
                [
                    reply,
                    await plain(data),
                    await plain(canonical.encode(msgspec.structs.replace(call, seed=bytes(32)))),
                ]
            )
        return reply

    of[1].call = call  # pyright: ignore[reportAttributeAccessIssue]
    by_key(of)
    first, again_, other = map(decode_reply, told)
    assert again_ == first
    assert isinstance(other, No)
    assert other.code == "twice"


def test_a_study_is_ordered_once_of_a_vault(tmp_path: Path):
    """A second order of it would get the first one's noise, and the audit of the second would accuse an honest vault."""
    of = some(tmp_path)
    study = study_of(of, question_of("select avg(age)", {it.name: it.schema for it in of}).question, MICRO)
    first, *_ = asyncio.run(pledged(of, study))
    second = order_of(of[0], study, grant=of[0].granted(MICRO))
    with pytest.raises(Unfit, match="by another order"):
        of[0].service.submit(second)
    assert isinstance(first, Pledge)
    assert again(of[0], Asked(order_of(of[0], study), first.use)) == ""
