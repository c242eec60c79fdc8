"""The frames by which machines are rented together: opened, joined to one mesh, ended. The time itself is paid as any work is.

    node                    gateway
      |<-- OpenStay -----------|   this machine, for this cluster, at the price that it offered
      |--- StayOpened -------->|   its key for the mesh, signed, so that the renter knows whom it talks to
      |<-- JoinStay -----------|   who is in the mesh; sent again when somebody comes or goes
      |--- StayReady --------->|   it may be used, and paid from the next order on
      |<== Work, Tokens* =====>|   one interval after another
      |<-- Countersign --------|   all heartbeats up to this head came, and count
      |<-- TellPath* ----------|   where a member's packets come from
      |--- StayHears* -------->|   since when it heard nothing of whom
      |--- StayBroke --------->|   or
      |<-- EndStay ------------|

A **stay** is one machine's part in a rented cluster. A machine that took another's place is another stay: its `generation` is higher.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol.eip712 import Domain, struct_hash, type_hash, typed_digest
from clusterai.protocol.ids import Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.statements import U32, U40, U63, AddressBytes, DigestBytes, SignatureBytes, Wei

MOST_MEMBERS = 64
"""Of one mesh, the renter included."""
MOST_SPEC_BYTES = 64 * 1024
MOST_TOKEN_BYTES = 128
MOST_LOG_BYTES = 64 * 1024

Place = Annotated[int, Meta(ge=0, le=MOST_MEMBERS - 1)]
Code = Annotated[str, Meta(max_length=32)]
Words = Annotated[str, Meta(max_length=2_000)]
Host = Annotated[str, Meta(max_length=64)]
UdpPort = Annotated[int, Meta(ge=1, le=65_535)]
Milliseconds = Annotated[int, Meta(ge=0, le=2**32 - 1)]


class _Frame(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base, as in `messages`."""


class MeshKey(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Signed by a node's hot key: "in this lease this WireGuard key is mine"."""

    lease: DigestBytes
    place: Place
    generation: U32
    node: AddressBytes
    key: DigestBytes

    TYPE = type_hash("MeshKey(bytes32 lease,uint8 place,uint32 generation,address node,bytes32 key)")

    def struct(self) -> Digest:
        return struct_hash(self.TYPE, self.lease, self.place, self.generation, self.node, self.key)

    def signing_digest(self, network: Domain) -> Digest:
        return typed_digest(network.separator(), self.struct())


class Heartbeats(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Signed by a gateway's hot key: "of this stay, all intervals up to `head` came, and prove so much time".

    The other side's signatures are the receipts of the same intervals.

    Attributes:
        stay: `stay_model`, so it is of one lease, place and generation alone.
        tenths: of seconds, proven in all of the stay.
        head: `head_of` the last interval; those before hang on it.
    """

    stay: DigestBytes
    tenths: U63
    head: DigestBytes

    TYPE = type_hash("Heartbeats(bytes32 stay,uint64 tenths,bytes32 head)")

    def struct(self) -> Digest:
        return struct_hash(self.TYPE, self.stay, self.tenths, self.head)

    def signing_digest(self, network: Domain) -> Digest:
        return typed_digest(network.separator(), self.struct())


class MeshMember(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`relay`: where the receiver of this sends what is for that member; None for itself."""

    place: Place
    key: DigestBytes
    relay: tuple[Host, UdpPort] | None


class OpenStay(_Frame, frozen=True):
    """Gateway: be machine `place` of this cluster. `spec` is the kind's own, in canonical bytes.

    Attributes:
        price_wei: of an hour, no less than the machine's standing offer.
        until_s: when the booking ends; later ends are told by another `OpenStay` of the same stay.
    """

    lease: DigestBytes
    place: Place
    generation: U32
    spec: Annotated[bytes, Meta(max_length=MOST_SPEC_BYTES)]
    price_wei: Wei
    until_s: U40


class StayOpened(_Frame, frozen=True):
    """Node: the walls stand, and this is my key. `signature`: of the `MeshKey`, by the node's hot key."""

    lease: DigestBytes
    place: Place
    generation: U32
    key: DigestBytes
    signature: SignatureBytes


class JoinStay(_Frame, frozen=True):
    """Gateway: the mesh's members as they are now. `token` opens the cluster to its renter, and is the same in all of it."""

    lease: DigestBytes
    generation: U32
    head: Place
    token: Annotated[bytes, Meta(max_length=MOST_TOKEN_BYTES)]
    members: Annotated[tuple[MeshMember, ...], Meta(max_length=MOST_MEMBERS)]


class StayReady(_Frame, frozen=True):
    """Node: tenants can work here. `steps`: how long what took, by name."""

    lease: DigestBytes
    generation: U32
    steps: Annotated[tuple[tuple[Code, Milliseconds], ...], Meta(max_length=32)]


class StayBroke(_Frame, frozen=True):
    """Node: it is no more, or never came to be.

    `code`: taken, price, spec, paused, shutting_down, unpaid (a refusal); what it couldn't begin for lack of (`no-sandbox`, `no-wireguard`, `ray-failed`, …);
    died, unpaid, over (it ended here).
    """

    lease: DigestBytes
    generation: U32
    code: Code
    detail: Words


class StayTold(_Frame, frozen=True):
    """Node: its renter should know this, and it ended nothing. `code`: memory (the kernel killed for want of it), cards (others used them)."""

    lease: DigestBytes
    generation: U32
    code: Code
    detail: Words


class StayHears(_Frame, frozen=True):
    """Node: for so many milliseconds nothing of these members came to me through the mesh."""

    lease: DigestBytes
    generation: U32
    silent: Annotated[tuple[tuple[Place, Milliseconds], ...], Meta(max_length=MOST_MEMBERS)]


class TellPath(_Frame, frozen=True):
    """Gateway: this member's packets come from there; try the direct way."""

    lease: DigestBytes
    place: Place
    host: Host
    port: UdpPort


class PauseStay(_Frame, frozen=True):
    """Gateway: the account is empty: stand still with all that is there, or go on. Nothing is paid meanwhile, nothing is lost."""

    lease: DigestBytes
    generation: U32
    paused: bool


class EndStay(_Frame, frozen=True):
    """Gateway: it is over; leave nothing behind."""

    lease: DigestBytes
    generation: U32


class Countersign(_Frame, frozen=True):
    """Gateway: the renter's side signs what came of a stay so far. `signature`: of `said`, by its hot key."""

    said: Heartbeats
    signature: SignatureBytes


class AskStayLog(_Frame, frozen=True):
    """Gateway: what the machine's own part printed, from byte `start` on; one `StayLogged` comes back."""

    lease: DigestBytes
    generation: U32
    start: U63


class StayLogged(_Frame, frozen=True):
    """Node: what begins at `start`, of `total` so far; what is older than a mebibyte is gone, and left out."""

    lease: DigestBytes
    generation: U32
    start: U63
    total: U63
    data: Annotated[bytes, Meta(max_length=MOST_LOG_BYTES)]


def stay_model(lease: bytes, place: int, generation: int) -> Digest:
    """What a stay's intervals are ordered as, where orders name a model."""
    return Digest(keccak(b"clusterai stay" + lease + bytes([place]) + generation.to_bytes(4, "big")))


def head_of(request: bytes, answer: bytes) -> Digest:
    """Of an interval: by the digests of what was asked, which names the head before, and of the heartbeats that came."""
    return Digest(keccak(b"clusterai heartbeats" + request + answer))


RentFrame = (
    OpenStay
    | StayOpened
    | JoinStay
    | StayReady
    | StayBroke
    | StayTold
    | StayHears
    | TellPath
    | PauseStay
    | Countersign
    | AskStayLog
    | StayLogged
    | EndStay
)
"""What may stand on a link, beside `messages.Frame`."""
