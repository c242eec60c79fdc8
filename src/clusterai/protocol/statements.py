"""What participants sign. Each statement is EIP-712 typed data, so that a contract can judge it too.

    Order      gateway   "do this request at these prices, for at most so much, paid through this channel"
    Receipt    provider  "I did it: this answer, this usage, this price"        (leaf of the epoch's commitment)
    Voucher    payer     "the receiver may claim so much in all from this channel"      (x402 batch-settlement)
    Verdict    validator "this receipt is fraud" / "was withheld"
    Clearance  validator "this epoch's drawn receipts are right"
    Greeting   anyone    "I am the one who speaks on this connection"
    Delegation hot key   "I act for this owner"

Amounts are in the token's smallest unit. Times are the chain's, in seconds.
"""

from enum import IntEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol.eip712 import Domain, struct_hash, type_hash, typed_digest
from clusterai.protocol.ids import Address, Digest

AddressBytes = Annotated[bytes, Meta(min_length=20, max_length=20)]
DigestBytes = Annotated[bytes, Meta(min_length=32, max_length=32)]
SignatureBytes = Annotated[bytes, Meta(min_length=65, max_length=65)]
U8 = Annotated[int, Meta(ge=0, le=2**8 - 1)]
U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
U40 = Annotated[int, Meta(ge=0, le=2**40 - 1)]
U63 = Annotated[int, Meta(ge=0, le=2**63 - 1)]

Wei = U63
"""An amount of the token's smallest unit. With 9 decimals and 10**9 tokens in all, every amount that can exist
fits 63 bits, and so a MessagePack or SQLite integer; contracts hold them in uint128."""

EPOCH_LIST = 2**32 - 1
"""The index that stands for an epoch's list of receipts itself: wrong root, wrong total, a receipt twice."""


class _Statement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base: canonical bytes are a MessagePack array in the order of the fields."""


class ChannelConfig(_Statement, frozen=True, array_like=True):
    """The immutable terms of a payment channel; its digest is the channel's id. Source: x402 batch-settlement."""

    payer: AddressBytes
    payer_authorizer: AddressBytes
    receiver: AddressBytes
    receiver_authorizer: AddressBytes
    token: AddressBytes
    withdraw_delay_s: U40
    salt: DigestBytes

    TYPE = type_hash(
        "ChannelConfig(address payer,address payerAuthorizer,address receiver,address receiverAuthorizer,"
        "address token,uint40 withdrawDelay,bytes32 salt)"
    )

    def channel_id(self, channels: Domain) -> Digest:
        return typed_digest(
            channels.separator(),
            struct_hash(
                self.TYPE,
                self.payer,
                self.payer_authorizer,
                self.receiver,
                self.receiver_authorizer,
                self.token,
                self.withdraw_delay_s,
                self.salt,
            ),
        )


class Voucher(_Statement, frozen=True, array_like=True):
    """Cumulative: the newest voucher of a channel replaces all before it. Source: x402 batch-settlement."""

    channel_id: DigestBytes
    amount_wei: Wei

    TYPE = type_hash("Voucher(bytes32 channelId,uint128 maxClaimableAmount)")

    def struct(self) -> Digest:
        return struct_hash(self.TYPE, self.channel_id, self.amount_wei)


class Order(_Statement, frozen=True, array_like=True):
    """A gateway hires a provider for one request.

    `request` is the digest of the request's canonical bytes, seed and tokens so far included, so that neither
    side can later claim another prompt. `nonce` makes equal requests different orders. The prices are of one unit of
    usage each, as the provider offered them; so an audit needs nobody's word for what a receipt may ask.
    """

    gateway: AddressBytes
    provider: AddressBytes
    model: DigestBytes
    request: DigestBytes
    channel_id: DigestBytes
    input_price_wei: Wei
    output_price_wei: Wei
    cap_wei: Wei
    expires_s: U40
    nonce: DigestBytes

    TYPE = type_hash(
        "Order(address gateway,address provider,bytes32 model,bytes32 request,bytes32 channelId,uint128 inputPrice,"
        "uint128 outputPrice,uint128 cap,uint40 expiresAt,bytes32 nonce)"
    )

    def price_wei(self, input_units: int, output_units: int) -> int:
        """What a receipt of this usage asks for: this amount and no other."""
        return input_units * self.input_price_wei + output_units * self.output_price_wei

    def struct(self) -> Digest:
        return struct_hash(
            self.TYPE,
            self.gateway,
            self.provider,
            self.model,
            self.request,
            self.channel_id,
            self.input_price_wei,
            self.output_price_wei,
            self.cap_wei,
            self.expires_s,
            self.nonce,
        )


class Receipt(_Statement, frozen=True, array_like=True):
    """A provider's account of one finished order; its struct hash is the leaf of the epoch's Merkle tree.

    `answer` is the digest of the produced tokens (`messages.Answer`); usage counts are of this order alone;
    `amount_wei` is what the voucher rises by; `epoch` is the one in whose commitment the receipt stands.
    """

    order: DigestBytes
    provider: AddressBytes
    gateway: AddressBytes
    model: DigestBytes
    answer: DigestBytes
    input_units: U32
    output_units: U32
    amount_wei: Wei
    epoch: U40

    TYPE = type_hash(
        "Receipt(bytes32 order,address provider,address gateway,bytes32 model,bytes32 answer,uint32 inputUnits,"
        "uint32 outputUnits,uint128 amount,uint40 epoch)"
    )

    def struct(self) -> Digest:
        return struct_hash(
            self.TYPE,
            self.order,
            self.provider,
            self.gateway,
            self.model,
            self.answer,
            self.input_units,
            self.output_units,
            self.amount_wei,
            self.epoch,
        )


class Outcome(IntEnum):
    """What a verdict may say. A right receipt needs none: it is covered by the epoch's clearance."""

    FRAUD = 2
    WITHHELD = 3


class Verdict(_Statement, frozen=True, array_like=True):
    """A validator's judgement of receipt `index` of `provider`'s `epoch`; `evidence` digests the audit's report."""

    provider: AddressBytes
    epoch: U40
    index: U32
    leaf: DigestBytes
    outcome: U8
    evidence: DigestBytes

    TYPE = type_hash(
        "Verdict(address provider,uint64 epoch,uint32 index,bytes32 leaf,uint8 outcome,bytes32 evidence)"
    )

    def struct(self) -> Digest:
        return struct_hash(
            self.TYPE, self.provider, self.epoch, self.index, self.leaf, self.outcome, self.evidence
        )


class Clearance(_Statement, frozen=True, array_like=True):
    """A validator found all `audited` drawn receipts of an epoch right."""

    provider: AddressBytes
    epoch: U40
    root: DigestBytes
    audited: U32
    evidence: DigestBytes

    TYPE = type_hash("Clearance(address provider,uint64 epoch,bytes32 root,uint32 audited,bytes32 evidence)")

    def struct(self) -> Digest:
        return struct_hash(self.TYPE, self.provider, self.epoch, self.root, self.audited, self.evidence)


class Greeting(_Statement, frozen=True, array_like=True):
    """Who speaks on a connection.

    `binding` digests the TLS certificate that the speaker's side of the connection showed or saw, and both
    sides' fresh nonces: a greeting can't be replayed on another connection or through a man in the middle.
    """

    speaker: AddressBytes
    role: U8
    binding: DigestBytes

    TYPE = type_hash("Greeting(address speaker,uint8 role,bytes32 binding)")

    def struct(self) -> Digest:
        return struct_hash(self.TYPE, self.speaker, self.role, self.binding)


class Delegation(_Statement, frozen=True, array_like=True):
    """A hot key's consent to act for an owner; without it nobody could keep strangers from binding an address."""

    owner: AddressBytes
    hot: AddressBytes

    TYPE = type_hash("Delegation(address owner,address hot)")

    def struct(self) -> Digest:
        return struct_hash(self.TYPE, self.owner, self.hot)


Statement = Voucher | Order | Receipt | Verdict | Clearance | Greeting | Delegation


def signing_digest(statement: Statement, domain: Domain) -> Digest:
    """What a key signs: vouchers under the Channels domain, verdicts and clearances under the Court's, the rest
    under `network_domain`."""
    return typed_digest(domain.separator(), statement.struct())


def channels_domain(chain_id: int, channels: Address) -> Domain:
    return Domain("x402 Batch Settlement", "1", chain_id, channels)


def court_domain(chain_id: int, court: Address) -> Domain:
    return Domain("ClusterAI Court", "1", chain_id, court)


def network_domain(chain_id: int, registry: Address) -> Domain:
    """Orders, receipts and greetings: bound to the chain and its registry of participants."""
    return Domain("ClusterAI", "1", chain_id, registry)
