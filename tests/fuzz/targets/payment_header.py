"""The header that a wallet pays by: base64 of JSON, from anybody."""

import base64
import json

from x402.http.utils import encode_payment_signature_header  # here, so that atheris sees into it
from x402.schemas import PaymentPayload

from clusterai.gateway.adapters import wallet
from clusterai.gateway.core.faults import Fault

PAYMENT = {
    "x402Version": 2,
    "accepted": {
        "scheme": "exact",
        "network": "eip155:31415",
        "amount": "15",
        "asset": "0x" + "11" * 20,
        "payTo": "0x" + "22" * 20,
        "maxTimeoutSeconds": 60,
        "extra": {"name": "ClusterAI", "version": "1"},
    },
    "payload": {
        "signature": "0x" + "33" * 65,
        "authorization": {
            "from": "0x" + "44" * 20,
            "to": "0x" + "22" * 20,
            "value": "15",
            "nonce": "0x" + "55" * 32,
        },
    },
}


def once(data: bytes) -> bool:
    """A payment of x402's second version, or a fault that is the client's; both as it stands and as it would be packed."""
    taken = False
    for header in (data, base64.b64encode(data)):
        try:
            payment = wallet._decoded(header)  # pyright: ignore[reportPrivateUsage]
        except Fault:
            continue
        taken = True
        assert isinstance(payment, PaymentPayload)
        assert payment.x402_version == 2
    return taken


def seeds() -> list[bytes]:
    payment = PaymentPayload.model_validate(PAYMENT)
    return [json.dumps(PAYMENT).encode(), encode_payment_signature_header(payment).encode()]
