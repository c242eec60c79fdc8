"""`python -m clusterai.validator --config FILE`."""

import sys

from clusterai.ledger.adapters.client import OtherChain
from clusterai.ledger.adapters.network import BadKeyFile, BadNetwork
from clusterai.runtime.adapters import daemon
from clusterai.validator.config import Config
from clusterai.validator.main import run


def main() -> int:
    return daemon.main("validator", Config, run, (OtherChain, BadKeyFile, BadNetwork))


if __name__ == "__main__":
    sys.exit(main())
