"""How two strangers learn who they talk to, before either believes a frame.

    caller                                   host
      |---- Hello(nonce) ----------------->|
      |<--- Hello(nonce) ------------------|
      |<--- Greeted(greeting, signature) --|   the host shows itself first: a caller that was lured
      |---- Greeted(greeting, signature) ->|   elsewhere gives its name to nobody
      |<--- Welcome | TurnedAway ----------|

Each greeting is signed by a hot key over the speaker's owner, its role, and a binding that digests the TLS
certificate this side saw and both nonces. Attacks met here: a replayed greeting (the nonces are new), a man in the
middle (his certificate differs, and without the host's private key he can't show the host's), a reflected greeting
(a caller refuses its own name as host, and roles differ), a greeting for another network (the EIP-712 domain).
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, cast

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest, Role
from clusterai.protocol.signing import BadSignature, recover
from clusterai.protocol.statements import U8, DigestBytes, Greeting, SignatureBytes, signing_digest

VERSION = 1
MAX_HANDSHAKE_BYTES = 1024


class _Handshake(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class Hello(_Handshake, frozen=True):
    """Fresh entropy of this side, so that no old signature fits."""

    version: U8
    nonce: DigestBytes


class Greeted(_Handshake, frozen=True):
    greeting: Greeting
    signature: SignatureBytes


class Welcome(_Handshake, frozen=True):
    """Host: you are in; frames may follow."""


class TurnedAway(_Handshake, frozen=True):
    """Host: you are not let in. `code` is one of `Reason`; `detail` names the cure."""

    code: Annotated[str, Meta(max_length=32)]
    detail: Annotated[str, Meta(max_length=500)]


Handshake = Hello | Greeted | Welcome | TurnedAway


class Reason(StrEnum):
    """Why somebody is turned away."""

    UNREGISTERED = "unregistered"
    WRONG_ROLE = "wrong_role"
    LITTLE_STAKE = "little_stake"
    BARRED = "barred"
    BAD_GREETING = "bad_greeting"
    NOT_THE_OWNER = "not_the_owner"
    OTHER_GATEWAY = "other_gateway"
    VERSION = "version"
    FULL = "full"


CURES: dict[Reason, str] = {
    Reason.UNREGISTERED: "no owner in the Registry delegated this key: register, then delegate the hot key",
    Reason.WRONG_ROLE: "the owner is not registered in the role it greets with",
    Reason.LITTLE_STAKE: "the owner's stake is below the minimum: bond more",
    Reason.BARRED: "the owner was convicted and is barred for good",
    Reason.BAD_GREETING: "the signature is not over this connection: another network, a proxy that ends TLS, or a replay",
    Reason.NOT_THE_OWNER: "the key is delegated by another owner than the greeting names",
    Reason.OTHER_GATEWAY: "who answers is not the gateway that was dialled: check the address and owner in the manifest",
    Reason.VERSION: "the other side speaks another version of the handshake: upgrade the older one",
    Reason.FULL: "too many are connecting or linked: try again later",
}

Authorize = Callable[[Address, Role], Address | Reason]
"""(hot key, role) to the owner it acts for in that role, or why it doesn't. Asks the Registry's directory."""


class Identity(msgspec.Struct, frozen=True):
    """Who this side is: the owner it speaks for, its role, the network, and its hot key's `sign`."""

    owner: Address
    role: Role
    domain: Domain
    sign: Callable[[Digest], bytes]


def binding(fingerprint: bytes, host_nonce: bytes, caller_nonce: bytes) -> Digest:
    """Names one connection. `fingerprint` is the SHA-256 of the host's certificate as this side knows it."""
    assert len(fingerprint) == len(host_nonce) == len(caller_nonce) == 32, "three fixed fields, no separators"
    return canonical.content_digest(b"clusterai link 1" + fingerprint + host_nonce + caller_nonce)


def greet(me: Identity, bound: Digest) -> Greeted:
    greeting = Greeting(me.owner, int(me.role), bound)
    return Greeted(greeting, me.sign(signing_digest(greeting, me.domain)))


def judge(
    greeted: Greeted, bound: Digest, domain: Domain, authorize: Authorize, role: Role | None
) -> tuple[Address, Role] | Reason:
    """Who greets, proven, or why nobody is believed. `role` is the one expected, None for any but a gateway."""
    greeting = greeted.greeting
    if greeting.binding != bound:
        return Reason.BAD_GREETING
    try:
        hot = recover(signing_digest(greeting, domain), greeted.signature)
    except BadSignature:
        return Reason.BAD_GREETING
    if greeting.role not in tuple(Role):
        return Reason.WRONG_ROLE
    claimed = Role(greeting.role)
    if claimed is not role if role is not None else claimed is Role.GATEWAY:
        return Reason.WRONG_ROLE
    owner = authorize(hot, claimed)
    if isinstance(owner, Reason):
        return owner
    if owner != greeting.speaker:
        return Reason.NOT_THE_OWNER
    return owner, claimed


def hear(data: bytes) -> Handshake:
    """Decode one message of the handshake.

    Raises:
        canonical.Malformed: anything else.
    """
    return canonical.decode(data, cast("type[Handshake]", Handshake), MAX_HANDSHAKE_BYTES)
