"""A copy that was sold: its key reaches the buyer alone, its pieces anyone, and what opens is what the owner signed."""

import asyncio
import shutil
from pathlib import Path

import msgspec
import pytest

from clusterai.cli.datasets.buying import manifest_of
from clusterai.content import Fetched, Landing, Web, fetch, open_source
from clusterai.protocol import copies
from clusterai.protocol.canonical import encode
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Digest
from clusterai.protocol.vaults import Operation, Revoked
from clusterai.sdk.identity import Identity
from clusterai.vault.adapters import opening
from clusterai.vault.adapters.copying import Copies
from clusterai.vault.adapters.folder import BadVault
from clusterai.vault.adapters.opening import NotTheData
from clusterai.vault.core.terms import Denied
from tests.rooms.vault.vaultbed import POLICY, SECRET, Bed, rows


def told(bed: Bed, message: copies.Ask, who: Identity | None = None) -> copies.Told:
    caller = who or bed.identity
    question = caller.sealed(bed.vault.dataset, bed.vault.seal_to, bed.network, encode(message), bed.now_s)
    reply = asyncio.run(Copies(bed.vault).answer(ZERO_ADDRESS, question.body))
    return copies.decode_told(caller.opened(bed.vault.seal_to, reply, question.nonce))


def given(bed: Bed, grant: Digest) -> copies.KeyGiven:
    got = told(bed, copies.AskKey(grant))
    assert isinstance(got, copies.KeyGiven), got
    return got


def boxes(bed: Bed, grant: Digest, key: copies.KeyGiven) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for piece in key.pieces:
        got = told(bed, copies.AskPiece(grant, piece.address))
        assert isinstance(got, copies.PieceGiven)
        found[piece.address] = got.box
    return found


def bought(bed: Bed, uses: int = 1) -> Digest:
    return bed.grant(operation=Operation.COPY, uses=uses, epsilon_micro=0)


def test_rows_that_stay_in_a_region_are_handed_out_to_nobody(bed: Bed) -> None:
    """Not for a grant from before the policy said so either; other uses go on, but not on a machine that says it stands elsewhere."""
    copy, query = bought(bed), bed.grant(uses=10)
    given(bed, copy)
    kept = tuple(it for it in POLICY.operations if it != Operation.COPY)
    bed.set_policy(msgspec.structs.replace(POLICY, operations=kept, residency=("eu",)))
    bed.restart()
    for ask in (copies.AskKey(copy), copies.AskPiece(copy, bed.vault.stored_pieces()[0][0])):
        got = told(bed, ask)
        assert isinstance(got, copies.CopyNotGiven)
        assert got.code == "residency"
    for region, refused in (("", False), ("eu", False), ("eu-de", False), ("europa", True), ("us", True)):
        bed.close()
        bed.open(region)
        if refused:
            with pytest.raises(Denied, match="says it stands elsewhere"):
                bed.vault.permit(query, bed.identity.address, Operation.QUERY, ZERO_DIGEST)
            with pytest.raises(BadVault, match=f"stands in {region}"):
                bed.vault.tick()
        else:
            bed.vault.permit(query, bed.identity.address, Operation.QUERY, ZERO_DIGEST)
            bed.vault.tick()


def test_what_was_bought_is_what_was_listed(bed: Bed, tmp_path: Path) -> None:
    """Key and pieces open to the rows, checked against the snapshot; the log has one use, though it was fetched twice."""
    grant = bought(bed)
    for at in range(2):
        key = given(bed, grant)
        schema = opening.checked(key, bed.vault.snapshot)
        target = tmp_path / f"copy{at}.csv"
        assert opening.write(key, schema, boxes(bed, grant, key).__getitem__, target) == len(rows())
        assert SECRET in target.read_text()
        bed.restart()
    assert [(it.requester, it.signed is not None) for it in bed.vault.uses()] == [
        (bed.identity.address, True)
    ]


def test_anyone_may_hold_its_pieces(bed: Bed, tmp_path: Path) -> None:
    """The folder of encrypted pieces is a holder as it lies, and one that altered a piece is left."""
    key = given(bed, bought(bed))
    folder = bed.folder.store / "pieces"
    altered = tmp_path / "altered"
    shutil.copytree(folder, altered)
    for path in altered.rglob("*"):
        if path.is_file():
            path.write_bytes(bytes(path.stat().st_size))

    async def fetched() -> Fetched:
        async with Web() as web:
            with Landing(tmp_path / "to", manifest_of(key)) as landing:
                return await fetch(landing, [open_source(it.as_uri(), web) for it in (altered, folder)])

    assert asyncio.run(fetched()).shares[1].pieces == len(key.pieces)
    schema = opening.checked(key, bed.vault.snapshot)
    found = {it.address: (tmp_path / "to" / _path(it.address)).read_bytes() for it in key.pieces}
    assert opening.write(key, schema, found.__getitem__, tmp_path / "copy.csv") == len(rows())


def _path(address: bytes) -> str:
    return f"{address.hex()[:2]}/{address.hex()[2:]}"


@pytest.mark.parametrize("operation", [Operation.QUERY, Operation.REVIEW])
def test_another_grant_is_no_copy(bed: Bed, operation: Operation) -> None:
    """A grant for questions gives no key."""
    got = told(bed, copies.AskKey(bed.grant(operation=operation)))
    assert isinstance(got, copies.CopyNotGiven)
    assert got.code == "operation"


def test_a_stranger_gets_nothing(bed: Bed) -> None:
    """Neither with somebody else's grant nor with one that never was, neither key nor pieces."""
    grant, stranger = bought(bed), Identity.make()
    address = bed.vault.stored_pieces()[0][0]
    for ask in (copies.AskKey(grant), copies.AskPiece(grant, address)):
        got = told(bed, ask, stranger)
        assert isinstance(got, copies.CopyNotGiven)
        assert got.code == "requester"
    got = told(bed, copies.AskKey(ZERO_DIGEST))
    assert isinstance(got, copies.CopyNotGiven)
    assert got.code == "unknown"


def test_a_revoked_buyer_reads_nothing_stored_since(bed: Bed, tmp_path: Path) -> None:
    """Revoking keys all anew: the old key opens no new piece, and the desk gives no other; a buyer who wasn't revoked goes on."""
    grant = bought(bed)
    old = given(bed, grant)
    other = Identity.make()
    kept = bed.grant(other, Operation.COPY, uses=1, epsilon_micro=0)
    bed.vault.revoke(grant, Revoked.TERMS)
    bed.vault.tick()
    got = told(bed, copies.AskKey(grant))
    assert isinstance(got, copies.CopyNotGiven)
    assert got.code == "revoked"
    new = told(bed, copies.AskKey(kept), other)
    assert isinstance(new, copies.KeyGiven)
    assert new.epoch > old.epoch
    assert {it.address for it in new.pieces}.isdisjoint(it.address for it in old.pieces)
    stored = {it.address: bed.vault.stored(Digest(it.address)) for it in new.pieces}
    mixed = msgspec.structs.replace(new, key=old.key)
    schema = opening.checked(new, bed.vault.snapshot)
    with pytest.raises(NotTheData, match="doesn't open"):
        opening.write(mixed, schema, stored.__getitem__, tmp_path / "x.csv")
    assert not list(tmp_path.glob("*x.csv*"))
    assert opening.write(new, schema, stored.__getitem__, tmp_path / "y.csv") == len(rows())


def test_a_seller_who_gives_something_else_is_caught(bed: Bed, tmp_path: Path) -> None:
    """Other pieces than were listed, pieces in another order, a leaf that isn't theirs: nothing is written."""
    grant = bought(bed)
    key = given(bed, grant)
    found = boxes(bed, grant, key)
    schema = opening.checked(key, bed.vault.snapshot)
    with pytest.raises(NotTheData, match="snapshot"):
        opening.checked(key, Digest(b"s" * 32))
    wrong = msgspec.structs.replace(key, salt=bytes(32))
    with pytest.raises(NotTheData, match="something else"):
        opening.write(wrong, schema, found.__getitem__, tmp_path / "x.csv")
    with pytest.raises(NotTheData, match="open"):
        opening.write(key, schema, lambda _: bytes(100), tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("mine")
    with pytest.raises(ValueError, match="already"):
        opening.write(key, schema, found.__getitem__, tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "mine"


def test_nonsense_is_answered(bed: Bed) -> None:
    """A call that opens and says nothing we know is refused to whoever sealed it."""
    question = bed.identity.sealed(bed.vault.dataset, bed.vault.seal_to, bed.network, b"\xc1", bed.now_s)
    reply = asyncio.run(Copies(bed.vault).answer(ZERO_ADDRESS, question.body))
    got = copies.decode_told(bed.identity.opened(bed.vault.seal_to, reply, question.nonce))
    assert isinstance(got, copies.CopyNotGiven)
    assert got.code == "malformed"
