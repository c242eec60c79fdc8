"""EIP-712 digests beside eth-account's, of types as the specification writes them."""

import re
from typing import Any

from eth_account.messages import encode_typed_data

from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.statements import ChannelConfig, signing_digest
from tests.fuzz.targets.statements import KINDS
from tests.fuzz.vectors import VECTORS

SPEC = VECTORS.parents[1] / "docs" / "spec" / "02-statements.md"
TYPES = {
    name: [tuple(field.split()) for field in fields.split(",")]
    for name, fields in re.findall(r"^(\w+)\(([\w ,]+)\)$", SPEC.read_text(), re.MULTILINE)
}
NAMES = sorted(TYPES)
LARGEST = {
    "uint8": 2**8 - 1,
    "uint32": 2**32 - 1,
    "uint40": 2**40 - 1,
    "uint64": 2**40 - 1,
    "uint128": 2**63 - 1,
}
"""Narrower than the contract's types where the statement is."""


class Reader:
    """Cuts values off a byte string; past its end all is zero."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def take(self, size: int) -> bytes:
        taken, self._data = self._data[:size], self._data[size:]
        return taken.ljust(size, b"\0")

    def value(self, kind: str) -> int | bytes:
        if kind in LARGEST:
            return int.from_bytes(self.take(9)) % (LARGEST[kind] + 1)
        return self.take(20 if kind == "address" else 32)


def once(data: bytes) -> bool:
    """Any statement under any domain: the same 32 bytes from both."""
    reader = Reader(data)
    name = NAMES[reader.take(1)[0] % len(NAMES)]
    domain = Domain(
        name=reader.take(reader.take(1)[0] % 40).decode("latin-1"),
        version=reader.take(1).decode("latin-1"),
        chain_id=int.from_bytes(reader.take(8)),
        contract=Address(reader.take(20)),
    )
    values = [reader.value(kind) for kind, _ in TYPES[name]]
    statement = KINDS[name](*values)
    if isinstance(statement, ChannelConfig):
        ours = statement.channel_id(domain)
    else:
        ours = signing_digest(statement, domain)
    theirs: Any = encode_typed_data(
        domain_data={
            "name": domain.name,
            "version": domain.version,
            "chainId": domain.chain_id,
            "verifyingContract": domain.contract,
        },
        message_types={name: [{"name": field, "type": kind} for kind, field in TYPES[name]]},
        message_data={field: value for (_, field), value in zip(TYPES[name], values, strict=True)},
    )
    assert ours == Digest(keccak(b"\x19" + theirs.version + theirs.header + theirs.body))
    return True


def seeds() -> list[bytes]:
    return [bytes((at,)) + bytes(range(1, 250)) for at in range(len(NAMES))]
