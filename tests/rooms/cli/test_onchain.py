"""Which of the chain's transactions concern a receipt."""

from typing import Any

from clusterai.cli.onchain import trace
from clusterai.ledger.core import events
from clusterai.protocol.ids import Address, Digest, hex0x
from clusterai.sdk import Receipt

PROVIDER = Address(b"p" * 20)
CHANNEL = Digest(b"c" * 32)
TOKEN = Address(b"t" * 20)
ROOT = Digest(b"r" * 32)


def receipt(**changes: Any) -> Receipt:
    """The receipt of epoch 7 whose place in its channel ends at 500 wei."""
    hexes = {name: hex0x(ROOT) for name in ("id", "model", "answer", "leaf", "signature", "order_signature")}
    fields: dict[str, Any] = {
        **hexes,
        "state": "verified",
        "provider": hex0x(PROVIDER),
        "gateway": hex0x(TOKEN),
        "input_units": 1,
        "output_units": 1,
        "price_wei": 100,
        "refunded_wei": 0,
        "epoch": 7,
        "at_s": 0,
        "channel": hex0x(CHANNEL),
        "voucher_wei": 500,
        "numbers": {},
        **changes,
    }
    return Receipt(**fields)


CHAIN: list[tuple[Any, str, int]] = [
    (events.EpochCommitted(PROVIDER, 6, ROOT, 1, 400, 7, 250_000), "0x1", 10),
    (events.Claimed(CHANNEL, PROVIDER, 400, 400, 1), "0x2", 11),
    (events.EpochCommitted(PROVIDER, 7, ROOT, 1, 100, 8, 250_000), "0x3", 12),
    (events.Claimed(Digest(b"d" * 32), PROVIDER, 900, 900, 1), "0x4", 13),
    (events.Claimed(CHANNEL, PROVIDER, 100, 500, 1), "0x5", 14),
    (events.EpochCleared(PROVIDER, 7, ROOT, 1, ROOT), "0x6", 15),
    (events.Claimed(CHANNEL, PROVIDER, 100, 600, 2), "0x7", 16),
    (events.Settled(PROVIDER, TOKEN, TOKEN, 600), "0x8", 20),
    (events.Settled(PROVIDER, TOKEN, TOKEN, 5), "0x9", 30),
]


def told(found: Receipt) -> list[tuple[str, str]]:
    return [(it.what, it.hash) for it in trace(found, CHAIN)]


def test_a_receipts_own_epoch_and_the_claim_that_covers_it_are_told() -> None:
    """Other epochs, other channels, and claims before and after it are not."""
    assert told(receipt()) == [("committed", "0x3"), ("claimed", "0x5"), ("cleared", "0x6")]


def test_a_receipt_tells_how_likely_its_audit_was() -> None:
    """By the rate that stands in its epoch's commitment, and how many of the epoch were audited."""
    notes = [it.note for it in trace(receipt(), CHAIN)]
    assert notes == ["one of 1, audited with probability 25 %", "", "1 of the epoch audited"]


def test_a_settled_receipt_names_the_payout_behind_its_claim() -> None:
    """The provider's first payout after the claim, and none after that."""
    assert told(receipt(state="settled"))[-1] == ("settled", "0x8")
    assert len(told(receipt(state="settled"))) == 4


def test_a_receipt_that_is_not_on_chain_has_no_transactions() -> None:
    """A voucher alone is no transaction."""
    assert told(receipt(epoch=9, voucher_wei=10_000)) == []
