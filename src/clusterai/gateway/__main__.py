"""`python -m clusterai.gateway --config FILE`."""

import argparse
import logging
import sys
from pathlib import Path

import structlog
import uvloop

from clusterai.gateway.main import load_config, run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m clusterai.gateway", description="Run a gateway.")
    parser.add_argument("--config", type=Path, required=True, help="JSON file; see gateway/main.py, Config")
    config = load_config(parser.parse_args().config)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s %(levelname)s %(message)s")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    uvloop.run(run(config))


if __name__ == "__main__":
    main()
