"""`python -m clusterai.node --config FILE`: the daemon, as supervisors start it."""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from clusterai.ledger.adapters.client import OtherChain
from clusterai.ledger.adapters.network import BadKeyFile, BadNetwork
from clusterai.models import Altered, NoSuchModel
from clusterai.node.adapters.chainlog import OtherNetwork
from clusterai.node.adapters.vault import WrongKey
from clusterai.node.config import BadConfig, load_config

NAMED = (OtherChain, BadKeyFile, BadNetwork, Altered, NoSuchModel, OtherNetwork, WrongKey, BadConfig)
"""Errors whose message says what to do; anything else is a fault of ours and keeps its traceback."""
EXIT_CONFIG = 78
"""`EX_CONFIG` of sysexits.h: starting again won't help before somebody changed something."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m clusterai.node", description="Be a provider node.")
    parser.add_argument("--config", type=Path, required=True, help="TOML or JSON, see clusterai.node.config")
    arguments = parser.parse_args()
    try:
        config = load_config(arguments.config, os.environ)
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


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        inner = cast("BaseExceptionGroup[BaseException]", error)
        for one in inner.exceptions:
            yield from _leaves(one)
    else:
        yield error


if __name__ == "__main__":
    sys.exit(main())
