"""The chain's own word on a receipt: the transactions that committed, judged, claimed and paid it, asked of the chain itself."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.jsonrpc import CallReverted, ChainDown, RpcRefused
from clusterai.ledger.adapters.network import BadNetwork, load_network
from clusterai.ledger.core import events
from clusterai.protocol.ids import address, digest, hex0x
from clusterai.sdk import Receipt

MOST_BLOCKS = 100_000
"""How far behind the head to look: about two days of a block every 2 s."""


class Transaction(msgspec.Struct, frozen=True):
    """`what`: committed, voted, convicted, cleared, claimed, settled, reclaimed. `note`: at what rate its epoch is audited, and
    how many of it were."""

    what: str
    hash: str
    block: int
    note: str = ""


async def _find(network_file: Path, receipt: Receipt) -> list[Transaction]:
    network = load_network(network_file)
    contracts = network.contracts
    provider, channel = address(receipt.provider), digest(receipt.channel)
    async with ChainClient(network) as client:
        head = (await client.head()).number
        found: list[Any] = await client.rpc.ask(
            "eth_getLogs",
            {
                "address": [hex0x(contracts.court), hex0x(contracts.channels)],
                "fromBlock": hex(max(0, head - MOST_BLOCKS)),
                "toBlock": hex(head),
                "topics": [
                    [
                        hex0x(topic)
                        for of, topic in client.codec.topics()
                        if of in (contracts.court, contracts.channels)
                    ],
                    [hex0x(bytes(12) + provider), hex0x(channel)],
                ],
            },
        )
        told = [
            (
                client.codec.event(
                    address(log["address"]),
                    tuple(bytes.fromhex(topic[2:]) for topic in log["topics"]),
                    bytes.fromhex(log["data"][2:]),
                ),
                log["transactionHash"],
                int(log["blockNumber"], 16),
            )
            for log in found
        ]
    return trace(receipt, told)


def trace(receipt: Receipt, told: list[tuple[Any, str, int]]) -> list[Transaction]:
    """Of a provider's and a channel's events, in the chain's order, those that concern this receipt.

    A claim concerns it when it is the first whose total covers the receipt's place in the channel; the payout is the
    provider's first after two windows, which the gateway's `settled` state tells.
    """
    channel = digest(receipt.channel)
    kept: list[Transaction] = []
    claimed = False
    for event, transaction, block in told:
        match event:
            case events.EpochCommitted(_, epoch, count=count, rate_ppm=rate) if epoch == receipt.epoch:
                note = f"one of {count}, audited with probability {rate / 10_000:.3g} %"
                kept.append(Transaction("committed", transaction, block, note))
            case events.EpochCleared(_, epoch, audited=audited) if epoch == receipt.epoch:
                kept.append(Transaction("cleared", transaction, block, f"{audited} of the epoch audited"))
            case events.Convicted():
                kept.append(Transaction("convicted", transaction, block))
            case events.Claimed(of, _, _, total) if (
                of == channel and not claimed and total >= receipt.voucher_wei
            ):
                claimed = True
                kept.append(Transaction("claimed", transaction, block))
            case events.Reclaimed(of) if of == channel:
                kept.append(Transaction("reclaimed", transaction, block))
            case events.Settled() if receipt.state == "settled" and claimed:
                kept.append(Transaction("settled", transaction, block))
                break
            case _:
                pass
    return kept


def transactions(network_file: Path, receipt: Receipt) -> list[Transaction] | str:
    """The transactions, or why the chain can't be asked now."""
    try:
        return asyncio.run(_find(network_file, receipt))
    except (BadNetwork, ChainDown, RpcRefused, CallReverted) as error:
        return str(error)
