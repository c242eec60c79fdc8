"""Who tries to get more out of a vault than a grant says, and how far they come."""

import asyncio
import threading
from pathlib import Path

import msgspec
import pytest
from nacl.public import PublicKey, SealedBox

from clusterai.protocol import canonical
from clusterai.protocol.access import AskStanding, AskUses, NotGiven, Standing, UsesShown
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Digest
from clusterai.protocol.sealing import SealedCall
from clusterai.protocol.signing import Key
from clusterai.protocol.vaults import Operation, Revoked
from clusterai.sdk.identity import Identity, NotFromVault
from clusterai.vault.adapters.hosting import open_vault
from clusterai.vault.adapters.sealing import seal_key
from clusterai.vault.adapters.storage import Damaged, Storage, WrongKey
from clusterai.vault.core.pieces import Piece, joined, pieces_of
from clusterai.vault.core.policy import MICRO
from clusterai.vault.core.schema import Column, Schema
from clusterai.vault.core.terms import AskedFor, Denied
from tests.rooms.vault.vaultbed import HOT, NETWORK, OWNER, SECRET, Bed

ORDER = Digest(b"1" * 32)


def test_fifty_who_spend_at_once_spend_what_there_is(bed: Bed) -> None:
    """Fifty threads with a tenth of the budget each: ten succeed, forty are refused, the sum is the budget."""
    grant = bed.grant(epsilon_micro=MICRO)
    begin, given, refused = threading.Barrier(50), list[int](), list[str]()

    def spend(at: int) -> None:
        begin.wait()
        try:
            given.append(bed.vault.spend(grant, Digest(at.to_bytes(32)), MICRO // 10).epsilon_micro)
        except Denied as no:
            refused.append(no.code)

    threads = [threading.Thread(target=spend, args=(at,)) for at in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sum(given), len(given), refused) == (MICRO, 10, ["budget"] * 40)
    bed.restart()
    with pytest.raises(Denied, match="budget"):
        bed.vault.spend(grant, ORDER, 1)


def test_a_revoked_grantee_gets_nothing(bed: Bed) -> None:
    """Neither a permit nor a spend nor, from an old copy of the key, what is stored since; after a restart neither."""
    grant = bed.grant()
    bed.vault.spend(grant, ORDER, 10)
    bed.vault.revoke(grant, Revoked.CONSENT)
    for _ in range(2):
        with pytest.raises(Denied, match="revoked"):
            bed.vault.permit(grant, bed.identity.address, Operation.QUERY, ZERO_DIGEST)
        with pytest.raises(Denied, match="revoked"):
            bed.vault.spend(grant, Digest(b"2" * 32), 10)
        bed.restart()
    asked = bed.vault.ask(AskedFor(*bed.request()))
    assert asked.state == "asked"


def test_one_who_asks_with_one_program_and_runs_another(bed: Bed) -> None:
    """The grant names the program that the owner read."""
    grant = bed.grant(operation=Operation.CODE, code=b"print(len(rows))\n")
    other = canonical.content_digest(b"print(rows)\n")
    with pytest.raises(Denied, match="other_code"):
        bed.vault.permit(grant, bed.identity.address, Operation.CODE, other)


def sealed(bed: Bed, who: Identity | None = None) -> bytes:
    caller = who or bed.identity
    return caller.sealed(
        bed.vault.dataset, bed.vault.seal_to, NETWORK, canonical.encode(AskStanding()), bed.now_s
    ).body


def test_a_gateway_that_replays_a_call_is_refused(bed: Bed) -> None:
    """Once is once: again, later, and after a restart; and with an order, for that order alone."""
    body = sealed(bed)
    bed.vault.opened(ZERO_ADDRESS, body)
    with pytest.raises(Denied, match="replayed"):
        bed.vault.opened(ZERO_ADDRESS, body)
    bed.now_s += 1
    bed.restart()
    with pytest.raises(Denied, match="started after"):
        bed.vault.opened(ZERO_ADDRESS, body)
    body = sealed(bed)
    first = bed.vault.opened(ZERO_ADDRESS, body, ORDER)
    assert bed.vault.opened(ZERO_ADDRESS, body, ORDER) == first
    with pytest.raises(Denied, match="replayed"):
        bed.vault.opened(ZERO_ADDRESS, body, Digest(b"2" * 32))
    bed.now_s += 700
    with pytest.raises(Denied, match="expired"):
        bed.vault.opened(ZERO_ADDRESS, sealed_at(bed, bed.now_s - 650))


def sealed_at(bed: Bed, when_s: float) -> bytes:
    return bed.identity.sealed(bed.vault.dataset, bed.vault.seal_to, NETWORK, b"", when_s).body


def test_calls_of_another_data_set_or_from_the_future_are_refused(bed: Bed) -> None:
    """A call that was sealed to this vault's key but signed for another, and one that would live for ever."""
    other = bed.identity.sealed(Digest(b"d" * 32), bed.vault.seal_to, NETWORK, b"", bed.now_s)
    with pytest.raises(Denied, match="another data set"):
        bed.vault.opened(ZERO_ADDRESS, other.body)
    with pytest.raises(Denied, match="is your clock right"):
        bed.vault.opened(ZERO_ADDRESS, sealed_at(bed, bed.now_s + 60))
    long = bed.identity.sealed(bed.vault.dataset, bed.vault.seal_to, NETWORK, b"", bed.now_s, 10_000)
    with pytest.raises(Denied, match="is your clock right"):
        bed.vault.opened(ZERO_ADDRESS, long.body)


def test_a_strangers_nonsense_is_malformed(bed: Bed) -> None:
    """Nothing, noise, a seal around nothing, a call cut short, and a call that somebody else signed."""
    to = SealedBox(PublicKey(bed.vault.seal_to))
    body = sealed(bed)
    for nonsense in (b"", b"\x00" * 200, to.encrypt(b""), to.encrypt(b"\x93\x01"), body[:-1], body + b"\x00"):
        with pytest.raises(Denied, match="malformed"):
            bed.vault.opened(ZERO_ADDRESS, nonsense)
    thief = Identity(Key(b"t" * 32), b"T" * 32)
    call = canonical.decode(SealedBox(seal_key(bed.folder.master())).decrypt(body), SealedCall)
    stolen = msgspec.structs.replace(call, reply_to=thief.seal_to)
    with pytest.raises(Denied, match="signature"):
        bed.vault.opened(ZERO_ADDRESS, bytes(to.encrypt(canonical.encode(stolen))))


def test_who_asks_for_anothers_grants_sees_its_own(bed: Bed) -> None:
    """Standing and uses are of whoever signed; a request in another's name is refused."""
    grant = bed.grant()
    bed.vault.spend(grant, ORDER, 1)
    bed.vault.used(ORDER, ZERO_DIGEST)
    mallory = Identity.make()

    async def run() -> None:
        standing = await bed.call(AskStanding(), mallory)
        uses = await bed.call(AskUses(), mallory)
        assert isinstance(standing, Standing)
        assert isinstance(uses, UsesShown)
        assert standing.requests == uses.uses == ()
        refused = await bed.call(bed.asking(), mallory)
        assert isinstance(refused, NotGiven)
        assert refused.code == "requester"

    asyncio.run(run())


def test_an_answer_opens_for_its_question_alone(bed: Bed) -> None:
    """Neither somebody else's key, nor another vault's answer, nor an older answer of this vault passes."""

    async def run() -> None:
        question = bed.identity.sealed(
            bed.vault.dataset, bed.vault.seal_to, NETWORK, canonical.encode(AskStanding()), bed.now_s
        )
        reply = await bed.desk.answer(ZERO_ADDRESS, question.body)
        bed.identity.opened(bed.vault.seal_to, reply, question.nonce)
        with pytest.raises(NotFromVault):
            bed.identity.opened(bed.vault.seal_to, reply, Digest(b"n" * 32))
        with pytest.raises(NotFromVault):
            bed.identity.opened(Identity.make().seal_to, reply, question.nonce)
        with pytest.raises(NotFromVault):
            Identity.make().opened(bed.vault.seal_to, reply, question.nonce)

    asyncio.run(run())


def test_a_thief_of_the_disk_reads_nothing(bed: Bed) -> None:
    """Every file of the vault's folder, after use: no row, no purpose, no requester; and without the key nothing opens."""
    purpose = "to find the mayor among the patients"
    bed.grant(purpose=purpose)
    bed.vault.spend(bed.grant(epsilon_micro=1), ORDER, 1)
    bed.vault.close()
    names = {path for path in bed.folder.root.rglob("*") if path.is_file()}
    assert len(names) > 8
    for path in names:
        data = path.read_bytes()
        for secret in (SECRET.encode(), b"note 3", purpose.encode(), bed.identity.address):
            assert secret not in data, (path, secret)
        assert bed.folder.master() not in data
        assert bed.folder.master().hex().encode() not in data
    bed.key_file.unlink()
    bed.key_file.parent.rmdir()
    with pytest.raises(Exception, match="key can't be read"):
        open_vault(bed.folder.root, OWNER, HOT, NETWORK, bed.clock)
    with pytest.raises(WrongKey):
        Storage(bed.folder.store, b"x" * 32)


def test_a_piece_that_changed_on_disk_is_told(bed: Bed) -> None:
    """One bit, one piece for another, one gone."""
    [path] = bed.folder.store.glob("pieces/??/*")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged):
        bed.vault.columns(["age"])
    path.unlink()
    with pytest.raises(Damaged):
        bed.vault.columns(["age"])


class Died(Exception):
    pass


class Dying(Storage):
    """Dies at its n-th act."""

    left = 10**9

    def _put(self, key: bytes, plain: bytes, rows: int):
        self._act()
        return super()._put(key, plain, rows)

    def sweep(self) -> None:
        self._act()
        super().sweep()

    def _act(self) -> None:
        if self.left == 0:
            raise Died
        self.left -= 1


@pytest.mark.parametrize("after", range(6))
def test_a_crash_while_keys_change_leaves_one_whole_version(tmp_path: Path, after: int) -> None:
    """Between any two pieces, and after the switch: what is there is whole, of one epoch, and nothing of the other is left."""
    schema = Schema(columns=(Column(name="n", kind="int"),))
    pieces: list[Piece] = [it for n in range(5) for it in pieces_of(schema, [{"n": n}])]
    storage = Dying(tmp_path, b"m" * 32)
    storage.write(schema, pieces)
    storage.left = after
    with pytest.raises(Died):
        storage.rekey(1)
    storage.close()
    again = Storage(tmp_path, b"m" * 32, sweep=True)
    assert again.epoch == (1 if after == 5 else 0)
    again.verify()
    assert len(list(tmp_path.glob("pieces/??/*"))) == 5
    again.rekey(1)
    assert joined(schema, again.pieces(), ["n"])["n"].tolist() == [0, 1, 2, 3, 4]
    again.close()
