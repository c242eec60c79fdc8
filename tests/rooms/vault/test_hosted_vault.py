"""A vault as services and its owner use it: asked, granted, spent, closed, revoked, restarted."""

import asyncio
from pathlib import Path

import msgspec
import numpy as np
import pytest

from clusterai.protocol.access import AskData, AskStanding, AskUses, DataShown, NotGiven, Standing, UsesShown
from clusterai.protocol.canonical import content_digest
from clusterai.protocol.ids import ZERO_DIGEST, Digest
from clusterai.protocol.vaults import Operation, Revoked
from clusterai.vault.core.policy import MICRO
from clusterai.vault.core.terms import Denied
from tests.rooms.vault.vaultbed import HOT, NETWORK, SCHEMA, Bed, rows

ORDER = Digest(b"1" * 32)
RESULT = Digest(b"r" * 32)


def test_a_use_from_asking_to_the_log(bed: Bed) -> None:
    """Asked, approved, permitted, spent, closed: the use is signed, is the log's first leaf, and says what was spent."""
    grant = bed.grant()
    permit = bed.vault.permit(grant, bed.identity.address, Operation.QUERY, ZERO_DIGEST)
    assert (permit.epsilon_left_micro, permit.uses_left, permit.seal_to) == (MICRO, 100, bed.identity.seal_to)
    assert permit.price_wei(1_500) == 50 + 2 * 1_000
    spent = bed.vault.spend(grant, ORDER, 400_000, 10)
    assert (spent.grant_left_micro, spent.total_left_micro) == (600_000, 4_600_000)
    signed = bed.vault.used(ORDER, RESULT)
    assert signed.signed_by(HOT.address, NETWORK)
    assert (signed.use.index, signed.use.epsilon_micro, signed.use.result) == (0, 400_000, RESULT)
    assert bed.vault.used(ORDER, RESULT) == signed
    assert bed.vault.spend(grant, ORDER, 400_000, 10) == msgspec.structs.replace(spent, closed=True)


def test_what_was_spent_survives_a_restart(bed: Bed) -> None:
    """Budgets, grants and the log are as they were; a use that was open can still be closed, and its ε isn't spent again."""
    grant = bed.grant()
    bed.vault.spend(grant, ORDER, 400_000)
    bed.restart()
    bed.vault.spend(grant, ORDER, 400_000)
    permit = bed.vault.permit(grant, bed.identity.address, Operation.QUERY, ZERO_DIGEST)
    assert (permit.epsilon_left_micro, permit.uses_left) == (600_000, 99)
    assert bed.vault.used(ORDER, RESULT).use.epsilon_micro == 400_000
    with pytest.raises(Denied, match="closed"):
        bed.vault.used(ORDER, ZERO_DIGEST)


def test_columns_are_what_was_put_in(bed: Bed) -> None:
    """Each kind comes out as its numpy type; nulls as the module of pieces says."""
    given = rows()
    found = bed.vault.columns(SCHEMA.names)
    assert found["age"].tolist() == [row["age"] for row in given]
    assert found["ward"].tolist() == [row["ward"] for row in given]
    assert found["note"].tolist() == [row["note"] for row in given]
    assert [bool(it) for it in np.isnan(found["dose"])] == [row["dose"] == "" for row in given]
    assert [bool(it) for it in np.isnat(found["seen"])] == [row["seen"] == "" for row in given]
    assert found["smokes"].dtype == np.bool_
    with pytest.raises(KeyError):
        bed.vault.columns(["nothing"])


def test_a_mounted_vault_is_in_memory_and_gone_afterwards(bed: Bed) -> None:
    """A program sees the rows; when its block ends nobody does."""

    async def run() -> Path:
        async with bed.vault.mount() as folder:
            assert str(folder).startswith("/dev/shm/")
            assert (folder / "data.csv").read_text().splitlines()[1] == "0,20,,east,note 0,,True"
            return folder

    assert not asyncio.run(run()).exists()


def test_the_desk_answers_who_signed(bed: Bed) -> None:
    """Schema and mock to everybody, one's own requests and uses to oneself, and all of it sealed."""

    async def run() -> None:
        shown = await bed.call(AskData())
        assert isinstance(shown, DataShown)
        assert shown.mock.startswith(b"patient,age,dose")
        asked = await bed.call(bed.asking())
        assert isinstance(asked, Standing)
        assert [it.state for it in asked.requests] == ["asked"]
        bed.vault.approve(Digest(asked.requests[0].request))
        again = await bed.call(AskStanding())
        assert isinstance(again, Standing)
        grant = Digest(again.requests[0].grant)
        assert again.requests[0].state == "granted"
        bed.vault.spend(grant, ORDER, 1)
        bed.vault.used(ORDER, RESULT)
        uses = await bed.call(AskUses())
        assert isinstance(uses, UsesShown)
        assert [it.use.order for it in uses.uses] == [ORDER]
        refused = await bed.call(bed.asking(operation=Operation.QUERY, epsilon_micro=9 * MICRO))
        assert isinstance(refused, NotGiven)
        assert refused.code == "epsilon"

    asyncio.run(run())


def test_a_revoked_grant_permits_nothing_and_all_is_keyed_anew(bed: Bed) -> None:
    """Nothing more under the grant; the key that its holder may have been given opens none of what is stored now."""
    grant = bed.grant(operation=Operation.COPY)
    epoch, key = bed.vault.content_key()
    before = {address for address, _ in bed.vault.stored_pieces()}
    bed.vault.revoke(grant, Revoked.TERMS)
    bed.vault.tick()
    with pytest.raises(Denied, match="revoked: this grant was revoked: terms"):
        bed.vault.permit(grant, bed.identity.address, Operation.COPY, ZERO_DIGEST)
    with pytest.raises(Denied, match="revoked"):
        bed.vault.spend(grant, ORDER, 0)
    assert bed.vault.content_key()[0] == epoch + 1
    assert bed.vault.content_key()[1] != key
    assert not before & {address for address, _ in bed.vault.stored_pieces()}
    assert sorted(path.name for path in bed.folder.store.glob("pieces/??/*")) == sorted(
        address.hex()[2:] for address, _ in bed.vault.stored_pieces()
    )
    assert bed.restart().columns(["age"])["age"].tolist() == [row["age"] for row in rows()]


def test_the_snapshot_outlives_a_new_key(bed: Bed) -> None:
    """It names the data, not how it is encrypted; the listing stays the same to the byte."""
    snapshot, listing = bed.vault.snapshot, bed.vault.listing()
    bed.vault.revoke(bed.grant(), Revoked.KEY)
    bed.vault.tick()
    assert bed.vault.key_epoch == 1
    assert bed.restart().snapshot == snapshot
    assert bed.vault.listing() == listing


def test_noise_follows_from_the_order_and_the_beacon(bed: Bed) -> None:
    """The same for the same, another for another, and the same after a restart: an audit can make it again."""
    seed = bed.vault.noise_seed(ORDER, b"beacon")
    assert len(seed) == 32
    assert seed != bed.vault.noise_seed(ORDER, b"beacoN")
    assert seed != bed.vault.noise_seed(RESULT, b"beacon")
    assert bed.restart().noise_seed(ORDER, b"beacon") == seed


def test_an_approved_program_can_be_read_again(bed: Bed) -> None:
    """What the owner read is what a service gets, and its digest is the grant's."""
    grant = bed.grant(operation=Operation.CODE, code=b"print(2)\n")
    assert bed.vault.code(grant) == b"print(2)\n"
    bed.vault.permit(grant, bed.identity.address, Operation.CODE, content_digest(b"print(2)\n"))
