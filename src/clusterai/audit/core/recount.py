"""An opened epoch against its commitment, and a transcript against its receipt: all that needs no engine.

Two kinds of "wrong" must never be mixed up, or an honest provider could be convicted by a lying messenger:

    unproven   what came isn't what the provider committed to. Whoever carried it may have changed it, so it
               counts as not opened: ask again, elsewhere, and at last on chain.
    fault      what came is bound to the commitment by its Merkle root or by digests in a committed receipt, and
               is wrong in itself. Nobody but the provider can have made it.

    root ── leaf = struct hash of Receipt ── receipt.order = digest(Order) ── order.request = digest(request)
                                         └── receipt.answer = digest(Answer)
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

import msgspec

from clusterai.protocol import canonical, merkle
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import Transcript
from clusterai.protocol.signing import BadSignature
from clusterai.protocol.statements import EPOCH_LIST, Order, Receipt, signing_digest

STALE_AFTER_S = 3600
"""An order may run long past its expiry (which limits its beginning), but not this long: beyond it a receipt is an
old one counted again. What was counted is remembered for longer than that."""


class Code(StrEnum):
    """Faults, by name. The first four are of an epoch's list, the rest of one drawn receipt."""

    WRONG_TOTAL = "wrong_total"
    RECEIPT_TWICE = "receipt_twice"
    FOREIGN_RECEIPT = "foreign_receipt"
    BAD_ANSWER = "bad_answer_on_chain"
    UNSIGNED_ORDER = "unsigned_order"
    FOREIGN_ORDER = "foreign_order"
    STALE_ORDER = "stale_order"
    OVER_CAP = "over_cap"
    WRONG_PRICE = "wrong_price"
    WRONG_USAGE = "wrong_usage"
    WRONG_TOKENS = "wrong_tokens"


class Commitment(msgspec.Struct, frozen=True):
    """What a provider committed to on chain."""

    provider: Address
    epoch: int
    root: Digest
    count: int
    total_wei: int


class Fault(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Something that only the provider can have done; `index` EPOCH_LIST where the list itself is at fault."""

    index: int
    code: str
    detail: str


class Rules(msgspec.Struct, frozen=True):
    """What judging needs from outside.

    Attributes:
        network: domain under which orders and receipts are signed.
        epoch_s: seconds of an epoch.
        recover: (digest, signature) to the signing key; raises BadSignature.
        signer: a key to the owner that it ever acted for.
        is_gateway: whether an owner ever registered as a gateway.
        kind_of: request bytes to the kind of work that they ask for, by their own tag; None for none that is known here.
        recount: (kind, request bytes, answer tokens) to usage, for requests of a known kind.
    """

    network: Domain
    epoch_s: int
    recover: Callable[[Digest, bytes], Address]
    signer: Callable[[Address], Address | None]
    is_gateway: Callable[[Address], bool]
    kind_of: Callable[[bytes], str | None]
    recount: Callable[[str, bytes, tuple[int, ...]], tuple[int, int]]


def unproven_list(commitment: Commitment, receipts: Sequence[Receipt]) -> str | None:
    """Why `receipts` aren't the committed ones; None where they are."""
    if len(receipts) != commitment.count:
        return f"{len(receipts)} receipts instead of the committed {commitment.count}"
    found = merkle.root([receipt.struct() for receipt in receipts])
    if found != commitment.root:
        return f"the receipts' root is 0x{found.hex()}, committed is 0x{commitment.root.hex()}"
    return None


def list_faults(
    commitment: Commitment, receipts: Sequence[Receipt], counted_in: Mapping[Digest, int]
) -> tuple[Fault, ...]:
    """What is wrong with a proven list.

    Args:
        counted_in: orders of this provider's receipts in other epochs, to the epoch.
    """
    faults: list[Fault] = []
    total = sum(receipt.amount_wei for receipt in receipts)
    if total != commitment.total_wei:
        faults.append(
            _list_fault(Code.WRONG_TOTAL, f"receipts sum to {total}, committed is {commitment.total_wei}")
        )
    first: dict[bytes, int] = {}
    for index, receipt in enumerate(receipts):
        if receipt.provider != commitment.provider or receipt.epoch != commitment.epoch:
            detail = f"receipt {index} is of 0x{receipt.provider.hex()}, epoch {receipt.epoch}"
            faults.append(_list_fault(Code.FOREIGN_RECEIPT, detail))
        order = Digest(receipt.order)
        again = first.setdefault(order, index)
        earlier = counted_in.get(order, commitment.epoch)
        if again != index:
            detail = f"receipts {again} and {index} are of one order, 0x{order.hex()}"
            faults.append(_list_fault(Code.RECEIPT_TWICE, detail))
        elif earlier != commitment.epoch:
            detail = f"receipt {index} was counted in epoch {earlier} before, order 0x{order.hex()}"
            faults.append(_list_fault(Code.RECEIPT_TWICE, detail))
    return tuple(faults)


def unproven_receipt(rules: Rules, receipt: Receipt, signature: bytes) -> str | None:
    """Why the signature isn't the provider's; the receipt itself is proven by its leaf."""
    if _signed(rules, receipt, signature) != receipt.provider:
        return "the receipt's signature is not by a key of its provider"
    return None


def unproven_transcript(receipt: Receipt, transcript: Transcript) -> str | None:
    """Why the transcript isn't the receipt's; None where every byte of it but one signature is bound to it."""
    if canonical.digest(transcript.order) != receipt.order:
        return "the order is not the receipt's"
    if canonical.content_digest(transcript.request) != transcript.order.request:
        return "the request is not the order's"
    if transcript.answer.digest() != receipt.answer:
        return "the answer is not the receipt's"
    return None


def mislabelled(rules: Rules, transcript: Transcript) -> str | None:
    """Why the transcript's kind isn't its request's. The label is bound to nothing: a relay could change it to have the
    request misread, and a cheat to have it called unknown and never checked."""
    kind = rules.kind_of(transcript.request)
    if kind is not None and kind != transcript.kind:
        return f"the request is of kind {kind!r}, labelled {transcript.kind!r}"
    return None


def unsigned_order(rules: Rules, transcript: Transcript) -> str | None:
    """Why no registered gateway is known to have signed the order. A relay can spoil this signature too."""
    owner = _signed(rules, transcript.order, transcript.order_signature)
    if owner is None:
        return "the order's signature is not by a key in the Registry"
    if owner != transcript.order.gateway or not rules.is_gateway(owner):
        return (
            f"the order names gateway 0x{transcript.order.gateway.hex()}, signed by a key of 0x{owner.hex()}"
        )
    return None


def transcript_faults(
    rules: Rules, index: int, receipt: Receipt, transcript: Transcript
) -> tuple[Fault, ...]:
    """What is wrong with a proven transcript, short of drawing its tokens again."""
    order = transcript.order
    faults: list[Fault] = []
    parties = (order.provider, order.gateway, order.model)
    if parties != (receipt.provider, receipt.gateway, receipt.model):
        faults.append(
            Fault(index, Code.FOREIGN_ORDER, "provider, gateway or model of order and receipt differ")
        )
    if order.expires_s + STALE_AFTER_S < receipt.epoch * rules.epoch_s:
        detail = f"the order expired at {order.expires_s}, epoch {receipt.epoch} began at {receipt.epoch * rules.epoch_s}"
        faults.append(Fault(index, Code.STALE_ORDER, detail))
    if receipt.amount_wei > order.cap_wei:
        faults.append(
            Fault(index, Code.OVER_CAP, f"{receipt.amount_wei} asked, the order's cap is {order.cap_wei}")
        )
    price_wei = order.price_wei(receipt.input_units, receipt.output_units)
    if receipt.amount_wei != price_wei:
        detail = f"{receipt.amount_wei} asked, by the order's prices its usage costs {price_wei}"
        faults.append(Fault(index, Code.WRONG_PRICE, detail))
    kind = rules.kind_of(transcript.request)
    if kind is None:
        return tuple(faults)
    usage = rules.recount(kind, transcript.request, transcript.answer.tokens)
    if usage != (receipt.input_units, receipt.output_units):
        detail = f"usage is {usage[0]} + {usage[1]}, the receipt says {receipt.input_units} + {receipt.output_units}"
        faults.append(Fault(index, Code.WRONG_USAGE, detail))
    return tuple(faults)


def _list_fault(code: Code, detail: str) -> Fault:
    return Fault(EPOCH_LIST, code, detail)


def _signed(rules: Rules, statement: Order | Receipt, signature: bytes) -> Address | None:
    try:
        key = rules.recover(signing_digest(statement, rules.network), signature)
    except BadSignature:
        return None
    return rules.signer(key)
