"""Vouchers: signed and verified per second on one core beside eth-account, and what settling them costs on anvil.

    python bench/vouchers.py [--seconds 2]

1. Signing and recovering x402 vouchers: hand-packed EIP-712 digests and coincurve, beside eth-account's typed data, in turn.
2. Gas per request of one channel when its receiver claims once for 1, 100 or 10,000 requests, then settles; beside one
   token transfer per request, which is what paying each request on chain would cost.
"""

# ruff: noqa: E402 - the tests' own chain is started here too, from the repository's root
import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from eth_account import Account
from eth_account.messages import SignableMessage, encode_typed_data

from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.outbox import transact
from clusterai.ledger.core import calls
from clusterai.ledger.core.calls import Mined, VoucherClaim
from clusterai.protocol.ids import Digest, checksummed, hex0x
from clusterai.protocol.signing import Key, recover
from clusterai.protocol.statements import ChannelConfig, Voucher, channels_domain, signing_digest
from tests.rooms.ledger.conftest import CHAIN_ID, OWNER, World, start_world

PRICE_WEI = 10_000
REQUESTS = (1, 100, 10_000)
PAYER, RECEIVER = Key(b"\x51" * 32), Key(b"\x52" * 32)
CHANNEL = Digest(b"\x33" * 32)
TYPES = {
    "Voucher": [{"name": "channelId", "type": "bytes32"}, {"name": "maxClaimableAmount", "type": "uint128"}]
}


def rate(work: Callable[[int], object], seconds: float) -> float:
    """Calls per second of processor time."""
    count, began_s = 0, time.process_time()
    while time.process_time() - began_s < seconds:
        for _ in range(20):
            work(count)
            count += 1
    return count / (time.process_time() - began_s)


def signatures(seconds: float) -> None:
    domain = channels_domain(CHAIN_ID, OWNER.address)
    account = Account.from_key(PAYER.secret())
    plain = {
        "name": domain.name,
        "version": domain.version,
        "chainId": CHAIN_ID,
        "verifyingContract": checksummed(OWNER.address),
    }

    def typed(amount: int) -> SignableMessage:
        return encode_typed_data(plain, TYPES, {"channelId": CHANNEL, "maxClaimableAmount": amount})

    def ours_signs(amount: int) -> bytes:
        return PAYER.sign(signing_digest(Voucher(CHANNEL, amount), domain))

    signature = ours_signs(7)
    assert bytes(account.sign_message(typed(7)).signature) == signature, "both must sign the same bytes"

    def ours_verifies(_: int) -> None:
        assert recover(signing_digest(Voucher(CHANNEL, 7), domain), signature) == PAYER.address

    def theirs_signs(amount: int) -> object:
        return account.sign_message(typed(amount))

    def theirs_verifies(_: int) -> None:
        assert Account.recover_message(typed(7), signature=signature) == account.address

    print(f"{'per second of one core':<28}{'ours':>10}{'eth-account':>14}{'ratio':>8}")
    for name, ours, theirs in (
        ("vouchers signed", ours_signs, theirs_signs),
        ("vouchers verified", ours_verifies, theirs_verifies),
    ):
        rates = rate(ours, seconds), rate(theirs, seconds)
        print(f"{name:<28}{rates[0]:>10,.0f}{rates[1]:>14,.0f}{rates[0] / rates[1]:>8.1f}")


async def gas_of(client: ChainClient, mined: Mined) -> int:
    receipt = await client.rpc.ask("eth_getTransactionReceipt", hex0x(mined.transaction))
    return int(receipt["gasUsed"], 16)


async def settlement(world: World) -> None:
    contracts = world.network.contracts
    domain = channels_domain(CHAIN_ID, contracts.channels)
    async with world.client() as client:
        funded = 10**9
        [paid] = await transact(client, OWNER, calls.Transfer(PAYER.address, funded))
        [paid] = await transact(client, OWNER, calls.Transfer(PAYER.address, 1))
        transfer = await gas_of(client, paid)
        await transact(client, PAYER, calls.Approve(contracts.channels, funded))
        print(
            f"\n{'gas on anvil':<28}{'claim':>10}{'per request':>14}{'of a transfer':>15}   (transfer: {transfer:,})"
        )
        for salt, requests in enumerate(REQUESTS):
            config = ChannelConfig(
                PAYER.address,
                PAYER.address,
                RECEIVER.address,
                RECEIVER.address,
                contracts.token,
                900,
                salt.to_bytes(32),
            )
            await transact(client, PAYER, calls.Deposit(config, 2 * requests * PRICE_WEI))
            channel = config.channel_id(domain)
            gas = 0
            # the first claim of a channel also writes fresh storage; the second is what every later one costs
            for claim in (1, 2):
                total = 0
                signature = b""
                for at in range(requests):
                    total = ((claim - 1) * requests + at + 1) * PRICE_WEI
                    signature = PAYER.sign(signing_digest(Voucher(channel, total), domain))
                row = VoucherClaim(config, total, signature, total)
                [mined] = await transact(client, RECEIVER, calls.Claim((row,)))
                gas = await gas_of(client, mined)
            share = gas / requests / transfer
            print(f"{f'{requests:,} requests a claim':<28}{gas:>10,}{gas / requests:>14,.1f}{share:>14.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Vouchers beside eth-account, and their settlement on anvil")
    parser.add_argument("--seconds", type=float, default=2.0, help="processor seconds for each rate")
    chosen = parser.parse_args()
    signatures(chosen.seconds)
    with tempfile.TemporaryDirectory() as folder:
        world = start_world(is_anvil=True, data=Path(folder))
        try:
            asyncio.run(settlement(world))
        finally:
            world.process.end()


if __name__ == "__main__":
    main()
