"""`python -m clusterai.gateway --config FILE`."""

import sys

from clusterai.gateway.config import Config
from clusterai.gateway.main import run
from clusterai.ledger.adapters.client import OtherChain
from clusterai.ledger.adapters.network import BadKeyFile, BadNetwork
from clusterai.models import NoSuchModel
from clusterai.runtime.adapters import daemon


def main() -> int:
    return daemon.main("gateway", Config, run, (OtherChain, BadKeyFile, BadNetwork, NoSuchModel))


if __name__ == "__main__":
    sys.exit(main())
