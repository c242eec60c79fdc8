"""What participants sign, heard from a stranger: whatever is taken can be digested and recovered from."""

import contextlib
from typing import Any

from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Address
from clusterai.protocol.signing import BadSignature, recover
from clusterai.protocol.statements import (
    ChannelConfig,
    Clearance,
    Delegation,
    Greeting,
    Order,
    Receipt,
    Verdict,
    Voucher,
    channels_domain,
    network_domain,
    signing_digest,
)
from tests.fuzz.vectors import entries

KINDS: dict[str, Any] = {
    it.__name__: it
    for it in (Voucher, Order, Receipt, Verdict, Clearance, Greeting, Delegation, ChannelConfig)
}
NAMES = list(KINDS)
NETWORK = network_domain(31415, Address(b"\xe6" * 20))
CHANNELS = channels_domain(31415, Address(b"\x40" * 20))


def once(data: bytes) -> bool:
    """The first byte names the kind; the rest is a statement of one spelling with a digest, or `Malformed`."""
    kind = KINDS[NAMES[data[0] % len(NAMES)]] if data else Voucher
    try:
        value = canonical.decode(data[1:], kind)
    except Malformed:
        return False
    assert canonical.encode(value) == data[1:]
    if isinstance(value, ChannelConfig):
        digest = value.channel_id(CHANNELS)
    else:
        digest = signing_digest(value, NETWORK)
    if isinstance(value, Order):
        assert value.price_wei(1, 1) == value.input_price_wei + value.output_price_wei
    with contextlib.suppress(BadSignature):
        recover(digest, (data[1:] * 3)[:65])
    return True


def seeds() -> list[bytes]:
    return [
        bytes((NAMES.index(it["type"]),)) + bytes.fromhex(it["bytes"][2:])
        for it in entries("statements.json", "statements")
    ]
