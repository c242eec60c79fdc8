"""What an opened epoch proves, what it only claims, and whose fault each mistake is."""

from typing import Any

import pytest
from msgspec.structs import replace

from clusterai.audit.core.recount import (
    STALE_AFTER_S,
    Code,
    Commitment,
    Rules,
    list_faults,
    mislabelled,
    transcript_faults,
    unproven_list,
    unproven_receipt,
    unproven_transcript,
    unsigned_order,
)
from clusterai.protocol import canonical, merkle
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.messages import Answer, Transcript
from clusterai.protocol.signing import Key, recover
from clusterai.protocol.statements import EPOCH_LIST, Order, Receipt, network_domain, signing_digest

GATEWAY, PROVIDER, STRANGER = (Key(bytes([n]) * 32) for n in (1, 2, 3))
NETWORK = network_domain(1, Address(bytes(20)))
EPOCH, EPOCH_S = 1_000, 15


def recount(kind: str, request: bytes, tokens: tuple[int, ...]) -> tuple[int, int]:
    assert kind == "echo"
    return len(request), len(tokens)


RULES = Rules(
    network=NETWORK,
    epoch_s=EPOCH_S,
    recover=recover,
    signer={it.address: it.address for it in (GATEWAY, PROVIDER)}.get,
    is_gateway=lambda owner: owner == GATEWAY.address,
    kind_of=lambda request: "echo" if request.startswith(b"say") else None,
    recount=recount,
)


def work(
    number: int = 0, request: bytes = b"say it", kind: str = "echo", **order: Any
) -> tuple[Receipt, Transcript]:
    it = Order(
        gateway=GATEWAY.address,
        provider=PROVIDER.address,
        model=ZERO_DIGEST,
        request=canonical.content_digest(request),
        channel_id=ZERO_DIGEST,
        input_price_wei=1,
        output_price_wei=2,
        cap_wei=100,
        expires_s=EPOCH * EPOCH_S,
        nonce=number.to_bytes(32),
    )
    it = replace(it, **order)
    answer = Answer((1, 2, 3), "stop")
    receipt = Receipt(
        canonical.digest(it),
        it.provider,
        it.gateway,
        it.model,
        answer.digest(),
        len(request),
        3,
        it.price_wei(len(request), 3),
        EPOCH,
    )
    return receipt, Transcript(it, GATEWAY.sign(signing_digest(it, NETWORK)), kind, request, answer)


def committed(receipts: list[Receipt], total: int | None = None) -> Commitment:
    root = merkle.root([receipt.struct() for receipt in receipts])
    right = sum(receipt.amount_wei for receipt in receipts)
    return Commitment(PROVIDER.address, EPOCH, root, len(receipts), right if total is None else total)


LIST = [work(number)[0] for number in range(5)]


def test_an_honest_list_has_no_fault() -> None:
    """Root, count, total and orders are what was committed."""
    assert unproven_list(committed(LIST), LIST) is None
    assert list_faults(committed(LIST), LIST, {}) == ()


@pytest.mark.parametrize("spoiled", [LIST[:-1], LIST[::-1], [*LIST, LIST[0]], [*LIST[:-1], work(9)[0]], []])
def test_another_list_is_nobodys_fault(spoiled: list[Receipt]) -> None:
    """What doesn't fit the root may be the messenger's doing: it is unproven, and no fault."""
    assert unproven_list(committed(LIST), spoiled) is not None


def test_faults_of_a_proven_list() -> None:
    """A wrong total, an order twice, an order of an earlier epoch, and receipts of others are the provider's."""
    twice = [*LIST, LIST[2]]
    earlier = {Digest(LIST[1].order): EPOCH - 3, Digest(LIST[0].order): EPOCH}
    foreign = [*LIST, replace(work(7)[0], epoch=EPOCH - 1), replace(work(8)[0], provider=STRANGER.address)]
    for faults, code, number in (
        (list_faults(committed(LIST, total=51), LIST, {}), Code.WRONG_TOTAL, 1),
        (list_faults(committed(twice), twice, {}), Code.RECEIPT_TWICE, 1),
        (list_faults(committed(LIST), LIST, earlier), Code.RECEIPT_TWICE, 1),
        (list_faults(committed(foreign), foreign, {}), Code.FOREIGN_RECEIPT, 2),
    ):
        assert [(fault.index, fault.code) for fault in faults] == [(EPOCH_LIST, code)] * number


def test_a_receipts_signature_must_be_its_providers() -> None:
    """By a key of the provider; anything else is unproven."""
    receipt, _ = work()
    digest = signing_digest(receipt, NETWORK)
    assert unproven_receipt(RULES, receipt, PROVIDER.sign(digest)) is None
    for signature in (GATEWAY.sign(digest), STRANGER.sign(digest), bytes(65)):
        assert unproven_receipt(RULES, receipt, signature) is not None


def test_a_transcript_must_hang_on_its_receipt() -> None:
    """Another order, request or answer than the receipt's digests say is unproven."""
    receipt, transcript = work()
    assert unproven_transcript(receipt, transcript) is None
    for changes in (
        {"order": replace(transcript.order, cap_wei=10**6)},
        {"request": b"say more"},
        {"answer": replace(transcript.answer, reason="length")},
    ):
        assert unproven_transcript(receipt, replace(transcript, **changes)) is not None


def test_only_a_registered_gateway_orders() -> None:
    """The order's signature must be by a key of the gateway that it names, registered as one."""
    _, transcript = work()
    digest = signing_digest(transcript.order, NETWORK)
    assert unsigned_order(RULES, transcript) is None
    for signature in (PROVIDER.sign(digest), STRANGER.sign(digest), bytes(65)):
        assert unsigned_order(RULES, replace(transcript, order_signature=signature)) is not None
    _, own = work(gateway=PROVIDER.address)
    signed = PROVIDER.sign(signing_digest(own.order, NETWORK))
    assert unsigned_order(RULES, replace(own, order_signature=signed)) is not None


def codes(receipt: Receipt, transcript: Transcript) -> list[str]:
    return [fault.code for fault in transcript_faults(RULES, 4, receipt, transcript)]


def test_faults_of_a_proven_transcript() -> None:
    """Each rule that a receipt can break, by name."""
    receipt, transcript = work()
    assert codes(receipt, transcript) == []
    assert codes(replace(receipt, amount_wei=101), transcript) == [Code.OVER_CAP, Code.WRONG_PRICE]
    assert codes(replace(receipt, input_units=7), transcript) == [Code.WRONG_PRICE, Code.WRONG_USAGE]
    assert codes(replace(receipt, output_units=4, amount_wei=14), transcript) == [Code.WRONG_USAGE]
    assert codes(replace(receipt, model=b"\1" * 32), transcript) == [Code.FOREIGN_ORDER]
    assert codes(*work(expires_s=EPOCH * EPOCH_S - STALE_AFTER_S)) == []
    assert codes(*work(expires_s=EPOCH * EPOCH_S - STALE_AFTER_S - 1)) == [Code.STALE_ORDER]


@pytest.mark.parametrize("off", [-1, 1, 50])
def test_an_amount_is_the_orders_price_of_its_usage(off: int) -> None:
    """Neither more nor less, though both lie under the cap."""
    receipt, transcript = work()
    assert codes(replace(receipt, amount_wei=receipt.amount_wei + off), transcript) == [Code.WRONG_PRICE]


def test_an_unknown_kind_of_work_accuses_nobody() -> None:
    """A validator that doesn't know the kind can't recount it, and says nothing about its usage; what a unit costs, it knows."""
    receipt, transcript = work(request=b"weave it", kind="weaving")
    assert codes(replace(receipt, input_units=50, amount_wei=56), transcript) == []
    assert codes(replace(receipt, input_units=50, amount_wei=57), transcript) == [Code.WRONG_PRICE]
    assert mislabelled(RULES, transcript) is None


def test_a_label_that_is_not_the_requests_is_unproven() -> None:
    """The kind stands in no digest: a relay may have changed it, so it neither accuses nor hides anything."""
    _, transcript = work()
    assert mislabelled(RULES, transcript) is None
    assert mislabelled(RULES, replace(transcript, kind="weaving")) is not None
