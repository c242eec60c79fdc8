"""The contracts again, in Python: what the property tests hold equal to the bytecode, and the simulator's chain.

One module a contract, named and ordered like the Solidity it mirrors, errors included. `TwinChain` executes one call
at a given block and returns its events or the name of its revert. It refuses to know blocks beyond that: when blocks
come, how late, and which are undone is the simulator's business, for which it can mark, roll back and copy.
"""

from clusterai.ledger.core.twin.chain import TwinChain
from clusterai.ledger.core.twin.state import BlockContext, Refused

__all__ = ["BlockContext", "Refused", "TwinChain"]
