"""A vault as small as the kind of work allows: one grant, a budget, and a log in memory."""

import asyncio
import functools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, ParamSpec

import msgspec
import numpy as np
from nacl.public import PrivateKey, PublicKey, SealedBox
from numpy.typing import NDArray

from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.signing import Key
from clusterai.protocol.vaults import SignedUse, Use, dataset_id
from clusterai.vault.core.schema import Column, Schema
from clusterai.vault.core.terms import Denied
from clusterai.work.query.spec import QuerySpec, asked

NETWORK = Domain("clusterai", "1", 31415, Address(bytes(20)))
REQUESTER, VAULT_KEY = Key(b"\x11" * 32), Key(b"\x22" * 32)
SEAL = PrivateKey(b"\x33" * 32)
GRANT = Digest(b"\x44" * 32)
SCHEMA = Schema(
    columns=(
        Column(name="person", kind="int"),
        Column(name="age", kind="int", low=0, high=100),
        Column(name="income", kind="float", low=0, high=200),
        Column(name="ward", kind="category", categories=("north", "south")),
        Column(name="sick", kind="bool"),
    ),
    unit="person",
)


def rows(count: int = 500, seed: int = 1) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(seed)
    return {
        "person": np.arange(count),
        "age": random.integers(0, 101, count),
        "income": random.uniform(0, 250, count),
        "ward": random.choice(np.array(["north", "south"], dtype=object), count),
        "sick": random.random(count) < 0.2,
    }


class Permit(msgspec.Struct, frozen=True):
    requester: Address
    seal_to: bytes


class FakeVault:
    """
    Attributes:
        budget_micro: what is left of the grant's.
        program: of the grant, where it is for one.
    """

    def __init__(
        self,
        data: dict[str, NDArray[Any]] | None = None,
        schema: Schema = SCHEMA,
        budget_micro: int = 10_000_000,
        program: bytes = b"",
        name: str = "a",
    ) -> None:
        self.dataset = dataset_id(VAULT_KEY.address, name)
        self.snapshot = Digest(keccak(b"snapshot"))
        self.schema, self.network, self.program = schema, NETWORK, program
        self.data = rows() if data is None else data
        self.budget_micro = self.granted_micro = budget_micro
        self.spends: dict[Digest, int] = {}
        self.uses: dict[Digest, SignedUse] = {}
        self.revoked = self.broken = False
        self.delta_pico = 0

    def permit(self, grant: Digest, signer: Address, operation: int, code: Digest) -> Permit:
        if self.revoked:
            raise Denied("revoked", "the owner took it back")
        if grant != GRANT or signer != REQUESTER.address:
            raise Denied("requester", "this grant is somebody else's")
        if bool(self.program) != (operation == 2):
            raise Denied("operation", "the grant is for something else")
        return Permit(signer, bytes(SEAL.public_key))

    def code(self, grant: Digest) -> bytes:
        return self.program

    def spend(self, grant: Digest, order: Digest, epsilon_micro: int, delta_pico: int) -> object:
        if order not in self.spends:
            if epsilon_micro > self.budget_micro:
                raise Denied("budget", f"{self.budget_micro} millionths of ε are left")
            self.budget_micro -= epsilon_micro
            self.delta_pico += delta_pico
            self.spends[order] = epsilon_micro
        return self.spends[order]

    def used(self, order: Digest, result: Digest) -> SignedUse:
        if order not in self.uses:
            spent = self.granted_micro - self.budget_micro
            use = Use(
                self.dataset,
                len(self.uses),
                GRANT,
                REQUESTER.address,
                order,
                self.spends[order],
                spent,
                spent,
                result,
                1_000,
            )
            self.uses[order] = SignedUse(use, VAULT_KEY.sign(use.signing_digest(NETWORK)))
        return self.uses[order]

    def hold(self, grant: Digest, order: Digest, output: bytes) -> object:
        raise Denied("unknown", "nothing is reviewed here")

    def columns(self, names: Sequence[str]) -> Mapping[str, NDArray[Any]]:
        if self.broken:
            raise OSError("piece 7 holds patient Smith")
        return {name: self.data[name] for name in names}

    def noise_seed(self, order: Digest, beacon: bytes) -> bytes:
        return keccak(b"noise key" + order + beacon)

    def sealed(self, to: bytes, data: bytes) -> bytes:
        return SealedBox(PublicKey(to)).encrypt(data)


def query(
    vault: FakeVault, sql: str = "", nonce: int = 1, epsilon_micro: int = 1_000_000, **more: Any
) -> QuerySpec:
    """A query as the requester signs it."""
    unsigned = asked(
        dataset=vault.dataset,
        snapshot=vault.snapshot,
        grant=GRANT,
        requester=REQUESTER.address,
        nonce=nonce.to_bytes(32),
        epsilon_micro=epsilon_micro,
        sql=sql,
        **more,
    )
    return unsigned.signed(REQUESTER, NETWORK)


def unsealed(box: bytes) -> bytes:
    return SealedBox(SEAL).decrypt(box)


P = ParamSpec("P")


def awaited(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A test that is a coroutine, run to its end."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run
