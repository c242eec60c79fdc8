"""Signed Ethereum transactions: strict bytes to a value, and who sent it.

Types 0 (legacy, EIP-155 only), 1 (EIP-2930) and 2 (EIP-1559). Every second spelling of the same transaction is
refused (leading zeros, long lengths, trailing bytes, high s), so that one transaction has one hash.
"""

import msgspec
from coincurve import PublicKey

from clusterai.ledger.core.rlp import BadRlp, Rlp, decode_rlp, encode_rlp, integer_bytes
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.keccak import keccak

MAX_TRANSACTION_BYTES = 128 * 1024
"""As go-ethereum's pool: initcode may be 48 KiB, and nothing honest comes near the rest."""

_HALF_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364140 // 2


class BadTransaction(ValueError):
    """These bytes are no transaction this chain takes: {why}."""


class AccessEntry(msgspec.Struct, frozen=True):
    address: Address
    slots: tuple[int, ...]


class Transaction(msgspec.Struct, frozen=True):
    """A transaction whose signature was checked; `raw` is what was signed and sent."""

    raw: bytes
    hash: Digest
    sender: Address
    kind: int
    chain_id: int
    nonce: int
    gas_price: int
    """legacy and 2930: the price; 1559: max fee per gas"""
    priority: int
    gas: int
    to: Address | None
    value: int
    data: bytes
    access: tuple[AccessEntry, ...]
    v: int
    r: int
    s: int


def decode_transaction(raw: bytes, chain_id: int) -> Transaction:
    """Decode and recover the sender.

    Raises:
        BadTransaction: malformed, of another type or chain, or its signature is not one.
    """
    if len(raw) > MAX_TRANSACTION_BYTES:
        raise BadTransaction(f"oversized data: {len(raw)} bytes, the limit is {MAX_TRANSACTION_BYTES}")
    if not raw:
        raise BadTransaction("no bytes")
    if raw[0] < 0xC0 and raw[0] not in (1, 2):
        raise BadTransaction(f"transaction type not supported: {raw[0]}; send type 0, 1 or 2")
    try:
        return _legacy(raw, chain_id) if raw[0] >= 0xC0 else _typed(raw, chain_id)
    except BadRlp as error:
        raise BadTransaction(str(error)) from None


def _legacy(raw: bytes, chain_id: int) -> Transaction:
    fields = _list(decode_rlp(raw), 9)
    v, r, s = _integer(fields[6], 8), _integer(fields[7]), _integer(fields[8])
    if v in (27, 28):
        raise BadTransaction("only replay-protected (EIP-155) transactions allowed over RPC")
    _same_chain((v - 35) // 2, chain_id)
    signed = keccak(encode_rlp([*fields[:6], integer_bytes(chain_id), b"", b""]))
    return _built(raw, 0, chain_id, fields, fields[1], fields[1], 2, (), signed, (v, (v - 35) % 2, r, s))


def _typed(raw: bytes, chain_id: int) -> Transaction:
    kind = raw[0]
    extra = 1 if kind == 2 else 0
    fields = _list(decode_rlp(raw[1:]), 11 + extra)
    parity, r, s = (_integer(field) for field in fields[8 + extra :])
    _same_chain(_integer(fields[0], 8), chain_id)
    signed = keccak(raw[:1] + encode_rlp(fields[: 8 + extra]))
    access = tuple(_access(entry) for entry in _items(fields[7 + extra]))
    head = fields[1:]
    return _built(
        raw,
        kind,
        chain_id,
        head,
        fields[2 + extra],
        fields[2],
        2 + extra,
        access,
        signed,
        (parity, parity, r, s),
    )


def _built(
    raw: bytes,
    kind: int,
    chain_id: int,
    fields: list[Rlp],
    fee: Rlp,
    priority: Rlp,
    gas_at: int,
    access: tuple[AccessEntry, ...],
    signed: bytes,
    signature: tuple[int, int, int, int],
) -> Transaction:
    """`fields` begin with the nonce; gas, to, value and data stand in a row from `gas_at`."""
    to = _bytes(fields[gas_at + 1])
    if len(to) not in (0, 20):
        raise BadTransaction(f"rlp: the receiver has {len(to)} bytes instead of 20 or none")
    v, parity, r, s = signature
    transaction = Transaction(
        raw=raw,
        hash=Digest(keccak(raw)),
        sender=_sender(signed, parity, r, s),
        kind=kind,
        chain_id=chain_id,
        nonce=_integer(fields[0], 8),
        gas_price=_integer(fee),
        priority=_integer(priority),
        gas=_integer(fields[gas_at], 8),
        to=Address(to) if to else None,
        value=_integer(fields[gas_at + 2]),
        data=_bytes(fields[gas_at + 3]),
        access=access,
        v=v,
        r=r,
        s=s,
    )
    if transaction.priority > transaction.gas_price:
        raise BadTransaction("max priority fee per gas higher than max fee per gas")
    if transaction.nonce == 2**64 - 1:
        raise BadTransaction("nonce has max value")
    return transaction


def _sender(signed: bytes, parity: int, r: int, s: int) -> Address:
    if parity not in (0, 1) or not 0 < s <= _HALF_ORDER or r == 0:
        raise BadTransaction("invalid transaction v, r, s values")
    try:
        key = PublicKey.from_signature_and_message(
            r.to_bytes(32) + s.to_bytes(32) + bytes((parity,)), signed, hasher=None
        )
    except Exception as error:  # coincurve raises bare Exception for a point off the curve
        raise BadTransaction("invalid transaction v, r, s values") from error
    return Address(keccak(key.format(compressed=False)[1:])[-20:])


def _same_chain(theirs: int, ours: int) -> None:
    if theirs != ours:
        raise BadTransaction(f"invalid chain id for signer: have {theirs} want {ours}")


def _access(entry: Rlp) -> AccessEntry:
    address, slots = _list(entry, 2)
    where = _bytes(address)
    keys = [_bytes(slot) for slot in _items(slots)]
    if len(where) != 20 or any(len(key) != 32 for key in keys):
        raise BadTransaction("rlp: malformed access list")
    return AccessEntry(Address(where), tuple(int.from_bytes(key) for key in keys))


def _items(item: Rlp) -> list[Rlp]:
    if isinstance(item, bytes):
        raise BadTransaction("rlp: expected a list")
    return item


def _list(item: Rlp, count: int) -> list[Rlp]:
    found = _items(item)
    if len(found) != count:
        raise BadTransaction(f"rlp: {len(found)} fields instead of {count}")
    return found


def _bytes(item: Rlp) -> bytes:
    if isinstance(item, bytes):
        return item
    raise BadTransaction("rlp: expected bytes, found a list")


def _integer(item: Rlp, size: int = 32) -> int:
    data = _bytes(item)
    if len(data) > size or data[:1] == b"\0":
        raise BadTransaction("rlp: an integer with leading zeros or too many bytes")
    return int.from_bytes(data)
