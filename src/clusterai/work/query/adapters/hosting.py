"""Queries as a service over a vault: `host` is what `Kind.hosts` promises."""

from clusterai.protocol.ids import Address
from clusterai.vault.adapters.hosting import Vault
from clusterai.work.query.adapters.service import QueryEngine
from clusterai.work.service import Declined


class QueryService:
    """Orders alone; what a program for review made is asked for as any answer is."""

    def __init__(self, vault: Vault) -> None:
        self.engine = QueryEngine(vault, vault.folder.state / "programs")

    async def answer(self, sender: Address, body: bytes) -> bytes:
        """
        Raises:
            Declined: always.
        """
        raise Declined("malformed", "queries are orders, not calls: clusterai query")


def host(vault: Vault) -> QueryService:
    return QueryService(vault)
