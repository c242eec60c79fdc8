"""`python -m clusterai.validator --config FILE`."""

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

import structlog

from clusterai.ledger.adapters.network import BadKeyFile, BadNetwork
from clusterai.validator.config import BadConfig, load_config
from clusterai.validator.main import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m clusterai.validator", description="Run a validator.")
    parser.add_argument("--config", type=Path, required=True, help="TOML or JSON; see validator/config.py")
    try:
        config = load_config(parser.parse_args().config, os.environ)
        logging.basicConfig(
            level=logging.WARNING, stream=sys.stderr, format="%(name)s %(levelname)s %(message)s"
        )
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso"),
                structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(
                logging.getLevelNamesMapping()[config.log_level.upper()]
            ),
            logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        )
        asyncio.run(run(config))
    except (BadConfig, BadNetwork, BadKeyFile) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
