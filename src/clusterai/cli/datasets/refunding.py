"""Copies that somebody paid for: where the money is, and taking back what nothing was delivered for."""

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from clusterai.cli import options, staking
from clusterai.cli.datasets.paying import PAYER
from clusterai.cli.machines import history
from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.jsonrpc import CallReverted
from clusterai.ledger.adapters.network import Network
from clusterai.ledger.core import events
from clusterai.ledger.core.vault_calls import CloseSale
from clusterai.protocol.ids import Address, Digest, digest, hex0x
from clusterai.protocol.signing import Key

State = Literal["in escrow", "delivered", "paid", "given back"]


class Purchase(msgspec.Struct, frozen=True):
    """
    Attributes:
        deliver_by_s: if nothing is delivered by then, the money can be taken back.
    """

    sale: str
    dataset: str
    requester: str
    price_wei: int
    deliver_by_s: int
    state: State
    grant: str = ""
    revoked: bool = False

    def may_come_back(self, now_s: float) -> bool:
        """The contract decides; this spares asking it of what it would refuse anyway."""
        return (
            self.revoked
            if self.state == "delivered"
            else self.state == "in escrow" and now_s > self.deliver_by_s
        )


def purchases(told: Iterable[Any], payer: Address) -> list[Purchase]:
    """Of one payer, the oldest first, by all that the chain has told."""
    found: dict[Digest, Purchase] = {}
    grants: dict[Digest, Digest] = {}
    owners: dict[Digest, Address] = {}
    for event in told:
        match event:
            case events.DatasetListed(dataset, owner):
                owners[dataset] = owner
            case events.CopyBought(sale, dataset, requester, _, who, price, deliver_by_s) if who == payer:
                found[sale] = Purchase(
                    hex0x(sale), hex0x(dataset), hex0x(requester), price, deliver_by_s, "in escrow"
                )
            case events.CopyDelivered(sale, grant) if sale in found:
                grants[grant] = sale
                found[sale] = msgspec.structs.replace(found[sale], state="delivered", grant=hex0x(grant))
            case events.GrantEnded(grant) if grant in grants:
                found[grants[grant]] = msgspec.structs.replace(found[grants[grant]], revoked=True)
            case events.Convicted(convict):
                for name, it in found.items():
                    if owners.get(digest(it.dataset)) == convict and it.state == "delivered":
                        found[name] = msgspec.structs.replace(it, revoked=True)
            case events.SaleClosed(sale, paid) if sale in found:
                found[sale] = msgspec.structs.replace(found[sale], state="paid" if paid else "given back")
            case _:
                pass
    return list(found.values())


def refund(data: Path | None, network_file: Path | None, key_file: Path | None) -> list[Purchase]:
    """Take back all that can be, and how every purchase stands then.

    Raises:
        Failure: no key, no network.
    """
    folder = options.folder(data)
    network = staking.manifest(network_file, folder)
    payer = staking.signer(key_file, folder, PAYER)
    found = purchases(history(network), payer.address)
    due = [CloseSale(digest(it.sale)) for it in found if it.may_come_back(time.time())]
    due = asyncio.run(_closable(network, payer, due))
    if not due:
        return found
    staking.carry_out(network, payer, due)
    return purchases(history(network), payer.address)


async def _closable(network: Network, payer: Key, wanted: list[CloseSale]) -> list[CloseSale]:
    """Those that the contract would close now: its clock counts, not ours."""
    found: list[CloseSale] = []
    async with ChainClient(network) as client:
        for one in wanted:
            try:
                await client.estimate(payer.address, one)
            except CallReverted:
                continue
            found.append(one)
    return found
