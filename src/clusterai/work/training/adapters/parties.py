"""A vault as the requester reaches it, and all the ways in which that can fail: whoever fails in one of them has dropped out.

`GONE` is what peers and links can do. Whatever else is raised on the way is our own fault, or our disk's, and ends the run with its
traceback: taken for a drop-out it would cost ε, and nobody would ever hear of it.
"""

import asyncio
from typing import Protocol, TypeVar

import msgspec

from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.work.training.spec import No, Round, decode_reply
from clusterai.work.uses import Paid

CALL_S = 120.0
A = TypeVar("A", bound=msgspec.Struct)


class Lost(Exception):
    """This vault can't be asked now, or what came isn't its answer: {why}."""

    def __init__(self, why: str, code: str = "") -> None:
        super().__init__(why)
        self.code = code


class VaultSaid(RuntimeError):
    """A vault refused, or answered what isn't one: {code}: {detail}."""

    def __init__(self, why: str, code: str = "") -> None:
        super().__init__(why)
        self.code = code


GONE = (Lost, VaultSaid, Malformed, ConnectionError, TimeoutError)


class Party(Protocol):
    """A vault, as the requester reaches it. What can fail on the way there raises one of `GONE`, and nothing else does."""

    name: str
    subject: Digest
    grant: Digest
    signer: Address
    """The hot key that signs for it."""
    network: Domain

    async def call(self, data: bytes) -> bytes:
        """Sealed on the way there and back."""
        ...

    async def order(self, request: Round, most_wei: int | None) -> Paid: ...


async def ask(party: Party, call: msgspec.Struct, kind: type[A], patience_s: float = CALL_S) -> A:
    """
    Raises:
        One of `GONE`.
    """
    async with asyncio.timeout(patience_s):
        reply = decode_reply(await party.call(canonical.encode(call)))
    if isinstance(reply, No):
        raise VaultSaid(f"{reply.code}: {reply.detail}", reply.code)
    if not isinstance(reply, kind):
        raise VaultSaid(f"answered {type(reply).__name__}")
    return reply


__all__ = ["GONE", "Lost", "Paid", "Party", "VaultSaid", "ask"]
