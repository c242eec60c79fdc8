"""A vault, and a requester who asks for access and queries it, for tests with real processes."""

import asyncio
import csv
import secrets
from pathlib import Path

from clusterai.protocol.access import AskAccess, AskUses, Standing, Told, UsesShown, decode_told
from clusterai.protocol.canonical import encode
from clusterai.protocol.ids import ZERO_DIGEST, Digest
from clusterai.protocol.vaults import Operation, SignedUse, subject
from clusterai.sdk.identity import Identity
from clusterai.sdk.vaults import Done, Listed, Vaults
from clusterai.vault.adapters.folder import VaultFolder
from clusterai.vault.adapters.founding import found_vault
from clusterai.vault.adapters.importing import find
from clusterai.vault.core.policy import MICRO, Policy
from clusterai.vault.core.schema import Column, Schema
from clusterai.work.query.spec import Answer, QuerySpec, Result, asked, decode_result, decode_said

POLL_S = 0.2
"""Between questions whether the chain has the grant by now."""
MILLI_WEI, USE_WEI = 1_000, 50_000
SCHEMA = Schema(
    columns=(
        Column(name="patient", kind="int", low=0, high=10_000),
        Column(name="age", kind="int", low=0, high=120),
        Column(name="ward", kind="category", categories=("east", "west"), access="public"),
    ),
    unit="patient",
)
POLICY = Policy(
    grant_epsilon_micro=5 * MICRO,
    requester_epsilon_micro=5 * MICRO,
    total_epsilon_micro=20 * MICRO,
    milli_epsilon_wei=MILLI_WEI,
    use_wei=USE_WEI,
    auto_operations=(Operation.QUERY,),
    auto_epsilon_micro=5 * MICRO,
)


def vault_at(folder: Path, name: str = "hearts", rows: int = 400) -> VaultFolder:
    """A vault of made-up patients that grants queries without asking."""
    data = folder / f"{name}.csv"
    with data.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(("patient", "age", "ward"))
        out.writerows((at, 20 + at % 60, ("east", "west")[at % 2]) for at in range(rows))
    return found_vault(folder / name, name, folder / f"{name}.key", SCHEMA, find(data), POLICY)


class Requester:
    """Who asks; holds its own keys."""

    def __init__(self, vaults: Vaults, data: Listed) -> None:
        self.vaults = vaults
        self.data = data
        self.identity = Identity.make()

    async def told(self, ask: AskAccess | AskUses) -> Told:
        return decode_told(await self.vaults.ask(self.identity, self.data, "vault", encode(ask)))

    def asks(self, now_s: float, uses: int = 100) -> AskAccess:
        """A request for access; told twice, it is one."""
        purpose = "how old are they"
        signed = self.identity.request(
            self.data.dataset,
            self.data.network,
            Operation.QUERY,
            purpose,
            5 * MICRO,
            uses,
            10**9,
            int(now_s) + 86_400,
        )
        return AskAccess(signed, purpose)

    async def granted(self, now_s: int, uses: int = 100) -> Digest:
        """Ask for access; the grant's id."""
        return await self.until_granted(self.asks(now_s, uses))

    async def until_granted(self, asked: AskAccess) -> Digest:
        while True:
            told = await self.told(asked)
            assert isinstance(told, Standing), told
            (status,) = told.requests
            if status.state == "granted":
                return Digest(status.grant)
            assert status.state == "approved", status
            await asyncio.sleep(POLL_S)

    def query(self, grant: Digest, sql: str, epsilon_micro: int = MICRO // 10) -> QuerySpec:
        unsigned = asked(
            dataset=self.data.dataset,
            snapshot=Digest(self.data.listing.snapshot),
            grant=grant,
            requester=self.identity.address,
            nonce=secrets.token_bytes(32),
            epsilon_micro=epsilon_micro,
            sql=sql,
        )
        return unsigned.signed(self.identity.key, self.data.network)

    async def order(self, spec: QuerySpec, key: str = "") -> Done:
        about = subject(self.data.dataset, "query")
        return await self.vaults.order(about, "query", spec.canonical(), key=key)

    def read(self, spec: QuerySpec, answer: bytes) -> tuple[Result, SignedUse]:
        said = decode_said(answer)
        assert isinstance(said, Answer), said
        assert said.query == spec.digest()
        result = decode_result(self.identity.opened(self.data.seal_to, said.sealed, ZERO_DIGEST))
        assert result.digest() == said.use.use.result
        return result, said.use

    async def uses(self) -> tuple[SignedUse, ...]:
        told = await self.told(AskUses())
        assert isinstance(told, UsesShown), told
        return told.uses
