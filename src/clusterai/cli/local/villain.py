"""A node that cheats: `python -m clusterai.cli.local.villain --config FILE (--weights NAME | --lies)`.

The daemon `clusterai.node` can't be configured to: this is another program, made of the same parts with one of them exchanged. The
demonstration starts it in a local node's place, and the system's tests do, to see it caught.

    --weights NAME    serves these weights (a name in the store) under the first model's address
    --lies            claims other states and another result of every module than it came to
"""

import argparse
import sys

from clusterai.node.__main__ import NAMED
from clusterai.node.config import Config
from clusterai.runtime.adapters import daemon


def main() -> int:
    """What is not about cheating is the daemon's own."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--weights")
    parser.add_argument("--lies", action="store_true")
    how, sys.argv[1:] = parser.parse_known_args()

    async def run(config: Config) -> None:
        await cheat(config, how.weights, lies=how.lies)

    return daemon.main("node", Config, run, NAMED)


async def cheat(config: Config, weights: str | None = None, *, lies: bool = False) -> None:
    """Be a node that cheats until SIGTERM or SIGINT."""
    from clusterai.cli.local.liar import Liar
    from clusterai.node.adapters.engines import loader
    from clusterai.node.main import run
    from clusterai.work.batch.adapters.perform import Performer

    swapped = {} if weights is None else {config.models[0].name: weights}
    await run(config, loader(config.store(), swapped), Liar if lies else Performer)


if __name__ == "__main__":
    sys.exit(main())
