"""`python -m clusterai.node --config FILE`: the daemon, as supervisors start it."""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec

from clusterai.ledger.adapters.client import OtherChain
from clusterai.ledger.adapters.network import BadKeyFile, BadNetwork
from clusterai.models import Altered, NoSuchModel
from clusterai.node.adapters.chainlog import OtherNetwork
from clusterai.node.adapters.vault import WrongKey
from clusterai.node.config import PASSWORD, BadConfig, Config, load_config

NAMED = (OtherChain, BadKeyFile, BadNetwork, Altered, NoSuchModel, OtherNetwork, WrongKey, BadConfig)
"""Errors whose message says what to do; anything else is a fault of ours and keeps its traceback."""
EXIT_CONFIG = 78
"""`EX_CONFIG` of sysexits.h: starting again won't help before somebody changed something."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m clusterai.node", description="Be a provider node.")
    parser.add_argument("--config", type=Path, required=True, help="TOML or JSON, see clusterai.node.config")
    parser.add_argument("--check", action="store_true", help="say whether it could work, as JSON, and end")
    arguments = parser.parse_args()
    try:
        config = load_config(arguments.config, os.environ)
        if arguments.check:
            return _check(config)
        from clusterai.node.main import run

        try:
            import uvloop
        except ImportError:
            asyncio.run(run(config))
        else:
            uvloop.run(run(config))
    except NAMED as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CONFIG
    except BaseExceptionGroup as group:
        leaves = list(_leaves(group))
        if not all(isinstance(leaf, NAMED) for leaf in leaves):
            raise
        for leaf in leaves:
            print(f"error: {leaf}", file=sys.stderr)
        return EXIT_CONFIG
    return 0


def _check(config: Config) -> int:
    from clusterai.node.doctor import examine

    rows = asyncio.run(examine(config, os.environ.get(PASSWORD)))
    print(msgspec.json.format(msgspec.json.encode(rows)).decode())
    return int(any(row.state == "red" for row in rows))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        inner = cast("BaseExceptionGroup[BaseException]", error)
        for one in inner.exceptions:
            yield from _leaves(one)
    else:
        yield error


if __name__ == "__main__":
    sys.exit(main())
