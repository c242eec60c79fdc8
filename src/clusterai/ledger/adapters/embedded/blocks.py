"""Blocks: headers as Ethereum hashes them, the beacon in each, and the digest of the state.

Transaction and receipt roots are flat digests, not tries, and `stateRoot` is the sum of the hashes of all entries:
it can be kept up to date at two hashes for each changed entry, and it is for finding a damaged or diverging state,
not for proofs to light clients, which an embedded chain of one process can't give anyway.
"""

from collections.abc import Iterable

import msgspec
from blake3 import blake3

from clusterai.ledger.adapters.embedded.evm import (
    ABSENT,
    BLOCK_GAS_LIMIT,
    Account,
    BlockContext,
    Outcome,
    Writes,
)
from clusterai.ledger.adapters.embedded.transactions import Transaction
from clusterai.ledger.core.rlp import encode_rlp, integer_bytes
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.keccak import keccak

EMPTY_UNCLES = bytes.fromhex("1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347")
NO_BLOOM = bytes(256)
FULL_BLOOM = b"\xff" * 256
"""A bloom filter may say "perhaps" too often but never "no" wrongly; ours says "perhaps" wherever there are logs,
and saves three hashes for each address and topic."""

_MODULUS = 2**256


class Header(msgspec.Struct, frozen=True):
    number: int
    parent: Digest
    timestamp_s: int
    prevrandao: Digest
    state: int
    transactions: Digest = ZERO_DIGEST
    receipts: Digest = ZERO_DIGEST
    gas_used: int = 0
    has_logs: bool = False

    def rlp(self) -> bytes:
        return encode_rlp(
            [
                self.parent,
                EMPTY_UNCLES,
                bytes(20),
                self.state.to_bytes(32),
                self.transactions,
                self.receipts,
                self.bloom,
                b"",
                integer_bytes(self.number),
                integer_bytes(BLOCK_GAS_LIMIT),
                integer_bytes(self.gas_used),
                integer_bytes(self.timestamp_s),
                b"",
                self.prevrandao,
                bytes(8),
                b"",
            ]
        )

    @property
    def bloom(self) -> bytes:
        return FULL_BLOOM if self.has_logs else NO_BLOOM

    def digest(self) -> Digest:
        return Digest(keccak(self.rlp()))

    def context(self) -> BlockContext:
        return BlockContext(self.number, self.timestamp_s, self.prevrandao)


class Included(msgspec.Struct, frozen=True):
    """A transaction with its place in a block and what came of it."""

    transaction: Transaction
    outcome: Outcome
    index: int
    first_log: int
    gas_before: int


class Block(msgspec.Struct, frozen=True):
    header: Header
    hash: Digest
    included: tuple[Included, ...] = ()


def beacon(seed: bytes, number: int, parent: Digest) -> Digest:
    """Nobody without the chain's seed foretells it; whoever has the journal recomputes it."""
    return Digest(keccak(seed + number.to_bytes(8) + parent))


def transactions_digest(transactions: Iterable[Transaction]) -> Digest:
    return Digest(keccak(b"".join(transaction.hash for transaction in transactions)))


def receipts_digest(outcomes: Iterable[Outcome]) -> Digest:
    hasher = blake3()
    for outcome in outcomes:
        hasher.update(
            msgspec.msgpack.encode((outcome.success, outcome.gas_used, outcome.created, outcome.logs))
        )
    return Digest(hasher.digest())


def account_entry(address: Address, account: Account) -> int:
    if account == ABSENT:
        return 0
    packed = msgspec.msgpack.encode(
        (address, account.nonce, integer_bytes(account.balance), account.code_hash)
    )
    return int.from_bytes(blake3(packed).digest())


def slot_entry(address: Address, key: int, value: int) -> int:
    if value == 0:
        return 0
    return int.from_bytes(blake3(address + key.to_bytes(32) + value.to_bytes(32)).digest())


def moved(state: int, writes: Writes) -> int:
    """The state's digest after `writes`."""
    for account in writes.accounts:
        state += account_entry(account.address, account.after) - account_entry(
            account.address, account.before
        )
    for slot in writes.slots:
        state += slot_entry(slot.address, slot.key, slot.after) - slot_entry(
            slot.address, slot.key, slot.before
        )
    return state % _MODULUS
