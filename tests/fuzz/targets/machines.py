"""What strangers say of machines: offers, and validators' findings about them."""

from collections.abc import Callable
from typing import Any

from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address
from clusterai.protocol.offers import MOST_BYTES, decode_measurement, decode_offer, signed_digest
from tests.fuzz.vectors import values_of

DECODERS: tuple[Callable[[bytes], Any], ...] = (decode_offer, decode_measurement)
NETWORK = Domain("ClusterAI", "1", 31415, Address(b"\xe6" * 20))


def once(data: bytes) -> bool:
    """An offer or a measurement is spelled in one way, within its length, and has one digest; all else is `Malformed`."""
    taken = False
    for decode in DECODERS:
        try:
            value = decode(data)
        except Malformed:
            continue
        taken = True
        assert len(data) <= MOST_BYTES
        assert canonical.encode(value) == data
        assert len(signed_digest(value, NETWORK)) == 32
        assert all(it.isascii() for it in (value.hardware, value.gpu, value.region))
    return taken


def seeds() -> list[bytes]:
    return values_of("offers.json", "statements")
