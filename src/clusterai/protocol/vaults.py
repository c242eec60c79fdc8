"""What owners of data and those who work on it sign: who asks, what is allowed, what was done.

    AccessRequest  requester  "let me do this with your data, for so much ε, at this price"
    Grant          vault      "you may": its digest is the licence token's id on chain
    Use            vault      "this was done under that grant": a leaf of the use log
    Listing        vault      "this is the data, and these are its rules"

Each is EIP-712 typed data under the network's domain, because `Vaults.sol` judges two of them: it hashes a `Grant` to the token's
id, and a `Use` convicts the vault that signed it and says otherwise elsewhere. ε is counted in millionths, and never rounded down by whoever spends it.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol import merkle
from clusterai.protocol.eip712 import Domain, struct_hash, type_hash, typed_digest
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.signing import signed_by
from clusterai.protocol.statements import U32, U40, U63, AddressBytes, DigestBytes, SignatureBytes, Wei

MOST_NAME_BYTES = 64
MOST_KIND_BYTES = 32

Micro = U63
"""ε in millionths."""


class Operation(IntEnum):
    """What a grant allows.

    Attributes:
        QUERY: SQL by our own engine, answered with noise; `code` is zeros.
        CODE: the requester's program over samples of the rows, aggregated with noise.
        REVIEW: the requester's program; what it made leaves once the owner has read it.
        TRAINING: rounds of a federated study.
        COPY: the data itself: its content key, sealed to the requester.
        JOINT: a share in sums with other vaults.
    """

    QUERY = 1
    CODE = 2
    REVIEW = 3
    TRAINING = 4
    COPY = 5
    JOINT = 6


class Revoked(IntEnum):
    """Why a grant ended: a closed list, the same numbers in `Vaults.sol`.

    Attributes:
        EXPIRED: its time was over, and somebody burnt its token.
        ASKED: the requester wanted it.
        TERMS: the requester broke what it had agreed to.
        POLICY: the owner's rules are others now.
        CONSENT: those whom the data is about took their consent back.
        KEY: a key is no longer safe.
        LAW: an authority ordered it.
    """

    EXPIRED = 0
    ASKED = 1
    TERMS = 2
    POLICY = 3
    CONSENT = 4
    KEY = 5
    LAW = 6


class Breach(IntEnum):
    """What a vault can be convicted of, by anyone who can show it.

    Attributes:
        OVERSPENT: a leaf of the anchored log spent more than its grant, or than the budget in all.
        MISCOUNTED: leaves of one anchored log whose sums don't add up, or exceed what was anchored.
        EQUIVOCATED: two signed uses with one index.
        OMITTED: a signed use isn't at its index of the anchored log, or not in it at all though it should be.
        REWRITTEN: two anchored logs differ at one index.
    """

    OVERSPENT = 1
    MISCOUNTED = 2
    EQUIVOCATED = 3
    OMITTED = 4
    REWRITTEN = 5


OperationCode = Annotated[int, Meta(ge=1, le=6)]


class _Statement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base, as in `statements`: canonical bytes are a MessagePack array in the order of the fields."""

    def struct(self) -> Digest:
        raise NotImplementedError

    def signing_digest(self, network: Domain) -> Digest:
        """What the vault's hot key or the requester's key signs."""
        return typed_digest(network.separator(), self.struct())


class AccessRequest(_Statement, frozen=True, array_like=True):
    """A requester's wish, signed by its own key.

    Attributes:
        seal_to: the requester's X25519 key, for what only it may read.
        code: digest of the program or app bundle; zeros for SQL.
        purpose: digest of the text in which the requester says what for.
        epsilon_micro: that it may spend in all.
        price_wei: most it pays for one use; for a copy, for the copy.
        nonce: makes equal wishes different requests.
    """

    dataset: DigestBytes
    requester: AddressBytes
    seal_to: DigestBytes
    operation: OperationCode
    code: DigestBytes
    purpose: DigestBytes
    epsilon_micro: Micro
    uses: Annotated[int, Meta(ge=1, le=2**32 - 1)]
    price_wei: Wei
    expires_s: U40
    nonce: DigestBytes

    TYPE = type_hash(
        "AccessRequest(bytes32 dataset,address requester,bytes32 sealTo,uint8 operation,bytes32 code,bytes32 purpose,"
        "uint64 epsilonMicro,uint32 uses,uint128 price,uint40 expiresAt,bytes32 nonce)"
    )

    def struct(self) -> Digest:
        return struct_hash(
            self.TYPE,
            self.dataset,
            self.requester,
            self.seal_to,
            self.operation,
            self.code,
            self.purpose,
            self.epsilon_micro,
            self.uses,
            self.price_wei,
            self.expires_s,
            self.nonce,
        )


class Grant(_Statement, frozen=True, array_like=True):
    """A vault's licence to one requester, for one operation. `struct()` is its id, and as an integer the token's.

    Attributes:
        request: the `AccessRequest`'s struct hash.
        key_epoch: of the vault's storage keys when it was given; a later epoch's keys it doesn't get.
    """

    dataset: DigestBytes
    request: DigestBytes
    requester: AddressBytes
    operation: OperationCode
    code: DigestBytes
    epsilon_micro: Micro
    uses: Annotated[int, Meta(ge=1, le=2**32 - 1)]
    expires_s: U40
    key_epoch: U32

    TYPE = type_hash(
        "Grant(bytes32 dataset,bytes32 request,address requester,uint8 operation,bytes32 code,uint64 epsilonMicro,"
        "uint32 uses,uint40 expiresAt,uint32 keyEpoch)"
    )

    def struct(self) -> Digest:
        return struct_hash(
            self.TYPE,
            self.dataset,
            self.request,
            self.requester,
            self.operation,
            self.code,
            self.epsilon_micro,
            self.uses,
            self.expires_s,
            self.key_epoch,
        )


class Use(_Statement, frozen=True, array_like=True):
    """One use of a dataset, signed by the vault's hot key; its struct hash is a leaf of the dataset's use log.

    Attributes:
        index: its place in the log, counted from 0 without a gap.
        grant: the grant's id.
        order: digest of the order that paid for it; zeros for a use that nobody paid.
        epsilon_micro: what this use spent.
        grant_spent_micro: what the grant has spent with it.
        total_spent_micro: what all grants have spent with it.
        result: digest of what left the vault.
        at_s: when it was closed, by the chain's time; never before the `as_of_s` of a log anchored earlier.
    """

    dataset: DigestBytes
    index: U32
    grant: DigestBytes
    requester: AddressBytes
    order: DigestBytes
    epsilon_micro: Micro
    grant_spent_micro: Micro
    total_spent_micro: Micro
    result: DigestBytes
    at_s: U40

    TYPE = type_hash(
        "Use(bytes32 dataset,uint32 index,bytes32 grant,address requester,bytes32 order,uint64 epsilonMicro,"
        "uint64 grantSpentMicro,uint64 totalSpentMicro,bytes32 result,uint40 usedAt)"
    )

    def struct(self) -> Digest:
        return struct_hash(
            self.TYPE,
            self.dataset,
            self.index,
            self.grant,
            self.requester,
            self.order,
            self.epsilon_micro,
            self.grant_spent_micro,
            self.total_spent_micro,
            self.result,
            self.at_s,
        )


class Listing(_Statement, frozen=True, array_like=True):
    """What a vault says that it has; the same digests stand on chain.

    Attributes:
        card: digest of the data card's canonical bytes.
        snapshot: Merkle root over the salted hashes of the data's pieces: which version this is.
        policy: digest of the policy's canonical bytes.
        noise_commit: digest of the key from which all noise is drawn; the same for ever, or noise could be chosen.
        serial: a later listing has a higher one.
    """

    dataset: DigestBytes
    owner: AddressBytes
    card: DigestBytes
    snapshot: DigestBytes
    policy: DigestBytes
    noise_commit: DigestBytes
    serial: U63

    TYPE = type_hash(
        "Listing(bytes32 dataset,address owner,bytes32 card,bytes32 snapshot,bytes32 policy,bytes32 noiseCommit,"
        "uint64 serial)"
    )

    def struct(self) -> Digest:
        return struct_hash(
            self.TYPE,
            self.dataset,
            self.owner,
            self.card,
            self.snapshot,
            self.policy,
            self.noise_commit,
            self.serial,
        )


class SignedRequest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An access request that shows whose it is."""

    request: AccessRequest
    signature: SignatureBytes

    def holds(self, network: Domain) -> bool:
        who = Address(self.request.requester)
        return signed_by(who, self.request.signing_digest(network), self.signature)


class SignedUse(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a requester keeps of a use. With it, it can convict a vault that leaves the use out of its log."""

    use: Use
    signature: SignatureBytes

    def signed_by(self, hot: Address, network: Domain) -> bool:
        return signed_by(hot, self.use.signing_digest(network), self.signature)


class SignedListing(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A listing as gateways carry it; the signer must be a hot key of `listing.owner`."""

    listing: Listing
    signature: SignatureBytes

    def signed_by(self, hot: Address, network: Domain) -> bool:
        return signed_by(hot, self.listing.signing_digest(network), self.signature)


def name_digest(name: str) -> Digest:
    """How a dataset's name stands on chain.

    Raises:
        ValueError: empty, or longer than MOST_NAME_BYTES.
    """
    encoded = name.encode()
    if not 0 < len(encoded) <= MOST_NAME_BYTES:
        raise ValueError(f"a dataset's name has 1 to {MOST_NAME_BYTES} bytes, this one has {len(encoded)}")
    return Digest(keccak(encoded))


def dataset_id(owner: Address, name: str) -> Digest:
    """The stable name of an owner's dataset: nobody else can list it, and a new version keeps it."""
    return Digest(keccak(b"clusterai dataset" + owner + name_digest(name)))


def subject(dataset: Digest, kind: str) -> Digest:
    """What orders and offers name as the model, and calls are addressed to.

    Args:
        kind: "vault" for access, else the kind of work: "query", "training".
    """
    assert 0 < len(kind.encode()) <= MOST_KIND_BYTES, "kinds of work have short names"
    return Digest(keccak(b"clusterai subject" + dataset + kind.encode()))


def log_root(uses: Sequence[Digest]) -> Digest:
    """The root that is anchored, over the struct hashes of a dataset's uses in the order of their indices."""
    return merkle.root(uses)


def log_proof(uses: Sequence[Digest], index: int) -> tuple[Digest, ...]:
    """Shows the use at `index` of the log that `log_root` commits to."""
    return merkle.proof(uses, index)
