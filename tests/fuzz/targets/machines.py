"""What strangers say of machines: offers, validators' measurements and findings, and what a machine shows under test."""

from collections.abc import Callable
from typing import Any

from clusterai.audit.core.pages import PagesShown
from clusterai.audit.core.sweeps import SweepShown
from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address
from clusterai.protocol.measuring import Claims, Finding, Findings, Gpu, decode_findings
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
    for decode in (decode_findings, _shown, _swept):
        try:
            assert canonical.encode(decode(data)) == data
        except Malformed:
            continue
        taken = True
    return taken


def _swept(data: bytes) -> SweepShown:
    return canonical.decode(data, SweepShown)


def _shown(data: bytes) -> PagesShown:
    return canonical.decode(data, PagesShown)


def seeds() -> list[bytes]:
    claims = Claims(
        7, "x86-64-v3", "a processor", 2, 2_000, 1 << 30, 1 << 30, (Gpu("h100", "u", 1),), "eu", 1
    )
    found = (Finding("links_per_s_milli", None, 1, ""),)
    findings = Findings(b"n" * 20, b"v" * 20, 1, 1, 1, claims, found)
    return [*values_of("offers.json", "statements"), canonical.encode(findings)]
