"""Payments from nobody: whatever stands in the fields of either scheme, the answer is a refusal that says why."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tests.fuzz.mutations import mutated
from tests.rooms.gateway.bed import Bed

PATH = "/v1/chat/completions"
BODY = json.dumps(
    {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
).encode()
NOBODY = "0x" + "44" * 20
SIGNATURE = "0x" + "33" * 65
TRIES = 600


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with Bed(tmp_path_factory.mktemp("payments"), providers=1) as it:
        it.until(lambda: it.fetch("POST", PATH, BODY)[0] == 402, "payments by wallet")
        yield it


@pytest.fixture(scope="module")
def accepts(bed: Bed) -> list[dict[str, Any]]:
    """The terms that the gateway names."""
    headers = {name.lower(): value for name, value in bed.fetch("POST", PATH, BODY)[1].items()}
    return json.loads(base64.b64decode(headers["payment-required"]))["accepts"]


def payments(terms: dict[str, Any]) -> list[dict[str, Any]]:
    """Payments by these terms, right in all but the signatures."""
    amount, extra = terms["amount"], terms["extra"]
    dates = {"validAfter": "0", "validBefore": "99999999999"}
    if terms["scheme"] == "exact":
        transfer = {"from": NOBODY, "to": terms["payTo"], "value": amount, "nonce": "0x" + "55" * 32, **dates}
        return [{"signature": SIGNATURE, "authorization": transfer}]
    config = {
        "payer": NOBODY,
        "payerAuthorizer": NOBODY,
        "receiver": terms["payTo"],
        "receiverAuthorizer": extra["receiverAuthorizer"],
        "token": terms["asset"],
        "withdrawDelay": extra["withdrawDelay"],
        "salt": "0x" + "00" * 32,
    }
    voucher = {"channelId": "0x" + "66" * 32, "maxClaimableAmount": amount, "signature": SIGNATURE}
    grant = {"salt": "0x" + "77" * 32, "signature": SIGNATURE, **dates}
    return [
        {"type": "voucher", "channelConfig": config, "voucher": voucher},
        {
            "type": "deposit",
            "channelConfig": config,
            "voucher": voucher,
            "deposit": {"amount": amount, "authorization": {"erc3009Authorization": grant}},
        },
    ]


def pay(bed: Bed, terms: dict[str, Any], payment: bytes) -> tuple[int, bytes]:
    header = b'{"x402Version":2,"accepted":%b,"payload":%b}' % (json.dumps(terms).encode(), payment)
    status, _, raw = bed.fetch("POST", PATH, BODY, PAYMENT_SIGNATURE=base64.b64encode(header).decode())
    return status, raw


def test_a_payment_signed_by_nobody_is_refused(bed: Bed, accepts: list[dict[str, Any]]):
    """In each scheme it is 402 with the terms anew."""
    for terms in accepts:
        for payment in payments(terms):
            status, raw = pay(bed, terms, json.dumps(payment).encode())
            assert status == 402, raw
            assert json.loads(raw)["error"]["code"] == "payment_refused"


def test_payments_with_fields_of_any_kind_are_refused(bed: Bed, accepts: list[dict[str, Any]]):
    """A field that is missing, doubled, of another type or beyond its limits never makes a gateway fail."""
    whole = [(terms, json.dumps(it).encode()) for terms in accepts for it in payments(terms)]
    for at in range(TRIES):
        terms, payment = whole[at % len(whole)]
        for more in range(1 + at % 3):
            payment = mutated(payment, 7 * at + more, lambda raw: raw, msgspec.json)
        status, raw = pay(bed, terms, payment)
        assert status in (400, 402), (payment, raw)
        assert json.loads(raw)["error"]["message"]
    assert bed.spent() == 0
    assert "Traceback" not in bed.log()
