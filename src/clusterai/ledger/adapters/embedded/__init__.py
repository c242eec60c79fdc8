"""An EVM chain in one process, for the local network: standard JSON-RPC in front, a durable journal behind.

    HTTP ─ server ─ rpc ─┬─ methods (reads) ──────────────┐
                         └─ pool (what waits) ─ mine ──> chain ─┬─ evm      revm, one transaction at a time
                                                                └─ journal  SQLite: blocks and the state they lead to

It orders transactions by itself alone and asks nobody: it must never hold money that its operator could steal. The
same client runs on anvil and on any public EVM chain.
"""

from clusterai.ledger.adapters.embedded.genesis import Allocation, Genesis, genesis_of
from clusterai.ledger.adapters.embedded.server import ChainConfig, Server, run_chain

__all__ = ["Allocation", "ChainConfig", "Genesis", "Server", "genesis_of", "run_chain"]
