"""The price of a copy into the contract's escrow, once: from where it goes back if nothing is delivered in time."""

import asyncio
import time
from pathlib import Path

from clusterai.cli import options, staking
from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.jsonrpc import CallReverted
from clusterai.ledger.adapters.network import Network
from clusterai.ledger.core.calls import Approve
from clusterai.ledger.core.vault_calls import BuyCopy
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.signing import Key

DELIVERED_S = 3600
LISTED_S = 60.0
"""For a new vault's listing to reach the chain; gateways hear of it earlier."""
PAYER = "treasury.key"
"""Who pays in a local network."""


def pay(
    data: Path | None,
    network_file: Path | None,
    key_file: Path | None,
    dataset: Digest,
    request: Digest,
    requester: Address,
    most_wei: int,
) -> bool:
    """Whether it was paid now; False where this payer had paid for this request before.

    Raises:
        Failure: no key, no network, too little money, another price than was said.
    """
    folder = options.folder(data)
    network = staking.manifest(network_file, folder)
    payer = staking.signer(key_file, folder, PAYER)
    wanted = BuyCopy(dataset, request, requester, most_wei, int(time.time()) + DELIVERED_S)
    if asyncio.run(_stands(network, payer, wanted)):
        return False
    staking.carry_out(network, payer, [Approve(network.contracts.vaults, most_wei), wanted])
    return True


async def _stands(network: Network, payer: Key, wanted: BuyCopy) -> bool:
    """The contract looks at the sale before it looks at the money, so it says so whatever was approved."""
    ends_s = time.monotonic() + LISTED_S
    async with ChainClient(network) as client:
        while True:
            try:
                await client.estimate(payer.address, wanted)
            except CallReverted as error:
                reason = client.codec.revert(error.data) or ""
                if "UnknownDataset" not in reason or time.monotonic() > ends_s:
                    return "WrongState" in reason
                await asyncio.sleep(1.0)
            else:
                return False
