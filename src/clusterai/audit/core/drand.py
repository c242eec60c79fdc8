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

from clusterai.protocol.ids import Digest

_SUITE = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
SIGNATURE_BYTES = 48


class DrandChain(msgspec.Struct, frozen=True):
    """What must be known beforehand of a drand network; `hash` is the name under which relays serve it."""

    hash: str
    key: bytes
    genesis_s: int
    period_s: int

    def time_of(self, round_number: int) -> int:
        """When a round is signed, in seconds of Unix time; rounds count from 1."""
        return self.genesis_s + (round_number - 1) * self.period_s

    def first_after(self, time_s: int) -> int:
        """The first round signed later than `time_s`: what a commitment made then may be drawn by."""
        return max(1, (time_s - self.genesis_s) // self.period_s + 2)


QUICKNET = DrandChain(
    hash="52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971",
    key=bytes.fromhex(
        "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d1064510d1fec758c"
        "921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a"
    ),
    genesis_s=1_692_803_367,
    period_s=3,
)


class Pulse(msgspec.Struct, frozen=True):
    """A round and the network's signature of it: 48 bytes, a compressed point of G1."""

    round: int
    signature: bytes


class FalsePulse(ValueError):
    """This is not what the drand network signed for that round; ask another relay."""


def randomness(chain: DrandChain, pulse: Pulse) -> Digest:
    """The round's 32 bytes, once the signature is found to be the chain's (7 ms on one core).

    Raises:
        FalsePulse: not a point of the group, or not signed by the chain's key for this round.
    """
    if not 1 <= pulse.round < 2**64 or len(pulse.signature) != SIGNATURE_BYTES:
        raise FalsePulse(f"round {pulse.round} with a signature of {len(pulse.signature)} bytes")
    try:
        signature = G1Point.from_compressed_bytes(pulse.signature)
    except ValueError:
        raise FalsePulse(f"the signature of round {pulse.round} is not a point of G1") from None
    message = G1Point.hash_to_curve(sha256(pulse.round.to_bytes(8)).digest(), _SUITE)
    # The identity would pair to one with anything that is the identity too; it is nobody's signature.
    signed = signature != G1Point.identity() and GT.pairing_check(
        [message, -signature], [G2Point.from_compressed_bytes(chain.key), G2Point()]
    )
    if not signed:
        raise FalsePulse(f"round {pulse.round} was not signed by the chain {chain.hash[:8]}")
    return Digest(sha256(pulse.signature).digest())
