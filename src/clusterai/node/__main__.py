"""`python -m clusterai.node --config FILE`: the daemon, as supervisors start it."""

import asyncio
import os
import sys

import msgspec

from clusterai.ledger.adapters.client import OtherChain
from clusterai.ledger.adapters.network import BadKeyFile, BadNetwork
from clusterai.models import Altered, NoSuchModel
from clusterai.node.adapters.chainlog import OtherNetwork
from clusterai.node.adapters.vault import WrongKey
from clusterai.node.config import Config
from clusterai.runtime.adapters import daemon
from clusterai.runtime.adapters.config import PASSWORD
from clusterai.vault.adapters.folder import BadVault, NoVault

NAMED = (OtherChain, BadKeyFile, BadNetwork, Altered, NoSuchModel, OtherNetwork, WrongKey, NoVault, BadVault)


def main() -> int:
    return daemon.main("node", Config, _run, NAMED, _check)


async def _run(config: Config) -> None:
    from clusterai.node.main import run

    await run(config)


def _check(config: Config) -> int:
    from clusterai.node.doctor import examine

    rows = asyncio.run(examine(config, os.environ.get(PASSWORD)))
    print(msgspec.json.format(msgspec.json.encode(rows)).decode())
    return int(any(row.state == "red" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
