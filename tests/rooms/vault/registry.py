"""What a chain knows of vaults, for tests of those who ask it: who is registered with how much, and which data set is listed by whom."""

from collections.abc import Sequence

import msgspec

from clusterai.ledger.core.standing import Standing
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest, Role
from clusterai.protocol.signing import Key
from clusterai.protocol.vaults import dataset_id, subject
from clusterai.vault.core.secagg.cohort import membership

STAKE_WEI = 10**9


class Chain:
    """Asked by vaults; `away` while it doesn't answer."""

    def __init__(self) -> None:
        self.known: dict[tuple[Address, Digest], Standing] = {}
        self.away = False

    def lists(self, hot: Address, dataset: Digest, owner: Address, **changes: object) -> None:
        standing = Standing(owner, int(Role.PROVIDER), False, STAKE_WEI, owner, serial=1)
        self.known[hot, dataset] = msgspec.structs.replace(standing, **changes)

    async def standings(self, asked: Sequence[tuple[Address, Digest]]) -> list[Standing]:
        if self.away:
            raise ConnectionError("no chain")
        return [self.known.get(it, Standing(Address(bytes(20)))) for it in asked]


class Sybil:
    """A member that is a requester's own, with as much behind it as the requester got."""

    def __init__(self, at: int, kind: str, network: Domain) -> None:
        self.hot, self.key = Key(bytes([at + 1]) * 32), Key(bytes([at + 101]) * 32)
        self.member = self.key.address
        self.owner = Address(bytes([at + 1]) * 20)
        self.dataset = dataset_id(self.owner, "sybil")
        self.subject = subject(self.dataset, kind)
        self.membership = membership(self.hot, network, self.dataset, self.member)
