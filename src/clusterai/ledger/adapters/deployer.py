"""Brings a `Plan` onto a chain that is running: creations as transactions, placements where a test chain allows."""

import asyncio

from clusterai.ledger.adapters.jsonrpc import JsonRpc, Request, RpcRefused
from clusterai.ledger.core.deploy import Plan
from clusterai.ledger.core.transaction import Fees, sign_transaction
from clusterai.protocol.ids import hex0x
from clusterai.protocol.signing import Key

GAS = 8_000_000
POLL_S = 0.1


class NotDeployed(ValueError):
    """{name} could not be deployed: {why}."""


async def deploy(rpc: JsonRpc, key: Key, plan: Plan, chain_id: int, fees: Fees) -> None:
    """Send the creations that are missing, in order, and wait until each stands. Run again, it goes on.

    Raises:
        NotDeployed: the deployer isn't the key's, or its nonce has passed, or a constructor reverted.
    """
    if key.address != plan.deployer:
        raise NotDeployed(f"the plan's deployer is {hex0x(plan.deployer)}, the key is {hex0x(key.address)}")
    for nonce, creation in enumerate(plan.creations, plan.first_nonce):
        if await rpc.ask("eth_getCode", hex0x(creation.address), "latest") != "0x":
            continue
        signed = sign_transaction(key, chain_id, nonce, None, creation.data, GAS, fees)
        try:
            await rpc.ask("eth_sendRawTransaction", hex0x(signed.raw))
        except RpcRefused as error:
            if "already" not in error.message:
                raise NotDeployed(f"{creation.name} could not be deployed: {error}") from None
        # a chain has no event to wait for
        while (receipt := await rpc.ask("eth_getTransactionReceipt", hex0x(signed.hash))) is None:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        if receipt["status"] != "0x1":
            raise NotDeployed(f"{creation.name} could not be deployed: its constructor failed")


async def place(rpc: JsonRpc, plan: Plan) -> None:
    """Put the placements onto an anvil chain."""
    requests: list[Request] = []
    for placement in plan.placements:
        requests.append(Request("anvil_setCode", (hex0x(placement.address), hex0x(placement.code))))
        requests += [
            Request(
                "anvil_setStorageAt",
                (hex0x(placement.address), hex0x(key.to_bytes(32)), hex0x(value.to_bytes(32))),
            )
            for key, value in placement.storage
        ]
    for answer in await rpc.batch(requests):
        if isinstance(answer, RpcRefused):
            raise NotDeployed(f"this chain lets nobody place contracts: {answer}")
