"""A beacon that no participant and no chain can bend: drand's threshold BLS signatures, checked here.

The League of Entropy signs the number of every round; nobody below its threshold can know a signature before the
round's time, nor choose among several, since a BLS signature is unique. quicknet signs on G1 under a key on G2:

    e(signature, g2) = e(H(sha256(round)), key),    randomness = sha256(signature)

Whoever relays a pulse is not believed: what doesn't verify under the chain's key is refused.
Source: drand's protocol specification, scheme bls-unchained-g1-rfc9380; RFC 9380 for H.
"""

from hashlib import sha256

import msgspec
from py_arkworks_bls12381 import GT, G1Point, G2Point

from clusterai.ledger.core.calls import G1Point as Point
from clusterai.ledger.core.calls import RecordPulse
from clusterai.ledger.core.rules import DrandRules
from clusterai.protocol.ids import Digest

_SUITE = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
SIGNATURE_BYTES = 48


class Pulse(msgspec.Struct, frozen=True):
    """A round and the network's signature of it: 48 bytes, a compressed point of G1."""

    round: int
    signature: bytes


class FalsePulse(ValueError):
    """This is not what the drand network signed for that round; ask another relay."""


def randomness(drand: DrandRules, pulse: Pulse) -> Digest:
    """The round's 32 bytes, once the signature is found to be the network's (7 ms on one core).

    Raises:
        FalsePulse: not a point of the group, or not signed by the network's key for this round.
    """
    if not is_signed(drand, pulse.round, _uncompressed(pulse)):
        raise FalsePulse(f"round {pulse.round} was not signed by the network {drand.chain[:8]}")
    return Digest(sha256(pulse.signature).digest())


def call(pulse: Pulse) -> RecordPulse:
    """What brings a pulse to the chain; the contract compresses the point again and hashes that.

    Raises:
        FalsePulse: not a point of the group.
    """
    point = _uncompressed(pulse)
    words = (bytes(16) + point[:16], point[16:48], bytes(16) + point[48:64], point[64:])
    return RecordPulse(pulse.round, Point(*map(Digest, words)))


def is_signed(drand: DrandRules, round_number: int, point: bytes) -> bool | None:
    """Whether 96 bytes, x and y, are the network's signature of a round; None: no point of the group."""
    try:
        signature = G1Point.from_xy_bytes_be(point) if any(point) else G1Point.identity()
    except ValueError:
        return None
    message = G1Point.hash_to_curve(sha256(round_number.to_bytes(8)).digest(), _SUITE)
    key = G2Point.from_xy_bytes_be(bytes.fromhex(drand.key))
    # The identity would pair to one with anything that is the identity too; it is nobody's signature.
    return signature != G1Point.identity() and GT.pairing_check([message, -signature], [key, G2Point()])


def _uncompressed(pulse: Pulse) -> bytes:
    if not 1 <= pulse.round < 2**32 or len(pulse.signature) != SIGNATURE_BYTES:
        raise FalsePulse(f"round {pulse.round} with a signature of {len(pulse.signature)} bytes")
    try:
        return G1Point.from_compressed_bytes(pulse.signature).to_xy_bytes_be()
    except ValueError:
        raise FalsePulse(f"the signature of round {pulse.round} is not a point of G1") from None
