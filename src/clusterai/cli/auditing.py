"""The doctor's row of a validator: whether its hot key holds what auditing takes as a bond.

Whoever is drawn to audit a lease puts up a tenth of the provider's stake (the governor's `bondPpm`) out of the balance of the key that
sends: a validator whose money is all at stake is drawn and can't audit, and is passed over as silent.
"""

import asyncio
import os
from pathlib import Path

from clusterai.cli.failure import Failure
from clusterai.cli.reach import gateway as reached
from clusterai.ledger.adapters.client import ChainClient, OtherChain, Refused
from clusterai.ledger.adapters.jsonrpc import ChainDown, RpcRefused
from clusterai.ledger.adapters.network import BadKeyFile, BadNetwork, load_key, load_network
from clusterai.node.hardware import Row
from clusterai.protocol.ids import Address, address, checksummed
from clusterai.protocol.money import show as money
from clusterai.runtime.adapters.config import PASSWORD, BadConfig
from clusterai.validator.config import Config, load_config

MOST_ASKED = 32
"""Providers with the most at stake whose bonds are asked for."""


def auditing(path: Path, url: str | None, prefix: str = "") -> list[Row]:
    """
    Args:
        url: of a gateway, which lists the providers.
    """
    name = f"{prefix}bonds"
    try:
        config = load_config(path, os.environ)
        providers = _providers(url)
        return [asyncio.run(_row(name, config, providers))]
    except (BadConfig, BadKeyFile, BadNetwork) as error:
        return [Row(name, "red", str(error), "correct the validator's configuration")]
    except (ChainDown, RpcRefused, Refused, OtherChain) as error:
        return [Row(name, "yellow", f"the chain can't be asked: {error}", "try again when it is well")]
    except Failure as error:
        return [Row(name, "yellow", error.what, "--gateway URL of one that lists the providers")]


def _providers(url: str | None) -> list[Address]:
    if url is None:
        raise Failure("no gateway is known that lists the providers")
    with reached(None, url=url) as client:
        nodes = sorted((it for it in client.nodes() if not it.barred), key=lambda it: -it.stake_wei)
    return [address(it.provider) for it in nodes[:MOST_ASKED]]


async def _row(name: str, config: Config, providers: list[Address]) -> Row:
    hot = load_key(config.key, os.environ.get(PASSWORD)).address
    async with ChainClient(load_network(config.network)) as client:
        balance, *bonds = await client.read_many(
            [
                ("Token", "balanceOf", (hot,)),
                *(("Audits", "bondAgainst", (provider, 0)) for provider in providers),
            ]
        )
    return judged(name, hot, int(balance), max(map(int, bonds), default=0))


def judged(name: str, hot: Address, balance_wei: int, largest_wei: int) -> Row:
    """Red below one bond against the largest provider, yellow below two: an audit and a dispute each take one."""
    found = f"{money(balance_wei)} liquid; auditing the largest provider takes {money(largest_wei)}"
    lacking = 2 * largest_wei - balance_wei
    if lacking <= 0:
        return Row(name, "green", found)
    return Row(
        name,
        "red" if balance_wei < largest_wei else "yellow",
        f"{found}, and as much again in a dispute",
        f"send {money(lacking)} to {checksummed(hot)}",
    )
