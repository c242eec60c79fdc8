"""Names of participants and things: raw bytes inside, `0x` hex only where a person or JSON reads them."""

from enum import IntFlag
from typing import NewType

from clusterai.protocol.keccak import keccak

Address = NewType("Address", bytes)
"""20 bytes: an Ethereum account, and by `did` a decentralized identity of it."""

Digest = NewType("Digest", bytes)
"""32 bytes: keccak256 where a contract must recompute it, BLAKE3 elsewhere."""


class Role(IntFlag):
    """What an owner registered as; the Registry's bits, so one owner can hold several."""

    PROVIDER = 1
    GATEWAY = 2
    VALIDATOR = 4


ZERO_ADDRESS = Address(bytes(20))
ZERO_DIGEST = Digest(bytes(32))


class BadId(ValueError):
    """{kind} must be {size} bytes of 0x hex, got {text!r}."""

    def __init__(self, kind: str, size: int, text: str) -> None:
        super().__init__(f"{kind} must be {size} bytes of 0x hex, got {text[:80]!r}")


def _parse(kind: str, size: int, text: str) -> bytes:
    body = text.removeprefix("0x").removeprefix("0X")
    try:
        raw = bytes.fromhex(body)
    except ValueError:
        raise BadId(kind, size, text) from None
    if len(raw) != size or len(body) != 2 * size:
        raise BadId(kind, size, text)
    return raw


def address(text: str) -> Address:
    """Parse 40 hex digits, with or without 0x; the checksum's upper case is accepted and not checked."""
    return Address(_parse("an address", 20, text))


def digest(text: str) -> Digest:
    return Digest(_parse("a digest", 32, text))


def hex0x(raw: bytes) -> str:
    return "0x" + raw.hex()


def checksummed(owner: Address) -> str:
    """The form people read. Source: EIP-55."""
    text = owner.hex()
    marks = keccak(text.encode()).hex()
    return "0x" + "".join(c.upper() if int(m, 16) >= 8 else c for c, m in zip(text, marks, strict=False))


def did(owner: Address, chain_id: int) -> str:
    """Source: ERC-1056 method registry, `did:ethr`."""
    return f"did:ethr:{chain_id:#x}:{hex0x(owner)}"
