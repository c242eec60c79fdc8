"""What people may look up later."""

from pathlib import Path

import msgspec

from clusterai.gateway.adapters.archive import Archive
from clusterai.gateway.core.moneystate import Charged, Refund
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.statements import Receipt

ACCOUNT, ORDER = Digest(b"A" * 32), Digest(b"o" * 32)
RECEIPT = Receipt(ORDER, b"p" * 20, b"g" * 20, b"m" * 32, b"a" * 32, 3, 4, 18, 5)
CHARGED = Charged(ACCOUNT, RECEIPT, bytes(65), bytes(65), bytes(32), 18, 100, b"tag", waits=True)


def test_a_receipt_of_an_older_gateway_is_still_read(tmp_path: Path):
    """A row that was written before a field was added means its default."""
    archive = Archive(tmp_path / "archive.db", bytes(32))
    archive.charged(CHARGED, None)
    archive.flush()
    old = msgspec.msgpack.encode(msgspec.msgpack.decode(msgspec.msgpack.encode(CHARGED))[:-1])
    archive._db.execute("UPDATE receipts SET record = ?", (old,))  # pyright: ignore[reportPrivateUsage]
    found = archive.receipt(ORDER)
    assert found == (msgspec.structs.replace(CHARGED, waits=False), 0)
    assert [charged.receipt for charged, _ in archive.receipts(ACCOUNT, 10)] == [RECEIPT]
    archive.close()


def test_a_request_that_the_gateway_bears_is_not_one_that_was_charged(tmp_path: Path):
    """Its idempotency key is free again, and its receipt stands there as refunded."""
    archive = Archive(tmp_path / "archive.db", bytes(32))
    archive.charged(CHARGED, None)
    assert archive.charged_by(b"tag") is not None
    archive.refunded(Refund(ACCOUNT, Address(b"p" * 20), ORDER, 18))
    assert archive.charged_by(b"tag") is None
    assert archive.receipts(ACCOUNT, 10) == [(CHARGED, 18)]
    archive.close()


def test_receipts_are_found_by_what_they_were_for(tmp_path: Path):
    """All of one tag, counted without being read; those without a tag are nobody's."""
    archive = Archive(tmp_path / "archive.db", bytes(32))
    for number, tag in ((1, b"lease"), (2, b""), (3, b"lease")):
        receipt = msgspec.structs.replace(RECEIPT, order=bytes([number]) * 32)
        archive.charged(msgspec.structs.replace(CHARGED, receipt=receipt, tag=tag), None)
    assert [archive.count(it) for it in (b"lease", b"", b"other")] == [2, 0, 0]
    assert [it.receipt.order[0] for it in archive.tagged(b"lease")] == [1, 3]
    assert archive.tagged(b"") == []
    archive.close()
