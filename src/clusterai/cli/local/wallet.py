"""Transactions of a person at a keyboard: few, in order, each awaited. Daemons have an outbox of their own."""

import asyncio
import time
from collections.abc import Sequence

from clusterai.cli.failure import Failure
from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.jsonrpc import CallReverted, Request, RpcRefused
from clusterai.ledger.core.calls import Call
from clusterai.ledger.core.transaction import sign_transaction
from clusterai.protocol.ids import Digest, hex0x
from clusterai.protocol.signing import Key

GAS = 2_000_000
"""Enough for any single call of a person; what isn't used isn't paid."""
MINED_S = 120.0
CURES = {
    "NotEntitled": "sign with a key that may, --key FILE: the owner's or its node's hot key (those of `clusterai up` lie in keys/ of its data folder)",
    "ERC20InsufficientBalance": "{0} has too few tokens: send it some (those of `clusterai up`: clusterai account fund 100 --to {0}), or sign with another --key",
    "WrongStage": "it isn't the time for this yet, or any more",
}
"""By how the contract's error begins."""


async def send(client: ChainClient, steps: Sequence[tuple[Key, Call]], gas: int = GAS) -> list[Digest]:
    """Send calls in order, each by its key and with at most so much gas; all are mined when this returns.

    Raises:
        Failure: one reverted or wasn't mined in time; those before it are done.
    """
    if not steps:
        return []
    fees = await client.fees()
    nonces = {
        key.address: await client.nonce(key.address)
        for key, _ in {k.address: (k, c) for k, c in steps}.values()
    }
    requests: list[Request] = []
    hashes: list[Digest] = []
    for key, call in steps:
        to, data = client.codec.encode(call)
        nonce = nonces[key.address]
        signed = sign_transaction(key, client.network.chain_id, nonce, to, data, gas, fees)
        nonces[key.address] += 1
        requests.append(Request("eth_sendRawTransaction", (hex0x(signed.raw),)))
        hashes.append(signed.hash)
    for (_, call), answer in zip(steps, await client.rpc.batch(requests), strict=True):
        if isinstance(answer, RpcRefused):
            reason = client.codec.revert(answer.data) if isinstance(answer, CallReverted) else answer.message
            raise Failure(f"the chain refused {type(call).__name__}", reason)
    await _mined(client, steps, hashes)
    return hashes


async def _mined(client: ChainClient, steps: Sequence[tuple[Key, Call]], hashes: Sequence[Digest]) -> None:
    ends_s = time.monotonic() + MINED_S
    while None in (receipts := await client.receipts(hashes)):
        if time.monotonic() > ends_s:
            raise Failure(
                f"transactions weren't mined within {MINED_S:.0f} s", next="try again when the chain is well"
            )
        await asyncio.sleep(0.05)
    for (key, call), receipt in zip(steps, receipts, strict=True):
        if receipt is not None and not receipt.success:
            reason = client.codec.revert(receipt.returned)
            raise Failure(
                f"the chain reverted {type(call).__name__} of {hex0x(key.address)}",
                reason or "the contract gave no reason",
                next(
                    (
                        cure.format(hex0x(key.address))
                        for name, cure in CURES.items()
                        if reason.startswith(name)
                    ),
                    "",
                ),
            )
