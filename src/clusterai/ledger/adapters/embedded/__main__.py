"""`python -m clusterai.ledger.adapters.embedded --data DIR --port N`: the embedded chain as a process of its own."""

import argparse
import sys
from pathlib import Path

from clusterai.ledger import artifacts
from clusterai.ledger.adapters.embedded.chain import WrongChain
from clusterai.ledger.adapters.embedded.genesis import Allocation, BrokenGenesis, Genesis, genesis_of
from clusterai.ledger.adapters.embedded.journal import BusyJournal, DamagedJournal
from clusterai.ledger.adapters.embedded.server import ChainConfig, run_chain
from clusterai.ledger.core.deploy import local_plan
from clusterai.ledger.core.rules import LOCAL, local_rules
from clusterai.protocol.ids import Address, address

FUND_WEI = 10_000 * 10**18


def main() -> int:
    parser = argparse.ArgumentParser(prog="clusterai-chain", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the chain's journal")
    parser.add_argument("--port", type=int, default=8545, help="0: any free port, told on stdout")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--chain-id", type=int, default=31415)
    parser.add_argument(
        "--block-interval", type=float, default=2.0, metavar="SECONDS", help="0: no empty blocks"
    )
    parser.add_argument(
        "--fund", type=address, action="append", default=[], help="give 10000 ether at genesis"
    )
    parser.add_argument(
        "--deployer", type=address, help="deploy the network's contracts at genesis, owned by it"
    )
    parser.add_argument(
        "--window",
        type=int,
        default=LOCAL.window_s,
        metavar="SECONDS",
        help="audit window of those contracts",
    )
    args = parser.parse_args()
    genesis = _genesis(args.deployer, args.window, tuple(Allocation(one, FUND_WEI) for one in args.fund))
    config = ChainConfig(args.data, args.port, args.host, args.chain_id, args.block_interval, genesis)
    try:
        run_chain(config, lambda port: print(f"listening on {args.host}:{port}", flush=True))
    except (BusyJournal, DamagedJournal, WrongChain, BrokenGenesis, OSError) as error:
        print(f"clusterai-chain: {error}", file=sys.stderr)
        return 1
    return 0


def _genesis(deployer: Address | None, window_s: int, funded: tuple[Allocation, ...]) -> Genesis:
    if deployer is None:
        return Genesis(funded)
    return genesis_of(local_plan(artifacts.load, deployer, local_rules(window_s)), funded)


if __name__ == "__main__":
    sys.exit(main())
